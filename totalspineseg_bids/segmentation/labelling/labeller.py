"""Label one image: semantic map to components, levels and label map."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.centerline import Centerline
from totalspineseg_bids.imaging.field_of_view import AcquiredRegion
from totalspineseg_bids.imaging.grid import Box, foreground_box, restore_labels, working_geometry
from totalspineseg_bids.imaging.volume import Affine, Geometry, Volume
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import parameters
from totalspineseg_bids.segmentation.labelling.column.cross_check import solve
from totalspineseg_bids.segmentation.labelling.column.naming import name_components
from totalspineseg_bids.segmentation.labelling.column.parameters import WEIGHTS
from totalspineseg_bids.segmentation.labelling.components import sacrum
from totalspineseg_bids.segmentation.labelling.components.bodies import body_parts, disc_parts, label_discs
from totalspineseg_bids.segmentation.labelling.components.level_prior import LevelPrior, with_level_prior
from totalspineseg_bids.segmentation.labelling.components.localizer import with_localizer_levels
from totalspineseg_bids.segmentation.labelling.instances.label_image import draw_discs, draw_label_image
from totalspineseg_bids.segmentation.labelling.instances.parameters import STRIDE
from totalspineseg_bids.segmentation.labelling.records import (
    CanalExtent,
    ComponentVoxels,
    LabelledComponents,
    Observation,
    SpineContext,
)
from totalspineseg_bids.segmentation.labelling.summary import summarize
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus
from totalspineseg_bids.segmentation.semantic_map import SemanticMap

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabellingInput:
    """Semantic map of one image, with further evidence of its levels.

    Examples
    --------
    >>> image = LabellingInput(np.zeros((4, 4, 4), np.uint8), np.eye(4), ClassMap.named("r20240601-step1"))
    >>> build_labelled_spine(solve_image(image)).status.value
    'no-spine'
    """

    semantic: NDArray[np.uint8]
    """Semantic map of a step-1, step-2 or single-step model, shape (X, Y, Z); any orientation and voxel size."""
    affine: Affine
    """Voxel index to scanner space (RAS+, mm)."""
    layout: ClassMap
    """Meaning of the map's integers."""
    support: Sequence[tuple[NDArray[np.uint8], ClassMap]] = ()
    """Further semantic maps on the same grid whose landmarks count as evidence, such as that of step 1."""
    localizer: Volume | None = None
    """Labelled image (canonical ids) that overlaps in scanner space."""
    level_prior: LevelPrior | None = None
    """Level probabilities of a coarse network."""
    padding: NDArray[np.bool_] | None = None
    """Voxels outside the field of view, shape (X, Y, Z); ``None`` if there are none."""
    acquisition: str = ""
    """Name that the reconstructions and repetitions of one acquisition share; empty if unknown."""


def label_map(
    semantic: NDArray[np.uint8],
    affine: Affine,
    layout: ClassMap,
    *,
    support: Sequence[tuple[NDArray[np.uint8], ClassMap]] = (),
    localizer: Volume | None = None,
    level_prior: LevelPrior | None = None,
    padding: NDArray[np.bool_] | None = None,
    discs_only: bool = False,
) -> LabelledSpine:
    """Label a semantic map of the spine with anatomical levels.

    Parameters
    ----------
    semantic
        Map of a step-1, step-2 or single-step model, uint8, shape (X, Y, Z); any orientation and voxel size. Maps that
        are not isotropic 1 mm are resampled for the computation, and the result is resampled back.
    affine
        Voxel index to scanner space, RAS+, mm, shape (4, 4).
    layout
        Meaning of the integers of the map.
    support
        Further semantic maps on the same grid whose landmarks count as evidence, such as that of step 1.
    localizer
        Labelled image (canonical ids) that overlaps in scanner space; its levels count as evidence.
    level_prior
        Probabilities of a coarse model that names every level; they count as evidence.
    padding
        Voxels outside the field of view, shape (X, Y, Z), bool; ``None`` if there are none.
    discs_only
        Leave the voxels of all other structures 0, which takes half of the time. Flags of drawn vertebrae are absent.

    Returns
    -------
    LabelledSpine
        Instances on the grid of ``semantic``. If the evidence does not decide the levels, the status is ``ABSTAINED``
        and the components are numbered; without canal and disc it is ``NO_SPINE``.

    Examples
    --------
    >>> layout = ClassMap.named("r20240601-step1")
    >>> semantic = np.zeros((60, 70, 90), np.uint8)
    >>> semantic[20:40, 14:28] = layout.labels["canal"][0]
    >>> semantic[10:50, 30:62, 23:34] = semantic[10:50, 30:62, 61:72] = layout.labels["disc"][0]
    >>> spine = label_map(semantic, np.eye(4), layout)
    >>> spine.status.value, [component.structure.text for component in spine.components]
    ('abstained', ['disc', 'disc', 'spinal_canal'])
    """
    image = LabellingInput(semantic, affine, layout, support, localizer, level_prior, padding)
    return build_labelled_spine(solve_image(image), discs_only=discs_only)


@dataclass(frozen=True)
class SolvedImage:
    """Components and levels of an image, before names are assigned and the label map is drawn."""

    native: Geometry
    """Grid of the semantic map."""
    affine: Affine
    """Voxel-to-scanner matrix of the working grid: canonical, 1 mm."""
    shape: tuple[int, int, int]
    """Shape of the working grid."""
    orientation: NDArray[np.float64] | None
    """Axis permutation and flips from native to working grid; ``None`` if the map was resampled."""
    box: Box | None = None
    """Foreground on the working grid; ``None`` without a spine."""
    found: LabelledComponents | None = None
    """Components and levels in the box; ``None`` without a spine."""
    reason: str | None = None
    """Why there is no spine."""
    acquisition: str = ""
    """That of the input."""

    @property
    def local(self) -> Affine:
        """Voxel-to-scanner matrix of the foreground's box."""
        local = self.affine.copy()
        if self.box is not None:
            local[:3, 3] += local[:3, :3] @ np.array([s.start for s in self.box], float)
        return local


def solve_image(image: LabellingInput) -> SolvedImage:
    """Find the components of an image and their levels.

    Parameters
    ----------
    image
        Semantic map and further evidence.

    Returns
    -------
    SolvedImage
        ``found`` is ``None`` if there is neither a canal nor a disc.
    """
    native = Volume(image.semantic, np.asarray(image.affine, np.float64)).geometry
    if np.allclose(native.spacing, 1.0, atol=parameters.SPACING_TOLERANCE_MM) and not native.is_sheared:
        orientation = nib.orientations.io_orientation(native.affine)
        to_working = partial(nib.orientations.apply_orientation, ornt=orientation)
        inverse = nib.orientations.inv_ornt_aff(orientation, native.shape)
        working = Volume(to_working(image.semantic), np.asarray(native.affine @ inverse)).geometry
    else:
        orientation, working = None, working_geometry(native)
        to_working = partial(restore_labels, affine=native.affine, target=working)
    maps = ((image.semantic, image.layout), *image.support)
    return _search(
        SolvedImage(native, working.affine, working.shape, orientation),
        [SemanticMap(to_working(np.asarray(labels, np.uint8)), layout) for labels, layout in maps],
        image,
        None if image.padding is None else to_working(image.padding.view(np.uint8)),
    )


def _search(
    grid: SolvedImage, maps: Sequence[SemanticMap], image: LabellingInput, padding: NDArray[np.uint8] | None
) -> SolvedImage:
    """Find components and levels on the working grid."""
    layout = maps[0].class_map
    if padding is not None:
        # Networks continue structures a few voxels into the padding, where there is no image.
        maps = [replace(m, labels=np.where(padding, np.uint8(0), m.labels)) for m in maps]
    box = foreground_box(layout.kinds(maps[0].labels) > 0, margin=parameters.FOREGROUND_MARGIN)
    if box is None:
        return replace(grid, reason="the map holds no class of the spine")
    grid = replace(grid, box=box, acquisition=image.acquisition)
    cropped = [SemanticMap(np.ascontiguousarray(m.labels[box]), m.class_map) for m in maps]
    if image.level_prior is not None:
        cropped = [sacrum.relabel_by_prior(m, grid.local, image.level_prior) for m in cropped]
    cropped = [sacrum.keep_largest_sacrum(m) for m in cropped]
    kinds = layout.kinds(cropped[0].labels)
    spacing = np.asarray(Volume(kinds, grid.affine).geometry.spacing)
    discs = label_discs(kinds == Structure.DISC, float(np.prod(spacing)))
    local = Geometry(grid.shape, np.diag([*spacing, 1.0]))
    field = AcquiredRegion(local, None if padding is None else padding.view(np.bool_))
    context = _context(cropped, kinds, discs, start=np.array([s.start for s in box]), field=field)
    if context is None:
        return replace(grid, box=None, reason="neither a spinal canal nor a disc is in view")
    parts = disc_parts(*discs, context)
    found = _find(context, kinds, parts, image=image, affine=grid.local)
    if found.solution.contradiction is None and not sacrum.is_plausible(found.observations, found.solution.levels):
        context = replace(context, maps=tuple((sacrum.without_sacrum(m), weight) for m, weight in context.maps))
        kinds = layout.kinds(context.maps[0][0].labels)
        found = _find(context, kinds, parts, image=image, affine=grid.local)
    return replace(grid, found=found)


def solve_with(solved: SolvedImage, observations: Sequence[Observation]) -> SolvedImage:
    """Find the levels of an image again, after evidence was added to its components.

    Parameters
    ----------
    solved
        Earlier solution.
    observations
        Components of the image with more evidence, in the same order.
    """
    found = solved.found
    if found is None:
        return solved
    solution = solve(observations, found.view)
    return replace(solved, found=replace(found, observations=tuple(observations), solution=solution))


def build_labelled_spine(
    solved: SolvedImage,
    *,
    unnamed: str | None = None,
    cautions: Mapping[int, str] | None = None,
    discs_only: bool = False,
) -> LabelledSpine:
    """Name the components of an image and draw its label map on its own grid.

    Parameters
    ----------
    solved
        Components and levels.
    unnamed
        Reason for which the components are numbered whatever their levels; ``None`` to name them.
    cautions
        Further reasons why the levels of components are doubtful, by index.
    discs_only
        Draw the discs only.
    """
    labels = np.zeros(solved.shape, np.uint8)
    box, found = solved.box, solved.found
    if box is None or found is None:
        spine = LabelledSpine(labels, solved.affine, (), SpineStatus.NO_SPINE, reason=solved.reason)
    else:
        naming = name_components(found.observations, found.solution, unnamed, cautions)
        semantic = found.context.maps[0][0]
        out = np.zeros(semantic.labels.shape, np.uint8)
        if discs_only:
            draw_discs(out, found, naming)
        else:
            draw_label_image(out, semantic.class_map.kinds(semantic.labels), found, naming)
        labels[box] = out
        spine = summarize(Volume(labels, solved.affine), box, found, naming)
    if solved.orientation is not None:
        back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), solved.orientation)
        turned = np.ascontiguousarray(nib.orientations.apply_orientation(spine.labels, back))
        return replace(spine, labels=turned, affine=solved.native.affine)
    native = restore_labels(spine.labels, solved.affine, solved.native)
    present = set(np.flatnonzero(np.bincount(native.ravel(), minlength=256)).tolist())
    components = tuple(c for c in spine.components if c.label_id in present)
    return replace(spine, labels=native, affine=solved.native.affine, components=components)


def _context(
    maps: Sequence[SemanticMap],
    kinds: NDArray[np.uint8],
    discs: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    start: NDArray[np.int64],
    field: AcquiredRegion,
) -> SpineContext | None:
    """Fit the centreline and collect the data that all stages share; ``None`` without canal and disc."""
    spacing = np.asarray(field.geometry.spacing)
    coarse = kinds[::STRIDE, ::STRIDE, ::STRIDE]
    canal = np.argwhere((coarse == Structure.CANAL) | (coarse == Structure.CORD)) * (STRIDE * spacing)
    line = Centerline.from_canal(canal, float(np.prod(spacing)) * STRIDE**3)
    centers = _centers(discs[0] * spacing, discs[1])
    if line is None:
        line = Centerline.from_discs(centers)
    elif len(centers):
        line = line.extend_along_discs(centers)
    if line is None:
        return None
    weighted = [(m, 1.0 if n == 0 else WEIGHTS.support_weight) for n, m in enumerate(maps)]
    return SpineContext(tuple(weighted), spacing, field, start, line)


def _centers(points: NDArray[np.float64], part: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the centres of the numbered parts that are not specks, mm, shape (K, 3)."""
    used = part >= 0
    if not used.any():
        return np.zeros((0, 3))
    counts = np.bincount(part[used])
    large = counts > parameters.CENTERLINE_DISC_VOXELS
    sums = np.stack([np.bincount(part[used], points[used, k]) for k in range(3)], axis=1)
    return np.asarray(sums[large] / counts[large, None])


def _find(
    context: SpineContext, kinds: NDArray[np.uint8], discs: ComponentVoxels, *, image: LabellingInput, affine: Affine
) -> LabelledComponents:
    semantic = context.maps[0][0]
    coarse = np.ascontiguousarray(semantic.labels[::STRIDE, ::STRIDE, ::STRIDE])
    bodies, sacral = body_parts(coarse, semantic.class_map, context, discs, STRIDE)
    observations: list[Observation] = sorted(
        [*discs.observations, *bodies.observations, *sacral.observations], key=lambda o: o.s
    )
    if image.localizer is not None:
        observations = with_localizer_levels(observations, context, affine, image.localizer)
    if image.level_prior is not None:
        observations = with_level_prior(observations, (discs, bodies, sacral), affine, image.level_prior)
    view = _canal_extent(context, kinds)
    return LabelledComponents(context, discs, bodies, sacral, tuple(observations), view, solve(observations, view))


def _canal_extent(context: SpineContext, kinds: NDArray[np.uint8]) -> CanalExtent:
    line = context.centerline
    coarse = kinds[:: parameters.CORD_STRIDE, :: parameters.CORD_STRIDE, :: parameters.CORD_STRIDE]
    cord = np.argwhere(coarse == Structure.CORD) * (parameters.CORD_STRIDE * context.spacing)
    conus = cord_start = None
    if len(cord) * parameters.CORD_STRIDE**3 * context.voxel_mm3 > parameters.LEAST_CORD_MM3:
        s = np.sort(line.project(cord).s)
        tail = max(3, len(s) // 400)
        end, start = float(s[-tail]), float(s[tail - 1])
        if line.length - end > parameters.CONUS_ROOM_MM and end - float(s[0]) > parameters.LEAST_CORD_MM:
            conus = end
        if start > parameters.CONUS_ROOM_MM and float(s[-1]) - start > parameters.LEAST_CORD_MM:
            cord_start = start
    return CanalExtent(0.0, line.length, conus, cord_start)
