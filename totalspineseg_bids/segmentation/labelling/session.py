"""Label the images of one session together: the levels found in one image are evidence for the others.

Every image is first solved alone. Then each is solved once more with the posterior probabilities that the *others*
found alone, matched in scanner space. One such round does not depend on the order of the images, and evidence of an
image never returns to the image itself.
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
from totalspineseg_bids.segmentation.labelling.labeller import (
    LabellingInput,
    SolvedImage,
    build_labelled_spine,
    solve_image,
    solve_with,
)
from totalspineseg_bids.segmentation.labelling.parameters import SESSION_ASIDE_MM, SESSION_NEAR_MM
from totalspineseg_bids.segmentation.labelling.records import LabelledComponents, Observation
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

#: `LevelSolution.shift_margin` of a naming whose probability is `BEYOND_DOUBT`, nats.
_DOUBTFUL_MARGIN = float(np.log(BEYOND_DOUBT / (1.0 - BEYOND_DOUBT)))
DISAGREES = "session-disagrees"
OUTVOTED = "another image of the session gives the same levels other names and is surer of them"


@dataclass(frozen=True, slots=True)
class LevelEvidence:
    """Evidence of an image that was solved alone on the level of one of its components."""

    kind: Structure
    """Disc or vertebra."""
    position_mm: NDArray[np.float64]
    """Centre in scanner space, shape (3,)."""
    table: dict[str | None, float]
    """Posterior probability of each level; the key ``None`` means "not part of the column"."""

    @property
    def best(self) -> str | None:
        """Most probable level; ``None`` if the component is most probably not part of the column."""
        return max(self.table, key=lambda level: self.table[level])


def label_session(images: Sequence[LabellingInput], weights: EvidenceWeights | None = None) -> list[LabelledSpine]:
    """Label images of one session together, each with the others as evidence.

    Parameters
    ----------
    images
        Semantic maps of one person in one scanner space, any grids; an image without overlap is labelled on its own.
    weights
        Cost of each kind of disagreement; the defaults if ``None``.

    Returns
    -------
    list[LabelledSpine]
        In the order of ``images``. The flag ``session-disagrees`` marks images that name a component differently than
        another image that shows it. If the names of two images differ by a shift, the less certain one abstains if its
        levels are in doubt or depend on a single landmark.
    """
    alone = [solve_image(image, weights) for image in images]
    evidence = [level_evidence(solved) for solved in alone]
    together = []
    for n, solved in enumerate(alone):
        observations = with_session_evidence(solved, [e for m, e in enumerate(evidence) if m != n])
        together.append(solved if observations is None else solve_with(solved, observations, weights))
    spines = [build_labelled_spine(solved) for solved in together]
    disputes = _disputes(together, spines)
    for n in _outvoted(together, disputes):
        spines[n] = build_labelled_spine(together[n], unnamed=OUTVOTED)
    apart = {n for pair in disputes for n in pair}
    return [replace(spine, flags=(*spine.flags, DISAGREES)) if n in apart else spine for n, spine in enumerate(spines)]


def level_evidence(solved: SolvedImage) -> list[LevelEvidence]:
    """Return the evidence of an image for the others; none if it has no landmark in view.

    Without a landmark its levels are a guess, which would count as evidence for the others.
    """
    found = solved.found
    if found is None or not found.solution.anchored:
        return []
    return [
        LevelEvidence(o.kind, _scanner(solved, found, o), table)
        for o, table in zip(found.observations, found.solution.tables, strict=True)
        if o.kind is not Structure.SACRUM and not o.touches_edge
    ]


def _scanner(solved: SolvedImage, found: LabelledComponents, observation: Observation) -> NDArray[np.float64]:
    index = observation.center / found.context.spacing
    return np.asarray(solved.local[:3, :3] @ index + solved.local[:3, 3])


def with_session_evidence(solved: SolvedImage, others: Sequence[Sequence[LevelEvidence]]) -> list[Observation] | None:
    """Add the evidence of other images to the components of an image.

    The levels of one image are right or wrong together, so they count as one piece of evidence, whose weight is divided
    among the matched components.

    Parameters
    ----------
    solved
        Image that receives the evidence.
    others
        Evidence of each of the other images.

    Returns
    -------
    list[Observation] or None
        The components; ``None`` if no component matches one of another image.
    """
    found = solved.found
    if found is None:
        return None
    observations = list(found.observations)
    any_match = False
    for other in others:
        matches = _matches(solved, found, observations, other)
        for n, evidence in matches.items():
            entry = (evidence.table, 1.0 / len(matches))
            observations[n] = replace(observations[n], session_evidence=(*observations[n].session_evidence, entry))
            any_match = True
    return observations if any_match else None


def _matches(
    solved: SolvedImage, found: LabelledComponents, observations: Sequence[Observation], other: Sequence[LevelEvidence]
) -> dict[int, LevelEvidence]:
    """Match the evidence of another image to components: the nearest of a kind along the canal, each at most once."""
    if not other:
        return {}
    inverse = np.linalg.inv(solved.local)
    points = np.stack([inverse[:3, :3] @ w.position_mm + inverse[:3, 3] for w in other]) * found.context.spacing
    place = found.context.centerline.project(points)
    pairs = sorted(
        (abs(float(place.s[k]) - o.s), n, k)
        for n, o in enumerate(observations)
        for k, w in enumerate(other)
        if w.kind is o.kind
        and abs(float(place.s[k]) - o.s) < SESSION_NEAR_MM
        and np.hypot(place.anterior[k] - o.anterior, place.lateral[k] - o.lateral) < SESSION_ASIDE_MM
    )
    matched: dict[int, LevelEvidence] = {}
    used: set[int] = set()
    for _, n, k in pairs:
        if n not in matched and k not in used:
            matched[n] = other[k]
            used.add(k)
    return matched


def _disputes(together: Sequence[SolvedImage], spines: Sequence[LabelledSpine]) -> dict[tuple[int, int], float]:
    """Return the pairs of labelled images with different levels, and the share of common components that differ."""
    disputes: dict[tuple[int, int], float] = {}
    named = [n for n, spine in enumerate(spines) if spine.status is SpineStatus.LABELLED]
    evidence = {n: level_evidence(together[n]) for n in named}
    for n, m in itertools.permutations(named, 2):
        found = together[n].found
        if found is None:
            continue
        levels = found.solution.levels
        matches = _matches(together[n], found, found.observations, evidence[m])
        differ = [w.best not in (None, levels[row]) for row, w in matches.items() if levels[row] is not None]
        if any(differ):
            disputes[n, m] = float(np.mean(differ))
    return disputes


def _outvoted(together: Sequence[SolvedImage], disputes: Mapping[tuple[int, int], float]) -> set[int]:
    """Return the images that differ by a shift from a more certain image and are in doubt or have one landmark."""
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
