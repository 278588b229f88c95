"""``totalspineseg-tools``: the steps of the method one by one, for files, folders and trainings.

Nothing heavy is imported before a subcommand runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from totalspineseg_bids import __version__
from totalspineseg_bids.cli import tools_datasets, tools_evaluate, tools_models, tools_segment, tools_training
from totalspineseg_bids.cli.bids_app import HelpFormatter, Parser
from totalspineseg_bids.cli.tools_common import PROGRAM
from totalspineseg_bids.errors import ExitCode, SpineAppError

_EXAMPLES = f"""\
examples:
  label the spine in one image, or in every image of a folder
    {PROGRAM} segment image.nii.gz labels.nii.gz
    {PROGRAM} segment INPUT_FOLDER OUTPUT_FOLDER --model bundled
  name the levels of a segmentation made elsewhere
    {PROGRAM} label step2.nii.gz labels.nii.gz --layout r20240601-step2 --report labels.json
  get the public models
    {PROGRAM} models install r20251124
  a training from BIDS datasets with labels to a zip
    {PROGRAM} prepare WORK data/spider data/whole-spine
    {PROGRAM} plan WORK 101
    {PROGRAM} train WORK 101 --fold 0
    {PROGRAM} export WORK 101 exports

Each subcommand has its own --help. Exit codes: 0 done; 1 failed; 16 not a dataset; 18 nothing selected; 64 usage;
65 bad image; 66 no input or model; 73 output cannot be made; 74 disk; 75 stopped, run it again.
"""


def build_parser() -> Parser:
    """Return the parser of all subcommands; each sets ``run``, which takes the arguments and returns an exit code."""
    parser = Parser(
        prog=PROGRAM,
        description="Tools around the segmentation and labelling of the spine in MRI.",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    for module in (tools_segment, tools_models, tools_datasets, tools_training, tools_evaluate):
        module.add_subcommands(subparsers)
    return parser


def _log_to_stderr(verbosity: int) -> None:
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("totalspineseg_bids").setLevel(level)


def _say_why(message: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {' '.join(message.split())}\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a tool.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code; for any but 0 the last line on standard error says why.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        options = build_parser().parse_args(arguments)
        _log_to_stderr(options.verbose)
        return int(options.run(options))
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except SpineAppError as error:
        _say_why(str(error))
        return int(error.exit_code)
    except KeyboardInterrupt:
        _say_why("stopped; run the same command again to go on from what is complete")
        return int(ExitCode.TRY_AGAIN)
    except OSError as error:
        _say_why(f"{error.filename or 'disk'}: {error.strerror or error}")
        return int(ExitCode.IO_ERROR)
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        _say_why(f"unexpected {type(error).__name__}: {error}; run it with -vv for the details")
        return int(ExitCode.UNSPECIFIED)
