"""``totalspineseg-tools evaluate`` and ``compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from totalspineseg_bids.anatomy import LABEL_SCHEMES
from totalspineseg_bids.cli.tools_common import Subparsers, add_label_scheme, add_subcommand, bar, say, scheme_name
from totalspineseg_bids.errors import ExitCode, ImageError


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
        "--tolerance", type=_millimetres, default=1.0, metavar="MM", help="of the surface distance (default: 1)"
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


def _evaluate(options: argparse.Namespace) -> int:
    from totalspineseg_bids.evaluation.evaluate import evaluate
    from totalspineseg_bids.evaluation.evaluate_output import evaluation_table, write_evaluation
    from totalspineseg_bids.evaluation.pairing import pair_files

    pairs = pair_files(options.predicted, options.truth)
    missing = [truth for predicted, truth in pairs if predicted is None]
    if not options.missing_as_empty:
        pairs = [pair for pair in pairs if pair[0] is not None]
    with bar(len(pairs), "evaluate") as progress:
        result = evaluate(
            [predicted for predicted, _ in pairs],
            [truth for _, truth in pairs],
            label_scheme=options.label_scheme,
            truth_scheme=options.truth_scheme,
            tolerance_mm=options.tolerance,
            progress=lambda done, _total: progress.update(done - progress.n),
        )
    if not result.images:
        msg = f"none of {len(pairs)} pairs can be compared; the first: {result.failed[0][1]}"
        raise ImageError(msg)
    say(evaluation_table(result))
    for truth in missing:
        say(f"no prediction for {truth} ({'counts as empty' if options.missing_as_empty else 'left out'})")
    if options.output is not None:
        write_evaluation(result, options.output)
        say(f"written to {options.output}")
    return int(ExitCode.SUCCESS)


def _compare(options: argparse.Namespace) -> int:
    from totalspineseg_bids.evaluation.compare import compare_models, parse_predictions
    from totalspineseg_bids.evaluation.compare_output import comparison_table, write_comparison

    predictions = parse_predictions(options.predictions)
    with bar(0, "compare") as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        result = compare_models(
            predictions,
            options.truth,
            label_scheme=options.label_scheme,
            truth_scheme=options.truth_scheme,
            drop_missing=options.drop_missing,
            tolerance_mm=options.tolerance,
            progress=show,
        )
    say(comparison_table(result))
    if options.output is not None:
        write_comparison(result, options.output)
        say(f"written to {options.output}")
    return int(ExitCode.SUCCESS)
