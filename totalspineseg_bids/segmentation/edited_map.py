"""Replace the label map of a spine by one that a reader edited."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure
from totalspineseg_bids.imaging.centerline import Centerline, Points
from totalspineseg_bids.imaging.field_of_view import CUT_VOXELS, AcquiredRegion
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.corrections import CORRECTED, CorrectionError
from totalspineseg_bids.segmentation.disc_points import TOP_JOINT, locate_discs, sort_points
from totalspineseg_bids.segmentation.result import Component, LabelledSpine, SpineStatus

_EDITED = f"{CORRECTED}: edited"


def apply_edited_map(
    spine: LabelledSpine, native: NDArray[np.uint8], edited: Volume, grid: Volume
) -> tuple[LabelledSpine, NDArray[np.uint8]]:
    """Return a spine with the labels of an edited map.

    Parameters
    ----------
    spine : LabelledSpine
        Uncorrected spine on the working grid.
    native : (X, Y, Z) uint8
        Its labels on the grid of the image.
    edited : Volume
        Edited map, canonical ids, on the grid of the image or on that of the spine.
    grid : Volume
        The image.

    Returns
    -------
    LabelledSpine
        Spine with the edits; a renamed structure is renamed as a whole, other edits are applied voxel by voxel.
    ndarray of uint8
        Its labels on the grid of the image.

    Raises
    ------
    CorrectionError
        If the map has another grid or no label.
    """
    images, working = Volume(native, grid.affine), Volume(spine.labels, spine.affine)
    if not edited.data.any():
        msg = "the edited map holds no label of the scheme in use"
        raise CorrectionError(msg)
    if edited.geometry.same_grid(images.geometry):
        labels, native = _transfer(images, edited.data, working), edited.data
    elif edited.geometry.same_grid(working.geometry):
        labels, native = edited.data, _transfer(working, edited.data, images)
    else:
        msg = f"the edited map has {edited.geometry.shape} voxels of another grid than the image {native.shape}"
        raise CorrectionError(msg)
    return _describe(spine, labels), native


def _majority(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the id that most voxels of each id have after an edit, shape (256,)."""
    pairs = np.bincount(before.ravel().astype(np.intp) * 256 + after.ravel(), minlength=1 << 16).reshape(256, 256)
    table = np.arange(256, dtype=np.uint8)
    for old in np.flatnonzero(pairs.sum(axis=1))[1:]:
        new = int(pairs[old].argmax())
        if 2 * pairs[old, new] > pairs[old].sum():
            table[old] = new
    return table


def _transfer(before: Volume, after: NDArray[np.uint8], other: Volume) -> NDArray[np.uint8]:
    """Repeat on another grid what changed between two maps."""
    table = _majority(before.data, after)
    labels: NDArray[np.uint8] = table[other.data]
    changed = table[before.data] != after
    if changed.any():
        to_before = np.linalg.inv(before.affine) @ other.affine
        edits = [
            ndimage.affine_transform(array, to_before, output_shape=labels.shape, order=0, prefilter=False)
            for array in (changed.astype(np.uint8), after)
        ]
        labels[edits[0] > 0] = edits[1][edits[0] > 0]
    return labels


def _describe(spine: LabelledSpine, labels: NDArray[np.uint8]) -> LabelledSpine:
    """Return the spine with the components, points and centreline of new labels."""
    table = _majority(spine.labels, labels)
    former = {int(table[c.label_id]): c for c in spine.components if table[c.label_id]}
    differ = labels != spine.labels
    changed = {int(label) for label in np.unique(np.concatenate([labels[differ], spine.labels[differ]]))}
    field = AcquiredRegion(Volume(labels, spine.affine).geometry, spine.padding)
    found = [
        former[label] if label in former and label not in changed else _component(field, labels, label, former)
        for label in (int(label) for label in np.unique(labels[labels > 0]))
    ]
    line = spine.centerline_mm
    if not len(line) or changed & {CANAL_ID, CORD_ID}:
        new = Centerline.from_labels(labels, spine.affine)
        line = line if new is None else new.seen
    levels = {c.label_id: c.level for c in found if c.structure is Structure.DISC and c.level and c.label_id in changed}
    present = {c.level for c in found}
    kept = [p for p in spine.disc_points if p.level in present and p.level not in levels.values()]
    kept += [p for p in spine.disc_points if p.level == TOP_JOINT and {"C1", "C2"} <= present]
    unnamed = any(c.level is None for c in found if c.structure in (Structure.VERTEBRA, Structure.DISC))
    return replace(
        spine,
        labels=labels,
        components=_in_order(found, line),
        status=SpineStatus.ABSTAINED if unnamed else SpineStatus.LABELLED,
        reason=spine.reason if unnamed else None,
        flags=(*spine.flags, CORRECTED),
        centerline_mm=line,
        disc_points=sort_points([*kept, *locate_discs(labels, spine.affine, line, levels)]),
        margin=None,
    )


def _component(field: AcquiredRegion, labels: NDArray[np.uint8], label: int, former: dict[int, Component]) -> Component:
    """Measure an edited label; its name is certain unless it is that of before."""
    voxels = np.argwhere(labels == label)
    at_edge, _ = field.edges(voxels)
    x, y, z = (float(v) for v in apply_affine(field.geometry.affine, voxels.mean(axis=0)))
    known, before = anatomy.BY_ID[label], former.get(label)
    same = before is not None and before.label_id == label
    named = known.level or not anatomy.is_unnamed(label)
    return Component(
        label_id=label,
        structure=known.structure,
        level=known.level or None,
        confidence=before.confidence if same and before else 1.0 if named else 0.0,
        runner_up=before.runner_up if same and before else None,
        reason=f"{CORRECTED}, was {anatomy.BY_ID[before.label_id].abbreviation}" if before and not same else _EDITED,
        touches_edge=len(np.unique(at_edge)) > CUT_VOXELS,
        volume_mm3=len(voxels) * field.geometry.voxel_volume,
        centroid_mm=(x, y, z),
    )


def _in_order(components: list[Component], centerline_mm: Points) -> tuple[Component, ...]:
    """Sort components along the canal, cord and canal last."""
    line = Centerline.from_polyline(centerline_mm)

    def place(component: Component) -> tuple[bool, float]:
        outside = component.structure in (Structure.CORD, Structure.CANAL)
        centre = np.array([component.centroid_mm])
        along = -centre[0, 2] if line is None else line.project(centre).s[0]
        return outside, float(component.label_id if outside else along)

    return tuple(sorted(components, key=place))
