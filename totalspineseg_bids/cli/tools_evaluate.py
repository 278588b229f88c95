"""``totalspineseg-tools evaluate`` and ``compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from totalspineseg_bids.anatomy import LABEL_SCHEMES
from totalspineseg_bids.cli.tools_common import Subparsers, add_label_scheme, add_subcommand, say, scheme_name
from totalspineseg_bids.errors import ImageError


def add_subcommands(subparsers: Subparsers) -> None:
    """Add ``evaluate`` and ``compare``."""
    parser = add_subcommand(
        subparsers,
        "evaluate",
        _evaluate,
        "compare labelled images with their truth: Dice, surface distance, identification, localisation",
        "Two files or two folders; files pair by name or by BIDS entities. Structures that the field of view cuts "
        "do not count.",
    )
    parser.add_argument("predicted", type=Path, metavar="PRED")
    parser.add_argument("truth", type=Path, metavar="TRUTH")
    parser.add_argument(
        "--missing-as-empty", action="store_true", help="count a truth without a prediction as one that finds nothing"
    )
    _add_shared(parser)
    parser = add_subcommand(
        subparsers,
        "compare",
        _compare,
        "put the predictions of two or more models side by side on the same truth",
        "The others are compared with the first, for instance: compare TRUTH two-step=A single-step=B. An image "
        "without a prediction counts as one in which nothing was found.",
    )
    parser.add_argument("truth", type=Path, metavar="TRUTH")
    parser.add_argument("predictions", nargs="+", metavar="NAME=PRED", help="name and file or folder of each model")
    parser.add_argument(
        "--drop-missing", action="store_true", help="leave out images that not every model has a prediction for"
    )
    _add_shared(parser)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write TSV, JSON and an HTML page there")
    add_label_scheme(parser, "of the predictions")
    parser.add_argument(
        "--truth-scheme", type=scheme_name, choices=LABEL_SCHEMES, help="ids of the truth, where they differ"
    )
    parser.add_argument(
        "--tolerance",
        dest="tolerance_mm",
        type=_millimetres,
        default=1.0,
        metavar="MM",
        help="of the surface distance (default: 1)",
    )


def _millimetres(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 100:
        msg = f"'{text}' is not a distance in mm above 0 and below 100"
        raise argparse.ArgumentTypeError(msg)
    return value


def _evaluate(predicted: Path, truth: Path, missing_as_empty: bool, output: Path | None, **options: Any) -> None:
    from totalspineseg_bids.evaluation.evaluate import evaluate
    from totalspineseg_bids.evaluation.evaluate_output import evaluation_table, write_evaluation
    from totalspineseg_bids.evaluation.pairing import pair_files

    pairs = pair_files(predicted, truth)
    missing = [wanted for found, wanted in pairs if found is None]
    if not missing_as_empty:
        pairs = [pair for pair in pairs if pair[0] is not None]
    result = evaluate(pairs, **options)
    if not result.images:
        msg = f"none of {len(pairs)} pairs can be compared; the first: {result.failed[0][1]}"
        raise ImageError(msg)
    say(evaluation_table(result))
    for wanted in missing:
        say(f"no prediction for {wanted} ({'counts as empty' if missing_as_empty else 'left out'})")
    if output is not None:
        write_evaluation(result, output)
        say(f"written to {output}")


def _compare(truth: Path, predictions: list[str], output: Path | None, **options: Any) -> None:
    from totalspineseg_bids.evaluation.compare import compare_models, parse_predictions
    from totalspineseg_bids.evaluation.compare_output import comparison_table, write_comparison

    result = compare_models(parse_predictions(predictions), truth, **options)
    say(comparison_table(result))
    if output is not None:
        write_comparison(result, output)
        say(f"written to {output}")
