"""``totalspineseg-bids BIDS_DIR OUTPUT_DIR {participant,group}``: the BIDS App's command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import LABEL_SCHEMES
from totalspineseg_bids.app.interrupt import Interrupted, stop_on_signal
from totalspineseg_bids.config import (
    DEFAULT_SUFFIXES,
    ENGINES,
    ENVIRONMENT,
    LEVELS,
    PRECISIONS,
    RESOLUTIONS,
    RunConfig,
    read_toml,
)
from totalspineseg_bids.errors import ExitCode, SpineAppError, UsageError
from totalspineseg_bids.models.catalog import BUNDLED, CACHE_VARIABLE, DEFAULT_MODEL, cache_folder

PROGRAM = "totalspineseg-bids"

_USAGE = f"{PROGRAM} BIDS_DIR OUTPUT_DIR {{participant,group}} [options]"
_VARIABLES = "\n".join(
    f"  {name:33}{what}"
    for name, what in (
        *((name, f"default of --{key.replace('_', '-')}") for key, name in ENVIRONMENT.items()),
        (CACHE_VARIABLE, "folder of installed models"),
    )
)
_EXAMPLES = f"""\
examples:
  label every spine of a dataset, then gather the numbers
    {PROGRAM} data derivatives/totalspineseg participant
    {PROGRAM} data derivatives/totalspineseg group
  one participant, as a cluster's array job would do it
    {PROGRAM} data out participant --participant-label 01 --n-cpus 4
  try things out with the model that comes with the program
    {PROGRAM} data out participant --model bundled
  another contrast, results at 1 mm and on the image's own grid
    {PROGRAM} data out participant --suffix T1rho --output-resolution both
  see what would be done
    {PROGRAM} data out participant --dry-run

exit codes:
  0 done; 1 several kinds of failure; 16 dataset not valid; 17 unknown level; 18 nothing selected; 64 usage;
  65 bad image; 66 input or model missing; 73 output cannot be made; 74 disk; 75 stopped, run it again

environment:
{_VARIABLES}
"""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows each option once, without the spellings with underscores, which are taken all the same."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        shown = [option for option in action.option_strings if "_" not in option]
        if action.nargs == 0:
            return ", ".join(shown)
        return f"{', '.join(shown)} {self._format_args(action, (action.dest or '').upper())}"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that the exit code is that of the BIDS App specification."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        msg = f"{message}; see {self.prog} --help"
        raise UsageError(msg)


class VersionAction(argparse.Action):
    """Writes the versions of the program, of what computes, and the default model."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: object) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the versions and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Write and exit."""
        sys.stdout.write(version_text() + "\n")
        parser.exit()


def version_text() -> str:
    """Return the versions of the program, of nnU-Net, torch and OpenVINO, and the default model."""
    from importlib import metadata  # noqa: PLC0415 - only here

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    packages = (("nnU-Net", "nnunetv2"), ("torch", "torch"), ("OpenVINO", "openvino"))
    parts = [f"{title} {version(package)}" for title, package in packages]
    model = os.environ.get(ENVIRONMENT["model"]) or DEFAULT_MODEL
    there = model == BUNDLED or (cache_folder() / model).is_dir() or Path(model).exists()
    note = "" if there else ", not installed"
    return f"{PROGRAM} {__version__} ({', '.join(parts)}; default model {model}{note})"


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = f"'{text}' is not a whole number"
        raise argparse.ArgumentTypeError(msg) from error


def build_parser() -> Parser:
    """Return the parser; the names it fills are those of :class:`~totalspineseg_bids.config.RunConfig`.

    Every default is ``None``, which stands for: what the TOML file, the environment or the configuration says.
    """
    parser = Parser(
        prog=PROGRAM,
        usage=_USAGE,
        description="Segments and labels vertebrae, discs, spinal cord and canal in MRI of a BIDS dataset.",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    _add_positionals(parser)
    _add_selection(parser)
    _add_method(parser)
    _add_output(parser)
    _add_resources(parser)
    _add_behaviour(parser)
    return parser


def _add_positionals(parser: Parser) -> None:
    group = parser.add_argument_group("required")
    # Optional for the parser, because a TOML file may give them.
    group.add_argument("bids_dir", nargs="?", type=Path, metavar="BIDS_DIR", help="dataset in BIDS")
    group.add_argument("output_dir", nargs="?", type=Path, metavar="OUTPUT_DIR", help="folder of the results")
    group.add_argument(
        "level", nargs="?", metavar="{" + ",".join(LEVELS) + "}", help="label images, or gather what was labelled"
    )


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group("which images")
    group.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        metavar="LABEL",
        help="participants, with or without sub- (default: all)",
    )
    group.add_argument(
        "--exclude-participant-label",
        "--exclude_participant_label",
        nargs="+",
        metavar="LABEL",
        help="participants to leave out",
    )
    group.add_argument(
        "--session-label",
        "--session_label",
        "--session-id",
        "--session_id",
        nargs="+",
        metavar="LABEL",
        help="sessions, with or without ses- (default: all)",
    )
    group.add_argument(
        "--suffix",
        nargs="+",
        metavar="SUFFIX",
        help=f"contrasts, by BIDS suffix (default: {' '.join(DEFAULT_SUFFIXES)})",
    )
    group.add_argument(
        "--volume", metavar="N|mean", help="volume of a 4D series, from 0, or the mean of all (default: mean)"
    )
    group.add_argument(
        "--bids-filter-file",
        "--bids_filter_file",
        type=Path,
        metavar="FILE",
        help="JSON of pyBIDS filters by contrast, as fMRIPrep takes it; null: entity absent, *: present",
    )
    group.add_argument(
        "--bids-database-dir",
        "--bids_database_dir",
        type=Path,
        metavar="DIR",
        help="pyBIDS index to use, made if absent",
    )
    group.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        "--skip-bids-validator",
        "--skip_bids_validator",
        action="store_const",
        const=True,
        help="do not check the dataset with the BIDS validator",
    )


def _add_method(parser: Parser) -> None:
    group = parser.add_argument_group("method")
    group.add_argument(
        "--model",
        metavar="NAME|PATH|ZIP",
        help=f"installed model, folder or zip; 'bundled' to try things out (default: {DEFAULT_MODEL})",
    )
    group.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    group.add_argument("--engine", choices=ENGINES, help="what runs the networks (default: auto)")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="arithmetic of the networks; fp32 depends least on the processor (default: auto)",
    )
    group.add_argument(
        "--single-step",
        "--single_step",
        action="store_const",
        const=True,
        help="use the model that labels in one step (Dataset103)",
    )
    group.add_argument(
        "--step1-only", "--step1_only", action="store_const", const=True, help="stop after the first step"
    )
    group.add_argument(
        "--localizer",
        metavar="FILTER",
        help="image of the same participant whose labels help the others, such as acq-loc or acq-wide_T2w",
    )
    group.add_argument(
        "--joint-session",
        "--joint_session",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="find the levels of a session's images together where they overlap (default: yes)",
    )


def _add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--label-scheme",
        "--label_scheme",
        choices=LABEL_SCHEMES,
        help="ids of the labels: of the seed project, or of the later public releases (default: seed)",
    )
    group.add_argument(
        "--output-resolution",
        "--output_resolution",
        choices=RESOLUTIONS,
        help="grid of the results: the image's own, 1 mm isotropic, or both (default: native)",
    )
    group.add_argument(
        "--qc-file",
        "--qc_file",
        type=Path,
        metavar="TSV",
        help="group: ratings downloaded from the group page, read back into page and table",
    )
    group.add_argument(
        "--norms",
        type=Path,
        metavar="TSV",
        help="group: reference values (measure, level, mean, sd; sex, age_min, age_max) for z-scores",
    )
    group.add_argument(
        "--self-contained",
        "--self_contained",
        action="store_const",
        const=True,
        help="group: put the thumbnails into the page, to send it as one file",
    )


def _add_resources(parser: Parser) -> None:
    group = parser.add_argument_group("resources")
    group.add_argument(
        "--n-cpus",
        "--n_cpus",
        "--nprocs",
        type=_whole_number,
        metavar="N",
        help="processor cores to use (default: all that the machine grants)",
    )
    group.add_argument(
        "--omp-nthreads", "--omp_nthreads", type=_whole_number, metavar="N", help="threads for one numeric step"
    )
    group.add_argument(
        "--mem-mb",
        "--mem_mb",
        type=_whole_number,
        metavar="MB",
        help="accepted for scripts of other apps; one image is in memory at a time",
    )
    group.add_argument(
        "-w",
        "--work-dir",
        "--work_dir",
        type=Path,
        metavar="DIR",
        help="accepted for scripts of other apps; no intermediate files are written",
    )


def _add_behaviour(parser: Parser) -> None:
    group = parser.add_argument_group("running")
    group.add_argument(
        "--config-file", "--config_file", type=Path, metavar="TOML", help="settings; those given here come first"
    )
    group.add_argument("--force", action="store_const", const=True, help="redo images that are complete")
    group.add_argument(
        "--dry-run", "--dry_run", action="store_const", const=True, help="list what would be done and stop"
    )
    group.add_argument(
        "--reports-only",
        "--reports_only",
        action="store_const",
        const=True,
        help="only write the reports again, from the results",
    )
    group.add_argument(
        "--stop-on-first-crash",
        "--stop_on_first_crash",
        action="store_const",
        const=True,
        help="end at the first image that fails",
    )
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show progress bars (default: where standard error is a terminal)",
    )
    group.add_argument("-v", "--verbose", action="store_const", const=True, help="say what helps debugging")
    group.add_argument("-q", "--quiet", action="store_const", const=True, help="say only warnings and errors")
    group.add_argument("--version", action=VersionAction)
    group.add_argument("-h", "--help", action="help", help="show this help and exit")


def parse_config(argv: Sequence[str]) -> RunConfig:
    """Return the configuration that a command line asks for.

    Parameters
    ----------
    argv
        Arguments without the program's name.

    Raises
    ------
    SpineAppError
        If the command line, the TOML file or a value is wrong.
    """
    given: dict[str, Any] = vars(build_parser().parse_intermixed_args(list(argv)))
    config_file, quiet, verbose = given.pop("config_file"), given.pop("quiet"), given.pop("verbose")
    settings = {key.replace("-", "_"): value for key, value in (read_toml(config_file) if config_file else {}).items()}
    settings.update({key: value for key, value in given.items() if value is not None})
    if quiet or verbose:
        settings["verbose"] = 2 if verbose else 0
    return RunConfig.from_mapping(settings, environment=os.environ)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        arguments = ["--help"]
    try:
        # From here on, so that a signal while libraries load ends with the same code and line as one later.
        with stop_on_signal():
            return _run(arguments)
    except Interrupted as stop:
        sys.stderr.write(f"{PROGRAM}: {stop.as_error()}\n")
        return int(ExitCode.TRY_AGAIN)


def _run(arguments: list[str]) -> int:
    try:
        config = parse_config(arguments)
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except SpineAppError as error:
        sys.stderr.write(f"{PROGRAM}: {' '.join(str(error).split())}\n")
        return int(error.exit_code)
    from totalspineseg_bids.app.run import run  # noqa: PLC0415 - loads NIfTI and table libraries, not for --help

    return run(config, [PROGRAM, *arguments])
