"""Right, wrong, unnamed: the score of a labelled case against its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.evaluation.corruption.subjects import Case, tissue_alike
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

#: A structure counts where this share of it is in view and the map shows this share of that.
_IN_VIEW, _LEFT = 0.6, 0.3
#: Confidence of a component that is called sure.
_SURE = 0.9
_SMALLEST_MM3 = {Structure.DISC: 150.0, Structure.VERTEBRA: 1500.0, Structure.SACRUM: 5000.0}


class GivenName(NamedTuple):
    """Name of a structure in a result."""

    name: str
    """Level; empty without one."""
    warned: bool
    """Whether the name carries a reason."""


@dataclass
class Score:
    """Score of one case."""

    right: int = 0
    wrong: int = 0
    unnamed: int = 0
    """`right`, `wrong`, `unnamed`: structures with their own name, another one, or none."""
    silent: int = 0
    """Wrong ones that carry no warning in a column that is called labelled."""
    abstained: bool = False
    """True if no level of the column is named."""
    anchored: bool = True
    """True if the damaged map has more correct than wrong landmarks."""
    errors: list[str] = field(default_factory=list)
    """``truth>given`` of each structure that is not right."""
    confidences: list[tuple[float, bool]] = field(default_factory=list)
    """Confidence and correctness of each named component."""
    given: dict[int, GivenName] = field(default_factory=dict)
    """Name that each structure got, by its true id."""

    @property
    def all_right(self) -> bool:
        """True if every structure has its correct name."""
        return self.right > 0 and not self.wrong and not self.unnamed


def score(case: Case, spine: LabelledSpine) -> Score:
    """Compare a result with the truth of its case."""
    result = Score(abstained=spine.status is not SpineStatus.LABELLED, anchored=is_anchored(case))
    warned = {c.label_id for c in spine.components if c.reason}
    confidence = {c.label_id: c.confidence for c in spine.components if c.level}
    voxel = float(abs(np.linalg.det(case.affine[:3, :3])))
    alike = tissue_alike(case)
    for number in np.flatnonzero(case.counts):
        label = anatomy.BY_ID.get(int(number))
        if label is None or not label.level or number in case.exempt or not case.seen(int(number), _IN_VIEW):
            continue
        box = case.box(int(number))
        there = (case.truth[box] == number) & alike[box]
        if there.sum() < max(_LEFT * case.counts[number], _SMALLEST_MM3[label.structure] / voxel):
            continue
        found = spine.labels[box][there]
        found = found[found > 0]
        given = int(np.bincount(found).argmax()) if len(found) else 0
        name = anatomy.BY_ID[given].level if given else ""
        result.given[int(number)] = GivenName(name, given in warned)
        if given == number:
            result.right += 1
        elif given == 0 or not name:
            result.unnamed += 1
            result.errors.append(f"{label.level}>{'-' if given else '0'}")
        else:
            result.wrong += 1
            result.errors.append(f"{label.level}>{name}{'?' if given in warned else ''}")
            if given not in warned and not result.abstained:
                result.silent += 1
        if name:
            result.confidences.append((confidence.get(given, 0.0), given == number))
    return result


def is_anchored(case: Case) -> bool:
    """Return whether more structures have the correct level class, by a majority of voxels, than a wrong one."""
    layout = case.layout
    own = {value: m.level for value, m in layout.meanings.items() if m.level is not None}
    right = wrong = 0
    for value, level in own.items():
        where = case.truth[case.semantic == value]
        kind = layout.meanings[value].kind
        for number in np.flatnonzero(np.bincount(where, minlength=256)):
            label = anatomy.BY_ID.get(int(number))
            if label is None or not label.level or not case.seen(int(number), 0.5):
                continue
            if np.count_nonzero(where == number) < 0.5 * case.counts[number]:
                continue
            if kind is Structure.SACRUM and label.structure is not Structure.SACRUM:
                wrong += 1
            elif label.level == level or (level in {"T12", "L5"} and label.level in {"T13", "L6"}):
                right += 1
            else:
                wrong += 1
    with_level_prior = bool(case.support) and "scout right" in case.damages  # language: ok
    return right > wrong or with_level_prior


def rates(scores: Sequence[Score]) -> dict[str, float]:
    """Return the rates over some cases by column, 0 to 1."""
    cases = max(len(scores), 1)
    structures = max(sum(s.right + s.wrong + s.unnamed for s in scores), 1)
    sure = [good for s in scores for confidence, good in s.confidences if confidence >= _SURE]
    return {
        "all_right": sum(s.all_right for s in scores) / cases,
        "identified": sum(s.right for s in scores) / structures,
        "abstained": sum(s.abstained for s in scores) / cases,
        "wrong": sum(s.wrong > 0 and not s.abstained for s in scores) / cases,
        "silently_wrong": sum(s.silent > 0 for s in scores) / cases,
        "sure_right": float(np.mean(sure)) if sure else 1.0,
    }
