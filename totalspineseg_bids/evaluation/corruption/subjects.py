"""Synthetic subjects and their fields of view."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LANDMARK_DISCS, SpineVariant, Structure
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LabellingInput
from totalspineseg_bids.synthesis.parametric import SpineParameters, make_spine
from totalspineseg_bids.synthesis.rasterize import FIRST_SPINE_LABEL
from totalspineseg_bids.training.semantic_targets import class_table

Slices = tuple[slice, slice, slice]

#: Spines of the suite have random streams of their own, apart from training and evaluation images.
_DOMAIN = 0x5017E
_MARGIN_MM = 6

#: First and last vertebra of each view, by the name of the matching scanner protocol.
VIEWS: dict[str, tuple[str, str]] = {
    "whole": ("C1", "S"),
    "cervical": ("C1", "T3"),
    "cervicothoracic": ("C2", "T10"),
    "upper": ("C5", "T7"),
    "thoracolumbar": ("T7", "S"),
    "junction": ("T8", "L3"),
    "lumbar": ("T11", "S"),
    "low": ("L2", "S"),
}
#: Views without any of the landmarks.
BLIND_VIEWS: dict[str, tuple[str, str]] = {
    "neck only": ("C4", "C7"),
    "chest": ("T2", "T11"),
    "mid chest": ("T4", "T9"),
    "loins": ("L1", "L5"),
}


class ImpossibleError(Exception):
    """A view or a damage does not fit: what it needs is not there."""


def require(possible: object) -> None:
    """Raise `ImpossibleError` unless a condition holds."""
    if not possible:
        raise ImpossibleError


@dataclass(frozen=True)
class Subject:
    """Truth of a whole spine."""

    truth: np.ndarray
    """uint8, canonical ids of the spine on a 1 mm RAS grid."""
    affine: np.ndarray
    """Its voxel-to-scanner matrix."""
    variant: SpineVariant
    """Numbers of its vertebrae."""

    @cached_property
    def boxes(self) -> list[Slices | None]:
        """Box of each id; entry ``n`` belongs to id ``n + 1``."""
        return list[Slices | None](ndimage.find_objects(self.truth))  # type: ignore[arg-type]

    @cached_property
    def counts(self) -> np.ndarray:
        """Voxels of each id, shape (256,)."""
        return np.bincount(self.truth.ravel(), minlength=256)


def _parameters(rng: np.random.Generator, shape: str) -> SpineParameters:
    drawn = SpineParameters.sample(rng)
    if shape == "kyphosis":
        return replace(drawn, kyphosis=float(rng.uniform(75, 95)), t1_slope=float(rng.uniform(35, 50)))
    if shape == "scoliosis":
        sign = float(rng.choice([-1.0, 1.0]))
        large, small = float(rng.uniform(45, 65)), float(rng.uniform(25, 40))
        return replace(drawn, cobb=(sign * large, -sign * small), apex=(0.42, 0.68), extent=(0.14, 0.12))
    if shape == "child":
        return replace(drawn, scale=float(rng.uniform(0.62, 0.8)))
    return drawn


@lru_cache(maxsize=16)
def make_subject(seed: int, variant: SpineVariant = SpineVariant(), shape: str = "ordinary") -> Subject:  # noqa: B008
    """Draw a subject.

    Parameters
    ----------
    seed : int
        The same seed gives the same subject.
    variant : SpineVariant, optional
        Numbers of vertebrae.
    shape : str, default 'ordinary'
        ``ordinary``, ``kyphosis``, ``scoliosis`` or ``child``.
    """
    rng = np.random.default_rng([_DOMAIN, seed, variant.thoracic, variant.lumbar, len(shape)])
    volume = make_spine(rng, variant=variant, parameters=_parameters(rng, shape))
    truth = np.where(volume.data >= FIRST_SPINE_LABEL, volume.data, 0).astype(np.uint8)
    held = np.argwhere(truth[::2, ::2, ::2] > 0) * 2
    low = np.maximum(held.min(axis=0) - _MARGIN_MM, 0)
    high = held.max(axis=0) + _MARGIN_MM
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    cut = np.ascontiguousarray(truth[low[0] : high[0], low[1] : high[1], low[2] : high[2]])
    return Subject(cut, affine, variant)


@dataclass
class Case:
    """One semantic map with its truth; the damages change it in place."""

    truth: np.ndarray
    """uint8, canonical ids."""
    semantic: np.ndarray
    """uint8, integers of ``layout``."""
    affine: np.ndarray
    layout: ClassMap
    variant: SpineVariant
    """`affine`, `layout`, `variant`: grid, meaning of the integers, numbers of vertebrae."""
    whole: np.ndarray
    """Voxels of each id in the whole subject, shape (256,)."""
    view: str
    damages: tuple[str, ...] = ()
    """`view`, `damages`: what it is made of, by name."""
    exempt: set[int] = field(default_factory=set)
    """Ids that the damage took away."""
    support: list[tuple[np.ndarray, ClassMap]] = field(default_factory=list)
    """Further maps, as for ``label_map``."""

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Look up boxes and counts again, after the grid has changed."""
        self.boxes = list(ndimage.find_objects(self.truth))
        self.counts = np.bincount(self.truth.ravel(), minlength=256)

    @property
    def as_input(self) -> LabellingInput:
        """The map as input of the labelling."""
        return LabellingInput(self.semantic, self.affine, self.layout, self.support)

    @property
    def table(self) -> np.ndarray:
        """Integer of each canonical id in an undamaged map, shape (256,)."""
        return class_table(self.layout.labels, self.variant)

    def box(self, number: int, margin: int = 0) -> Slices:
        """Box of an id."""
        found = self.boxes[number - 1]
        if found is None:
            msg = f"id {number} is not in the label map"
            raise ValueError(msg)
        return tuple(  # type: ignore[return-value]
            slice(max(0, s.start - margin), min(n, s.stop + margin))
            for s, n in zip(found, self.truth.shape, strict=True)
        )

    def seen(self, number: int, share: float = 0.9) -> bool:
        """Return whether at least `share` of the voxels of an id are in view."""
        return bool(self.counts[number] > 0 and self.counts[number] >= share * self.whole[number])

    def discs(self) -> list[str]:
        """Discs in view, from the top."""
        return [d for d in self.variant.discs() if self.seen(anatomy.disc(d).id)]

    def landmarks(self) -> list[str]:
        """Landmark discs in view, from the top."""
        return [d for d in self.discs() if d in LANDMARK_DISCS]

    def vertebrae(self) -> list[str]:
        """Vertebrae in view without the sacrum, from the top."""
        return [v for v in self.variant.vertebrae()[:-1] if self.seen(anatomy.vertebra(v).id)]

    def centre(self, number: int) -> np.ndarray:
        """Centre of an id, voxels."""
        box = self.box(number)
        return np.asarray(np.argwhere(self.truth[box] == number).mean(axis=0) + [s.start for s in box])

    def value(self, *roles: str) -> int:
        """Integer of the first of the roles that the layout has, 0 without one."""
        return next((self.layout.labels[r][0] for r in roles if r in self.layout.labels), 0)

    def kinds(self) -> np.ndarray:
        """Tissue of each voxel of the semantic map."""
        return np.asarray(self.layout.kind_table[self.semantic])


def make_case(
    subject: Subject,
    view: str,
    layout: ClassMap,
    rng: np.random.Generator,
    *,
    swap: bool = False,
) -> Case:
    """Crop a subject to a view and make the semantic map of a perfect model.

    The field of view ends at the far ends of its first and last vertebra, give or take 8 mm.

    Parameters
    ----------
    subject : Subject
        The spine.
    view : str
        Name in `VIEWS` or `BLIND_VIEWS`.
    layout : ClassMap
        Meaning of the integers.
    rng : np.random.Generator
        Draws the ends.
    swap : bool, default False
        Exchange odd and even classes.

    Raises
    ------
    ImpossibleError
        If the subject lacks an end of the view.
    """
    first, last = {**VIEWS, **BLIND_VIEWS}[view]
    last = last if last in subject.variant.vertebrae() else subject.variant.vertebrae()[-2]
    first = first if first in subject.variant.vertebrae() else "T10"
    depth = subject.truth.shape[2]
    ends = [anatomy.vertebra(level).id for level in (first, last)]
    require(all(subject.counts[number] for number in ends))
    body = [_body_rows(subject, number) for number in ends]
    jitter = rng.integers(-4, 9, 2) if view not in BLIND_VIEWS else rng.integers(-4, 1, 2)
    top = depth if first == "C1" else min(depth, body[0][1] + int(jitter[0]))
    bottom = max(0, body[1][0] - int(jitter[1]))
    rows = slice(bottom, top)
    truth = np.ascontiguousarray(subject.truth[:, :, rows])
    affine = subject.affine.copy()
    affine[:3, 3] += affine[:3, 2] * bottom
    semantic = class_table(layout.labels, subject.variant, swap_parity=swap)[truth]
    return Case(truth, semantic, affine, layout, subject.variant, subject.counts, view)


def _body_rows(subject: Subject, number: int) -> tuple[int, int]:
    """Lowest and highest row of a vertebra's body: its voxels in front of the canal."""
    box = subject.boxes[number - 1]
    if box is None:
        msg = f"id {number} is not in the label map"
        raise ValueError(msg)
    part = subject.truth[box] == number
    canal = (subject.truth[box] == anatomy.CANAL_ID) | (subject.truth[box] == anatomy.CORD_ID)
    rows = np.argwhere(canal)
    middle = float(np.median(rows[:, 1])) if len(rows) else part.shape[1] / 2
    front = np.flatnonzero(part[:, int(middle) + 5 :].any(axis=(0, 1)))
    if len(front) == 0:
        front = np.flatnonzero(part.any(axis=(0, 1)))
    start = box[2].start
    return start + int(front[0]), start + int(front[-1]) + 1


def tissue_alike(case: Case) -> np.ndarray:
    """Return a mask of the voxels at which semantic map and truth have the same tissue."""
    want, have = anatomy.STRUCTURES[case.truth], case.kinds()
    bone = (want == Structure.SACRUM) & (have == Structure.VERTEBRA)
    return np.asarray((want == have) & (want > 0) | bone)
