"""``totalspineseg-tools models list|install|path|verify|convert``."""

from __future__ import annotations

from typing import Any

from totalspineseg_bids.cli.tools_common import Subparsers, add_subcommand, say, say_table
from totalspineseg_bids.errors import ModelError, UsageError


def add_subcommands(subparsers: Subparsers) -> None:
    """Add ``models`` and its subcommands."""
    models = subparsers.add_parser(
        "models", help="list, install, find and verify models", description="List, install, find and verify models."
    )
    actions = models.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    add_subcommand(actions, "list", _list, "list the bundled models, the public releases and what is installed")
    install = add_subcommand(
        actions,
        "install",
        _install,
        "install a public release, or models from a zip or folder",
        "Digests are recorded, and verified whenever the models are used.",
    )
    install.add_argument(
        "source", nargs="?", metavar="NAME|ZIP|FOLDER", help="release such as r20251124, a zip or a folder"
    )
    install.add_argument("--url", action="append", metavar="URL", help="URL of a zip; can be repeated")
    install.add_argument("--name", help="name to install under")
    install.add_argument("--force", action="store_true", help="replace an installed model")
    install.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="DIGEST",
        help="accept only zips with this digest; can be repeated, in any order",
    )
    path = add_subcommand(actions, "path", _path, "print the folder of a model")
    path.add_argument("name", metavar="NAME|PATH|ZIP")
    verify = add_subcommand(actions, "verify", _verify, "compare installed models with their recorded digests")
    verify.add_argument("names", nargs="*", metavar="NAME", help="models to verify (default: all installed models)")
    convert = add_subcommand(
        actions,
        "convert",
        _convert,
        "convert models for OpenVINO into the cache, so that the first image starts sooner",
        "A run does this by itself where the cache can be written; a container image contains the result.",
    )
    convert.add_argument("names", nargs="*", default=["bundled"], metavar="NAME", help="models (default: bundled)")


def _list() -> None:
    from totalspineseg_bids.models.registry import available

    rows = [("name", "kind", "installed", "steps")]
    for info in available():
        name = f"{info.name} (default)" if info.default else info.name
        rows.append((name, info.kind, "yes" if info.installed else "no", ", ".join(r.value for r in info.roles) or "-"))
    say_table(rows)


def _install(source: str | None, url: list[str] | None, **options: Any) -> None:
    from totalspineseg_bids.models.catalog import DEFAULT_MODEL
    from totalspineseg_bids.models.install import install

    folder = install(source or (None if url else DEFAULT_MODEL), url=url, **options)
    say(f"installed {folder.name}: {folder}")


def _path(name: str) -> None:
    from totalspineseg_bids.models.registry import resolve

    found = resolve(name, need=())
    for folder in (found.step1, found.step2, found.single):
        if folder is not None:
            say(str(folder))


def _verify(names: list[str]) -> None:
    from totalspineseg_bids.models.registry import available
    from totalspineseg_bids.models.verify import check

    names = names or [info.name for info in available() if info.installed]
    problems: list[str] = []
    for name in names:
        try:
            say(f"{name}: {len(check(name))} files as installed")
        except ModelError as error:  # noqa: PERF203 - the others are verified all the same
            problems.append(str(error))
    if problems:
        raise ModelError("; ".join(problems))


def _convert(names: list[str]) -> None:
    from totalspineseg_bids.inference.engines import make_engine
    from totalspineseg_bids.inference.model import load_model
    from totalspineseg_bids.inference.network_cache import cache_folder
    from totalspineseg_bids.inference.options import InferenceOptions
    from totalspineseg_bids.models.registry import resolve
    from totalspineseg_bids.models.roles import Role

    if cache_folder() is None:
        msg = "the cache of converted networks is off; set TOTALSPINESEG_BIDS_NETWORK_CACHE to a folder"
        raise UsageError(msg)
    for name in names:
        models = resolve(name, need=())
        for folder in sorted({found for role in Role if (found := models.get(role)) is not None}):
            make_engine(load_model(folder), InferenceOptions(device="cpu", engine="openvino"))
        say(f"{name}: converted in {cache_folder()}")
