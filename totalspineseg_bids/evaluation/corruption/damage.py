"""Errors of networks in semantic maps, one function per kind.

Each function changes a :class:`Case` in place, or raises `subjects.ImpossibleError` where it does not fit. All random
numbers come from the generator passed to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LANDMARK_DISCS, Structure
from totalspineseg_bids.evaluation.corruption.subjects import Case, require
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.segmentation.class_map import ClassMap, Parity
from totalspineseg_bids.training.semantic_targets import class_table

Damage = Callable[[Case, np.random.Generator], None]
_Item = TypeVar("_Item")


def _disc(level: str) -> int:
    return anatomy.disc(level).id


def _vertebra(level: str) -> int:
    return anatomy.vertebra(level).id


def _pick(rng: np.random.Generator, items: Sequence[_Item]) -> _Item:
    require(items)
    return items[int(rng.integers(len(items)))]


def _where(case: Case, number: int, margin: int = 0) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    box = case.box(number, margin)
    return box, case.truth[box] == number


def _put(case: Case, number: int, value: int, part: np.ndarray | None = None) -> None:
    """Give the voxels of an id (or a part of them) another integer."""
    box, mask = _where(case, number)
    case.semantic[box][mask if part is None else mask & part] = value


def _blob(case: Case, centre: np.ndarray, radii: tuple[float, float, float], value: int, *, free: bool) -> int:
    """Write an ellipsoid, with ``free`` only on background, and return its number of voxels."""
    centre = np.asarray(centre, float)
    low = np.maximum(np.floor(centre - radii).astype(int), 0)
    high = np.minimum(np.ceil(centre + radii).astype(int) + 1, case.truth.shape)
    if (high <= low).any():
        return 0
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    inside = (((grid - centre) / radii) ** 2).sum(axis=-1) < 1
    part = case.semantic[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    if free:
        inside &= part == 0
    part[inside] = value
    return int(inside.sum())


def _inner_plain(case: Case) -> list[str]:
    """Discs between the outermost ones in view that are not landmarks."""
    return [d for d in case.discs()[1:-1] if d not in LANDMARK_DISCS]


def _neighbours(case: Case, rng: np.random.Generator, number: int, least: int) -> list[str]:
    """Draw neighbouring discs, where at least so many are in view."""
    discs = case.discs()
    require(len(discs) >= least)
    start = int(rng.integers(len(discs) - number + 1))
    return discs[start : start + number]


def clean(case: Case, rng: np.random.Generator) -> None:
    """Leave the map as it is."""


# Discs that are missing, joined, broken


def missing_disc(case: Case, rng: np.random.Generator, of: Callable[[Case], list[str]]) -> None:
    """Remove one of some discs."""
    _lose(case, _pick(rng, of(case)))


def _lose(case: Case, level: str) -> None:
    _put(case, _disc(level), 0)
    case.exempt.add(_disc(level))


def missing_discs(case: Case, rng: np.random.Generator) -> None:
    """Remove two to four discs, half of the time neighbours."""
    inner = _inner_plain(case)
    require(len(inner) >= 4)
    number = int(rng.integers(2, min(4, len(inner) - 1) + 1))
    if rng.random() < 0.5:
        start = int(rng.integers(len(inner) - number + 1))
        gone = inner[start : start + number]
    else:
        gone = [str(d) for d in rng.choice(inner, number, replace=False)]
    for level in gone:
        _lose(case, level)


def landmark_unrecognised(case: Case, rng: np.random.Generator) -> None:
    """Give a landmark disc the class of an ordinary one."""
    level = _pick(rng, case.landmarks())
    _put(case, _disc(level), _plain_disc(case, level))


def _plain_disc(case: Case, level: str) -> int:
    """Integer of an ordinary disc at a level: the alternating class where there is one."""
    order = case.variant.discs()
    turn = order.index(level)
    neighbour = order[turn - 1] if turn else order[1]
    value = int(case.table[_disc(neighbour)])
    parity = case.layout.meanings[value].parity
    if parity:
        return case.value("disc_E" if parity is Parity.ODD else "disc_O")
    return case.value("disc")


def bridged_discs(case: Case, rng: np.random.Generator, number: int, least: int) -> None:
    """Join neighbouring discs by rods of 3 to 6 voxels, through the bodies or in front of them."""
    for upper, lower in itertools.pairwise(_neighbours(case, rng, number, least)):
        _join(case, rng, upper, lower)


def _join(case: Case, rng: np.random.Generator, upper: str, lower: str) -> None:
    a, b = case.centre(_disc(upper)), case.centre(_disc(lower))
    box, mask = _where(case, _disc(upper))
    value = int(np.median(case.semantic[box][mask])) or case.value("disc")
    # Within the outline of both discs, or the rod would miss them.
    sizes = [[side.stop - side.start for side in case.box(_disc(level))[:2]] for level in (upper, lower)]
    reach = 0.35 * np.min(sizes, axis=0)
    offset = np.append(np.clip([rng.uniform(-8, 8), rng.uniform(-6, 9)], -reach, reach), 0.0)
    half = int(rng.integers(1, 4))
    for share in np.linspace(0, 1, 120):
        x, y, z = np.round(a * (1 - share) + b * share + offset).astype(int)
        case.semantic[max(0, x - half) : x + half, max(0, y - half) : y + half, max(0, z)] = value


def broken_disc(case: Case, rng: np.random.Generator) -> None:
    """Cut a disc into two pieces, left and right, or front and back."""
    number = _disc(_pick(rng, case.discs()))
    _, mask = _where(case, number)
    axis = int(rng.integers(2))
    place = np.argwhere(mask)[:, axis]
    cut = int(np.percentile(place, rng.uniform(30, 70)))
    gap = np.zeros_like(mask)
    rows: list[slice] = [slice(None)] * 3
    rows[axis] = slice(max(0, cut - 1), cut + int(rng.integers(2, 5)))
    gap[tuple(rows)] = True
    _put(case, number, 0, gap)


def thin_discs(case: Case, rng: np.random.Generator) -> None:
    """Remove most voxels at the rim of three neighbouring discs."""
    for level in _neighbours(case, rng, 3, least=3):
        core = ndimage.binary_erosion(_where(case, _disc(level))[1], np.ones((7, 7, 1), bool))
        if core.sum() > 120:
            _put(case, _disc(level), 0, ~core)


# Vertebrae


def _parities(case: Case) -> tuple[int, int]:
    return case.layout.labels["vertebrae_O"][0], case.layout.labels["vertebrae_E"][0]


def wrong_parity(case: Case, rng: np.random.Generator) -> None:
    """Give one vertebra the other one of the alternating classes."""
    odd, even = _parities(case)
    there = [v for v in case.vertebrae() if v != "C1"]
    there = [v for v in there if case.table[_vertebra(v)] in (odd, even)]
    number = _vertebra(_pick(rng, there))
    box, mask = _where(case, number)
    have = np.median(case.semantic[box][mask])
    _put(case, number, even if have == odd else odd)


def parity_flip(case: Case, rng: np.random.Generator) -> None:
    """Exchange odd and even from one disc downwards."""
    below = case.variant.vertebrae().index(_pick(rng, case.discs()[1:-1]).split("-")[1])
    wanted = np.zeros(256, bool)
    for level in case.variant.vertebrae()[below:-1]:
        wanted[_vertebra(level)] = True
    for level in case.variant.discs()[below - 1 :]:
        wanted[_disc(level)] = True
    swap = np.arange(256, dtype=np.uint8)
    for kind in ("vertebrae", "disc"):
        if f"{kind}_O" in case.layout.labels:
            odd, even = case.layout.labels[f"{kind}_O"][0], case.layout.labels[f"{kind}_E"][0]
            swap[odd], swap[even] = even, odd
    rows = wanted[case.truth]
    case.semantic[rows] = swap[case.semantic[rows]]


def undecided_vertebrae(case: Case, rng: np.random.Generator) -> None:
    """Give one to three vertebrae the class ``vertebrae``, wholly or in part."""
    there = case.vertebrae()
    require(there)
    for level in rng.choice(there, min(len(there), int(rng.integers(1, 4))), replace=False):
        part = _half(_where(case, _vertebra(str(level)))[1], rng) if rng.random() < 0.6 else None
        _put(case, _vertebra(str(level)), case.value("vertebrae"), part)


def _half(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the part of a mask on one side of a random plane through its middle."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in mask.shape), indexing="ij"), axis=-1)
    normal = rng.normal(size=3)
    side = (grid - np.argwhere(mask).mean(axis=0)) @ normal
    return np.asarray(side > 0)


def leaking_vertebra(case: Case, rng: np.random.Generator) -> None:
    """Extend a vertebra's class over the upper or lower third of a neighbour; the disc between stays whole."""
    there = [v for v in case.vertebrae() if v not in {"C1", "C2"}]
    pairs = list(itertools.pairwise(there))
    pair = _pick(rng, pairs)
    source, target = pair if rng.random() < 0.5 else pair[::-1]
    _, mask = _where(case, _vertebra(target))
    rows = np.argwhere(mask)[:, 2]
    value = int(np.median(case.semantic[case.truth == _vertebra(source)]))
    level = np.percentile(rows, 67 if source == pair[0] else 33)
    grid = np.arange(mask.shape[2])[None, None]
    part = grid > level if source == pair[0] else grid < level
    _put(case, _vertebra(target), value, part)


def leaking_bone(case: Case, rng: np.random.Generator) -> None:
    """Extend the bone of two vertebrae by 3 mm into muscle, and add a false process."""
    there = case.vertebrae()
    require(len(there) >= 2)
    for level in rng.choice(there, 2, replace=False):
        number = _vertebra(str(level))
        box, mask = _where(case, number, 4)
        grown = ndimage.binary_dilation(mask, iterations=3) & (case.semantic[box] == 0)
        value = int(np.median(case.semantic[case.truth == number]))
        case.semantic[box][grown] = value
        centre = case.centre(number)
        _blob(case, centre + np.array([rng.choice([-1, 1]) * 38.0, -12.0, 0.0]), (9, 7, 12), value, free=True)


def missing_vertebra(case: Case, rng: np.random.Generator) -> None:
    """Remove a vertebra."""
    there = [v for v in case.vertebrae() if v != "C1"][1:-1]
    number = _vertebra(_pick(rng, there))
    _put(case, number, 0)
    case.exempt.add(number)


def fused_block(case: Case, rng: np.random.Generator) -> None:
    """Fuse two vertebrae: bone in place of the disc, half of the time of one class."""
    level = _pick(rng, _inner_plain(case))
    upper, lower = level.split("-")
    a, b = _vertebra(upper), _vertebra(lower)
    require(case.counts[a] and case.counts[b])
    table = case.table
    _put(case, _disc(level), int(table[a]))
    case.exempt.add(_disc(level))
    if rng.random() < 0.5:
        _put(case, b, int(table[a]))
        case.exempt |= {a, b}


# False components


def false_above(case: Case, rng: np.random.Generator) -> None:
    """Add a false disc above C2-C3, at the dens or below the skull."""
    require(case.seen(_disc("C2-C3")))
    up = float(rng.uniform(11, 26))
    centre = case.centre(_disc("C2-C3")) + np.array([rng.uniform(-3, 3), rng.uniform(-4, 4), up])
    radii = (float(rng.uniform(6, 9)), float(rng.uniform(5, 8)), float(rng.uniform(2.2, 3.5)))
    require(_blob(case, centre, radii, case.value("disc"), free=False) > 60)


def false_beside(case: Case, rng: np.random.Generator) -> None:
    """Add a false disc beside the column or in front of it."""
    level = _pick(rng, case.discs())
    aside = [rng.choice([-1, 1]) * rng.uniform(38, 50), rng.uniform(-5, 10), rng.uniform(-12, 12)]
    ahead = [rng.uniform(-10, 10), rng.uniform(34, 48), rng.uniform(-12, 12)]
    centre = case.centre(_disc(level)) + (aside if rng.random() < 0.6 else ahead)
    radii = (float(rng.uniform(7, 12)), float(rng.uniform(7, 12)), float(rng.uniform(3, 6)))
    require(_blob(case, centre, radii, case.value("disc"), free=True) > 100)


def false_in_body(case: Case, rng: np.random.Generator) -> None:
    """Add a false disc inside a vertebral body, flat and smaller than its neighbours."""
    there = [v for v in case.vertebrae() if v not in {"C1", "C2"}]
    discs = [d for d in case.variant.discs() if d.split("-")[0] in there and case.seen(_disc(d))]
    above = {d.split("-")[1]: d for d in case.variant.discs()}
    discs = [d for d in discs if above.get(d.split("-")[0]) and case.seen(_disc(above[d.split("-")[0]]))]
    lower = _pick(rng, discs)
    upper = above[lower.split("-")[0]]
    share = float(rng.uniform(0.35, 0.65))
    centre = case.centre(_disc(upper)) * share + case.centre(_disc(lower)) * (1 - share)
    width = 0.25 * float(np.cbrt(case.counts[_disc(lower)])) * float(rng.uniform(1.2, 2.2))
    require(_blob(case, centre, (width * 1.3, width, 2.0), case.value("disc"), free=False) > 30)


def false_canal(case: Case, rng: np.random.Generator) -> None:
    """Add a piece of false canal in front of or beside the column, as from a vessel."""
    centre = case.centre(_disc(_pick(rng, case.discs()))) + np.array(
        [rng.choice([-1, 1]) * rng.uniform(20, 40), rng.uniform(10, 30), 0.0]
    )
    value = case.value("canal")
    require(_blob(case, centre, (5, 5, float(rng.uniform(15, 35))), value, free=True) > 60)


def specks(case: Case, rng: np.random.Generator) -> None:
    """Add thirty small balls of random classes at random positions."""
    values = list(case.layout.meanings)
    for _ in range(30):
        centre = rng.uniform(0, case.truth.shape)
        radius = float(rng.uniform(1.0, 2.6))
        value = int(values[int(rng.integers(len(values)))])
        _blob(case, centre, (radius, radius, radius), value, free=rng.random() < 0.5)


# Landmarks


def _copy_landmark(case: Case, rng: np.random.Generator, *, keep: bool) -> None:
    """Give a neighbour of a landmark disc its class; the disc loses it unless ``keep``."""
    level = _pick(rng, case.landmarks())
    order = case.variant.discs()
    at = order.index(level)
    near = [order[k] for k in (at - 1, at + 1) if 0 <= k < len(order) and case.seen(_disc(order[k]))]
    near = [d for d in near if d not in LANDMARK_DISCS]
    target = _pick(rng, near)
    _put(case, _disc(target), case.value("disc_" + level.replace("-", "_")))
    if not keep:
        _put(case, _disc(level), _plain_disc(case, level))


def landmark_foreign(case: Case, rng: np.random.Generator) -> None:
    """Give an ordinary disc, some levels from any landmark, the class of one."""
    order = case.variant.discs()
    far = [d for d in case.discs() if min(abs(order.index(d) - order.index(m)) for m in LANDMARK_DISCS) > 1]
    target = _pick(rng, far)
    nearest = sorted(LANDMARK_DISCS, key=lambda m: abs(order.index(m) - order.index(target)))
    _put(case, _disc(target), case.value("disc_" + nearest[int(rng.integers(2))].replace("-", "_")))


def landmark_specks(case: Case, rng: np.random.Generator) -> None:
    """Give up to half of the voxels of two ordinary discs landmark classes."""
    order = [d for d in case.discs() if d not in LANDMARK_DISCS]
    require(len(order) >= 2)
    for level in rng.choice(order, 2, replace=False):
        _, mask = _where(case, _disc(str(level)))
        coarse = rng.random(tuple(n // 3 + 1 for n in mask.shape)) < rng.uniform(0.15, 0.5)
        part = np.kron(coarse, np.ones((3, 3, 3), bool))[: mask.shape[0], : mask.shape[1], : mask.shape[2]]
        class_ = LANDMARK_DISCS[int(rng.integers(4))]
        _put(case, _disc(str(level)), case.value("disc_" + class_.replace("-", "_")), part.astype(bool))


def landmark_partly(case: Case, rng: np.random.Generator) -> None:
    """Keep the class of every landmark in view on a part of its voxels only."""
    require(case.landmarks())
    for level in case.landmarks():
        side = _half(_where(case, _disc(level))[1], rng)
        _put(case, _disc(level), _plain_disc(case, level), side)


# Canal, cord, sacrum


def torn_canal(case: Case, rng: np.random.Generator) -> None:
    """Remove canal and cord over 30 to 90 mm."""
    depth = case.truth.shape[2]
    length = int(rng.integers(30, 91))
    require(depth >= length + 60)
    start = int(rng.integers(20, depth - length - 20))
    part = case.semantic[:, :, start : start + length]
    kinds = case.layout.kind_table[part]
    part[(kinds == Structure.CANAL) | (kinds == Structure.CORD)] = 0


def no_canal(case: Case, rng: np.random.Generator) -> None:
    """Remove canal and cord."""
    kinds = case.kinds()
    case.semantic[(kinds == Structure.CANAL) | (kinds == Structure.CORD)] = 0


def no_cord(case: Case, rng: np.random.Generator) -> None:
    """Replace the cord by canal."""
    case.semantic[case.kinds() == Structure.CORD] = case.value("csf", "canal")


def no_sacrum(case: Case, rng: np.random.Generator) -> None:
    """Remove the sacrum, or give it the class of a vertebra without a level."""
    require(case.counts[anatomy.SACRUM_ID] >= 3000)
    _put(case, anatomy.SACRUM_ID, 0 if rng.random() < 0.5 else case.value("vertebrae"))
    case.exempt.add(anatomy.SACRUM_ID)


def false_sacrum(case: Case, rng: np.random.Generator) -> None:
    """Give a vertebra, or most of one, the class of the sacrum."""
    there = [v for v in case.vertebrae() if v[0] in "TL"]
    require(there)
    low = there[-1] if rng.random() < 0.5 else _pick(rng, there)
    _, mask = _where(case, _vertebra(low))
    _put(case, _vertebra(low), case.value("sacrum"), rng.random(mask.shape) < rng.uniform(0.75, 1.0))


def sacrum_climbs(case: Case, rng: np.random.Generator) -> None:
    """Extend the sacrum over the lower half of the last lumbar vertebra."""
    lumbar = [v for v in case.vertebrae() if v[0] == "L"]
    require(lumbar and case.counts[anatomy.SACRUM_ID] >= 3000)
    _, mask = _where(case, _vertebra(lumbar[-1]))
    rows = np.arange(mask.shape[2])[None, None] < np.percentile(np.argwhere(mask)[:, 2], 45)
    _put(case, _vertebra(lumbar[-1]), case.value("sacrum"), rows)


# Geometry


def tilted(case: Case, rng: np.random.Generator) -> None:
    """Rotate the field of view by 15 to 30 degrees in the sagittal and up to 12 in the coronal plane."""
    pitch = rng.uniform(15, 30) * rng.choice([-1, 1])
    turn = Rotation.from_euler("XY", [pitch, rng.uniform(-12, 12)], degrees=True).as_matrix()
    shape = np.array(case.truth.shape)
    half = np.abs(turn.T) @ (shape / 2)
    size = np.ceil(2 * half).astype(int)
    offset = (shape - 1) / 2 - turn @ ((size - 1) / 2)
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, offset
    _regrid(
        case, lambda labels: ndimage.affine_transform(labels, turn, offset, tuple(size), order=0), case.affine @ motion
    )


def _regrid(case: Case, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray) -> None:
    """Bring all maps of a case to another grid."""
    case.truth, case.semantic = change(case.truth), change(case.semantic)
    case.support = [(change(labels), layout) for labels, layout in case.support]
    case.affine = affine
    case.refresh()


def narrow_slab(case: Case, rng: np.random.Generator) -> None:
    """Crop to a sagittal slab of 30 to 45 mm, which cuts processes and the sides of the bodies."""
    number = next((n for n in range(1, 256) if case.counts[n] and anatomy.BY_ID[n].level), 0)
    require(number)
    middle = int(np.median([case.centre(_disc(d))[0] for d in case.discs()] or [case.truth.shape[0] / 2]))
    half = int(rng.integers(15, 23))
    rows = slice(max(0, middle - half), middle + half)
    _crop(case, (rows, slice(None), slice(None)))


def no_processes(case: Case, rng: np.random.Generator) -> None:
    """Cut or thin the posterior elements."""
    at = np.argwhere(case.truth[::2, ::2, ::2] == anatomy.CANAL_ID) * 2
    require(len(at))
    back = int(np.percentile(at[:, 1], 2)) - 4
    _crop(case, (slice(None), slice(max(0, back), None), slice(None)))


def _crop(case: Case, rows: tuple[slice, slice, slice]) -> None:
    before = np.maximum(case.counts, 1)
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([s.start or 0 for s in rows], float)
    _regrid(case, lambda labels: np.ascontiguousarray(labels[rows]), affine)
    # What the view showed in part, the crop shows in part too.
    case.whole = case.whole * case.counts / before


def thick_slices(case: Case, rng: np.random.Generator) -> None:
    """Resample to sagittal slices of 3.3 to 4.8 mm, or axial ones of 3 to 4 mm."""
    step = (
        np.array([rng.uniform(3.3, 4.8), 0.8, 0.8]) if rng.random() < 0.7 else np.array([0.7, 0.7, rng.uniform(3, 4)])
    )
    resample(case, step)


def resample(case: Case, step: np.ndarray) -> None:
    """Resample a case to another voxel size, given in voxels of the case, shape (3,)."""
    shape = tuple(int(n) for n in np.maximum(np.array(case.truth.shape) // step, 1))
    scale = np.diag([*step, 1.0])
    target = Geometry((shape[0], shape[1], shape[2]), case.affine @ scale)
    before = case.affine
    case.whole = case.whole / float(np.prod(step))
    _regrid(case, lambda labels: restore_labels(labels, before, target), target.affine)


def ragged(case: Case, rng: np.random.Generator) -> None:
    """Deform surfaces: each voxel takes the class of one up to 3 mm away, smoothly varying."""
    shape = case.semantic.shape
    coarse = tuple(max(2, n // 8) for n in shape)
    index = np.indices(shape, np.int16)
    for axis in range(3):
        noise = ndimage.zoom(rng.normal(0, 2.0, coarse).astype(np.float32), np.array(shape) / coarse, order=1)
        index[axis] = np.clip(index[axis] + np.round(noise).astype(np.int16), 0, shape[axis] - 1)
    case.semantic = case.semantic[index[0], index[1], index[2]]


# The map that names every level


def _level_prior(case: Case, rng: np.random.Generator, shifted: dict[int, int]) -> None:
    """Add a coarse map that names every level, some of them wrongly."""
    layout = ClassMap.named("r20240601-full")
    table = class_table(layout.labels, case.variant)
    wrong = table.copy()
    for source, target in shifted.items():
        wrong[source] = table[target]
    coarse = (3, 3, 3)
    moved = tuple(int(rng.integers(-2, 3)) for _ in coarse)
    small = np.roll(case.truth, moved, axis=(0, 1, 2))[:: coarse[0], :: coarse[1], :: coarse[2]]
    named = wrong[small]
    for axis, step in enumerate(coarse):
        named = np.repeat(named, step, axis=axis)
    named = named[: case.truth.shape[0], : case.truth.shape[1], : case.truth.shape[2]]
    case.support.append((np.ascontiguousarray(named), layout))


def level_prior_shifted(case: Case, rng: np.random.Generator) -> None:
    """Give a run of at least three levels the name of the next level above or below."""
    vertebrae = case.variant.vertebrae()[:-1]
    there = [n for n, v in enumerate(vertebrae) if case.counts[_vertebra(v)]]
    require(len(there) >= 5)
    length = int(rng.integers(3, len(there) + 1))
    start = int(rng.integers(len(there) - length + 1))
    step = int(rng.choice([-1, 1]))
    shifted: dict[int, int] = {}
    discs = case.variant.discs()
    for n in there[start : start + length]:
        if 0 <= n + step < len(vertebrae):
            shifted[_vertebra(vertebrae[n])] = _vertebra(vertebrae[n + step])
        # Disc n - 1 lies below vertebra n.
        if 0 <= n - 1 + step < len(discs) and 0 <= n - 1 < len(discs):
            shifted[_disc(discs[n - 1])] = _disc(discs[n - 1 + step])
    _level_prior(case, rng, shifted)


def blind(case: Case, rng: np.random.Generator) -> None:
    """Give each landmark an ordinary class and the sacrum the class without a level."""
    table = case.table
    plain = np.arange(256, dtype=np.uint8)
    for value, meaning in case.layout.meanings.items():
        if meaning.level is not None and meaning.kind is Structure.SACRUM:
            plain[value] = case.value("vertebrae")
    case.semantic = plain[case.semantic]
    order = case.variant.vertebrae()
    odd, even = _parities(case)
    for n, level in enumerate(order[:-1]):
        if case.layout.meanings[int(table[_vertebra(level)])].level and case.counts[_vertebra(level)]:
            _put(case, _vertebra(level), odd if n % 2 == 0 else even)
    for level in LANDMARK_DISCS:
        if case.counts[_disc(level)]:
            _put(case, _disc(level), _plain_disc(case, level))


#: Damages of one map, by the name under which they are reported.
DAMAGES: dict[str, Damage] = {
    "clean": clean,
    "missing disc": partial(missing_disc, of=_inner_plain),
    "several discs missing": missing_discs,
    "landmark disc missing": partial(missing_disc, of=Case.landmarks),
    "landmark unrecognised": landmark_unrecognised,
    "landmarks recognised in part": landmark_partly,
    "landmark class on neighbour": partial(_copy_landmark, keep=False),
    "landmark class on both": partial(_copy_landmark, keep=True),
    "landmark class elsewhere": landmark_foreign,
    "landmark specks": landmark_specks,
    "two discs bridged": partial(bridged_discs, number=2, least=2),
    "three discs bridged": partial(bridged_discs, number=3, least=4),
    "broken disc": broken_disc,
    "thin discs": thin_discs,
    "wrong parity": wrong_parity,
    "parity flips": parity_flip,
    "undecided vertebrae": undecided_vertebrae,
    "vertebra leaks into next": leaking_vertebra,
    "vertebrae leak out": leaking_bone,
    "missing vertebra": missing_vertebra,
    "fused block": fused_block,
    "false disc above C2-C3": false_above,
    "false disc beside": false_beside,
    "false disc in body": false_in_body,
    "false canal": false_canal,
    "specks": specks,
    "torn canal": torn_canal,
    "no canal": no_canal,
    "no cord": no_cord,
    "no sacrum": no_sacrum,
    "false sacrum": false_sacrum,
    "sacrum climbs": sacrum_climbs,
    "tilted": tilted,
    "narrow slab": narrow_slab,
    "no processes": no_processes,
    "thick slices": thick_slices,
    "ragged": ragged,
    "scout right": partial(_level_prior, shifted={}),  # language: ok
    "scout shifted by one": level_prior_shifted,  # language: ok
}
#: Those that change the grid come last when two meet.
LATE: tuple[str, ...] = ("narrow slab", "no processes", "tilted", "ragged", "thick slices")
