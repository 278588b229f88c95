"""Read and write NIfTI files, with checks for damaged and unusual files.

Source of the format: NIfTI-1.1 and NIfTI-2 (https://nifti.nimh.nih.gov).
"""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.errors import ImageError
from totalspineseg_bids.files import sha256_of
from totalspineseg_bids.imaging import checks
from totalspineseg_bids.imaging.atomic import atomic_writer
from totalspineseg_bids.imaging.intensity import clip_outliers
from totalspineseg_bids.imaging.volume import Affine, Volume

logger = logging.getLogger(__name__)

VolumeChoice = int | Literal["mean"]

#: An image with a greater share of NaN or infinite voxels is rejected instead of repaired.
_MAX_NON_FINITE = 0.9
#: Powers of two between which the greatest intensity lies, so that float32 holds the squares that normalization sums,
#: and standard deviations stay above the smallest that networks divide by (nnU-Net: 1e-8).
_EXPONENTS = (-10, 40)
_PROBABILITY_STEP = 0.001
#: Largest distance of a label from a whole number; tools that store labels as scaled or float32 values stay below it.
_LABEL_TOLERANCE = 1e-3
_GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """Image as read, with notes on the oddities of its file."""

    volume: Volume
    """float32 image, shape (X, Y, Z), in the array order of the file."""
    header: nib.Nifti1Header
    """NIfTI header of the file, used to write results with the same geometry."""
    notes: tuple[str, ...]
    """Machine-readable oddities that were repaired or accepted, such as ``"qform-sform-differ"``."""
    volumes: int
    """Number of volumes in the file (1 unless it is a series)."""


def is_nifti_name(path: Path) -> bool:
    """Return whether a file name ends in ``.nii`` or ``.nii.gz``.

    Examples
    --------
    >>> is_nifti_name(Path("sub-01_T2w.nii.gz")), is_nifti_name(Path("sub-01_T2w.json"))
    (True, False)
    """
    return path.name.endswith((".nii", ".nii.gz"))


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of an image file, hexadecimal.

    Raises
    ------
    MissingInputError
        If the file is absent or cannot be read.
    ImageError
        If the path is a folder or a placeholder whose content was not fetched.
    """
    checks.check_file(path)
    return sha256_of(path)


def _open(path: Path) -> BinaryIO:
    """Open the uncompressed stream of a NIfTI file; reject a file whose name and content disagree."""
    checks.check_file(path)
    if not is_nifti_name(path):
        way = "convert it to NIfTI first (for example with dcm2niix)"
        if is_nifti_name(Path(path.name.lower())):
            way = "write its extension in lower case"
        msg = f"{path}: not a .nii or .nii.gz file; {way}"
        raise ImageError(msg)
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    if path.name.endswith(".gz") and not zipped:
        msg = f"{path}: named .gz but not gzip; rename it to .nii if it is plain NIfTI, or compress it again"
        raise ImageError(msg)
    if zipped and not path.name.endswith(".gz"):
        msg = f"{path}: gzip-compressed but not named .nii.gz; rename it"
        raise ImageError(msg)
    return cast("BinaryIO", gzip.open(path, "rb") if zipped else path.open("rb"))


def _load_stream(path: Path, stream: BinaryIO) -> nib.Nifti1Image:
    """Read the header (nothing else) and return the image with its lazy data."""
    try:
        start = stream.read(4)
        stream.seek(0)
        nifti2 = start in {(540).to_bytes(4, "little"), (540).to_bytes(4, "big")}
        image_class = nib.Nifti2Image if nifti2 else nib.Nifti1Image
        return image_class.from_stream(stream)
    except checks.BAD_FILE as error:
        if isinstance(error, EOFError):
            raise checks.truncated(path) from error
        msg = f"{path}: not a valid NIfTI header ({checks.first_line(error)}); convert the image again"
        raise ImageError(msg) from error


def _drain(path: Path, stream: BinaryIO) -> None:
    """Read to the end of a gzip stream, which verifies its checksum; reject more than 64 MB of trailing data."""
    for _ in range(64):
        if not stream.read(1 << 20):
            return
    msg = f"{path}: more than 64 MB follow the image data; convert the image again"
    raise ImageError(msg)


def _read_data(path: Path, stream: BinaryIO, image: nib.Nifti1Image, choice: VolumeChoice | None) -> NDArray[Any]:
    """Return the array of the requested volume (or the mean), without trailing axes of length 1."""
    shape = checks.check_kind(path, image)
    if len(shape) == 4 and choice is None:
        msg = f"{path}: holds {shape[3]} volumes, but a 3D image is needed; choose one volume or their mean"
        raise ImageError(msg)
    if len(shape) == 4 and isinstance(choice, int) and not 0 <= choice < shape[3]:
        msg = f"{path}: has no volume {choice}; its {shape[3]} volumes are numbered from 0"
        raise ImageError(msg)
    try:
        data: NDArray[Any] = np.asanyarray(image.dataobj).reshape(shape)
        _drain(path, stream)
    except (*checks.BAD_FILE, OSError) as error:
        raise checks.truncated(path) from error
    except MemoryError as error:
        msg = f"{path}: {checks.times(shape)} voxels do not fit into memory; use a machine with more of it"
        raise ImageError(msg) from error
    if len(shape) == 4:
        with np.errstate(all="ignore"):
            data = data.mean(axis=3, dtype=np.float64) if choice == "mean" else data[..., choice]
    return data


def _clean(path: Path, data: NDArray[Any]) -> tuple[NDArray[np.float32], list[str]]:
    """Return finite float32 values; reject an image without content."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(data, dtype=np.float32)
    notes: list[str] = []
    finite = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(finite))
    if bad > _MAX_NON_FINITE * values.size:
        msg = f"{path}: {100 * bad / values.size:.0f} % of the voxels are NaN or infinite; convert the image again"
        raise ImageError(msg)
    if bad:
        low, high = float(values[finite].min()), float(values[finite].max())
        # NaN usually marks masked background, so it becomes the smallest value; 0 may not occur in the image.
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        notes.append(f"non-finite-voxels:{bad}")
    low, high = float(values.min()), float(values.max())
    if low == high:
        what = "zero" if low == 0 else f"the same value ({low:g})"
        msg = f"{path}: every voxel is {what}; there is no image in it"
        raise ImageError(msg)
    values, outliers = clip_outliers(values)
    if outliers:
        notes.append(f"intensity-outliers:{outliers}")
    exponent = int(np.frexp(max(-float(values.min()), float(values.max())))[1])
    if not _EXPONENTS[0] <= exponent <= _EXPONENTS[1]:
        # A power of two changes no digit.
        values = np.ldexp(values, 10 - exponent)
        notes.append(f"intensities-scaled:2^{10 - exponent}")
    return values, notes


def _read(
    path: Path, choice: VolumeChoice | None = None, *, header_only: bool = False
) -> tuple[nib.Nifti1Header, Affine, list[str], NDArray[Any], int]:
    """Return header, affine, notes on its oddities, values and number of volumes of a file, with all checks."""
    logging.getLogger("nibabel.global").setLevel(logging.ERROR)  # header repairs are reported as notes
    with _open(path) as stream:
        image = _load_stream(path, stream)
        checks.check_size(path, image)
        shape = checks.check_kind(path, image)
        affine, notes = checks.check_affine(path, image, shape)
        data = np.zeros(0) if header_only else _read_data(path, stream, image, choice)
    return image.header, affine, notes, data, shape[3] if len(shape) == 4 else 1


def read_header(path: Path | str) -> nib.Nifti1Header:
    """Read the header of an image, with its checks.

    Parameters
    ----------
    path : Path or str
        A ``.nii`` or ``.nii.gz`` file.

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If it is damaged, not NIfTI, not a scalar 3D image or 4D series, or without a usable affine.
    """
    return _read(Path(path), header_only=True)[0]


def load_image(path: Path | str, *, volume: VolumeChoice | None = None) -> LoadedImage:
    """Read an image with all checks, its header and notes on its oddities.

    Parameters
    ----------
    path : Path or str
        A ``.nii`` or ``.nii.gz`` file.
    volume : int or "mean", optional
        Volume of a 4D series: its number from 0, or ``"mean"``. Without it a series is rejected.

    Returns
    -------
    LoadedImage
        Values are float32; NaN and -Inf are replaced by the smallest finite value, +Inf by the largest. Outliers that
        would dominate the normalization are clipped (`clip_outliers`).

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If it is damaged, not NIfTI, not a scalar 3D image, without content, or without a usable affine.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> values = np.eye(3, dtype=np.float32)[..., None].repeat(2, 2)
    >>> with TemporaryDirectory() as folder:
    ...     write_probability(Path(folder, "image.nii.gz"), values, np.eye(4))
    ...     load_image(Path(folder, "image.nii.gz")).volumes
    1
    """
    path = Path(path)
    header, affine, notes, data, volumes = _read(path, volume)
    values, repairs = _clean(path, data)
    if volumes > 1:
        notes.append(f"volume:{volume}-of-{volumes}")
    header = header.copy()
    header.set_data_shape(values.shape)
    return LoadedImage(Volume(values, affine), header, (*notes, *repairs), volumes)


def read_image(path: Path | str, *, volume: VolumeChoice | None = None) -> Volume:
    """Read an image as float32, shape (X, Y, Z).

    Equals `load_image` without header and notes.

    Parameters
    ----------
    path : Path or str
        A ``.nii`` or ``.nii.gz`` file.
    volume : int or "mean", optional
        Volume of a 4D series: its number from 0, or ``"mean"``. Without it a series is rejected.

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If it cannot be used as an image.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> values = np.eye(3, dtype=np.float32)[..., None].repeat(2, 2)
    >>> with TemporaryDirectory() as folder:
    ...     write_probability(Path(folder, "image.nii.gz"), values, np.eye(4))
    ...     read_image(Path(folder, "image.nii.gz")).data[:, :, 0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return load_image(path, volume=volume).volume


def read_labels(path: Path | str) -> Volume:
    """Read a label image as uint8, shape (X, Y, Z).

    Equals `load_labels` without header and notes.

    Parameters
    ----------
    path : Path or str
        A ``.nii`` or ``.nii.gz`` file with whole numbers from 0 to 255 (any data type).

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If it is damaged, not 3D, or holds other values.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_labels(Path(folder, "dseg.nii.gz"), np.full((2, 2, 2), 7, np.uint8), np.eye(4))
    ...     np.unique(read_labels(Path(folder, "dseg.nii.gz")).data).tolist()
    [7]
    """
    return load_labels(path).volume


def load_labels(path: Path | str) -> LoadedImage:
    """Read a label image as uint8, with its header and notes on its oddities.

    Parameters
    ----------
    path : Path or str
        A ``.nii`` or ``.nii.gz`` file with whole numbers from 0 to 255 (any data type).

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If it is damaged, not 3D, or holds other values.
    """
    path = Path(path)
    header, affine, notes, data, _ = _read(path)
    header = header.copy()
    header.set_data_shape(data.shape)
    return LoadedImage(Volume(_whole_numbers(path, data), affine), header, tuple(notes), 1)


def _whole_numbers(path: Path, data: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values as uint8; reject values that no label has."""
    if data.dtype != np.uint8:
        rounded = np.rint(data) if data.dtype.kind == "f" else data
        with np.errstate(invalid="ignore"):
            bad = ~((rounded >= 0) & (rounded <= 255))
            if data.dtype.kind == "f":
                bad |= ~(np.abs(data - rounded) <= _LABEL_TOLERANCE)
        if bad.any():
            value = float(data[bad][0])
            msg = f"{path}: not a label image, it holds the value {value:g}; labels are whole numbers from 0 to 255"
            raise ImageError(msg)
        data = rounded.astype(np.uint8)
    return np.ascontiguousarray(data)


def _header_for(
    shape: tuple[int, ...], affine: Affine, like_header: nib.Nifti1Header | None, *, keep_units: bool = False
) -> nib.Nifti1Header:
    """Return a header with the geometry of ``like_header`` where that fits the affine."""
    header = nib.Nifti2Header() if isinstance(like_header, nib.Nifti2Header) else nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header["magic"] = header.single_magic
    # The header is followed by four bytes that declare that there is no extension.
    header["vox_offset"] = header.sizeof_hdr + 4
    if like_header is not None and np.allclose(like_header.get_best_affine(), affine, atol=1e-4):
        # Copied bit for bit, also where qform and sform differ or neither has a code.
        for name in _GEOMETRY_FIELDS:
            header[name] = like_header[name]
        header["pixdim"][:4] = like_header["pixdim"][:4]
        if keep_units:
            header["xyzt_units"] = like_header["xyzt_units"]
        return header
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    return header


def _write(path: Path, data: NDArray[Any], header: nib.Nifti1Header, compression: int = 6) -> None:
    payload = header.binaryblock + bytes(4) + data.tobytes(order="F")
    with atomic_writer(path) as stream:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=compression, fileobj=stream, mtime=0) as zipped:
                zipped.write(payload)
        else:
            stream.write(payload)


def _store(
    path: Path, data: NDArray[Any], header: nib.Nifti1Header, *, slope: float = 1.0, compression: int = 6
) -> None:
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(slope, 0.0)
    _write(path, data, header, compression)


def write_nifti(path: Path | str, image: nib.Nifti1Image) -> None:
    """Write the raw values and the header of an image atomically, without scaling the values again.

    Parameters
    ----------
    path : Path or str
        ``.nii`` or ``.nii.gz`` file to write.
    image : Nifti1Image
        Image in memory; its array holds the stored values, its header their slope and intercept.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    header = image.header.copy()
    header["magic"], header["vox_offset"] = header.single_magic, header.sizeof_hdr + 4
    _write(Path(path), np.asarray(image.dataobj).astype(header.get_data_dtype(), copy=False), header)


def write_image(path: Path, data: NDArray[Any], affine: Affine) -> None:
    """Write an image of a training atomically, compressed little: it is read many times and kept for one training.

    Parameters
    ----------
    path : Path
        ``.nii.gz`` file to write.
    data : (X, Y, Z) array
        Stored in its type, whole numbers of 64 bits in 32.
    affine : (4, 4) float
        Voxel index to scanner space (RAS+, mm).

    Raises
    ------
    OSError
        If it cannot be written.
    """
    stored = data.astype(np.int32) if data.dtype.kind in "iu" and data.dtype.itemsize > 4 else data
    _store(path, stored, _header_for(stored.shape, affine, None), compression=3)


def write_labels(
    path: Path | str,
    labels: NDArray[np.uint8],
    affine: Affine,
    like_header: nib.Nifti1Header | None = None,
    *,
    keep_units: bool = False,
) -> None:
    """Write a label image atomically; equal arrays and affines give equal bytes.

    Parameters
    ----------
    path : Path or str
        ``.nii`` or ``.nii.gz`` file to write.
    labels : (X, Y, Z) uint8
        Label map.
    affine : (4, 4) float
        Voxel index to scanner space (RAS+, mm).
    like_header : Nifti1Header, optional
        NIfTI header of the image on the same grid, whose qform, sform and their codes are kept.
    keep_units : bool
        Keep the units of that header too, instead of mm without a unit of time.

    Raises
    ------
    OSError
        If it cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_labels(Path(folder, "dseg.nii.gz"), np.ones((2, 3, 4), np.uint8), np.diag([1.0, 1.0, 3.0, 1.0]))
    ...     read_labels(Path(folder, "dseg.nii.gz")).spacing
    (1.0, 1.0, 3.0)
    """
    header = _header_for(labels.shape, affine, like_header, keep_units=keep_units)
    header.set_intent("label")
    _store(Path(path), np.asarray(labels, np.uint8), header)


def write_probability(
    path: Path | str, probability: NDArray[np.float32], affine: Affine, like_header: nib.Nifti1Header | None = None
) -> None:
    """Write a probability map atomically, stored in steps of 0.001 (int16 with a slope).

    Parameters
    ----------
    path : Path or str
        ``.nii`` or ``.nii.gz`` file to write.
    probability : (X, Y, Z) float32
        Values in [0, 1].
    affine : (4, 4) float
        Voxel index to scanner space (RAS+, mm).
    like_header : Nifti1Header, optional
        NIfTI header of the image on the same grid, whose qform, sform and their codes are kept.

    Raises
    ------
    OSError
        If it cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_probability(Path(folder, "p.nii.gz"), np.float32([[[0.0, 1 / 3]] * 2] * 2), np.eye(4))
    ...     round(float(read_image(Path(folder, "p.nii.gz")).data.max()), 4)
    0.333
    """
    steps = np.rint(np.clip(probability, 0.0, 1.0) / _PROBABILITY_STEP).astype(np.int16)
    _store(Path(path), steps, _header_for(steps.shape, affine, like_header), slope=_PROBABILITY_STEP)
