"""Sessions of the suite: two views of one spine, damaged, on grids of their own, and displaced in scanner space."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from totalspineseg_bids.evaluation.corruption.cases import LAYOUTS, SPLITS
from totalspineseg_bids.evaluation.corruption.damage import DAMAGES, blind, resample
from totalspineseg_bids.evaluation.corruption.score import Score
from totalspineseg_bids.evaluation.corruption.subjects import Case, ImpossibleError, make_case, make_subject
from totalspineseg_bids.segmentation.class_map import ClassMap

#: Pairs of overlapping views.
_SAME_VIEW = tuple((view, view) for view in ("whole", "cervical", "thoracolumbar", "lumbar"))
_OVERLAP = (
    ("cervical", "cervicothoracic"),
    ("cervicothoracic", "thoracolumbar"),
    ("upper", "cervical"),
    ("junction", "lumbar"),
    ("whole", "upper"),
    ("whole", "lumbar"),
)
#: The first view of each pair has no landmark.
_BLIND_FIRST = (
    ("neck only", "cervical"),
    ("chest", "cervicothoracic"),
    ("mid chest", "thoracolumbar"),
    ("loins", "lumbar"),
    ("chest", "whole"),
)
_BLIND_BOTH = (("mid chest", "chest"), ("neck only", "neck only"), ("loins", "loins"))
#: Voxel sizes of an image: isotropic, sagittal slices, axial slices, mm.
_VOXELS = ((1.0, 1.0, 1.0), (0.8, 0.8, 0.8), (3.3, 0.7, 0.7), (4.0, 0.9, 0.9), (0.7, 0.7, 3.0))
_SUBJECTS = 4


class SessionKind(NamedTuple):
    """Recipe of a kind of session."""

    views: tuple[tuple[str, str], ...]
    """Pairs of views to draw from."""
    damaged: int
    """Number of images with a damage, from the first on."""
    shift_mm: tuple[float, float] = (0.0, 6.0)
    """Smallest and largest displacement of the second image."""
    blind: int = 0
    """Number of images without a landmark, from the first on."""
    damages: tuple[str, ...] = ()
    """Damages to draw from; all if empty."""


_LANDMARKS = ("landmark class on neighbour", "landmark class on both", "landmark unrecognised", "landmark disc missing")
#: Kinds of sessions, by the name under which they are reported.
KINDS: dict[str, SessionKind] = {
    "same view, one damaged": SessionKind(_SAME_VIEW, 1),
    "same view, both damaged": SessionKind(_SAME_VIEW, 2),
    "overlapping views, one damaged": SessionKind(_OVERLAP, 1),
    "overlapping views, both damaged": SessionKind(_OVERLAP, 2),
    "landmarks of one damaged": SessionKind(_SAME_VIEW + _OVERLAP, 1, damages=_LANDMARKS),
    "landmarks of both damaged": SessionKind(_SAME_VIEW + _OVERLAP, 2, damages=_LANDMARKS),
    "one without landmark": SessionKind(_BLIND_FIRST, 0, blind=1),
    "one without landmark, damaged": SessionKind(_BLIND_FIRST, 1, blind=1),
    "both without landmark": SessionKind(_BLIND_BOTH, 0, blind=2),
    "displaced by up to two levels": SessionKind(_SAME_VIEW + _OVERLAP + _BLIND_FIRST, 1, (8.0, 40.0)),
}


def make_session(kind: str, seed: int, split: str) -> tuple[Case, ...]:
    """Make a session of two images.

    Parameters
    ----------
    kind : str
        Name in `KINDS`.
    seed : int
        Of everything random.
    split : str
        ``fit`` or ``report``.

    Raises
    ------
    ValueError
        If no damage can be applied to the views.
    """
    rng = np.random.default_rng([SPLITS[split], zlib.crc32(kind.encode()), seed])
    for _ in range(12):
        with suppress(ImpossibleError):
            return _attempt(KINDS[kind], rng, SPLITS[split])
    msg = f"no damage can be applied to the views of {kind!r}, seed {seed}"
    raise ValueError(msg)


def _attempt(kind: SessionKind, rng: np.random.Generator, first_subject: int) -> tuple[Case, ...]:
    subject = make_subject(first_subject + int(rng.integers(_SUBJECTS)))
    layout = ClassMap.named(LAYOUTS[int(rng.integers(2))])
    cases = []
    for n, view in enumerate(kind.views[int(rng.integers(len(kind.views)))]):
        case = make_case(subject, view, layout, rng, swap=bool(rng.random() < 0.5))
        if n < kind.blind:
            blind(case, rng)
        if n < kind.damaged:
            names = kind.damages or tuple(name for name in DAMAGES if name != "clean")
            name = str(rng.choice(names))
            DAMAGES[name](case, rng)
            case.damages = (name,)
        voxel = _VOXELS[int(rng.integers(len(_VOXELS)))]
        if voxel != (1.0, 1.0, 1.0) and "thick slices" not in case.damages:
            resample(case, np.array(voxel))
        cases.append(case)
    cases[1].affine = _displacement(rng, cases[1], kind.shift_mm) @ cases[1].affine
    return tuple(cases)


def _displacement(rng: np.random.Generator, case: Case, shift_mm: tuple[float, float]) -> np.ndarray:
    """Return a rotation of at most 3 degrees about the middle of an image with a shift, shape (4, 4)."""
    direction = rng.normal(size=3)
    shift = direction / np.linalg.norm(direction) * rng.uniform(*shift_mm)
    if shift_mm[0] > 0:
        # Along the column, where a displacement moves levels onto each other.
        shift = np.array([0.0, 0.0, float(rng.choice([-1.0, 1.0])) * float(np.linalg.norm(shift))])
    middle = case.affine[:3, :3] @ (np.array(case.truth.shape) / 2) + case.affine[:3, 3]
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-3, 3, 3), degrees=True).as_matrix()
    motion[:3, 3] = middle - motion[:3, :3] @ middle + shift
    return motion


def contradictions(scores: Sequence[Score], *, displaced: bool = False) -> list[str]:
    """Return the structures on which the images of a session contradict each other.

    Two names for one structure contradict each other unless both carry a reason. A name without a reason contradicts
    an image that names none of the structures that it shares, unless the images are ``displaced`` so far that nothing
    shows what they share.

    Parameters
    ----------
    scores : sequence of Score
        Scores of the images of one session.
    displaced : bool, default False
        Whether images may abstain beside one that is sure.
    """
    first, second = (score.given for score in scores)
    shared = sorted(first.keys() & second.keys())
    found = []
    for one, other, names in ((first, second, "{0}|{1}"), (second, first, "{1}|{0}")):
        abstained = not displaced and not any(other[n].name for n in shared)
        if abstained and any(one[n].name and not one[n].warned for n in shared):
            found.append(names.format("named", "unnamed"))
    for number in shared:
        a, b = first[number], second[number]
        if a.name and b.name and a.name != b.name and not (a.warned and b.warned):
            found.append(f"{a.name}|{b.name}")
    return found
