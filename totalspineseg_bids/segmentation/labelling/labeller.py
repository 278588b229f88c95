"""The whole labelling: semantic map in, labelled spine out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.grid import Box, foreground_box, restore_labels, working_geometry
from totalspineseg_bids.imaging.volume import Affine, Geometry, Volume
from totalspineseg_bids.segmentation.labelling import instances, planes, sacrum
from totalspineseg_bids.segmentation.labelling.centerline import (
    centerline_from_canal,
    centerline_from_discs,
    extend_with_discs,
)
from totalspineseg_bids.segmentation.labelling.components import body_parts, disc_parts, numbered_discs
from totalspineseg_bids.segmentation.labelling.evidence import View
from totalspineseg_bids.segmentation.labelling.levels import LevelSolution, solve_levels
from totalspineseg_bids.segmentation.labelling.localizer import localizer_votes
from totalspineseg_bids.segmentation.labelling.naming import Naming, name_components
from totalspineseg_bids.segmentation.labelling.observation import Observation, Parts, Scene, SemanticMap
from totalspineseg_bids.segmentation.labelling.reference import ATLAS_ABOVE_DISC_MM, Prices
from totalspineseg_bids.segmentation.labelling.scout import LevelScout, scouted
from totalspineseg_bids.segmentation.labelling.summary import summarize
from totalspineseg_bids.segmentation.layout import Kind, Layout
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

logger = logging.getLogger(__name__)

#: Step of the subsample on which bone is treated, voxels of the working grid.
STRIDE = 2
_SPACING_TOLERANCE = 0.03
_CONUS_ROOM_MM = 25.0
#: How far the arch and facets of L5 reach below the middle of disc L5-S, mm in the adult table.
_ARCH_BELOW_DISC_MM = 15.0


@dataclass(frozen=True, slots=True)
class _Lent:
    """Evidence from outside the map, in scanner space."""

    localizer: Volume | None
    scout: LevelScout | None


@dataclass(frozen=True, slots=True)
class _Found:
    """Components of one image with their levels."""

    scene: Scene
    discs: Parts
    bodies: Parts
    sacrum: Parts
    observations: tuple[Observation, ...]
    solution: LevelSolution


def label_map(
    semantic: NDArray[np.uint8],
    affine: Affine,
    layout: Layout,
    *,
    support: Sequence[tuple[NDArray[np.uint8], Layout]] = (),
    localizer: Volume | None = None,
    scout: LevelScout | None = None,
    prices: Prices | None = None,
) -> LabelledSpine:
    """Label a semantic map of the spine with anatomical levels.

    Parameters
    ----------
    semantic
        Map of a step-1, step-2 or single-step model, uint8, shape (X, Y, Z); any orientation and voxel size (what is
        not isotropic 1 mm is resampled for the work and the result brought back).
    affine
        Its voxel-to-scanner matrix.
    layout
        Meaning of its integers.
    support
        Further semantic maps on the same grid whose landmarks count as evidence, such as that of step 1.
    localizer
        Labelled image (canonical ids) that overlaps in scanner space; its levels count as evidence.
    scout
        Probabilities of a coarse model that names every level; they count as evidence.
    prices
        What each disagreement of the evidence costs; defaults are told in ``docs/labelling.md``.

    Returns
    -------
    LabelledSpine
        Instances on the grid of ``semantic``. Where the evidence does not decide the levels the status is
        ``ABSTAINED`` and the column is numbered; without canal and disc it is ``NO_SPINE``.
    """
    shape = (semantic.shape[0], semantic.shape[1], semantic.shape[2])
    native = Geometry(shape, np.asarray(affine, np.float64))
    maps = [(np.asarray(semantic, np.uint8), layout), *((np.asarray(s, np.uint8), lay) for s, lay in support)]
    lent = _Lent(localizer, scout)
    if np.allclose(native.spacing, 1.0, atol=_SPACING_TOLERANCE):
        orientation = nib.orientations.io_orientation(native.affine)
        turned = [SemanticMap(nib.orientations.apply_orientation(m, orientation), lay) for m, lay in maps]
        inverse = nib.orientations.inv_ornt_aff(orientation, shape)
        spine = _label_working(turned, np.asarray(native.affine @ inverse), lent, prices or Prices())
        return replace(spine, labels=_turn_back(spine.labels, orientation), affine=native.affine)
    working = working_geometry(native)
    moved = [SemanticMap(restore_labels(m, native.affine, working), lay) for m, lay in maps]
    spine = _label_working(moved, working.affine, lent, prices or Prices())
    labels = restore_labels(spine.labels, working.affine, native)
    present = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())
    components = tuple(c for c in spine.components if c.label_id in present)
    return replace(spine, labels=labels, affine=native.affine, components=components)


def _turn_back(labels: NDArray[np.uint8], orientation: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Undo ``apply_orientation``."""
    axes = orientation[:, 0].astype(int)
    flips = [orientation[int(np.flatnonzero(axes == k)[0]), 1] for k in range(3)]
    unflipped = labels[tuple(slice(None, None, -1) if f < 0 else slice(None) for f in flips)]
    return np.ascontiguousarray(np.transpose(unflipped, axes))


def _label_working(maps: Sequence[SemanticMap], affine: Affine, lent: _Lent, prices: Prices) -> LabelledSpine:
    """Label on the canonical grid of 1 mm."""
    layout = maps[0].layout
    box = foreground_box(layout.kind_table[maps[0].labels] > 0, margin=4)
    empty = np.zeros(maps[0].labels.shape, np.uint8)
    if box is None:
        return _no_spine(empty, affine, "the map holds no class of the spine")
    cropped = [sacrum.one_sacrum(SemanticMap(np.ascontiguousarray(m.labels[box]), m.layout)) for m in maps]
    kinds = layout.kind_table[cropped[0].labels]
    spacing = np.asarray(Geometry(_shape(kinds), affine).spacing)
    local = affine.copy()
    local[:3, 3] += local[:3, :3] @ np.array([s.start for s in box], float)
    discs = numbered_discs(kinds == Kind.DISC, float(np.prod(spacing)))
    scene = _scene(cropped, kinds, spacing, discs, box=box, shape=empty.shape, prices=prices)
    if scene is None:
        return _no_spine(empty, affine, "neither a spinal canal nor a disc is in view")
    found = _find(scene, kinds, disc_parts(*discs, scene), lent=lent, affine=local, prices=prices)
    if not sacrum.is_credible(found.observations, found.solution.levels):
        scene = replace(scene, maps=tuple((sacrum.without_sacrum(m), weight) for m, weight in scene.maps))
        kinds = layout.kind_table[scene.maps[0][0].labels]
        found = _find(scene, kinds, disc_parts(*discs, scene), lent=lent, affine=local, prices=prices)
    naming = name_components(found.observations, found.solution)
    out = np.zeros(kinds.shape, np.uint8)
    _paint(out, kinds, found, naming)
    empty[box] = out
    return summarize(
        Volume(empty, affine),
        box,
        scene,
        observations=found.observations,
        solution=found.solution,
        naming=naming,
        discs=found.discs,
    )


def _shape(array: NDArray[np.uint8]) -> tuple[int, int, int]:
    return array.shape[0], array.shape[1], array.shape[2]


def _no_spine(labels: NDArray[np.uint8], affine: Affine, reason: str) -> LabelledSpine:
    return LabelledSpine(labels, affine, (), SpineStatus.NO_SPINE, reason=reason)


def _scene(
    maps: Sequence[SemanticMap],
    kinds: NDArray[np.uint8],
    spacing: NDArray[np.float64],
    discs: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    box: Box,
    shape: tuple[int, ...],
    prices: Prices,
) -> Scene | None:
    """Fit the centreline and gather what the steps share; ``None`` without canal and disc."""
    coarse = kinds[::STRIDE, ::STRIDE, ::STRIDE]
    canal = np.argwhere((coarse == Kind.CANAL) | (coarse == Kind.CORD)) * (STRIDE * spacing)
    line = centerline_from_canal(canal, float(np.prod(spacing)) * STRIDE**3)
    centers = _centers(discs[0] * spacing, discs[1])
    if line is None:
        line = centerline_from_discs(centers)
    elif len(centers):
        line = extend_with_discs(line, centers)
    if line is None:
        return None
    first = -np.array([s.start for s in box])
    weighted = [(m, 1.0 if n == 0 else prices.support_weight) for n, m in enumerate(maps)]
    return Scene(tuple(weighted), spacing, first, first + np.array(shape) - 1, line)


def _centers(points: NDArray[np.float64], part: NDArray[np.int64]) -> NDArray[np.float64]:
    """Centres of numbered parts that are no specks."""
    used = part >= 0
    if not used.any():
        return np.zeros((0, 3))
    counts = np.bincount(part[used])
    sums = np.stack([np.bincount(part[used], points[used, k]) for k in range(3)], axis=1)
    return np.asarray(sums[counts > 80] / counts[counts > 80, None])


def _find(
    scene: Scene,
    kinds: NDArray[np.uint8],
    discs: Parts,
    *,
    lent: _Lent,
    affine: Affine,
    prices: Prices,
) -> _Found:
    semantic = scene.maps[0][0]
    coarse = np.ascontiguousarray(semantic.labels[::STRIDE, ::STRIDE, ::STRIDE])
    bodies, sacral = body_parts(coarse, semantic.layout, scene, discs, STRIDE)
    observations: list[Observation] = sorted(
        [*discs.observations, *bodies.observations, *sacral.observations], key=lambda o: o.s
    )
    if lent.localizer is not None:
        observations = localizer_votes(observations, scene, affine, lent.localizer)
    if lent.scout is not None:
        observations = scouted(observations, (discs, bodies), affine, lent.scout)
    solution = solve_levels(observations, _view(scene, kinds), prices)
    return _Found(scene, discs, bodies, sacral, tuple(observations), solution)


def _view(scene: Scene, kinds: NDArray[np.uint8]) -> View:
    line = scene.line
    coarse = kinds[::4, ::4, ::4]
    cord = np.argwhere(coarse == Kind.CORD) * (4 * scene.spacing)
    conus = None
    if len(cord) * 64 * scene.voxel_mm3 > 1500:
        s = np.sort(line.project(cord).s)
        end = float(s[-max(3, len(s) // 400)])
        if line.length - end > _CONUS_ROOM_MM and end - float(s[0]) > 30:
            conus = end
    return View(0.0, line.length, conus)


def _paint(out: NDArray[np.uint8], kinds: NDArray[np.uint8], found: _Found, naming: Naming) -> None:
    """Write all instances into the label map."""
    scene, layout = found.scene, found.scene.maps[0][0].layout
    by_part: dict[Kind, dict[int, int]] = {Kind.DISC: {}, Kind.VERTEBRA: {}, Kind.SACRUM: {}}
    for n, observation in enumerate(found.observations):
        label = naming.ids[n]
        if label is not None:
            by_part[observation.kind][observation.part] = label
    seeds = _seeds(kinds, found, naming, by_part)
    instances.paint_vertebrae(out, scene.maps[0][0].labels, layout, seeds, stride=STRIDE, scene=scene)
    _part_atlas(out, found, naming)
    _part_sacrum(out, found, naming)
    if found.sacrum.observations:
        out[kinds == Kind.SACRUM] = anatomy.SACRUM_ID
    instances.paint_parts(out, found.discs, by_part[Kind.DISC])
    instances.paint_canal(out, kinds, anatomy.CORD_ID, anatomy.CANAL_ID, scene)


def _seeds(
    kinds: NDArray[np.uint8], found: _Found, naming: Naming, by_part: Mapping[Kind, Mapping[int, int]]
) -> NDArray[np.uint8]:
    """Mark body cells with the id of their vertebra on the subsampled grid."""
    scene = found.scene
    coarse = kinds[::STRIDE, ::STRIDE, ::STRIDE]
    seeds = np.zeros(coarse.shape, np.uint8)
    instances.paint_parts(
        seeds, Parts(found.bodies.index // STRIDE, found.bodies.part, ()), dict(by_part[Kind.VERTEBRA])
    )
    if naming.vertebra_slots:
        cuts = _cuts(found, naming)
        cells = np.argwhere((coarse == Kind.VERTEBRA) & (seeds == 0))
        points = cells * (STRIDE * scene.spacing)
        body = instances.body_cells(points, scene)
        cells, points = cells[body], points[body]
        slot = planes.slots_by_cuts(points, cuts, scene)
        table = np.array([label or 0 for label in naming.vertebra_slots], np.uint8)
        seeds[cells[:, 0], cells[:, 1], cells[:, 2]] = table[np.minimum(slot, len(table) - 1)]
    return seeds


def _part_atlas(out: NDArray[np.uint8], found: _Found, naming: Naming) -> None:
    """Part C1 from C2 by height where no class does and no disc can: bone above C2-C3 but for the dens."""
    axis, atlas = anatomy.vertebra("C2").id, anatomy.vertebra("C1").id
    if not naming.vertebra_slots or naming.vertebra_slots[0] != axis or naming.cut_observations[0] is None:
        return
    if atlas in naming.ids:
        return
    scene, disc = found.scene, found.observations[naming.cut_observations[0]]
    index = np.argwhere(out == axis)
    place = scene.line.project(index * scene.spacing)
    high = disc.s - place.s > ATLAS_ABOVE_DISC_MM * found.solution.scale
    dens = (np.abs(place.lateral) < 7.0) & (place.anterior > 5.0) & (place.anterior < disc.anterior + 3.0)
    rows = high & ~dens
    out[index[rows, 0], index[rows, 1], index[rows, 2]] = atlas


def _part_sacrum(out: NDArray[np.uint8], found: _Found, naming: Naming) -> None:
    """Take bone below disc L5-S for sacrum where its class is missing or patchy: it must not swell L5."""
    last = anatomy.disc("L5-S").id
    if last not in naming.ids:
        return
    scene, disc = found.scene, found.observations[naming.ids.index(last)]
    above = [anatomy.vertebra("L5").id, anatomy.vertebra("L6").id]
    unnamed = [anatomy.unnamed(Structure.VERTEBRA, n).id for n in range(1, anatomy.MAX_UNNAMED + 1)]
    index = np.argwhere(np.isin(out, [*above, *unnamed]))
    place = scene.line.project(index * scene.spacing)
    # The arch of L5 hangs beside the disc and the first sacral level; its body ends above the disc.
    depth = np.where(place.anterior > 0, 0.0, _ARCH_BELOW_DISC_MM * found.solution.scale)
    rows = place.s - disc.s > depth
    out[index[rows, 0], index[rows, 1], index[rows, 2]] = anatomy.SACRUM_ID


def _cuts(found: _Found, naming: Naming) -> list[planes.Cut]:
    """Planes between the vertebral slots: of the discs found, and supposed ones where a disc was not."""
    cuts: list[planes.Cut | None] = []
    for n in naming.cut_observations:
        if n is None:
            cuts.append(None)
        else:
            part = found.observations[n].part
            cuts.append(planes.disc_plane(found.discs.index[found.discs.part == part], found.scene))
    return planes.filled(cuts, naming.step_mm)
