"""Paired comparison of two or more models on the images of one test set.

Every model is measured on the same images. An image for which a model has no prediction counts as one in which it found
nothing, unless such images are left out for all models. The difference to the first model comes with a bootstrap
interval over images (Efron, Annals of Statistics 7, 1979), because levels of one image are not independent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from totalspineseg_bids.anatomy import DEFAULT_SCHEME, LabelScheme
from totalspineseg_bids.errors import NothingSelectedError, SpineAppError, UsageError
from totalspineseg_bids.evaluation.evaluate import METRICS, Evaluation, Metric, compare_files, tags_of
from totalspineseg_bids.evaluation.metrics import ImageResult
from totalspineseg_bids.evaluation.pairing import pair_files
from totalspineseg_bids.evaluation.surface_distance import TOLERANCE_MM
from totalspineseg_bids.progress import track

logger = logging.getLogger(__name__)

_DRAWS = 2000


class Difference(NamedTuple):
    """Difference of a metric to that of the first model, with the 95 % interval of a bootstrap over images."""

    value: float
    low: float
    high: float


class ComparedMetric(NamedTuple):
    """One metric of several models."""

    metric: Metric
    figures: dict[str, float]
    """Of each model."""
    differences: dict[str, Difference]
    """Of each model but the first, to the first."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Evaluations of several models on the same images; the first model is the reference."""

    models: dict[str, Evaluation]
    """Evaluation by name; all hold the same images in the same order."""
    left_out: tuple[tuple[str, str], ...]
    """Images that could not be compared for every model, with the reason."""
    without_prediction: dict[str, int]
    """By model, how many images it has no prediction for and that count as empty."""

    @property
    def images(self) -> tuple[ImageResult, ...]:
        """The images as the first model labelled them."""
        return self.reference.images

    @property
    def reference(self) -> Evaluation:
        """Evaluation of the first model."""
        return next(iter(self.models.values()))

    def difference(self, key: str, model: str) -> Difference:
        """Return a metric of a model less that of the first model."""
        own, other = (evaluation.sums[key] for evaluation in (self.models[model], self.reference))
        value = self.models[model].figure(key) - self.reference.figure(key)
        if math.isnan(value) or len(own) < 2:
            return Difference(value, float("nan"), float("nan"))
        draws = np.random.default_rng(0).integers(0, len(own), (_DRAWS, len(own)))
        sums, others = own[draws].sum(axis=1), other[draws].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = sums[:, 0] / sums[:, 1] - others[:, 0] / others[:, 1]
        spread = spread[np.isfinite(spread)]
        low, high = np.percentile(spread, [2.5, 97.5]) if len(spread) else (np.nan, np.nan)
        return Difference(value, float(low), float(high))

    def groups(self) -> Iterator[tuple[str, str, Comparison]]:
        """Yield tag, value and comparison over all images and over the images of each value of each tag."""
        groups = {name: evaluation.groups() for name, evaluation in self.models.items()}
        for number, (tag, value, _) in enumerate(self.reference.groups()):
            yield tag, value, replace(self, models={name: found[number][2] for name, found in groups.items()})

    def rows(self) -> Iterator[ComparedMetric]:
        """Yield each metric."""
        for metric in METRICS:
            figures = {name: found.figure(metric.key) for name, found in self.models.items()}
            differences = {name: self.difference(metric.key, name) for name in list(self.models)[1:]}
            yield ComparedMetric(metric, figures, differences)


def compare_models(
    predictions: Mapping[str, Path],
    truth: Path,
    *,
    label_scheme: LabelScheme = DEFAULT_SCHEME,
    truth_scheme: LabelScheme | None = None,
    drop_missing: bool = False,
    tolerance_mm: float = TOLERANCE_MM,
) -> Comparison:
    """Measure the predictions of several models on the same images.

    Parameters
    ----------
    predictions : mapping of str to Path
        File or folder of each model by its name; the first is what the others are compared with.
    truth : Path
        File or folder of the truth; paired by `pair_files`.
    label_scheme, truth_scheme : LabelScheme, optional
        Ids of predictions and truth.
    drop_missing : bool, default False
        Leave out images that not every model has a prediction for, instead of counting them as empty.
    tolerance_mm : float, optional
        Of the normalised surface distance.

    Returns
    -------
    Comparison
        The same images for every model.

    Raises
    ------
    UsageError
        If there are fewer than two models.
    MissingInputError, NothingSelectedError
        If a folder does not exist, or no image is left to compare.
    """
    if len(predictions) < 2:
        msg = "name at least two predictions to compare, each as NAME=FOLDER"
        raise UsageError(msg)
    found = {name: pair_files(folder, truth) for name, folder in predictions.items()}
    truths = [path for _, path in next(iter(found.values()))]
    results: dict[str, list[ImageResult]] = {name: [] for name in predictions}
    without = dict.fromkeys(predictions, 0)
    left_out: list[tuple[str, str]] = []
    measure = partial(compare_files, label_scheme=label_scheme, truth_scheme=truth_scheme, tolerance_mm=tolerance_mm)
    for number, path in enumerate(track(truths, "compare")):
        own = {name: pairs[number][0] for name, pairs in found.items()}
        missing = [name for name, prediction in own.items() if prediction is None]
        if missing and drop_missing:
            left_out.append((path.name, f"no prediction of {', '.join(missing)}"))
            continue
        # One contrast for all models, so that they have the same groups.
        tags = tags_of(next(iter(own.values())), path)
        try:
            single = {name: measure(prediction, path, tags=tags) for name, prediction in own.items()}
        except SpineAppError as error:
            logger.warning("left out: %s", error)
            left_out.append((path.name, str(error)))
            continue
        for name, result in single.items():
            results[name].append(result)
            without[name] += name in missing
    if not any(results.values()):
        msg = f"{truth}: no image can be compared for every model; the first: {left_out[0][0]}: {left_out[0][1]}"
        raise NothingSelectedError(msg)
    models = {name: Evaluation(tuple(images), (), tolerance_mm) for name, images in results.items()}
    return Comparison(models, tuple(left_out), without)


def parse_predictions(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=FOLDER`` (or a folder alone, which is then named after itself) from the command line.

    Raises
    ------
    UsageError
        If a name comes twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals else text)
        name = name if equals else path.name
        if name in found:
            msg = f"two predictions are called '{name}'; name them apart as NAME=FOLDER"
            raise UsageError(msg)
        found[name] = path
    return found
