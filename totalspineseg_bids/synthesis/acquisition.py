"""Simulated MR acquisition: slices, field of view, noise, and storage of the array."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.volume import Affine, Geometry, Volume
from totalspineseg_bids.synthesis.arrays import NUMPY, Draws
from totalspineseg_bids.synthesis.artefacts import SIGNAL_ARTEFACTS, STORED_ARTEFACTS, Scan, add_artefacts
from totalspineseg_bids.synthesis.fields_of_view import PlacedField
from totalspineseg_bids.synthesis.rasterize import FIRST_SPINE_LABEL

SlicePlane = Literal["sagittal", "axial", "isotropic"]
Storage = Literal["int16", "uint16", "uint8", "float32"]

#: Axis codes in which scanners and converters store each plane.
_ORIENTATIONS: dict[SlicePlane, tuple[str, ...]] = {
    "sagittal": ("PIR", "ASL", "AIR", "PSL", "PIL", "AIL", "RAS", "LPI", "LAS"),
    "axial": ("LPS", "RAS", "LAS", "RPI", "LPI"),
    "isotropic": ("PIR", "ASL", "RAS", "LPS", "LAS", "RSA", "SAR"),
}


@dataclass(frozen=True, slots=True)
class Protocol:
    """Parameters of one acquisition.

    Examples
    --------
    >>> draw_protocol("whole", np.random.default_rng(0)).plane
    'sagittal'
    """

    plane: SlicePlane
    """Plane of the thick slices."""
    in_plane: float
    """Voxel size in the plane, mm."""
    thickness: float
    """Voxel size across the plane, mm."""
    rotation_deg: tuple[float, float, float]
    """Rotation of the field of view about x, y and z, degrees, in addition to its alignment with the column."""
    noise: float
    """Standard deviation of the noise relative to the brightest tissue."""
    bias: float
    """Strength of the coil's shading."""
    saturation: bool
    """Whether a band in front of the spine is saturated."""
    orientation: str
    """Axis codes of the stored array."""
    storage: Storage
    """Data type on disk."""
    scaled: bool
    """Whether integers are stored with a slope other than 1."""
    artefacts: bool = False
    """Whether the image may have ringing, wrap-around, hot pixels and other artefacts (`synthesis.artefacts`)."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size left-right, front-back and up-down, mm."""
        if self.plane == "sagittal":
            return self.thickness, self.in_plane, self.in_plane
        if self.plane == "axial":
            return self.in_plane, self.in_plane, self.thickness
        return self.in_plane, self.in_plane, self.in_plane

    @property
    def slab(self) -> tuple[float, float]:
        """Range of the extent from left to right, mm."""
        return {"sagittal": (50.0, 85.0), "axial": (110.0, 140.0), "isotropic": (60.0, 100.0)}[self.plane]


def draw_protocol(field: str, rng: np.random.Generator, *, artefacts: bool = False) -> Protocol:
    """Draw an acquisition that is plausible for a field of view.

    Parameters
    ----------
    field : str
        Name of the field of view; axial stacks are drawn for short fields only.
    rng : numpy.random.Generator
        Source of randomness.
    artefacts : bool
        Whether images may have artefacts.

    Examples
    --------
    >>> protocol = draw_protocol("lumbar", np.random.default_rng(0))
    >>> protocol.plane, protocol.spacing
    ('axial', (0.71, 0.71, 2.86))
    """
    axial = 0.12 if field in {"cervical", "lumbar"} else 0.0
    plane: SlicePlane = ("sagittal", "axial", "isotropic")[int(rng.choice(3, p=[0.72 - axial, axial, 0.28]))]
    coarse = 0.2 if field in {"whole", "cervicothoracic", "thoracolumbar"} else 0.0
    if plane == "isotropic":
        in_plane = float(rng.choice([0.9, 1.0, 1.0, 1.1]))
        thickness = in_plane
    else:
        in_plane = round(float(rng.uniform(0.6, 1.0)) + coarse, 2)
        thickness = round(float(rng.uniform(2.8, 4.2)), 2)
    any_order = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]
    orientation = str(rng.choice(_ORIENTATIONS[plane] if rng.random() < 0.8 else any_order))
    kinds: tuple[Storage, ...] = ("int16", "uint16", "float32", "uint8")
    storage = kinds[int(rng.choice(4, p=[0.55, 0.2, 0.15, 0.1]))]
    return Protocol(
        plane=plane,
        in_plane=in_plane,
        thickness=thickness,
        rotation_deg=(float(rng.normal(0, 3.0)), float(rng.normal(0, 2.0)), float(rng.normal(0, 2.5))),
        noise=float(rng.uniform(0.008, 0.04)),
        bias=float(rng.uniform(0.04, 0.3)),
        saturation=plane != "axial" and rng.random() < 0.25,
        orientation=orientation,
        storage=storage,
        scaled=bool(storage == "uint8" or (storage == "int16" and rng.random() < 0.3)),
        artefacts=artefacts,
    )


def grid_of(field: PlacedField, protocol: Protocol) -> Geometry:
    """Return the grid of an acquisition, axes near RAS, before it is stored in another order."""
    spacing = np.array(protocol.spacing)
    x, y, z = (max(4, int(n)) for n in np.round(field.size / spacing))
    affine = np.eye(4)
    pitch, roll, yaw = protocol.rotation_deg
    angles = (pitch, field.lean_deg - roll, yaw)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = field.center - affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
    return Geometry((x, y, z), affine)


def _finer(grid: Geometry, step: float) -> tuple[Geometry, tuple[int, int, int]]:
    """Divide voxels that are larger than a step into equal parts along their axes."""
    parts = tuple(max(1, int(np.ceil(s / step - 0.25))) for s in grid.spacing)
    affine = grid.affine.copy()
    affine[:3, :3] /= parts
    affine[:3, 3] = grid.affine[:3, 3] - affine[:3, :3] @ ((np.array(parts) - 1) / 2)
    x, y, z = (n * p for n, p in zip(grid.shape, parts, strict=True))
    return Geometry((x, y, z), affine), (parts[0], parts[1], parts[2])


def _split(data: NDArray[np.generic], parts: tuple[int, int, int]) -> NDArray[np.generic]:
    """Collect the parts of each voxel in a last axis."""
    shape = [v for n, p in zip(data.shape, parts, strict=True) for v in (n // p, p)]
    order = (0, 2, 4, 1, 3, 5)
    pieces: NDArray[np.generic] = data.reshape(shape).transpose(order)
    return pieces.reshape(*pieces.shape[:3], -1)


def sample_image(image: Volume, grid: Geometry) -> NDArray[np.float32]:
    """Average an image over the voxels of a grid; outside it is 0.

    Parameters
    ----------
    image : Volume
        float32 image.
    grid : Geometry
        Grid with equal or larger voxels; may be oblique.
    """
    fine, parts = _finer(grid, min(image.spacing) * 1.5)
    matrix = np.linalg.inv(image.affine) @ fine.affine
    sampled = ndimage.affine_transform(
        np.ascontiguousarray(image.data),
        matrix[:3, :3],
        matrix[:3, 3],
        fine.shape,
        output=np.float32,
        order=1,
        mode="constant",
    )
    averaged: NDArray[np.float32] = _split(sampled, parts).mean(axis=-1, dtype=np.float32)
    return averaged


def sample_truth(labels: Volume, grid: Geometry) -> NDArray[np.uint8]:
    """Assign each voxel of a grid its most frequent label; tissue around the spine becomes 0.

    Parameters
    ----------
    labels : Volume
        Tissue label map.
    grid : Geometry
        Grid of the image.
    """
    spine = np.where(labels.data < FIRST_SPINE_LABEL, np.uint8(0), labels.data)
    fine, parts = _finer(grid, min(labels.spacing) * 1.01)
    pieces = _split(restore_labels(spine, labels.affine, fine), parts)
    best = np.array(pieces[..., 0], np.uint8)
    if pieces.shape[-1] == 1:
        return best
    votes = np.zeros(best.shape, np.uint8)
    for i in range(pieces.shape[-1]):
        count = (pieces == pieces[..., i : i + 1]).sum(axis=-1, dtype=np.uint8)
        # Ties go to a label instead of background, so that thin structures are kept.
        wins = (count > votes) | ((count == votes) & (best == 0))
        np.copyto(best, pieces[..., i].astype(np.uint8), where=wins)
        np.copyto(votes, count, where=wins)
    return best


def acquire(
    image: Volume, labels: Volume, field: PlacedField, protocol: Protocol, rng: np.random.Generator
) -> tuple[Volume, Volume]:
    """Simulate the acquisition of a body.

    Parameters
    ----------
    image : Volume
        Intensities (float32, brightest tissue around 1) on the grid of ``labels``.
    labels : Volume
        Tissue label map.
    field : PlacedField
        Field of view.
    protocol : Protocol
        Acquisition.
    rng : numpy.random.Generator
        Draws shading and noise.

    Returns
    -------
    image, truth : Volume
        Image (float32, before conversion to the stored type) and labels of the spine, both on the grid of the
        acquisition in the orientation of the protocol.

    Examples
    --------
    >>> labels = np.zeros((40, 60, 60), np.uint8)
    >>> labels[15:25, 25:40] = 20
    >>> field = PlacedField("lumbar", np.array([20.0, 30.0, 30.0]), np.array([36.0, 50.0, 50.0]), 0.0)
    >>> rng = np.random.default_rng(0)
    >>> signal, body = Volume(labels / np.float32(20), np.eye(4)), Volume(labels, np.eye(4))
    >>> image, truth = acquire(signal, body, field, draw_protocol("lumbar", rng), rng)
    >>> image.data.shape == truth.data.shape, np.unique(truth.data).tolist()
    (True, [0, 20])
    """
    grid = grid_of(field, protocol)
    signal = sample_image(image, grid)
    truth = sample_truth(labels, grid)
    signal *= _shading(grid, protocol, rng)
    if protocol.saturation:
        signal *= _saturation(truth, grid, rng)
    scan = Scan(protocol.spacing, -1 if protocol.plane == "axial" else -3, Draws(signal.shape, rng, NUMPY))
    if protocol.artefacts:
        signal = add_artefacts(signal, SIGNAL_ARTEFACTS, scan)
    sigma = np.float32(protocol.noise)
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    noisy = np.hypot(real, sigma * rng.standard_normal(signal.shape, dtype=np.float32))
    if protocol.artefacts:
        noisy = add_artefacts(noisy, STORED_ARTEFACTS, scan)
    return _stored(noisy, grid.affine, protocol.orientation), _stored(truth, grid.affine, protocol.orientation)


def _shading(grid: Geometry, protocol: Protocol, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the sensitivity of the coil: smooth, and lower toward the front."""
    coarse = rng.normal(0.0, protocol.bias, (3, 3, 5))
    coarse -= np.linspace(0.0, 1.6 * protocol.bias, 3)[None, :, None]
    zoomed = ndimage.zoom(
        coarse, [n / c for n, c in zip(grid.shape, coarse.shape, strict=True)], order=1, grid_mode=True, mode="nearest"
    )
    field: NDArray[np.float32] = np.exp(zoomed - zoomed.mean()).astype(np.float32)
    return field


def _saturation(truth: NDArray[np.uint8], grid: Geometry, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the effect of a saturation band in front of the spine, which suppresses motion artefacts."""
    spine = np.flatnonzero((truth >= FIRST_SPINE_LABEL).any(axis=(0, 2)))
    edge = (spine[-1] if len(spine) else 0.7 * grid.shape[1]) + float(rng.uniform(8, 25)) / grid.spacing[1]
    slope = np.arange(grid.shape[1]) - edge
    drop = float(rng.uniform(0.55, 0.9))
    band: NDArray[np.float32] = (1.0 - drop / (1.0 + np.exp(-slope * grid.spacing[1] / 4.0))).astype(np.float32)
    return band[None, :, None]


def _stored(data: NDArray[np.generic], affine: Affine, orientation: str) -> Volume:
    """Reorder and flip the axes of an array that is near RAS."""
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    turned = nib.orientations.apply_orientation(data, change)
    return Volume(np.ascontiguousarray(turned), affine @ nib.orientations.inv_ornt_aff(change, data.shape))


def to_nifti(image: Volume, protocol: Protocol, rng: np.random.Generator) -> nib.Nifti1Image:
    """Convert an image to the data type of the protocol, on a random intensity scale.

    Parameters
    ----------
    image : Volume
        float32 image, not negative.
    protocol : Protocol
        Acquisition, which defines the data type.
    rng : numpy.random.Generator
        Draws the scale.
    """
    data = image.data / max(float(np.percentile(image.data, 99.7)), 1e-6)
    if protocol.storage == "uint8":
        stored, slope = np.clip(255 * data, 0, 255).round().astype(np.uint8), float(rng.uniform(0.5, 6.0))
    elif protocol.storage == "float32":
        stored, slope = (data * float(np.exp(rng.uniform(0, 8)))).astype(np.float32), 1.0
    else:
        top = float(rng.uniform(300, 4000))
        dtype = np.int16 if protocol.storage == "int16" else np.uint16
        stored, slope = np.clip(top * data, 0, 32767).round().astype(dtype), 1.0
        if protocol.scaled:
            slope = float(rng.uniform(0.01, 3.0))
    nifti = nib.Nifti1Image(stored, image.affine)
    nifti.header.set_xyzt_units("mm", "sec")
    nifti.set_sform(image.affine, code=1)
    nifti.set_qform(image.affine, code=1)
    if slope != 1.0:
        # Raw values are written unchanged; the header defines their scale.
        nifti.header["scl_slope"], nifti.header["scl_inter"] = slope, 0.0
    return nifti
