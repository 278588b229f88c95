"""``totalspineseg-tools datasets list|get``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from totalspineseg_bids.cli.tools_common import Subparsers, add_subcommand, positive, say, say_table
from totalspineseg_bids.errors import MissingInputError, UsageError

_ROOT = Path("data/bids")


def add_subcommands(subparsers: Subparsers) -> None:
    """Add ``datasets`` with its own subcommands."""
    summary = "list and fetch the public datasets that the method was trained on"
    datasets = subparsers.add_parser("datasets", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    actions = datasets.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    show = add_subcommand(actions, "list", _list, "list the datasets, their licences, and what is there of them")
    show.add_argument(
        "--to", type=Path, default=_ROOT, metavar="DIR", help="folder of the datasets (default: %(default)s)"
    )
    get = add_subcommand(
        actions,
        "get",
        _get,
        "fetch datasets as BIDS folders with their labels",
        "Git repositories are cloned with git, and git-annex fetches their content; SPIDER's .mha files are converted "
        "to BIDS. Run the same command again to continue an interrupted download. Without network access, the error "
        "message says which files to put where.",
    )
    get.add_argument("names", nargs="+", metavar="NAME", help="as 'datasets list' has them, or 'all'")
    get.add_argument(
        "--to", type=Path, default=_ROOT, metavar="DIR", help="folder of the datasets (default: %(default)s)"
    )
    get.add_argument("--subjects", nargs="+", default=[], metavar="LABEL", help="only these (of every dataset)")
    get.add_argument(
        "--labels",
        metavar="URL|ZIP|none",
        help="archive of labels to merge (default: the method's of May 2024); 'none' merges none",
    )
    get.add_argument("--revision", metavar="REV", help="branch, tag or commit of the repository (one dataset)")
    get.add_argument("--url", metavar="URL", help="mirror or clone to fetch from (one dataset)")
    # Accepted so that existing scripts still run; git-annex always does the download.
    get.add_argument("--plain", dest="_plain", action="store_true", help=argparse.SUPPRESS)
    get.add_argument("--jobs", type=positive, default=4, metavar="N", help="downloads at once (default: %(default)s)")
    get.add_argument("--verify", action="store_true", help="compare the files that are there with their digests again")


def _list(to: Path) -> None:
    from totalspineseg_bids.training.datasets.catalog import SOURCES
    from totalspineseg_bids.training.datasets.get import state_of

    rows = [("name", "also", "licence", "size", "here")]
    rows += [(s.name, s.aliases[0], s.licence, s.size, state_of(s, to)) for s in SOURCES]
    say_table(rows)
    for source in SOURCES:
        say(f"\n{source.name}: {source.title}\n  {source.page}\n  cite: {source.citation}")


def _get(names: list[str], to: Path, labels: str | None, _plain: bool, **options: Any) -> None:
    from totalspineseg_bids.training.datasets.catalog import LABELS_URL, SOURCES, find_source
    from totalspineseg_bids.training.datasets.get import GetOptions, fetch_labels, get_dataset
    from totalspineseg_bids.training.datasets.labels import merge_labels

    sources = list(SOURCES) if "all" in names else [find_source(name) for name in names]
    if len(sources) > 1 and (options["url"] or options["revision"]):
        msg = "--url and --revision are of one dataset; fetch the datasets one by one"
        raise UsageError(msg)
    choice = GetOptions(**options)
    failed: list[str] = []
    for source in sources:
        result = get_dataset(source, to, choice)
        present = result.selected - len(result.failed)
        say(f"{source.name}: {present} of {result.selected} files, {result.fetched} fetched now: {result.folder}")
        failed += [f"{source.name}: {name}: {reason}" for name, reason in result.failed]
    for line in failed:
        say(f"did not come: {line}")
    if labels != "none":
        archive = fetch_labels(labels or LABELS_URL, to)
        counts = merge_labels(archive, to, [source.name for source in sources])
        for name, (found, written) in counts.items():
            say(f"{name}: {found} label files of {archive.name}, {written} written now")
    if failed:
        msg = f"{len(failed)} files did not come, the first: {failed[0]}; run the same command again to ask for them"
        raise MissingInputError(msg)
