"""Label the images of one session together: the levels of an image that is sure of them are evidence for the others.

Every image is first solved alone. An image that names its levels alone, without doubt, is *sure*. Sure images are
evidence for the others, and for each other where they agree. An image that is named with a doubt is evidence only for
images that abstain and overlap with no sure one. Images that abstain are evidence for none, so that two undecided
images cannot confirm each other. The images of one acquisition count once and do not confirm each other. There is one
such round, which does not depend on the order of the images.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling import parameters as shared
from totalspineseg_bids.segmentation.labelling.column import naming, parameters
from totalspineseg_bids.segmentation.labelling.labeller import (
    LabellingInput,
    SolvedImage,
    build_labelled_spine,
    solve_image,
    solve_with,
)
from totalspineseg_bids.segmentation.labelling.records import LabelledComponents, Observation, SessionEvidence
from totalspineseg_bids.segmentation.result import LabelledSpine

#: `LevelSolution.shift_margin` of a naming whose probability is `BEYOND_DOUBT`, nats.
_DOUBTFUL_MARGIN = float(np.log(parameters.BEYOND_DOUBT / (1.0 - parameters.BEYOND_DOUBT)))
DISAGREES = "session-disagrees"
OUTVOTED = "another image of the session gives the same levels other names and is surer of them"
FROM_SESSION = "the name comes from another image of the session"
CONTESTED_ELSEWHERE = "the only landmark in view is seen at two levels in another image of the session"
OTHER_NAME = "another image of the session names it {}"
OTHER_NAMES = "another image of the session gives its neighbours other names"


@dataclass(frozen=True, slots=True)
class LevelEvidence:
    """Evidence of an image that was solved alone on the level of one of its components."""

    component: int
    """Index of the component in its image."""
    kind: Structure
    """Disc or vertebra."""
    position_mm: NDArray[np.float64]
    """Centre in scanner space, shape (3,)."""
    table: Mapping[str | None, float]
    """Posterior probability of each level; the key ``None`` means "not part of the column"."""

    @property
    def best(self) -> str | None:
        """Most probable level; ``None`` if the component is most probably not part of the column."""
        return max(self.table, key=lambda level: self.table[level])


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """Evidence of one image for the others."""

    image: int
    """Number of the image."""
    components: tuple[LevelEvidence, ...]
    """Whole discs and vertebrae."""
    landmarks: Mapping[str, float]
    """Landmarks that the levels are based on."""
    sure: bool
    """Whether the levels are beyond doubt."""
    acquisition: str
    """Acquisition of the image; a name of its own if unknown."""


@dataclass(frozen=True, slots=True)
class _Alignment:
    """Match of the components of one image to those of another, over all displacements along the canal."""

    matches: dict[int, int]
    """Component of the other image for each component, at the most probable displacement."""
    tables: dict[int, dict[str | None, float]]
    """Probability of each level by the other image for each component, over all displacements."""
    certain: bool
    """Whether the displacement is certain."""


@dataclass(frozen=True, slots=True)
class _Dispute:
    """Other names of an image for components of an image."""

    image: int
    """Number of the image."""
    other: int
    """Number of the image that disagrees with it."""
    share: float
    """Share of the common components that differ."""
    certain: bool
    """Whether the displacement between the images is certain."""
    reasons: dict[int, str]
    """Reason for each doubtful component."""


def label_session(images: Sequence[LabellingInput]) -> list[LabelledSpine]:
    """Label images of one session together.

    Parameters
    ----------
    images
        Semantic maps of one person in one scanner space, any grids; an image without overlap is labelled on its own.

    Returns
    -------
    list[LabelledSpine]
        In the order of ``images``. Names that an image has only with the help of others carry the reason
        `FROM_SESSION`. The flag ``session-disagrees`` marks images that name a component differently than another image
        that shows it, and those names carry a reason; it also marks images that differ by a shift if solved alone. If
        the names still differ by a shift and the displacement is certain, the less certain image abstains if its levels
        are in doubt or depend on a single landmark. An image with a single landmark also abstains if another one
        abstains because it shows that landmark at two levels.

    Examples
    --------
    >>> from totalspineseg_bids.segmentation.class_map import ClassMap
    >>> layout = ClassMap.named("r20240601-step1")
    >>> semantic = np.zeros((60, 70, 90), np.uint8)
    >>> semantic[20:40, 14:28] = layout.labels["canal"][0]
    >>> semantic[10:50, 30:62, 23:34] = semantic[10:50, 30:62, 61:72] = layout.labels["disc"][0]
    >>> image = LabellingInput(semantic, np.eye(4), layout)
    >>> [spine.status.value for spine in label_session([image, image])]
    ['abstained', 'abstained']
    """
    alone = [solve_image(image) for image in images]
    evidence = {n: e for n, solved in enumerate(alone) if (e := image_evidence(solved, n)) is not None}
    together = [_solve_together(n, solved, evidence) for n, solved in enumerate(alone)]
    cautions = [_names_from_session(before, after) for before, after in zip(alone, together, strict=True)]
    disputes = _disputes(together)
    unnamed = dict.fromkeys(_contested_elsewhere(together), CONTESTED_ELSEWHERE)
    unnamed |= dict.fromkeys(_outvoted(together, disputes), OUTVOTED)
    for dispute in disputes:
        cautions[dispute.image] = dispute.reasons | cautions[dispute.image]
    overruled = [dispute for dispute in _disputes(alone) if dispute.share > 0.5]
    apart = {dispute.image for dispute in (*disputes, *overruled)}
    spines = [
        build_labelled_spine(solved, unnamed=unnamed.get(n), cautions=cautions[n]) for n, solved in enumerate(together)
    ]
    return [replace(spine, flags=(*spine.flags, DISAGREES)) if n in apart else spine for n, spine in enumerate(spines)]


def image_evidence(solved: SolvedImage, image: int = 0) -> ImageEvidence | None:
    """Return the evidence of an image for the others; ``None`` if it does not name its levels.

    Parameters
    ----------
    solved
        Levels of the image.
    image
        Number of the image.
    """
    found = solved.found
    if found is None or naming.abstention_reason(found.observations, found.solution) is not None:
        return None
    components = tuple(
        LevelEvidence(n, o.kind, _scanner(solved, found, o), table)
        for n, (o, table) in enumerate(zip(found.observations, found.solution.tables, strict=True))
        if o.kind is not Structure.SACRUM and o.cut is not Cut.ALONG
    )
    landmarks = naming.landmarks_of(found.observations, found.solution.levels)
    sure = sum(landmarks.values()) >= parameters.ENOUGH_LANDMARKS and found.solution.shift_margin >= _DOUBTFUL_MARGIN
    return ImageEvidence(image, components, landmarks, sure, solved.acquisition or f"image {image}")


def _scanner(solved: SolvedImage, found: LabelledComponents, observation: Observation) -> NDArray[np.float64]:
    index = observation.center / found.context.spacing
    return np.asarray(solved.local[:3, :3] @ index + solved.local[:3, 3])


def _solve_together(n: int, solved: SolvedImage, evidence: Mapping[int, ImageEvidence]) -> SolvedImage:
    """Solve an image with the evidence of those that may inform it."""
    found = solved.found
    if found is None:
        return solved
    own = evidence.get(n)
    aligned = {
        m: _align(solved, found, other, compare_names=own is not None and own.sure)
        for m, other in evidence.items()
        if m != n
    }
    aligned = {m: alignment for m, alignment in aligned.items() if alignment.matches}
    givers = [m for m in aligned if evidence[m].sure]
    if own is None:
        givers = givers or list(aligned)
    else:
        shifted = {m: _differing_share(found, evidence[m], aligned[m]) > 0.5 for m in givers}
        givers = [m for m in givers if (not own.sure if shifted[m] else evidence[m].acquisition != own.acquisition)]
    if not givers:
        return solved
    repetitions = Counter(evidence[m].acquisition for m in givers)
    observations = list(found.observations)
    for m in givers:
        alignment = aligned[m]
        strength = shared.SURE_IMAGE_WEIGHT if evidence[m].sure and alignment.certain else 1.0
        for row, table in alignment.tables.items():
            # The levels of one image are right or wrong together, so they count as one piece of evidence.
            weight = strength / len(alignment.tables) / repetitions[evidence[m].acquisition]
            entry = SessionEvidence(m, table, weight, evidence[m].landmarks)
            observations[row] = replace(
                observations[row], session_evidence=(*observations[row].session_evidence, entry)
            )
    return solve_with(solved, observations)


def _align(solved: SolvedImage, found: LabelledComponents, other: ImageEvidence, *, compare_names: bool) -> _Alignment:
    """Match the evidence of another image to components, with the displacement between the images unknown.

    The displacement along the canal has a prior: patients move little, and few headers are wrong. Components of one
    kind that lie near each other at a displacement are evidence for it, and so are equal names.
    """
    rows = [n for n, o in enumerate(found.observations) if o.kind is not Structure.SACRUM]
    if not rows or not other.components:
        return _Alignment({}, {}, certain=False)
    distance = _distances(solved, found, rows, other)
    levels = found.solution.levels
    equal = np.array([[_same_name(levels[n], w) for w in other.components] for n in rows], bool)
    displacements = np.arange(-shared.LARGEST_DISPLACEMENT_MM, shared.LARGEST_DISPLACEMENT_MM + 1)
    scores = _displacement_prior(displacements)
    pairings = [_nearest_pairs(np.abs(distance - displacement)) for displacement in displacements]
    low, high = _reach(distance)
    for k, pairs in enumerate(pairings):
        expected = int(np.count_nonzero((low <= displacements[k]) & (high >= displacements[k])))
        gain = -shared.MATCH_GAIN * max(expected - len(pairs), 0)
        if pairs:
            at = tuple(np.array(pairs).T)
            misfit = 0.5 * ((distance[at] - displacements[k]) / shared.CENTER_SD_MM) ** 2
            gain += shared.MATCH_GAIN * float(np.maximum(1.0 - misfit, -1.0).sum())
            scores[k] -= shared.NAMES_DIFFER * compare_names * float(np.mean(~equal[at]))
        scores[k] += gain
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    best = int(np.argmax(scores))
    certain = (
        shares[np.abs(displacements - displacements[best]) <= shared.SAME_ALIGNMENT_MM].sum()
        >= shared.CERTAIN_ALIGNMENT
    )
    tables: dict[int, dict[str | None, float]] = {}
    for share, pairs in zip(shares, pairings, strict=True):
        if share > shared.NEGLIGIBLE_ALIGNMENT:
            for a, b in pairs:
                table = tables.setdefault(rows[a], {})
                for level, probability in other.components[b].table.items():
                    table[level] = table.get(level, 0.0) + float(share) * probability
    # A component without a match at most displacements gets no evidence.
    tables = {n: table for n, table in tables.items() if sum(table.values()) > 0.5}
    return _Alignment({rows[a]: b for a, b in pairings[best]}, tables, certain=bool(certain))


def _distances(
    solved: SolvedImage, found: LabelledComponents, rows: Sequence[int], other: ImageEvidence
) -> NDArray[np.float64]:
    """Return the signed distance along the canal from components to those of another image, shape (N, M), mm.

    It is infinite between components of different kinds and those apart across the canal.
    """
    inverse = np.linalg.inv(solved.local)
    positions = np.stack([w.position_mm for w in other.components])
    place = found.context.centerline.project((positions @ inverse[:3, :3].T + inverse[:3, 3]) * found.context.spacing)
    own = np.array([[o.s, o.anterior, o.lateral] for o in (found.observations[n] for n in rows)])[:, :, None]
    aside = np.hypot(place.anterior - own[:, 1], place.lateral - own[:, 2])
    alike = np.array([[w.kind is found.observations[n].kind for w in other.components] for n in rows])
    return np.where(alike & (aside < shared.SESSION_ASIDE_MM), place.s - own[:, 0], np.inf)


def _reach(distance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the displacements between which each component lies among those of the other image, mm, shape (N,)."""
    return distance.min(axis=1), np.where(np.isfinite(distance), distance, -np.inf).max(axis=1)


def _same_name(level: str | None, other: LevelEvidence) -> bool:
    return level is None or other.best in (None, level)


def _displacement_prior(displacement: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log prior probability density of displacements along the canal."""

    def density(sd: float) -> NDArray[np.float64]:
        return np.asarray(np.exp(-0.5 * (displacement / sd) ** 2) / sd)

    return np.asarray(
        np.log(
            (1.0 - shared.WRONG_HEADER) * density(shared.MOTION_SD_MM)
            + shared.WRONG_HEADER * density(shared.HEADER_SD_MM)
        )
    )


def _nearest_pairs(away: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pair rows and columns, the nearest first and each at most once, within `SESSION_NEAR_MM`."""
    pairs: list[tuple[int, int]] = []
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    near = np.argwhere(away < shared.SESSION_NEAR_MM)
    for a, b in near[np.argsort(away[tuple(near.T)], kind="stable")].tolist():
        if a not in used_rows and b not in used_columns:
            pairs.append((a, b))
            used_rows.add(a)
            used_columns.add(b)
    return pairs


def _differing_share(found: LabelledComponents, other: ImageEvidence, alignment: _Alignment) -> float:
    """Return the share of the matched components with a level that another image gives another name."""
    levels = found.solution.levels
    differ = [
        not _same_name(levels[n], other.components[k]) for n, k in alignment.matches.items() if levels[n] is not None
    ]
    return float(np.mean(differ)) if differ else 0.0


def _names_from_session(alone: SolvedImage, together: SolvedImage) -> dict[int, str]:
    """Return the reason for each component that has its level only with the evidence of other images."""
    before, after = alone.found, together.found
    if before is None or after is None or alone is together:
        return {}
    decided = naming.abstention_reason(before.observations, before.solution) is None
    return {
        n: FROM_SESSION
        for n, level in enumerate(after.solution.levels)
        if not decided or before.solution.levels[n] != level or before.solution.confidence[n] < parameters.SURE
    }


def _disputes(together: Sequence[SolvedImage]) -> list[_Dispute]:
    """Return the disagreements of the named images, two for each pair that disagrees."""
    evidence = {n: e for n, solved in enumerate(together) if (e := image_evidence(solved, n)) is not None}
    pairs = list(itertools.permutations(evidence, 2))
    matched: dict[tuple[int, int], dict[int, str | None]] = {pair: {} for pair in pairs}
    shares: dict[tuple[int, int], tuple[float, bool]] = dict.fromkeys(pairs, (0.0, False))
    for n, m in pairs:
        own, other = together[n].found, together[m].found
        if own is None or other is None:
            continue
        alignment = _align(together[n], own, evidence[m], compare_names=evidence[n].sure)
        shares[n, m] = _differing_share(own, evidence[m], alignment), alignment.certain
        for row, k in alignment.matches.items():
            level, match = own.solution.levels[row], evidence[m].components[k]
            if level is not None and match.best is not None:
                # Edges and a distorted centreline may prevent a match in one direction.
                matched[n, m][row] = match.best if match.best != level else matched[n, m].get(row)
                back = other.solution.levels[match.component]
                matched[m, n][match.component] = level if back != level else matched[m, n].get(match.component)
    return [
        _Dispute(n, m, *shares[n, m], _dispute_reasons(together[n], names))
        for (n, m), names in matched.items()
        if any(names.values())
    ]


def _dispute_reasons(solved: SolvedImage, names: Mapping[int, str | None]) -> dict[int, str]:
    """Return a reason for each component with another name elsewhere, and for those next to it without a match."""
    reasons = {}
    rows = sorted(names)
    for n in range(len(solved.found.observations) if solved.found else 0):
        above = max((row for row in rows if row <= n), default=rows[0])
        below = min((row for row in rows if row >= n), default=rows[-1])
        if names[above] or names[below]:
            reasons[n] = OTHER_NAME.format(names[n]) if names.get(n) else OTHER_NAMES
    return reasons


def _outvoted(together: Sequence[SolvedImage], disputes: Sequence[_Dispute]) -> set[int]:
    """Return the images that differ by a shift from a more certain image and are in doubt or have one landmark."""
    outvoted = set()
    for dispute in disputes:
        own, other = together[dispute.image].found, together[dispute.other].found
        if own is None or other is None or dispute.share <= 0.5 or not dispute.certain:
            continue
        margin = own.solution.shift_margin
        weak = (
            margin < _DOUBTFUL_MARGIN
            or naming.landmark_support(own.observations, own.solution.levels) < parameters.ENOUGH_LANDMARKS
        )
        if weak and margin < other.solution.shift_margin:
            outvoted.add(dispute.image)
    return outvoted


def _contested_elsewhere(together: Sequence[SolvedImage]) -> set[int]:
    """Return the images that rest only on landmarks for which another image abstains."""
    solved = {n: (s.found.observations, s.found.solution) for n, s in enumerate(together) if s.found is not None}
    reasons = {n: naming.abstention_reason(*found) for n, found in solved.items()}
    in_doubt = set()
    for n, (observations, solution) in solved.items():
        if reasons[n] == naming.CONTESTED:
            in_doubt |= naming.contested_levels(observations, solution.levels)
    single = set()
    for n, (observations, solution) in solved.items():
        landmarks = naming.landmarks_of(observations, solution.levels)
        found = {level for level, count in landmarks.items() if count > 0.0}
        if reasons[n] is None and sum(landmarks.values()) < parameters.ENOUGH_LANDMARKS and found and found <= in_doubt:
            single.add(n)
    return single
