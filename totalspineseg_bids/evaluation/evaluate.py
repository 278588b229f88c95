"""Comparison of predictions with truths over a set of images: overall, per level, group and contrast."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LabelScheme
from totalspineseg_bids.errors import ImageError, SpineAppError
from totalspineseg_bids.evaluation.metrics import GROUPS, LEVELLED, ImageResult, LevelResult, Outcome, compare
from totalspineseg_bids.evaluation.surface_distance import TOLERANCE_MM
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.io import read_labels
from totalspineseg_bids.progress import track
from totalspineseg_bids.training.cases import IMAGE_SUFFIXES, parse_name

logger = logging.getLogger(__name__)


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return float(np.mean(finite)) if finite else float("nan")


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that is a mean over levels or images."""

    key: str
    title: str
    """`key`, `title`: for tables and for people."""
    unit: str
    """``"share"`` (0 to 1, shown with decimals), ``"rate"`` (0 to 1, shown as per cent) or ``"mm"``."""
    better: int
    """1 where more is better, -1 where less is."""
    values: Callable[[ImageResult], list[float]]
    """What one image adds to the mean; NaN counts as nothing."""


def _of_levels(attribute: str, group: str) -> Callable[[ImageResult], list[float]]:
    """Return the function that lists an attribute of the structures of a group in full view."""

    def values(image: ImageResult) -> list[float]:
        rows = (row for row in image.levels if row.full_view)
        rows = (row for row in rows if (row.structure in LEVELLED if group == "levels" else row.group == group))
        return [float(value) for row in rows if (value := getattr(row, attribute)) is not None]

    return values


def _outcome_rate(*outcomes: Outcome) -> Callable[[ImageResult], list[float]]:
    return lambda image: [float(image.outcome in outcomes)]


def _all_right(image: ImageResult) -> list[float]:
    return [float(image.all_right)] if image.levels_in_full_view else []


def _all_right_with_landmark(image: ImageResult) -> list[float]:
    return _all_right(image) if image.landmark_in_view else []


def _metrics() -> Iterator[Metric]:
    for key, title in (("dice", "Dice"), ("nsd", "NSD")):
        for group in ("levels", *GROUPS.values()):
            values = _of_levels(key, group)
            yield Metric(f"{key}_{group}", f"{title}, {group.replace('_', ' ')}", "share", 1, values)
    for group in ("levels", *(GROUPS[structure] for structure in GROUPS if structure in LEVELLED)):
        yield Metric(f"identified_{group}", f"identified, {group}", "rate", 1, _of_levels("identified", group))
    yield Metric("localisation_mm", "localisation error, mm", "mm", -1, _of_levels("distance_mm", "levels"))
    yield Metric("all_levels_right", "all levels right", "rate", 1, _all_right)
    yield Metric("all_levels_right_with_landmark", "… with a landmark in view", "rate", 1, _all_right_with_landmark)
    yield Metric("abstained", "abstained or empty", "rate", -1, _outcome_rate(Outcome.ABSTAINED, Outcome.EMPTY))
    yield Metric("silently_wrong", "silently wrong", "rate", -1, _outcome_rate(Outcome.WRONG))


#: What images and models are measured by, in the order of tables.
METRICS: tuple[Metric, ...] = tuple(_metrics())


@dataclass(frozen=True)
class Evaluation:
    """Results of a set of images."""

    images: tuple[ImageResult, ...]
    """Results of each image."""
    failed: tuple[tuple[str, str], ...] = ()
    """Images that could not be compared, with the reason."""
    tolerance_mm: float = TOLERANCE_MM
    """Of the normalised surface distance."""

    @cached_property
    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Sum and number of the values that each image adds to each metric, by key, shape (images, 2)."""
        found = {}
        for metric in METRICS:
            finite = ([value for value in metric.values(image) if not math.isnan(value)] for image in self.images)
            found[metric.key] = np.array([(sum(values), len(values)) for values in finite], float).reshape(-1, 2)
        return found

    def figure(self, key: str) -> float:
        """Return a metric; NaN over nothing.

        Means are over structures in full view in the truth, each structure of each image counting once, a missed one
        as 0.
        """
        total, number = self.sums[key].sum(axis=0)
        return float(total / number) if number else float("nan")

    def part(self, chosen: Collection[int]) -> Evaluation:
        """Return the evaluation of the images of some numbers."""
        return replace(self, images=tuple(self.images[number] for number in chosen))

    def groups(self) -> list[tuple[str, str, Evaluation]]:
        """Return tag, value and evaluation of each value of each tag, first those of ``"all"``, which every image has.

        Images without a tag have its value ``"n/a"``.
        """
        found = [("all", "all", self)]
        for tag in self.tags():
            values = np.array([image.tags.get(tag, "n/a") for image in self.images])
            found += [(tag, value, self.part(np.flatnonzero(values == value))) for value in sorted({*values.tolist()})]
        return found

    def tags(self) -> list[str]:
        """Return the names of the tags that images have."""
        return sorted({tag for image in self.images for tag in image.tags})

    def summary(self) -> dict[str, Any]:
        """Return the figures."""
        figures, images = {metric.key: self.figure(metric.key) for metric in METRICS}, self.images
        outcomes = Counter(image.outcome for image in images)

        def by_group(what: str) -> dict[str, float]:
            return {name: figures[f"{what}_{name}"] for name in GROUPS.values() if f"{what}_{name}" in figures}

        return {
            "images": len(images),
            "dice_levels": figures["dice_levels"],
            "dice": by_group("dice"),
            "nsd_levels": figures["nsd_levels"],
            "nsd": by_group("nsd"),
            "levels_in_full_view": sum(image.levels_in_full_view for image in images),
            "identification_rate_levels": figures["identified_levels"],
            "identification_rate": by_group("identified"),
            "localisation_mm": figures["localisation_mm"],
            "all_levels_right": figures["all_levels_right"],
            "images_with_landmark": sum(image.landmark_in_view for image in images if image.levels_in_full_view),
            "all_levels_right_with_landmark": figures["all_levels_right_with_landmark"],
            "outcomes": {outcome.value: outcomes[outcome] for outcome in Outcome},
            "silently_wrong": outcomes[Outcome.WRONG],
        }

    def by_level(self) -> list[dict[str, Any]]:
        """Return figures for each label, in the order of ``anatomy.LABELS``.

        A label that the predictions have and no truth shows in full view has no row.
        """
        rows: dict[str, list[LevelResult]] = defaultdict(list)
        for row in (row for image in self.images for row in image.levels if row.full_view):
            rows[row.name].append(row)
        return [
            {
                "name": label.name,
                "group": GROUPS[label.structure],
                "images": len(found),
                "dice": _mean(row.dice for row in found),
                "nsd": _mean(row.nsd for row in found),
                "identification_rate": _mean(row.identified for row in found if row.identified is not None),
                "localisation_mm": _mean(row.distance_mm for row in found),
            }
            for label in anatomy.LABELS
            if (found := rows.get(label.name))
        ]


def tags_of(prediction: Path | None, truth: Path) -> dict[str, str]:
    """Return the contrast that the name of the truth, or else of the prediction, has."""
    for name in (parse_name(path) for path in (truth, prediction) if path is not None):
        contrast = name.source_suffix or (name.suffix if name.suffix in IMAGE_SUFFIXES else None)
        if contrast:
            return {"contrast": contrast}
    return {}


def compare_files(
    pred_path: Path | None,
    truth_path: Path,
    *,
    label_scheme: LabelScheme,
    truth_scheme: LabelScheme | None,
    tags: dict[str, str],
    tolerance_mm: float,
) -> ImageResult:
    """Compare a labelled image with its truth, as `evaluate` does.

    Raises
    ------
    SpineAppError
        If one of them cannot be read, or the truth holds no label of the spine.
    """
    truth = read_labels(truth_path)
    wanted = anatomy.from_scheme(truth.data, truth_scheme or label_scheme)
    if not wanted.any():
        msg = f"{truth_path}: holds no label of the spine"
        raise ImageError(msg)
    if pred_path is None:
        labels = np.zeros_like(wanted)
    else:
        pred = read_labels(pred_path)
        labels = anatomy.from_scheme(pred.data, label_scheme)
        if not pred.geometry.same_grid(truth.geometry):
            labels = restore_labels(labels, pred.affine, truth.geometry)
    return compare(wanted, labels, truth.affine, truth_path.name, tags, tolerance_mm=tolerance_mm)


def evaluate(
    pairs: Sequence[tuple[Path | None, Path]],
    *,
    label_scheme: LabelScheme = anatomy.DEFAULT_SCHEME,
    truth_scheme: LabelScheme | None = None,
    tags: Sequence[dict[str, str]] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> Evaluation:
    """Compare labelled images with their truths.

    Predictions on another grid than the truth are brought to it. An image that cannot be compared is reported in
    ``failed`` and does not stop the others.

    Parameters
    ----------
    pairs : sequence of (Path or None, Path)
        Prediction and truth of each image. ``None`` stands for no prediction, which counts as one that finds nothing.
    label_scheme : LabelScheme, optional
        Ids of the predictions.
    truth_scheme : LabelScheme, optional
        Ids of the truths; the same by default.
    tags : sequence of dict of str to str, optional
        Properties of each image to group by; by default the contrast in its name.
    tolerance_mm : float, optional
        Of the normalised surface distance.

    Returns
    -------
    Evaluation
        Figures of each image.
    """
    images: list[ImageResult] = []
    failed: list[tuple[str, str]] = []
    measure = partial(compare_files, label_scheme=label_scheme, truth_scheme=truth_scheme, tolerance_mm=tolerance_mm)
    given = [tags_of(*pair) for pair in pairs] if tags is None else tags
    for (pred_path, truth_path), own in zip(track(pairs, "evaluate"), given, strict=True):
        try:
            images.append(measure(pred_path, truth_path, tags=own))
        except SpineAppError as error:  # noqa: PERF203 - costs no other image its comparison
            logger.warning("left out: %s", error)
            failed.append((str(pred_path or truth_path), str(error)))
    return Evaluation(tuple(images), tuple(failed), tolerance_mm)
