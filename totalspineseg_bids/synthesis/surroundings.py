"""Label maps of real anatomy as sources of images; maps of the spine alone get the body of a parametric spine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RBFInterpolator

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.imaging.grid import to_canonical
from totalspineseg_bids.imaging.io import is_nifti_name, read_labels
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.body_profile import ENDPLATE, FAT
from totalspineseg_bids.synthesis.definitions import disc_frame, follow_definitions, label_points
from totalspineseg_bids.synthesis.parametric import make_spine
from totalspineseg_bids.synthesis.rasterize import FIRST_SPINE_LABEL

#: Extent of the body above and below a spine without surroundings, mm.
_BEYOND_MM = (70.0, 110.0)
#: Extent to the left and right of its middle, behind and in front of its discs, mm.
_AROUND_MM = (86.0, 110.0, 130.0)
#: Distance of the control points of the warp, mm.
_CELL_MM = 8.0


def label_map_files(folder: Path) -> dict[str, Path]:
    """Return the label maps of a folder by name, in order.

    Raises
    ------
    MissingInputError
        If there is none.
    """
    files = sorted(path for path in folder.iterdir() if is_nifti_name(path)) if folder.is_dir() else []
    if not files:
        msg = f"{folder} holds no label map (.nii.gz, canonical ids); name a folder of label maps or leave it out"
        raise MissingInputError(msg)
    return {path.name.split(".")[0]: path for path in files}


def read_label_map(path: Path) -> Volume:
    """Read a label map of real anatomy, ready to make images from.

    Parameters
    ----------
    path : Path
        NIfTI file with canonical ids, with or without the tissues around the spine.

    Returns
    -------
    Volume
        RAS; with surroundings (`add_surroundings`), and converted to the definitions (`follow_definitions`).
    """
    volume = to_canonical(read_labels(path))
    if not np.isin(volume.data[::2, ::2, ::2], range(1, FIRST_SPINE_LABEL)).any():
        volume = add_surroundings(volume, np.random.default_rng(0))
    return follow_definitions(volume)


def add_surroundings(spine: Volume, rng: np.random.Generator) -> Volume:
    """Place a map of the spine alone in the body of a parametric spine, whose sacrum and cord it gets.

    The body is warped so that discs and canal of both spines meet. The uppermost vertebra, which the field of view
    often cuts, is that of the parametric spine.

    Parameters
    ----------
    spine : Volume
        Canonical ids, RAS, any voxel size, with at least two discs.
    rng : numpy.random.Generator
        Draws the parametric spine.

    Returns
    -------
    Volume
        Tissue label map, RAS, 1 mm.
    """
    donor = make_spine(rng)
    levels = [level for level in anatomy.REGULAR_DISCS if disc_frame(spine, level) is not None]
    target, source = (_landmarks(volume, levels) for volume in (spine, donor))
    affine, shape = _grid(target)
    labels = _warped(donor, affine, shape, target, source)
    own = _resample(spine, affine, shape)

    # Around the spine only: the map is large. The donor's posterior elements reach farther than those of thick slices.
    box = tuple(slice(max(0, s.start - 40), s.stop + 40) for s in ndimage.find_objects((own > 0).astype(np.uint8))[0])
    _insert(labels[box], own[box], round(float(target[0, 2] - affine[2, 3])) - box[2].start)
    return Volume(labels, affine)


def _insert(labels: NDArray[np.uint8], own: NDArray[np.uint8], top: int) -> None:
    """Replace the part of a donor's spine that another spine covers, below voxel ``top``, in place."""
    ids = np.unique(own)
    bones = [i for i in ids if i and anatomy.BY_ID[int(i)].structure is Structure.VERTEBRA]
    # The first disc lies below the first vertebra; ids of vertebrae fall from top to bottom.
    own[own == max(bones)] = 0
    own[:, :, top:][own[:, :, top:] == anatomy.CANAL_ID] = 0
    sac = (labels == anatomy.CANAL_ID) | (labels == anatomy.CORD_ID)
    cord = labels == anatomy.CORD_ID
    replaced = np.isin(labels, [*bones[:-1], *[i for i in ids if i > anatomy.CANAL_ID], ENDPLATE])
    # Beside the slices of the other spine transverse processes go on.
    seen = np.flatnonzero(own.any(axis=(1, 2)))
    replaced[: seen[0]] = replaced[seen[-1] + 1 :] = False
    sac[:, :, top:] = False
    near = ndimage.distance_transform_edt(own != anatomy.CANAL_ID) < 6.0
    kept = (labels < FIRST_SPINE_LABEL) & ~replaced
    nearest = ndimage.distance_transform_edt(~kept, return_distances=False, return_indices=True)
    empty = replaced & ~near
    labels[empty] = labels[tuple(axis[empty] for axis in nearest)]
    labels[(replaced & near) | sac] = FAT
    _extend_sacrum(labels, own, replaced)
    np.copyto(labels, own, where=own > 0)
    labels[cord & ndimage.binary_erosion(own == anatomy.CANAL_ID)] = anatomy.CORD_ID


def _landmarks(volume: Volume, levels: list[str]) -> NDArray[np.float64]:
    """Return corresponding points of discs and of the canal behind them, six for each disc, shape (N, 3), RAS mm."""
    canal = label_points(volume, anatomy.CANAL_ID, anatomy.CORD_ID)
    points = []
    for level in levels:
        frame = disc_frame(volume, level)
        if frame is None:
            msg = f"no disc {level} in the label map"
            raise ValueError(msg)
        places = label_points(volume, anatomy.disc(level).id) - frame.origin
        points.append(frame.origin)
        for axis in (0, 1):
            low, high = np.quantile(places @ frame.axes[:, axis], (0.03, 0.97))
            points += [frame.origin + end * frame.axes[:, axis] for end in (low, high)]
        behind = canal - frame.origin
        at_level = np.abs(behind @ frame.axes[:, 2]) < 3.0
        back = 2 * points[-2] - frame.origin
        points.append(frame.origin + behind[at_level].mean(axis=0) if at_level.any() else back)
    return np.array(points)


def _grid(landmarks: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Return affine and shape of a 1 mm grid around landmarks."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    middle = (low + high) / 2
    low = np.array([middle[0] - _AROUND_MM[0], low[1] - _AROUND_MM[1], low[2] - _BEYOND_MM[1]])
    high = np.array([middle[0] + _AROUND_MM[0], high[1] + _AROUND_MM[2], high[2] + _BEYOND_MM[0]])
    affine = np.eye(4)
    affine[:3, 3] = low
    x, y, z = (int(n) for n in np.ceil(high - low))
    return affine, (x, y, z)


def _warped(
    donor: Volume,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    target: NDArray[np.float64],
    source: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Sample a label map on a grid through the thin-plate spline that maps target points to source points."""
    coarse = tuple(int(np.ceil(n / _CELL_MM)) + 1 for n in shape)
    points = np.stack(np.meshgrid(*(np.arange(n) * _CELL_MM for n in coarse), indexing="ij"), axis=-1)
    spline = RBFInterpolator(target, source - target, smoothing=20.0)
    places = points.reshape(-1, 3) + affine[:3, 3]
    shift = spline(places).reshape(*coarse, 3)
    inverse = np.linalg.inv(donor.affine)
    index = []
    fine = np.meshgrid(*(np.arange(n) / _CELL_MM for n in shape), indexing="ij", sparse=True)
    grid = np.broadcast_arrays(*fine)
    moved = [ndimage.map_coordinates(shift[..., axis], grid, order=1) for axis in range(3)]
    inside = True
    for axis in range(3):
        place = moved[axis] + fine[axis] * _CELL_MM + affine[axis, 3]
        line = np.rint(place * inverse[axis, axis] + inverse[axis, 3]).astype(int)
        inside = (line >= 0) & (line < donor.data.shape[axis]) & inside
        index.append(line.clip(0, donor.data.shape[axis] - 1))
    labels: NDArray[np.uint8] = np.where(inside, donor.data[tuple(index)], 0).astype(np.uint8)
    return labels


def _resample(spine: Volume, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Interpolate each label between thick slices; the label with the largest share of a voxel wins."""
    inverse = np.linalg.inv(spine.affine) @ affine
    best, labels = np.full(shape, 0.5, np.float32), np.zeros(shape, np.uint8)
    for label, box in enumerate(ndimage.find_objects(spine.data, max_label=255), start=1):
        if box is None:
            continue
        mask = (spine.data == label).astype(np.float32)
        # Half a millimetre of smoothing in plane, none between slices.
        mask = ndimage.gaussian_filter(mask, [0.0 if size > 2.0 else 0.5 / size for size in spine.spacing])
        corners = np.array(np.meshgrid(*((s.start - 2, s.stop + 1) for s in box))).reshape(3, -1).T
        ends = apply_affine(np.linalg.inv(inverse), corners)
        first = np.maximum(np.floor(ends.min(axis=0)).astype(int), 0)
        last = np.minimum(np.ceil(ends.max(axis=0)).astype(int), shape)
        if np.any(first >= last):
            continue
        part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        offset = inverse[:3, :3] @ first + inverse[:3, 3]
        share = ndimage.affine_transform(mask, inverse[:3, :3], offset, tuple(last - first), order=1)
        better = share > best[part]
        best[part][better] = share[better]
        labels[part][better] = label
    return labels


def _extend_sacrum(labels: NDArray[np.uint8], own: NDArray[np.uint8], replaced: NDArray[np.bool_]) -> None:
    """Let the sacrum reach up to the lowest disc, in place."""
    disc = own == anatomy.disc("L5-S").id
    if not disc.any():
        return
    to_disc = ndimage.distance_transform_edt(~disc)
    sacrum = labels == anatomy.SACRUM_ID
    labels[sacrum & (to_disc < 1.5)] = ENDPLATE
    to_sacrum = ndimage.distance_transform_edt(~sacrum)
    body = own == anatomy.vertebra("L5").id
    higher = ndimage.distance_transform_edt(~body) < to_sacrum
    labels[replaced & (to_disc >= 1.5) & (to_disc < 7.0) & (to_sacrum < 6.0) & ~higher] = anatomy.SACRUM_ID
