"""Process one image from its file to the published derivatives."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import level_point_value, recorded_scheme, to_scheme
from totalspineseg_bids.app.corrections import CorrectionFiles, ImageCorrections, correct
from totalspineseg_bids.app.crash import clear_crash
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.app.session import find_companions, read_companions
from totalspineseg_bids.app.uncorrected import SegmentedImage, read_uncorrected, write_uncorrected
from totalspineseg_bids.bids.names import PROBABILITIES, RESOLUTIONS, DerivativeNames, SourceImage
from totalspineseg_bids.bids.publish import is_complete, mark_incomplete, remove_files
from totalspineseg_bids.bids.sidecar import (
    LABEL_COLUMNS,
    LABEL_DICTIONARY,
    Digests,
    format_json,
    format_value_table,
    make_image_sidecar,
    make_label_rows,
    read_software_versions,
)
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.columns import describe_columns
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
from totalspineseg_bids.measurement.levels import COLUMNS, PROFILE_COLUMNS
from totalspineseg_bids.measurement.quality import measure_quality
from totalspineseg_bids.segmentation.corrections import digest_labels
from totalspineseg_bids.segmentation.disc_points import draw_disc_points
from totalspineseg_bids.segmentation.localizer import read_localizer
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus, StageProgress

if TYPE_CHECKING:
    from totalspineseg_bids.measurement.measure import SpineMeasures

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
    corrections: ImageCorrections = field(default_factory=ImageCorrections)
    """Corrections of readers."""


def plan_image(
    source: SourceImage,
    config: RunConfig,
    loaded: LoadedSegmenter,
    localizer: SourceImage | None = None,
    session: Sequence[SourceImage] = (),
    *,
    corrections: CorrectionFiles | None = None,
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
    corrections : CorrectionFiles, optional
        Corrections of readers; without them, those that the former result records are kept.

    Raises
    ------
    MissingInputError, ImageError
        If the file does not exist or its content was not fetched.
    """
    digest = file_digest(source.path)
    found: tuple[Path, str] | None = None
    if localizer is not None and localizer != source:
        others, resolution = DerivativeNames.of(localizer), config.resolutions[-1]
        path = config.output_dir / others.labels(".nii.gz", resolution)
        if path.is_file():
            found = path, f"bids::{others.labels('.nii.gz', resolution)}"
            digest = hashlib.sha256(f"{digest} {file_digest(path)}".encode()).hexdigest()
    companions = find_companions(source, session) if config.joint_session else ()
    if companions:
        # The levels of an image depend on its companions too: if one changes, the image is processed again.
        parts = " ".join(sorted(file_digest(companion.path) for companion in companions))
        digest = hashlib.sha256(f"{digest} {parts}".encode()).hexdigest()
    names = DerivativeNames.of(source)
    if corrections is None:
        corrected = ImageCorrections.recorded(config.output_dir, names)
    else:
        corrected = corrections.of(source.name)
    digests = Digests(digest, config.digest, loaded.digest, corrected.digest, " ".join(config.export))
    return ImageJob(source, names, digests, found, companions, corrected)


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
    stored = None if config.force else read_uncorrected(config.output_dir, job.names, job.digests)
    if stored is None:
        loaded.preload()
    image = load_image(job.source.path, volume=config.volume)
    for note in image.notes:
        logger.warning("%s: %s", job.source.name, note)
    if stored is None:
        localizer = None if job.localizer is None else read_localizer(job.localizer[0], config.label_scheme)
        companions = read_companions(job.companions, job.source, config)
        volume = replace(image.volume, acquisition=job.source.acquisition)
        spine = loaded.segmenter.segment(volume, localizer=localizer, companions=companions, progress=progress)
        before = SegmentedImage(spine, spine.labels_on(image.volume.geometry))
    else:
        before = stored
    if progress is not None:
        progress("measure and write", 0.0)
    after = correct(before, job.corrections, job.source, image.volume, config.label_scheme)
    writer = _Writer(job, config, loaded, image, before=before, after=after)
    if not config.force and is_done(job, config):
        # Another run completed the image in the meantime; its result is the same and stays available.
        logger.info("%s: completed by another run meanwhile", job.source.name)
        return after.spine
    former = mark_incomplete(config.output_dir, job.names, keep_uncorrected=stored is not None)
    try:
        written = writer.publish()
    except Exception:
        # A failed image has no result: remove partial new files and files of the former result.
        remove_files(config.output_dir, {*former, *mark_incomplete(config.output_dir, job.names)})
        raise
    remove_files(config.output_dir, set(former) - set(written))
    clear_crash(config.output_dir, job.source)
    return after.spine


class _Writer:
    """Writer of the derivatives of one image."""

    def __init__(
        self,
        job: ImageJob,
        config: RunConfig,
        loaded: LoadedSegmenter,
        image: LoadedImage,
        *,
        before: SegmentedImage,
        after: SegmentedImage,
    ) -> None:
        self.job, self.config, self.loaded, self.image, self.before = job, config, loaded, image, before
        self.spine, self.native = after.spine, after.native
        self.output, self.names = config.output_dir, job.names
        self.has_spine = self.spine.status is not SpineStatus.NO_SPINE
        self.measures = self._measure() if self.has_spine else None
        self.written: list[str] = []

    def _measure(self) -> SpineMeasures:
        from totalspineseg_bids.measurement.measure import measure_spine  # noqa: PLC0415 - loads scipy

        return measure_spine(self.spine, self.image.volume)

    def publish(self) -> list[str]:
        """Write all derivatives, the main sidecar last, and return their paths below the output folder."""
        rows = make_label_rows(
            self.spine.components, self.measures.levels if self.measures else [], self.config.label_scheme
        )
        for resolution in self.config.resolutions:
            if self.has_spine:
                self._write_images(resolution)
            self._write_text(self.names.labels(".tsv", resolution), format_table((*LABEL_COLUMNS, *COLUMNS), rows))
        if self.measures and self.measures.profile:
            areas = [point.as_row() for point in self.measures.profile]
            self._write_text(self.names.profile(".tsv"), format_table(list(PROFILE_COLUMNS), areas))
            self._write_text(self.names.profile(".json"), format_json(describe_columns(PROFILE_COLUMNS.values())))
        if self.has_spine:
            self._write_uncorrected()
        if self.has_spine and self.config.export:
            self._write_exports()
        figures = self._write_figures()
        *others, main = self.config.resolutions
        for resolution in others:
            self._describe(self.names.labels(".json", resolution), "labels", resolution, **LABEL_DICTIONARY)
        content = self._main_sidecar(figures)
        self._describe(self.names.labels(".json", main), "labels", main, **content)
        # The mark too: a run beside this one may have set it after this one's `mark_incomplete`, as a file of its own.
        return [*self.written, *figures.values()]

    def _main_sidecar(self, figures: dict[str, str]) -> dict[str, object]:
        """Return the entries of the sidecar of the label image; an image that has this file is complete."""
        job, config, loaded, spine = self.job, self.config, self.loaded, self.spine
        corrections = job.corrections.describe(self.output)
        return {
            "Manual": "EditedMap" in (corrections or {}),
            "Status": spine.status.value,
            "Reason": spine.reason,
            "Flags": list(spine.flags),
            "InputNotes": list(self.image.notes),
            "LevelsInView": [c.level for c in spine.components if c.level is not None],
            "Posture": self.measures.posture.as_values() if self.measures else {},
            "ImageQuality": measure_quality(self.image.volume, self.native).as_values() if self.measures else {},
            "Model": {"Name": loaded.model, "Bundled": loaded.bundled},
            "Settings": {
                "label_scheme": recorded_scheme(config.label_scheme),
                "output_resolution": config.output_resolution,
                "quality": config.quality,
                "roi": config.roi,
                "precision": list(self.before.spine.precisions) or None,
                "single_step": config.single_step,
                "step1_only": config.step1_only,
                "localizer": config.localizer,
                "joint_with": [companion.relative for companion in job.companions] or None,
                "volume": config.volume if self.image.volumes > 1 else None,
            },
            "Digests": job.digests.as_dict(),
            # Corrections refer to the map before them.
            "LabelsDigest": digest_labels(self.before.spine)
            if self.before.spine.status is not SpineStatus.NO_SPINE
            else None,
            "Corrections": corrections,
            "SoftwareUsed": read_software_versions(),
            "Outputs": sorted(self.written),
            "Figures": dict(sorted(figures.items())),
            **LABEL_DICTIONARY,
        }

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
        labels = spine.labels if resolution else self.native
        self._label_image(
            names.labels(".nii.gz", resolution), to_scheme(labels, self.config.label_scheme), geometry, header
        )
        if spine.disc_points:
            name = names.points(".nii.gz", resolution)
            self._label_image(name, draw_disc_points(spine.disc_points, geometry), geometry, header)
            missing = [p.level for p in spine.disc_points if level_point_value(p.level) is None]
            note = {"LevelsWithoutValue": missing} if missing else {}
            self._describe(names.points(".json", resolution), "levels", resolution, **note)
        for label, probability in (("SC", spine.cord_probability), ("canal", spine.canal_probability)):
            name = names.probability(label, ".nii.gz", resolution)
            if probability is None and name not in self.before.kept:
                continue
            if probability is not None:
                values = probability if resolution else restore_probability(probability, spine.affine, geometry)
                write_probability(self.output / name, values, geometry.affine, header)
            self.written.append(name)
            self._describe(names.probability(label, ".json", resolution), label, resolution)

    def _write_uncorrected(self) -> None:
        """Write the result before corrections, or keep it; after the probability maps, for which it vouches."""
        name = self.names.uncorrected
        if name not in self.before.kept:
            maps = {self.names.probability(label, ".nii.gz", r) for label in PROBABILITIES for r in RESOLUTIONS}
            files = [*(file for file in self.written if file in maps), name]
            write_uncorrected(self.output, self.names, self.job.digests, self.before, files)
        self.written.append(name)

    def _label_image(self, name: str, labels: NDArray[np.uint8], geometry: Geometry, header: object) -> None:
        write_labels(self.output / name, labels, geometry.affine, header)
        self.written.append(name)

    def _describe(self, name: str, what: str, resolution: str | None, **further: object) -> None:
        sources = [self.job.source.uri, *([self.job.localizer[1]] if self.job.localizer else [])]
        content = make_image_sidecar(_DESCRIPTIONS.get(what, what), sources, resolution)
        self._write_text(name, format_json({**content, **further}))

    def _write_exports(self) -> None:
        from totalspineseg_bids.exports import ExportedText, make_exports  # noqa: PLC0415 - only where it is asked for

        main, names = self.config.resolutions[-1], self.names
        geometry, header = self._grid(main)
        labels = self.spine.labels if main else self.native
        for product in make_exports(self.config.export, self.spine, labels, geometry):
            if isinstance(product, ExportedText):
                self._write_text(names.exported_file(product.kind), product.text)
                continue
            self._label_image(names.exported_map(product.kind, ".nii.gz"), product.labels, geometry, header)
            self._write_text(names.exported_map(product.kind, ".tsv"), format_value_table(product.values))
            self._describe(names.exported_map(product.kind, ".json"), product.description, main)
        if "dicom" in self.config.export:
            self._write_dicom()

    def _write_dicom(self) -> None:
        from totalspineseg_bids.exports import write_dicom_segmentation  # noqa: PLC0415 - optional package

        folder = self.config.dicom_dir or Path()
        for part in (f"sub-{self.job.source.participant}", f"ses-{self.job.source.session}"):
            folder = folder / part if (folder / part).is_dir() else folder
        name, grid = self.names.exported_file("dseg.dcm"), self.image.volume.geometry
        if write_dicom_segmentation(self.output / name, self.native, grid, folder, model=self.loaded.model):
            self.written.append(name)

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
