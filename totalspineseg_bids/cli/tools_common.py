"""What the subcommands share: options, output, progress bars."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from totalspineseg_bids.anatomy import LABEL_SCHEMES

PROGRAM = "totalspineseg-tools"

#: What ``add_subparsers`` returns; argparse has no public name for it.
Subparsers = Any
Run = Callable[[argparse.Namespace], int]


def say(text: str) -> None:
    """Write a line of output."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def add_subcommand(
    subparsers: Subparsers, name: str, run: Run, summary: str, details: str = ""
) -> argparse.ArgumentParser:
    """Add a subcommand and return its parser.

    Parameters
    ----------
    subparsers
        Of the main parser.
    name
        Of the subcommand.
    run
        Called with the arguments; returns the exit code.
    summary
        One line for the list of subcommands.
    details
        More for the subcommand's own help.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {details}".strip(),
        allow_abbrev=False,
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="tell more; twice for everything")
    parser.set_defaults(run=run)
    return parser


def add_label_scheme(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--label-scheme``."""
    parser.add_argument(
        "--label-scheme", choices=LABEL_SCHEMES, default="seed", help=f"ids {what} (default: %(default)s)"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and how it is run; :func:`fill_model` gives them their values."""
    from totalspineseg_bids.config import ENGINES, PRECISIONS  # noqa: PLC0415
    from totalspineseg_bids.models.catalog import DEFAULT_MODEL  # noqa: PLC0415

    parser.add_argument(
        "--model",
        metavar="NAME|PATH|ZIP",
        help=f"installed release, folder or zip; 'bundled' for trying out (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--device", metavar="auto|cpu|cuda[:N]|mps", help="default: auto")
    parser.add_argument("--engine", choices=ENGINES, help="default: auto")
    parser.add_argument("--precision", choices=PRECISIONS, help="arithmetic of the networks (default: auto)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of the network")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--single-step", action="store_true", help="use the model that names every level in one step")
    steps.add_argument("--step1-only", action="store_true", help="stop after step 1 and name what it shows")


def fill_model(options: argparse.Namespace) -> None:
    """Give what the user left out of :func:`add_model`'s options the value of the environment, else the default.

    Raises
    ------
    UsageError
        If an environment variable has a value that is not allowed.
    """
    from totalspineseg_bids.config import environment_settings  # noqa: PLC0415
    from totalspineseg_bids.models.catalog import DEFAULT_MODEL  # noqa: PLC0415

    automatic = dict.fromkeys(("device", "engine", "precision"), "auto")
    defaults = {"model": DEFAULT_MODEL, **automatic, **environment_settings(os.environ)}
    defaults["threads"] = defaults.get("n_cpus")
    for name in ("model", *automatic, "threads"):
        if getattr(options, name) is None:
            setattr(options, name, defaults[name])


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        msg = f"'{text}' is not a whole number above 0"
        raise argparse.ArgumentTypeError(msg)
    return number


def bar(total: int, title: str) -> Any:  # noqa: ANN401 - tqdm is not typed
    """Return a progress bar on standard error, which shows itself on terminals only."""
    from tqdm import tqdm  # noqa: PLC0415

    return tqdm(total=total, desc=title, disable=None, leave=False, dynamic_ncols=True)
