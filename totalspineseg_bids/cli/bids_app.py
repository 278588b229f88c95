"""``totalspineseg-bids BIDS_DIR OUTPUT_DIR {participant,group}``: the BIDS App's command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from totalspineseg_bids import __version__
from totalspineseg_bids.app.interrupt import Interrupted, stop_on_signal
from totalspineseg_bids.config import SETTINGS, RunConfig, Setting, SettingGroup, SettingKind, read_toml
from totalspineseg_bids.errors import ExitCode, SpineAppError, UsageError
from totalspineseg_bids.files import escape_unencodable_output, installed_version, write_reason
from totalspineseg_bids.importing import modules_stay
from totalspineseg_bids.models.catalog import BUNDLED, CACHE_VARIABLE, DEFAULT_MODEL, find_cache_folder

PROGRAM = "totalspineseg-bids"

_USAGE = f"{PROGRAM} BIDS_DIR OUTPUT_DIR {{participant,group}} [options]"
_VARIABLES = "\n".join(
    f"  {name:33}{text}"
    for name, text in (
        *((setting.variable, f"default of {setting.flags[0]}") for setting in SETTINGS.values() if setting.variable),
        (CACHE_VARIABLE, "folder of installed models"),
    )
)
_EXAMPLES = f"""\
examples:
  segment every spine of a dataset, then collect the measurements
    {PROGRAM} data derivatives/totalspineseg participant
    {PROGRAM} data derivatives/totalspineseg group
  process one participant, for example in an array job
    {PROGRAM} data out participant --participant-label 01 --n-cpus 4
  try the app with the small model that is included
    {PROGRAM} data out participant --model bundled
  process another contrast and write results at 1 mm as well as on the image's own grid
    {PROGRAM} data out participant --suffix T1rho --output-resolution both
  list what would be done
    {PROGRAM} data out participant --dry-run

exit codes:
  0 success; 1 several kinds of failure; 16 invalid dataset; 17 unknown analysis level; 18 nothing selected;
  64 usage error; 65 unusable image; 66 missing input or model; 73 cannot create output; 74 input/output error;
  75 interrupted, run the same command again

environment:
{_VARIABLES}
"""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help formatter that hides the spellings with underscores, which are accepted too."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        shown = [option for option in action.option_strings if "_" not in option]
        if action.nargs == 0:
            return ", ".join(shown)
        return f"{', '.join(shown)} {self._format_args(action, (action.dest or '').upper())}"


class Parser(argparse.ArgumentParser):
    """Parser that raises errors, so that the exit code follows the BIDS execution specification."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register("type", Path, _path)

    def error(self, message: str) -> NoReturn:
        """Raise a :class:`UsageError` with the message."""
        msg = f"{message}; see {self.prog} --help"
        raise UsageError(msg)


def _path(text: str) -> Path:
    """Return an argument as a path; an empty one, such as that of an unset variable, is not the current folder."""
    if not text:
        msg = "the path is empty"
        raise argparse.ArgumentTypeError(msg)
    return Path(text)


def version_text() -> str:
    """Return the versions of the program, of nnU-Net, torch and OpenVINO, and the default model."""
    packages = (("nnU-Net", "nnunetv2"), ("torch", "torch"), ("OpenVINO", "openvino"))
    parts = [f"{title} {installed_version(package) or 'not installed'}" for title, package in packages]
    model = os.environ.get(str(SETTINGS["model"].variable)) or DEFAULT_MODEL
    cache = find_cache_folder()
    installed = model == BUNDLED or (cache is not None and (cache / model).is_dir()) or Path(model).exists()
    note = "" if installed else ", not installed"
    return f"{PROGRAM} {__version__} ({', '.join(parts)}; default model {model}{note})"


#: Options that are not settings of a run; the first names a TOML file of settings, the others set ``verbose``.
OPTIONS = (
    Setting(
        "config_file",
        SettingKind.PATH,
        SettingGroup.RUNNING,
        "TOML file of settings, which the command line overrides",
        flags=("--config-file",),
        metavar="TOML",
        is_input=True,
    ),
    *(
        Setting(name, SettingKind.FLAG, SettingGroup.RUNNING, text, False, flags=(f"-{name[0]}", f"--{name}"))
        for name, text in (("verbose", "show debug messages"), ("quiet", "show only warnings and errors"))
    ),
)


def options() -> tuple[Setting, ...]:
    """Return the declarations of all arguments of the command line, positional arguments first."""
    return (*(setting for setting in SETTINGS.values() if setting.required or setting.flags), *OPTIONS)


def build_parser() -> Parser:
    """Return the parser, whose names are those of :class:`~totalspineseg_bids.config.RunConfig`.

    Every default is ``None``: the value then comes from the TOML file, the environment or the declaration.
    """
    parser = Parser(
        prog=PROGRAM,
        usage=_USAGE,
        description="Segment and label vertebrae, discs, spinal cord and canal in MRI of a BIDS dataset.",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {group: parser.add_argument_group(group.value) for group in SettingGroup}
    for setting in options():
        add_setting(groups[setting.group], setting)
    groups[SettingGroup.RUNNING].add_argument("--version", action="store_true", help="show the versions and exit")
    groups[SettingGroup.RUNNING].add_argument(
        "--info", choices=("json",), help="print versions, models, devices, labels and output patterns as JSON and exit"
    )
    groups[SettingGroup.RUNNING].add_argument("-h", "--help", action="help", help="show this help and exit")
    return parser


def add_setting(parser: argparse._ActionsContainer, setting: Setting) -> None:
    """Add the argument of a setting to a parser or a group; its default is ``None``."""
    details: dict[str, Any] = {"help": setting.help_text}
    if setting.kind is SettingKind.FLAG and not setting.default and setting.default is not None:
        details |= {"action": "store_const", "const": True}
    elif setting.kind is SettingKind.FLAG:
        details |= {"action": argparse.BooleanOptionalAction, "default": None}
    elif setting.metavar:
        details["metavar"] = setting.metavar
    if setting.kind is SettingKind.PATH:
        details["type"] = Path
    elif setting.kind is SettingKind.LABELS:
        details["nargs"] = "+"
    if setting.required:
        # Optional for the parser, because a TOML file may contain them.
        parser.add_argument(setting.name, nargs="?", **{"metavar": setting.name.upper(), **details})
        return
    if setting.kind is SettingKind.CHOICE:
        aliases = setting.aliases
        details |= {"choices": setting.choices, "type": lambda text: aliases.get(text, text)}
    spellings = dict.fromkeys(text for flag in setting.flags for text in (flag, _with_underscores(flag)))
    parser.add_argument(*spellings, dest=setting.name, **details)


def _with_underscores(flag: str) -> str:
    dashes = "--" if flag.startswith("--") else "-"
    return dashes + flag.removeprefix(dashes).replace("-", "_")


def parse_config(argv: Sequence[str]) -> RunConfig:
    """Return the configuration of a command line.

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
    return _config_of(given)


def _config_of(given: dict[str, Any]) -> RunConfig:
    for name in ("version", "info"):
        given.pop(name)
    config_file, quiet, verbose = given.pop("config_file"), given.pop("quiet"), given.pop("verbose")
    if quiet or verbose:
        given["verbose"] = 2 if verbose else 0
    stored = read_toml(config_file) if config_file else {}
    return RunConfig.from_mapping(stored, given, environment=os.environ)


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
    escape_unencodable_output()
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        # Includes the imports, so that a signal while libraries load ends the run in the same way.
        with stop_on_signal():
            return _run(arguments)
    except (Interrupted, SpineAppError) as error:
        write_reason(PROGRAM, str(error))
        return int(error.exit_code)


def _run(arguments: list[str]) -> int:
    try:
        given = vars(build_parser().parse_intermixed_args(arguments))
        if given["version"]:
            sys.stdout.write(version_text() + "\n")
            return int(ExitCode.SUCCESS)
        if given["info"]:
            from totalspineseg_bids.cli.info import describe_program

            sys.stdout.write(json.dumps(describe_program(), indent=2, ensure_ascii=False) + "\n")
            return int(ExitCode.SUCCESS)
        config = _config_of(given)
    except SystemExit as done:  # --help
        return int(done.code or 0)
    if config.executor is not None:
        from totalspineseg_bids.cluster.submit import submit

        return submit(config, [PROGRAM, *arguments])
    with modules_stay():
        from totalspineseg_bids.app.run import run

    return run(config, [PROGRAM, *arguments])
