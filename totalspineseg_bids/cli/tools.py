"""``totalspineseg-tools``: single steps of the method for files and folders, and training.

Heavy libraries are imported when a subcommand runs, so that ``--help`` is fast.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from totalspineseg_bids import __version__
from totalspineseg_bids.app.interrupt import Interrupted
from totalspineseg_bids.cli import (
    tools_datasets,
    tools_evaluate,
    tools_models,
    tools_runs,
    tools_segment,
    tools_training,
)
from totalspineseg_bids.cli.bids_app import HelpFormatter, Parser
from totalspineseg_bids.cli.tools_common import PROGRAM
from totalspineseg_bids.errors import ExitCode, SpineAppError
from totalspineseg_bids.files import escape_unencodable_output, write_reason

_EXAMPLES = f"""\
examples:
  segment the spine in one image, or in every image of a folder
    {PROGRAM} segment image.nii.gz labels.nii.gz
    {PROGRAM} segment INPUT_FOLDER OUTPUT_FOLDER --model bundled
  label the levels of an existing segmentation
    {PROGRAM} label step2.nii.gz labels.nii.gz --layout r20240601-step2 --report labels.json
  install the public models
    {PROGRAM} models install r20251124
  train a model on BIDS datasets with labels and export it as a zip
    {PROGRAM} prepare WORK data/spider data/whole-spine
    {PROGRAM} plan WORK 101
    {PROGRAM} train WORK 101 --fold 0
    {PROGRAM} export WORK 101 exports

Each subcommand has its own --help. Exit codes: 0 success; 1 failure; 16 invalid dataset; 18 nothing selected;
64 usage error; 65 unusable image; 66 missing input or model; 73 cannot create output; 74 input/output error;
75 interrupted, run the same command again.
"""


def build_parser() -> Parser:
    """Return the parser of all subcommands, which set ``run`` to the function to call."""
    parser = Parser(
        prog=PROGRAM,
        description="Tools for segmenting and labelling the spine in MRI.",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    for module in (
        tools_segment,
        tools_models,
        tools_datasets,
        tools_training,
        tools_evaluate,
        tools_runs,
    ):
        module.add_subcommands(subparsers)
    return parser


def _log_to_stderr(verbosity: int) -> None:
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    logging.getLogger("totalspineseg_bids").setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a tool.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code; unless it is 0, the last line on standard error gives the reason.
    """
    escape_unencodable_output()
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        options = vars(build_parser().parse_args(arguments))
        run = options.pop("run")
        _log_to_stderr(options.pop("verbose"))
        return int(run(**options) or ExitCode.SUCCESS)
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except (Interrupted, SpineAppError) as error:
        write_reason(PROGRAM, str(error))
        return int(error.exit_code)
    except KeyboardInterrupt:
        write_reason(PROGRAM, "interrupted; run the same command again to continue")
        return int(ExitCode.TRY_AGAIN)
    except OSError as error:
        write_reason(PROGRAM, f"{error.filename or 'disk'}: {error.strerror or error}")
        return int(ExitCode.IO_ERROR)
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        write_reason(PROGRAM, f"unexpected {type(error).__name__}: {error}; run the command with -vv for details")
        return int(ExitCode.UNSPECIFIED)


if __name__ == "__main__":
    sys.exit(main())
