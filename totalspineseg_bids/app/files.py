"""Label single image files without BIDS, for the tools ``segment`` and ``label``."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LabelScheme
from totalspineseg_bids.app.segmenter import Segmenter
from totalspineseg_bids.errors import (
    ExitCode,
    ImageError,
    MissingInputError,
    NothingSelectedError,
    SpineAppError,
    UsageError,
    writing,
)
from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.imaging.grid import restore_probability
from totalspineseg_bids.imaging.io import (
    LoadedImage,
    VolumeChoice,
    is_nifti_name,
    load_image,
    write_labels,
    write_probability,
)
from totalspineseg_bids.imaging.memory import check_memory
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.inference.resources import memory_limit_mb
from totalspineseg_bids.segmentation.disc_points import draw_disc_points
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileJob:
    """Image and the path of its labels."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Options of `segment_files`: ids, further evidence and further outputs."""

    scheme: LabelScheme = anatomy.DEFAULT_SCHEME
    """Ids of the outputs."""
    localizer: Volume | None = None
    """Labelled image of the same person, canonical ids."""
    volume: VolumeChoice = "mean"
    """Volume of a 4D series: its index from 0, or the mean of all."""
    points: bool = False
    """Whether to write the image of disc points, as in the derivatives of the app."""
    probabilities: bool = False
    """Whether to write the probabilities of cord and canal, as in the derivatives of the app."""
    export: tuple[str, ...] = ()
    """Tools for which to write files: ``slicer``, ``itksnap``, ``sct``, ``parts``, ``dicom``."""
    dicom_dir: Path | None = None
    """Folder of the DICOM series that the images were converted from."""
    model: str = ""
    """Name of the model, recorded in DICOM segmentations."""


_DEFAULTS = FileOptions()


@dataclass(frozen=True, slots=True)
class FileResult:
    """Outcome of one image."""

    job: FileJob
    """Image and its output."""
    line: str
    """Line for the user."""
    error: SpineAppError | None = None
    """Error, if the image failed."""


def _images_below(root: Path) -> list[Path]:
    """Return the images of ``sub-*/[ses-*/]anat`` in a folder, or all its NIfTI files if there are none.

    Hidden files are left out, such as the ``._*`` files of macOS, which are no images.
    """
    nested = [p for pattern in ("sub-*/anat/*", "sub-*/ses-*/anat/*") for p in root.glob(pattern) if _is_shown(p, root)]
    if nested:
        return sorted(nested)
    return sorted(p for p in root.rglob("*") if _is_shown(p, root) and "derivatives" not in p.relative_to(root).parts)


def _is_shown(path: Path, root: Path) -> bool:
    return is_nifti_name(path) and not any(part.startswith(".") for part in path.relative_to(root).parts)


def check_output(source: Path, target: Path) -> None:
    """Reject an output that would replace its source or has no NIfTI name.

    Raises
    ------
    UsageError
        If the output is rejected.
    """
    if not is_nifti_name(target):
        msg = f"{target}: the output must be called .nii.gz or .nii"
        raise UsageError(msg)
    if target.resolve() == source.resolve():
        msg = f"{target}: the output would replace the input; choose another place"
        raise UsageError(msg)


def find_file_jobs(source: Path, target: Path) -> list[FileJob]:
    """Pair the images of a file or folder with the files to write.

    Parameters
    ----------
    source : Path
        An image, or a folder of images at any depth.
    target : Path
        A file or folder for an image; for a folder a folder, in which names and subfolders are kept.

    Raises
    ------
    MissingInputError
        If the source does not exist.
    NothingSelectedError
        If the folder holds no image.
    UsageError
        If an image would be replaced by its labels, or two images would have one record.
    """
    if source.is_file():
        into_folder = target.is_dir() or not is_nifti_name(target)
        jobs = [FileJob(source, target / source.name if into_folder else target)]
    elif source.is_dir():
        if target.is_file():
            msg = f"{target}: is a file; {source} is a folder and needs a folder for its output"
            raise UsageError(msg)
        inside = target.resolve()
        images = [
            path for path in _images_below(source) if inside == source.resolve() or inside not in path.resolve().parents
        ]
        jobs = [FileJob(path, target / path.relative_to(source)) for path in images]
        if not jobs:
            msg = f"{source}: no .nii or .nii.gz file in it"
            raise NothingSelectedError(msg)
    else:
        msg = f"{source}: no such file or folder"
        raise MissingInputError(msg)
    for job in jobs:
        check_output(job.source, job.target)
    records = Counter(_beside(job.target, ".json") for job in jobs)
    twins = [job.source.name for job in jobs if records[_beside(job.target, ".json")] > 1]
    if twins:
        msg = f"{source}: {' and '.join(twins[:2])} would give the same output; remove one of them"
        raise UsageError(msg)
    return jobs


def describe_spine(spine: LabelledSpine, scheme: LabelScheme) -> dict[str, Any]:
    """Return the content of a labelled spine as values that JSON can represent.

    Parameters
    ----------
    spine : LabelledSpine
        Labelled spine.
    scheme : LabelScheme
        Label scheme of the ids.
    """
    components = []
    for component in spine.components:
        label = anatomy.BY_ID[component.label_id]
        components.append(
            {
                "label": label.id_in(scheme),
                "name": label.name,
                "structure": component.structure.text,
                "level": component.level,
                "confidence": round(float(component.confidence), 4),
                "runner_up": component.runner_up,
                "reason": component.reason,
                "touches_edge": component.touches_edge,
                "volume_mm3": round(float(component.volume_mm3), 1),
                "centroid_mm": [round(float(value), 2) for value in component.centroid_mm],
            }
        )
    return {
        "status": spine.status.value,
        "reason": spine.reason,
        "flags": list(spine.flags),
        "label_scheme": anatomy.recorded_scheme(scheme),
        "hypothesis": None if spine.hypothesis is None else asdict(spine.hypothesis),
        "components": components,
    }


def write_report(path: Path, spine: LabelledSpine, scheme: LabelScheme) -> None:
    """Write the output of `describe_spine` to a JSON file."""
    write_text(path, json.dumps(describe_spine(spine, scheme), indent=1) + "\n")


def describe(name: str, spine: LabelledSpine) -> str:
    """Summarize a result in one line: status, levels or reason, doubtful levels, flags."""
    levels = [component.level for component in spine.components if component.level]
    parts = [spine.status.value]
    if levels:
        parts.append(f"{len(levels)} levels")
    if spine.status is not SpineStatus.LABELLED and spine.reason:
        parts.append(spine.reason)
    if doubtful := [component.level for component in spine.components if component.level and component.reason]:
        parts.append("doubtful: " + ", ".join(doubtful))
    if flags := [flag for flag in spine.flags if flag != "doubtful-levels"]:
        parts.append("look at: " + ", ".join(flags))
    return f"{name}: {'; '.join(parts)}"


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ending)


def is_file_done(job: FileJob) -> bool:
    """Return whether an image has labels, or a JSON file which says that it shows no spine."""
    report = read_json(_beside(job.target, ".json")) or {}
    return job.target.exists() or report.get("status") == SpineStatus.NO_SPINE.value


def _write_result(job: FileJob, image: LoadedImage, spine: LabelledSpine, options: FileOptions) -> None:
    """Write all files of an image; the labels, by which ``--skip-existing`` finds it complete, come last."""
    geometry = image.volume.geometry
    if (options.points or "sct" in options.export) and spine.disc_points:
        points = draw_disc_points(spine.disc_points, geometry)
        write_labels(_beside(job.target, "_points.nii.gz"), points, geometry.affine, image.header)
    if options.probabilities:
        for label, probability in (("SC", spine.cord_probability), ("canal", spine.canal_probability)):
            if probability is not None:
                values = restore_probability(probability, spine.affine, geometry)
                path = _beside(job.target, f"_label-{label}_probseg.nii.gz")
                write_probability(path, values, geometry.affine, image.header)
    write_report(_beside(job.target, ".json"), spine, options.scheme)
    if spine.status is SpineStatus.NO_SPINE:
        # Labels of an earlier run would contradict the record.
        job.target.unlink(missing_ok=True)
        return
    labels = spine.labels_on(geometry)
    if options.export:
        _write_exports(job.target, spine, labels, image, options)
    write_labels(job.target, anatomy.to_scheme(labels, options.scheme), geometry.affine, image.header)


def _write_exports(
    target: Path, spine: LabelledSpine, labels: NDArray[np.uint8], image: LoadedImage, options: FileOptions
) -> None:
    """Write the files for other tools beside the labels."""
    from totalspineseg_bids import exports  # noqa: PLC0415 - only where it is asked for

    grid = image.volume.geometry
    if "itksnap" in options.export:
        write_text(_beside(target, ".label"), anatomy.itksnap_table(options.scheme))
    if "slicer" in options.export:
        write_text(_beside(target, ".ctbl"), anatomy.slicer_table(options.scheme))
    for product in exports.make_exports(options.export, spine, labels, grid):
        if isinstance(product, exports.ExportedText):
            write_text(_beside(target, f"_{product.kind}"), product.text)
        else:
            write_labels(_beside(target, f"_{product.kind}.nii.gz"), product.labels, grid.affine, image.header)
    if "dicom" in options.export and options.dicom_dir is not None:
        exports.write_dicom_segmentation(_beside(target, ".dcm"), labels, grid, options.dicom_dir, model=options.model)


def segment_files(
    jobs: Sequence[FileJob], segmenter: Segmenter, options: FileOptions = _DEFAULTS
) -> Iterator[FileResult]:
    """Segment images one after the other; a failed image does not stop the others.

    Each image gets its labels and a JSON file with status, reason, levels and confidence (`describe_spine`), an image
    without a spine only the latter.

    Parameters
    ----------
    jobs : sequence of FileJob
        Images and their outputs.
    segmenter : Segmenter
        Segmenter.
    options : FileOptions
        Ids, further evidence and further outputs.

    Yields
    ------
    FileResult
        One result per image, in order.
    """
    for job in jobs:
        try:
            spine = _segment_one(job, segmenter, options)
        except SpineAppError as error:  # noqa: PERF203 - costs no other image its result
            yield FileResult(job, f"failed: {error}", error)
        except OSError:
            # A full disk or a missing folder is no problem of this image and affects the following ones too.
            raise
        except Exception as error:
            logger.debug("segmenting failed", exc_info=True)
            failure = ImageError(f"{job.source}: {type(error).__name__}: {error}")
            yield FileResult(job, f"failed: {failure}", failure)
        else:
            yield FileResult(job, describe(job.source.name, spine))


def _segment_one(job: FileJob, segmenter: Segmenter, options: FileOptions) -> LabelledSpine:
    if warning := check_memory(job.source, memory_limit_mb()):
        logger.warning("%s: %s", job.source, warning)
    image = load_image(job.source, volume=options.volume)
    for note in image.notes:
        logger.info("%s: %s", job.source, note)
    spine = segmenter.segment(image.volume, localizer=options.localizer)
    with writing(job.target, "choose another output"):
        _write_result(job, image, spine, options)
    return spine


def check_results(outcomes: Sequence[FileResult]) -> int:
    """Return the exit code of success, or raise one error for all failures.

    Raises
    ------
    SpineAppError
        With the exit code that the failures share, or that of an unspecified error. The message contains their number
        and the first of them.
    """
    failures = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not failures:
        return int(ExitCode.SUCCESS)
    first = failures[0]
    if len(outcomes) == 1:
        raise first
    summary = SpineAppError(f"{len(failures)} of {len(outcomes)} images failed; the first: {first}")
    codes = {failure.exit_code for failure in failures}
    summary.exit_code = codes.pop() if len(codes) == 1 else ExitCode.UNSPECIFIED
    raise summary
