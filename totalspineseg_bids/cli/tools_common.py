"""Options and output that the subcommands share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from totalspineseg_bids.anatomy import DEFAULT_SCHEME, LABEL_SCHEMES, SCHEME_ALIASES
from totalspineseg_bids.cli.bids_app import add_setting
from totalspineseg_bids.config import SETTINGS, environment_settings

PROGRAM = "totalspineseg-tools"

_MODEL_SETTINGS = ("model", "device", "engine", "precision", "quality", "roi")

#: What ``add_subparsers`` returns; argparse has no public name for it.
Subparsers = Any
#: Subcommand, called with its arguments by name; returns the exit code, nothing for success.
Run = Callable[..., int | None]


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(text.rstrip() + "\n")
    sys.stdout.flush()


def say_table(rows: Sequence[Sequence[str]]) -> None:
    """Write rows of cells in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def add_subcommand(
    subparsers: Subparsers, name: str, run: Run, summary: str, details: str = ""
) -> argparse.ArgumentParser:
    """Add a subcommand and return its parser.

    Parameters
    ----------
    subparsers
        Subparsers of the main parser.
    name
        Name of the subcommand.
    run
        Function that takes the arguments by name.
    summary
        One line for the list of subcommands.
    details
        Further sentences for the subcommand's own help.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {details}".strip(),
        allow_abbrev=False,
    )
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="show progress messages; twice: debug messages"
    )
    parser.set_defaults(run=run)
    return parser


def scheme_name(text: str) -> str:
    """Return the present name of a label scheme.

    >>> scheme_name("seed")
    'totalsegmri'
    """
    return SCHEME_ALIASES.get(text, text)


def add_label_scheme(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--label-scheme``."""
    parser.add_argument(
        "--label-scheme",
        type=scheme_name,
        choices=LABEL_SCHEMES,
        default=DEFAULT_SCHEME,
        help=f"label ids {what} (default: %(default)s)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and how it runs; :func:`fill_model` sets their defaults."""
    for name in _MODEL_SETTINGS:
        add_setting(parser, SETTINGS[name])
    parser.add_argument("--threads", type=positive, metavar="N", help="number of CPU threads for the networks")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--single-step", action="store_true", help=SETTINGS["single_step"].help)
    steps.add_argument("--step1-only", action="store_true", help="stop after step 1 and label its result")


def fill_model(options: argparse.Namespace) -> None:
    """Set the options of :func:`add_model` that were not given, from the environment or to their defaults.

    Raises
    ------
    UsageError
        If an environment variable has a value that is not allowed.
    """
    found = environment_settings(os.environ)
    for name in _MODEL_SETTINGS:
        if getattr(options, name) is None:
            setattr(options, name, found.get(name, SETTINGS[name].default))
    if options.threads is None:
        options.threads = found.get("n_cpus")


def whole_number(text: str, least: int = 1) -> int:
    """Parse a whole number, by default above 0."""
    if not text.isdigit() or int(text) < least:
        msg = f"'{text}' is not a whole number from {least}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


#: Type of an option for a whole number above 0.
positive = whole_number
