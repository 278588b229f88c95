"""DICOM segmentations of images that were converted from a DICOM series (optional package highdicom).

Source: DICOM PS3.3 A.51 (Segmentation) and PS3.16 CID 7150 and SNOMED CT codes of anatomical structures.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import BY_ID, Structure
from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.imaging.volume import Affine, Geometry

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

#: SNOMED CT code and meaning of each structure.
_CODES: Final = {
    Structure.VERTEBRA: ("51282000", "Vertebra"),
    Structure.DISC: ("360499006", "Intervertebral disc"),
    Structure.SACRUM: ("54735007", "Sacrum"),
    Structure.CANAL: ("61853006", "Spinal canal"),
    Structure.CORD: ("2748008", "Spinal cord"),
}
_CATEGORY: Final = ("123037004", "Anatomical structure")
_TOLERANCE_MM: Final = 0.1
_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


def _find_series(folder: Path, grid: Geometry) -> tuple[list[Dataset], NDArray[np.intp]] | None:
    """Find the DICOM series on the grid of an image; return its slices and the index of each voxel in the image."""
    series: dict[str, list[Dataset]] = {}
    for dataset in _read(folder):
        series.setdefault(str(dataset.SeriesInstanceUID), []).append(dataset)
    for _, slices in sorted(series.items()):
        ordered = _in_order(slices)
        if ordered is not None and (index := _to_series(grid, ordered)) is not None:
            return ordered, index
    return None


def _read(folder: Path) -> Iterator[Dataset]:
    try:
        import highdicom  # noqa: F401, PLC0415 - optional
        from pydicom import dcmread  # noqa: PLC0415
        from pydicom.errors import InvalidDicomError  # noqa: PLC0415
    except ImportError as error:
        msg = "DICOM segmentations need the package highdicom: pip install 'totalspineseg-bids[dicom]'"
        raise UsageError(msg) from error
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            dataset = dcmread(path)
        except (InvalidDicomError, OSError):
            continue
        if "ImagePositionPatient" in dataset and "ImageOrientationPatient" in dataset and "Rows" in dataset:
            yield dataset


def _normal(dataset: Dataset) -> NDArray[np.float64]:
    row, column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    return np.cross(row, column)


def _in_order(slices: Sequence[Dataset]) -> list[Dataset] | None:
    """Sort single-frame slices along their normal; ``None`` if their planes or sizes differ."""
    first = slices[0]
    same = all(
        np.allclose(
            np.array(s.ImageOrientationPatient, float), np.array(first.ImageOrientationPatient, float), atol=1e-4
        )
        and (s.Rows, s.Columns, s.get("NumberOfFrames", 1)) == (first.Rows, first.Columns, 1)
        for s in slices
    )
    normal = _normal(first)
    return sorted(slices, key=lambda s: float(normal @ np.array(s.ImagePositionPatient, float))) if same else None


def _series_affine(slices: Sequence[Dataset]) -> Affine:
    """Return the affine of (slice, row, column) to scanner space (RAS+, mm)."""
    row, column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(v) for v in slices[0].PixelSpacing)
    first, last = (np.array(s.ImagePositionPatient, float) for s in (slices[0], slices[-1]))
    step = (last - first) / (len(slices) - 1) if len(slices) > 1 else _normal(slices[0])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([step, column * between_rows, row * between_columns], axis=1)
    affine[:3, 3] = first
    return _TO_RAS @ affine


def _to_series(grid: Geometry, slices: Sequence[Dataset]) -> NDArray[np.intp] | None:
    """Return the voxel index of the image at each voxel of the series, shape (S, R, C, 3); ``None`` if grids differ."""
    shape = (len(slices), int(slices[0].Rows), int(slices[0].Columns))
    if sorted(shape) != sorted(grid.shape):
        return None
    matrix = np.linalg.inv(grid.affine) @ _series_affine(slices)
    index = apply_affine(matrix, np.moveaxis(np.indices(shape), 0, -1))
    nearest = np.rint(index).astype(np.intp)
    off = np.abs(index - nearest).max(axis=(0, 1, 2)) * grid.spacing
    inside = (nearest >= 0).all() and (nearest < grid.shape).all()
    return nearest if inside and (off < _TOLERANCE_MM).all() else None


def write_dicom_segmentation(
    path: Path, labels: NDArray[np.uint8], grid: Geometry, folder: Path, *, model: str
) -> bool:
    """Write labels as a DICOM segmentation that refers to the series of an image; equal labels give equal identifiers.

    Parameters
    ----------
    path : Path
        File to write.
    labels : (X, Y, Z) uint8
        Canonical ids.
    grid : Geometry
        Grid of the labels.
    folder : Path
        Folder with DICOM files at any depth.
    model : str
        Name of the model, for the description of the algorithm.

    Returns
    -------
    bool
        Whether the folder holds a series with the voxels of the image; without one, a warning is logged.

    Raises
    ------
    UsageError
        If highdicom is not installed.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> grid = Geometry((320, 320, 15), np.eye(4))
    >>> write_dicom_segmentation(Path("dseg.dcm"), labels, grid, Path("dicom"), model="bundled")  # doctest: +SKIP
    """
    found = _find_series(folder, grid)
    if found is None:
        logger.warning("%s: %s holds no DICOM series with its voxels", path.name, folder)
        return False
    import highdicom as hd  # noqa: PLC0415 - optional
    from highdicom.sr import CodedConcept  # noqa: PLC0415

    slices, index = found
    values = labels[tuple(np.moveaxis(index, -1, 0))]
    present = [BY_ID[int(value)] for value in np.unique(values) if value]
    algorithm = hd.AlgorithmIdentificationSequence(
        name="totalspineseg_bids",
        family=CodedConcept("113037", "DCM", "Artificial intelligence"),
        version=__version__,
        parameters={"model": model},
    )
    category = CodedConcept(_CATEGORY[0], "SCT", _CATEGORY[1])
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label.name,
            segmented_property_category=category,
            segmented_property_type=CodedConcept(_CODES[label.structure][0], "SCT", _CODES[label.structure][1]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=_uid(slices, label.name),
            tracking_id=label.name,
        )
        for number, label in enumerate(present, start=1)
    ]
    numbers = np.zeros(256, np.uint8)
    for number, label in enumerate(present, start=1):
        numbers[label.id] = number
    content = hashlib.sha256(values.tobytes()).hexdigest()
    segmentation: Any = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=numbers[values],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=_uid(slices, f"series {content}"),
        series_number=1000 + int(slices[0].get("SeriesNumber") or 0),
        sop_instance_uid=_uid(slices, f"instance {content}"),
        instance_number=1,
        manufacturer="totalspineseg_bids",
        manufacturer_model_name="totalspineseg_bids",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SPINE",
        content_description="Vertebrae, discs, cord, canal",
    )
    stream = BytesIO()
    segmentation.save_as(stream)
    write_bytes(path, stream.getvalue())
    return True


def _uid(slices: Sequence[Dataset], text: str) -> str:
    """Return an identifier that depends on the series and a text only (UUID-derived, DICOM PS3.5 B.2)."""
    digest = hashlib.sha256(f"{slices[0].SeriesInstanceUID} {text}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
