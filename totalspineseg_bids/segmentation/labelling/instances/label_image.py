"""Draw the label map of one image from its components and their ids."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.masks import apply_table, indices_of
from totalspineseg_bids.segmentation.labelling import disc_planes
from totalspineseg_bids.segmentation.labelling.instances.craniocervical import separate_atlas_and_axis
from totalspineseg_bids.segmentation.labelling.instances.parameters import ARCH_BELOW_DISC_MM, STRIDE
from totalspineseg_bids.segmentation.labelling.instances.vertebrae import (
    draw_canal,
    draw_components,
    draw_vertebrae,
)
from totalspineseg_bids.segmentation.labelling.records import ComponentVoxels, LabelledComponents, Naming, in_front


def draw_label_image(
    out: NDArray[np.uint8], kinds: NDArray[np.uint8], found: LabelledComponents, naming: Naming
) -> None:
    """Write all instances into a label map.

    Parameters
    ----------
    out
        Label map to write to, zeros, shape (X, Y, Z).
    kinds
        Tissue of each voxel on the same grid.
    found
        Components of the image.
    naming
        Id of each component.
    """
    context, layout = found.context, found.context.maps[0][0].class_map
    by_part = _ids_of_parts(found, naming)
    seeds = _seeds(kinds, found, naming, by_part)
    draw_vertebrae(out, context.maps[0][0].labels, layout, seeds, stride=STRIDE, context=context)
    separate_atlas_and_axis(out, kinds, found, naming)
    _separate_sacrum(out, found, naming)
    if found.sacrum.observations:
        out[kinds == Structure.SACRUM] = anatomy.SACRUM_ID
    draw_components(out, found.discs, by_part[Structure.DISC])
    draw_canal(out, kinds, anatomy.CORD_ID, anatomy.CANAL_ID, context)


def draw_discs(out: NDArray[np.uint8], found: LabelledComponents, naming: Naming) -> None:
    """Write the discs into a label map, as `draw_label_image` does."""
    draw_components(out, found.discs, _ids_of_parts(found, naming)[Structure.DISC])


def _ids_of_parts(found: LabelledComponents, naming: Naming) -> dict[Structure, dict[int, int]]:
    """Return the id of each component of each structure; those without an id are left out."""
    by_part: dict[Structure, dict[int, int]] = {Structure.DISC: {}, Structure.VERTEBRA: {}, Structure.SACRUM: {}}
    for n, observation in enumerate(found.observations):
        label = naming.ids[n]
        if label is not None:
            by_part[observation.kind][observation.part] = label
    return by_part


def _seeds(
    kinds: NDArray[np.uint8], found: LabelledComponents, naming: Naming, by_part: Mapping[Structure, Mapping[int, int]]
) -> NDArray[np.uint8]:
    """Return the id of the vertebra of each body cell on the subsampled grid, 0 elsewhere."""
    context = found.context
    coarse = kinds[::STRIDE, ::STRIDE, ::STRIDE]
    seeds = np.zeros(coarse.shape, np.uint8)
    draw_components(
        seeds, ComponentVoxels(found.bodies.index // STRIDE, found.bodies.part, ()), dict(by_part[Structure.VERTEBRA])
    )
    if naming.vertebra_slots:
        cuts = _planes_of(found, naming)
        cells = np.argwhere((coarse == Structure.VERTEBRA) & (seeds == 0))
        points = cells * (STRIDE * context.spacing)
        body = in_front(context.centerline.project(points))
        cells, points = cells[body], points[body]
        slot = disc_planes.slots_between_planes(points, cuts, context)
        table = np.array([label or 0 for label in naming.vertebra_slots], np.uint8)
        seeds[cells[:, 0], cells[:, 1], cells[:, 2]] = table[np.minimum(slot, len(table) - 1)]
    return seeds


def _separate_sacrum(out: NDArray[np.uint8], found: LabelledComponents, naming: Naming) -> None:
    """Label bone below disc L5-S as sacrum, so that L5 does not include it where the class of the sacrum is missing."""
    last = anatomy.disc("L5-S").id
    if last not in naming.ids:
        return
    context, disc = found.context, found.observations[naming.ids.index(last)]
    above = [anatomy.vertebra("L5").id, anatomy.vertebra("L6").id]
    unnamed = [anatomy.unnamed(Structure.VERTEBRA, n).id for n in range(1, anatomy.MAX_UNNAMED + 1)]
    bone = np.zeros(256, np.uint8)
    bone[[*above, *unnamed]] = 1
    index = indices_of(apply_table(out, bone) > 0)
    place = context.centerline.project(index * context.spacing)
    # The arch of L5 hangs beside the disc and the first sacral level; its body ends above the disc.
    depth = np.where(place.anterior > 0, 0.0, ARCH_BELOW_DISC_MM * found.solution.scale)
    rows = place.s - disc.s > depth
    out[index[rows, 0], index[rows, 1], index[rows, 2]] = anatomy.SACRUM_ID


def _planes_of(found: LabelledComponents, naming: Naming) -> list[disc_planes.DiscPlane]:
    """Return the planes between the vertebral slots, interpolated where a disc was not found."""
    cuts: list[disc_planes.DiscPlane | None] = []
    for n in naming.cut_observations:
        if n is None:
            cuts.append(None)
        else:
            part = found.observations[n].part
            cuts.append(disc_planes.disc_plane(found.discs.index[found.discs.part == part], found.context))
    return disc_planes.interpolate_missing(cuts, naming.step_mm)
