"""Process one image from its file to the published derivatives."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import level_point_value, recorded_scheme, to_scheme
from totalspineseg_bids.app.crash import clear_crash
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.app.session import find_companions, read_companions
from totalspineseg_bids.bids.names import DerivativeNames, SourceImage
from totalspineseg_bids.bids.publish import is_complete, mark_complete, mark_incomplete, remove_files
from totalspineseg_bids.bids.sidecar import (
    Digests,
    Provenance,
    derivative_uri,
    describe_label_columns,
    format_json,
    label_table,
    make_image_sidecar,
    make_label_rows,
    make_main_sidecar,
)
from totalspineseg_bids.columns import MISSING
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.imaging.grid import restore_probability
from totalspineseg_bids.imaging.io import (
    LoadedImage,
    file_digest,
    load_image,
    write_labels,
    write_probability,
)
from totalspineseg_bids.imaging.memory import check_memory
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.measurement.measure import SpineMeasures, measure_spine
from totalspineseg_bids.segmentation.localizer import read_localizer
from totalspineseg_bids.segmentation.result import DiscPoint, LabelledSpine, SpineStatus, StageProgress

logger = logging.getLogger(__name__)


_DESCRIPTIONS = {
    "SC": "Probability of the spinal cord, from 0 to 1",
    "canal": "Probability of the spinal canal, from 0 to 1",
    "levels": "One voxel a disc level on the centreline of the canal: "  # language: ok
    "C1-C2 = 2, C2-C3 = 3, ... L5-S = 25",
    "labels": "Vertebrae, discs, spinal cord and canal as labels",
}


@dataclass(frozen=True, slots=True)
class ImageJob:
    """Image to process, with everything that its result depends on."""

    source: SourceImage
    """Source image."""
    names: DerivativeNames
    """Names of its derivatives."""
    digests: Digests
    """Digests of input, settings and model."""
    localizer: tuple[Path, str] | None = None
    """Label image of the same participant used as localizer, and its BIDS URI; ``None`` without one."""
    companions: tuple[SourceImage, ...] = ()
    """Images of the same session whose levels are found together with those of this one."""


def plan_image(
    source: SourceImage,
    config: RunConfig,
    loaded: LoadedSegmenter,
    localizer: SourceImage | None = None,
    session: Sequence[SourceImage] = (),
) -> ImageJob:
    """Return the job for an image.

    Parameters
    ----------
    source : SourceImage
        Source image.
    config : RunConfig
        Settings of the run.
    loaded : LoadedSegmenter
        Segmenter and its model.
    localizer : SourceImage, optional
        Image of the same participant whose labels are used as localizer if they exist.
    session : sequence of SourceImage
        Images of the same session, from which companions are selected.

    Raises
    ------
    MissingInputError, ImageError
        If the file does not exist or its content was not fetched.
    """
    digest = file_digest(source.path)
    found: tuple[Path, str] | None = None
    if localizer is not None and localizer != source:
        names, resolution = DerivativeNames.of(localizer), config.resolutions[-1]
        path = config.output_dir / names.labels(".nii.gz", resolution)
        if path.is_file():
            found = path, derivative_uri(names, resolution)
            digest = hashlib.sha256(f"{digest} {file_digest(path)}".encode()).hexdigest()
    companions = find_companions(source, session) if config.joint_session else ()
    if companions:
        # The levels of an image depend on its companions too: if one changes, the image is processed again.
        parts = " ".join(sorted(file_digest(companion.path) for companion in companions))
        digest = hashlib.sha256(f"{digest} {parts}".encode()).hexdigest()
    return ImageJob(
        source, DerivativeNames.of(source), Digests(digest, config.digest, loaded.digest), found, companions
    )


def is_done(job: ImageJob, config: RunConfig) -> bool:
    """Return whether the derivatives of a job are complete."""
    return is_complete(config.output_dir, job.names, config.resolutions[-1], job.digests)


def process_image(
    job: ImageJob, config: RunConfig, loaded: LoadedSegmenter, progress: StageProgress | None = None
) -> LabelledSpine:
    """Segment one image and publish its derivatives, the main sidecar last.

    Parameters
    ----------
    job : ImageJob
        The image.
    config : RunConfig
        Settings of the run.
    loaded : LoadedSegmenter
        The segmenter.
    progress : StageProgress, optional
        Called with the name of the stage and the completed fraction of it.

    Raises
    ------
    SpineAppError
        If the image or the model cannot be used.
    OSError
        If the output cannot be written.
    """
    if warning := check_memory(job.source.path, config.memory_mb):
        logger.warning("%s: %s", job.source.name, warning)
    image = load_image(job.source.path, volume=config.volume)
    for note in image.notes:
        logger.warning("%s: %s", job.source.name, note)
    localizer = None if job.localizer is None else read_localizer(job.localizer[0], config.label_scheme)
    companions = read_companions(job.companions, job.source, config)
    volume = replace(image.volume, acquisition=job.source.acquisition)
    spine = loaded.segmenter.segment(volume, localizer=localizer, companions=companions, progress=progress)
    if progress is not None:
        progress("measure and write", 0.0)
    writer = _Writer(job, config, loaded, image, spine)
    if not config.force and is_done(job, config):
        # Another run completed the image in the meantime; its result is the same and stays available.
        logger.info("%s: completed by another run meanwhile", job.source.name)
        return spine
    former = mark_incomplete(config.output_dir, job.names)
    try:
        written = writer.publish()
    except Exception:
        # A failed image has no result: remove partial new files and files of the former result.
        remove_files(config.output_dir, {*former, *mark_incomplete(config.output_dir, job.names)})
        raise
    remove_files(config.output_dir, set(former) - set(written))
    clear_crash(config.output_dir, job.source)
    return spine


def draw_disc_points(points: Sequence[DiscPoint], geometry: Geometry) -> NDArray[np.uint8]:
    """Return an image with one voxel per disc level; levels outside the grid or without a value are omitted.

    Parameters
    ----------
    points : sequence of DiscPoint
        Points at which the disc levels meet the centreline of the canal.
    geometry : Geometry
        Grid of the image.
    """
    image = np.zeros(geometry.shape, np.uint8)
    inverse = np.linalg.inv(geometry.affine)
    for point in points:
        value = level_point_value(point.level)
        if value is None:
            continue
        voxel = np.rint(inverse[:3, :3] @ np.asarray(point.position_mm) + inverse[:3, 3]).astype(int)
        if (voxel >= 0).all() and (voxel < geometry.shape).all():
            image[tuple(voxel)] = value
    return image


class _Writer:
    """Writer of the derivatives of one image."""

    def __init__(
        self, job: ImageJob, config: RunConfig, loaded: LoadedSegmenter, image: LoadedImage, spine: LabelledSpine
    ) -> None:
        self.job, self.config, self.image, self.spine = job, config, image, spine
        self.output, self.names = config.output_dir, job.names
        self.provenance = Provenance(
            job.source,
            loaded.model,
            loaded.bundled,
            job.digests,
            settings={
                "label_scheme": recorded_scheme(config.label_scheme),
                "output_resolution": config.output_resolution,
                "quality": config.quality,
                "single_step": config.single_step,
                "step1_only": config.step1_only,
                "localizer": config.localizer,
                "joint_with": [companion.relative for companion in job.companions] or None,
                "volume": config.volume if image.volumes > 1 else None,
            },
            notes=image.notes,
            localizer=job.localizer[1] if job.localizer else None,
        )
        self.measures = self._measure()
        self.rows = make_label_rows(
            spine.components, self.measures.levels if self.measures else [], config.label_scheme
        )
        self.written: list[str] = []

    def _measure(self) -> SpineMeasures | None:
        if self.spine.status is SpineStatus.NO_SPINE:
            return None
        spine = self.spine
        source = self.image.volume.affine
        return measure_spine(spine.labels, spine.affine, spine.components, spine.centerline_mm, source_affine=source)

    def publish(self) -> list[str]:
        """Write all derivatives, the main sidecar last, and return their paths below the output folder."""
        for resolution in self.config.resolutions:
            if self.spine.status is not SpineStatus.NO_SPINE:
                self._write_images(resolution)
            self._write_text(self.names.labels(".tsv", resolution), label_table(self.rows))
        figures = self._write_figures()
        *others, main = self.config.resolutions
        angles = self.measures.posture.as_row() if self.measures else {}
        posture = {name: value for name, value in angles.items() if value != MISSING}
        for resolution in others:
            sidecar = make_image_sidecar(self.provenance, _DESCRIPTIONS["labels"], resolution)
            self._write_text(
                self.names.labels(".json", resolution), format_json({**sidecar, **describe_label_columns()})
            )
        content = make_main_sidecar(
            self.provenance, self.spine, outputs=self.written, figures=figures, posture=posture, resolution=main
        )
        mark_complete(self.output, self.names, main, content)
        # The mark too: a run beside this one may have set it after this one's `mark_incomplete`, as a file of its own.
        return [*self.written, *figures.values(), self.names.labels(".json", main)]

    def _write_text(self, name: str, text: str) -> None:
        write_text(self.output / name, text)
        self.written.append(name)

    def _grid(self, resolution: str | None) -> tuple[Geometry, object]:
        if resolution is None:
            return self.image.volume.geometry, self.image.header
        return Volume(self.spine.labels, self.spine.affine).geometry, None

    def _write_images(self, resolution: str | None) -> None:
        spine, names = self.spine, self.names
        geometry, header = self._grid(resolution)
        labels = spine.labels if resolution else spine.labels_on(geometry)
        self._label_image(
            names.labels(".nii.gz", resolution), to_scheme(labels, self.config.label_scheme), geometry, header
        )
        if spine.disc_points:
            name = names.points(".nii.gz", resolution)
            self._label_image(name, draw_disc_points(spine.disc_points, geometry), geometry, header)
            self._describe(names.points(".json", resolution), "levels", resolution)
        for label, probability in (("SC", spine.cord_probability), ("canal", spine.canal_probability)):
            if probability is None:
                continue
            values = probability if resolution else restore_probability(probability, spine.affine, geometry)
            name = names.probability(label, ".nii.gz", resolution)
            write_probability(self.output / name, values, geometry.affine, header)
            self.written.append(name)
            self._describe(names.probability(label, ".json", resolution), label, resolution)

    def _label_image(self, name: str, labels: NDArray[np.uint8], geometry: Geometry, header: object) -> None:
        write_labels(self.output / name, labels, geometry.affine, header)
        self.written.append(name)

    def _describe(self, name: str, what: str, resolution: str | None) -> None:
        self._write_text(name, format_json(make_image_sidecar(self.provenance, _DESCRIPTIONS[what], resolution)))

    def _write_figures(self) -> dict[str, str]:
        # A figure that cannot be drawn must not prevent the publication of the result.
        from totalspineseg_bids.imaging.centerline import Centerline  # noqa: PLC0415 - loads scipy
        from totalspineseg_bids.report.figures import write_figures  # noqa: PLC0415 - loads the drawing library

        folder = self.output / self.names.figures
        folder.mkdir(parents=True, exist_ok=True)
        try:
            files = write_figures(
                folder,
                self.names.figure_stem,
                self.image.volume,
                self.spine.labels,
                self.spine.affine,
                centerline=Centerline.from_polyline(self.spine.centerline_mm),
                full_resolution=self.config.full_viewer,
            )
        except OSError:
            raise
        except Exception:
            logger.exception("%s: figures could not be drawn", self.job.source.name)
            return {}
        return {kind: f"{self.names.figures}/{name}" for kind, name in files.items()}
