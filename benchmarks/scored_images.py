"""A part of a labelled dataset, and scores of its images that are kept from one call of a benchmark to the next."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from totalspineseg_bids.evaluation.evaluate import METRICS, evaluate
from totalspineseg_bids.evaluation.metrics import Outcome
from totalspineseg_bids.training.cases import TrainingCase, find_cases

(_DICE,) = (metric for metric in METRICS if metric.key == "dice_levels")


def image_slice(text: str) -> slice:
    """Read ``FIRST:LAST:STEP`` of the command line, each of which may be left out."""
    try:
        return slice(*(int(part) if part else None for part in text.split(":")))
    except (ValueError, TypeError) as error:
        msg = f"{text} is not FIRST:LAST:STEP, such as ::10"
        raise argparse.ArgumentTypeError(msg) from error


def cases_of(bids: Path, images: slice) -> list[TrainingCase]:
    """Return the chosen images of a dataset with their labels."""
    return find_cases([bids])[0][images]


def score(labels: Path, case: TrainingCase) -> dict[str, Any]:
    """Return the Dice of each level in full view, and whether all names are right."""
    (image,) = evaluate([(labels, case.labels.levels[0])]).images
    return {"Dice": _DICE.values(image), "right": image.outcome is Outcome.RIGHT}


def summarize(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return mean seconds, mean Dice over all levels and the images that are all right."""
    records = list(records)
    return {
        "s": statistics.mean(record["s"] for record in records),
        "CPU s": statistics.mean(record["CPU s"] for record in records),
        "Dice": statistics.mean(value for record in records for value in record["Dice"]),
        "right": f"{sum(record['right'] for record in records)}/{len(records)}",
    }
