"""Images of one session labelled together: what one image knows of its levels helps the others.

Every image is first solved alone. Then each is solved once more with the posterior probabilities that the *others*
found alone, carried over through scanner space. One such round does not depend on the order of the images, and what an
image knows never comes back to it as news.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.labelling.column.naming import landmark_support
from totalspineseg_bids.segmentation.labelling.column.parameters import BEYOND_DOUBT, ENOUGH_LANDMARKS, EvidenceWeights
from totalspineseg_bids.segmentation.labelling.labeller import LabellingInput, Prepared, complete, prepare, solve_again
from totalspineseg_bids.segmentation.labelling.records import LabelledComponents, Observation
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

#: Components of two images are the same where their centres lie this near, mm; patients move between scans.
NEAR_MM = 9.0
_ASIDE_MM = 25.0
#: `LevelSolution.shift_margin` of a naming whose probability is `BEYOND_DOUBT`, nats.
_DOUBTFUL_MARGIN = float(np.log(BEYOND_DOUBT / (1.0 - BEYOND_DOUBT)))
DISAGREES = "session-disagrees"
OUTVOTED = "another image of the session gives the same levels other names and is surer of them"


@dataclass(frozen=True, slots=True)
class LevelEvidence:
    """What an image that was solved alone says of one component.

    Attributes
    ----------
    kind
        Disc or vertebra.
    position_mm
        Centre in scanner space, shape (3,).
    table
        Posterior probability of its levels; ``None`` stands for "no part of the column".
    """

    kind: Structure
    position_mm: NDArray[np.float64]
    table: dict[str | None, float]

    @property
    def best(self) -> str | None:
        """The most probable of its levels."""
        return max(self.table, key=lambda level: self.table[level])


def label_session(images: Sequence[LabellingInput], weights: EvidenceWeights | None = None) -> list[LabelledSpine]:
    """Label images of one person that share scanner space, each with the help of the others.

    Parameters
    ----------
    images
        Semantic maps, any grids; those that overlap with no other are labelled as if alone.
    weights
        What each disagreement of the evidence costs.

    Returns
    -------
    list[LabelledSpine]
        In the order of ``images``. The flag ``session-disagrees`` marks images that call something by another name
        than an image that shows the same thing. One that is a shift away from another that is surer, and is in doubt
        or has a single landmark, abstains: one of the two is wrong.
    """
    alone = [prepare(image, weights) for image in images]
    said = [level_evidence(prepared) for prepared in alone]
    together = []
    for n, prepared in enumerate(alone):
        observations = with_session_evidence(prepared, [s for m, s in enumerate(said) if m != n])
        together.append(prepared if observations is None else solve_again(prepared, observations, weights))
    spines = [complete(prepared) for prepared in together]
    disputes = _disputes(together, spines)
    for n in _outvoted(together, disputes):
        spines[n] = complete(together[n], unnamed=OUTVOTED)
    apart = {n for pair in disputes for n in pair}
    return [replace(spine, flags=(*spine.flags, DISAGREES)) if n in apart else spine for n, spine in enumerate(spines)]


def level_evidence(prepared: Prepared) -> list[LevelEvidence]:
    """List what an image says of its components: nothing where no landmark is in view.

    Its guess would otherwise count as a landmark for the others.
    """
    found = prepared.found
    if found is None or not found.solution.anchored:
        return []
    return [
        LevelEvidence(o.kind, _scanner(prepared, found, o), table)
        for o, table in zip(found.observations, found.solution.tables, strict=True)
        if o.kind is not Structure.SACRUM and not o.touches_edge
    ]


def _scanner(prepared: Prepared, found: LabelledComponents, observation: Observation) -> NDArray[np.float64]:
    index = observation.center / found.context.spacing
    return np.asarray(prepared.local[:3, :3] @ index + prepared.local[:3, 3])


def with_session_evidence(prepared: Prepared, others: Sequence[Sequence[LevelEvidence]]) -> list[Observation] | None:
    """Tell each component what the other images say of it.

    All that one image says is one piece of evidence, however many components it speaks of, because it is right or
    wrong about all of them: its weight is shared out among them.

    Returns
    -------
    list[Observation] or None
        The components; ``None`` if no other image says anything.
    """
    found = prepared.found
    if found is None:
        return None
    observations = list(found.observations)
    heard = False
    for other in others:
        matches = _matches(prepared, found, observations, other)
        for n, evidence in matches.items():
            told = (evidence.table, 1.0 / len(matches))
            observations[n] = replace(observations[n], session_evidence=(*observations[n].session_evidence, told))
            heard = True
    return observations if heard else None


def _matches(
    prepared: Prepared, found: LabelledComponents, observations: Sequence[Observation], other: Sequence[LevelEvidence]
) -> dict[int, LevelEvidence]:
    """Which component each statement is about: the nearest of its kind along the canal, each at most once."""
    if not other:
        return {}
    inverse = np.linalg.inv(prepared.local)
    points = np.stack([inverse[:3, :3] @ w.position_mm + inverse[:3, 3] for w in other]) * found.context.spacing
    place = found.context.centerline.project(points)
    pairs = sorted(
        (abs(float(place.s[k]) - o.s), n, k)
        for n, o in enumerate(observations)
        for k, w in enumerate(other)
        if w.kind is o.kind
        and abs(float(place.s[k]) - o.s) < NEAR_MM
        and np.hypot(place.anterior[k] - o.anterior, place.lateral[k] - o.lateral) < _ASIDE_MM
    )
    matched: dict[int, LevelEvidence] = {}
    used: set[int] = set()
    for _, n, k in pairs:
        if n not in matched and k not in used:
            matched[n] = other[k]
            used.add(k)
    return matched


def _disputes(together: Sequence[Prepared], spines: Sequence[LabelledSpine]) -> dict[tuple[int, int], float]:
    """Return which labelled images differ from another about what both show, and the share of that on which they do."""
    disputes: dict[tuple[int, int], float] = {}
    named = [n for n, spine in enumerate(spines) if spine.status is SpineStatus.LABELLED]
    said = {n: level_evidence(together[n]) for n in named}
    for n, m in itertools.permutations(named, 2):
        found = together[n].found
        if found is None:
            continue
        levels = found.solution.levels
        matches = _matches(together[n], found, found.observations, said[m])
        differ = [w.best not in (None, levels[row]) for row, w in matches.items() if levels[row] is not None]
        if any(differ):
            disputes[n, m] = float(np.mean(differ))
    return disputes


def _outvoted(together: Sequence[Prepared], disputes: Mapping[tuple[int, int], float]) -> set[int]:
    """Which images are a shift away from another that is surer, and are in doubt or have one landmark by themselves."""
    outvoted = set()
    for (n, m), share in disputes.items():
        own, other = together[n].found, together[m].found
        if own is None or other is None or share <= 0.5:
            continue
        margin = own.solution.shift_margin
        weak = margin < _DOUBTFUL_MARGIN or landmark_support(own.observations, own.solution.levels) < ENOUGH_LANDMARKS
        if weak and margin < other.solution.shift_margin:
            outvoted.add(n)
    return outvoted
