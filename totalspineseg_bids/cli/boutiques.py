"""The Boutiques descriptor of the BIDS App, made from its parser so that the two cannot part.

``python -m totalspineseg_bids.cli.boutiques boutiques.json docs/platforms/invocation.schema.json`` writes it, and the
schema that invocations must fit, for which the package ``boutiques`` is needed. Source: Boutiques schema 0.5.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from totalspineseg_bids import __version__
from totalspineseg_bids.cli.bids_app import PROGRAM, build_parser
from totalspineseg_bids.config import DEFAULT_SUFFIXES, LEVELS
from totalspineseg_bids.errors import ExitCode

SCHEMA_VERSION = "0.5"
_POSITIONALS = ("bids_dir", "output_dir", "level")
#: Read by the program; the output folder and what is made there are names, not files that exist.
_FILES = frozenset({"bids_dir", "bids_filter_file", "config_file", "qc_file", "norms"})
_ERRORS = {
    ExitCode.UNSPECIFIED: "Several kinds of failure, or one without a code of its own",
    ExitCode.INVALID_DATASET: "The input is not a valid BIDS dataset",
    ExitCode.UNKNOWN_LEVEL: "Unknown analysis level",
    ExitCode.NOTHING_SELECTED: "The filters select no image",
    ExitCode.USAGE: "Wrong command line or configuration",
    ExitCode.BAD_DATA: "An image cannot be used",
    ExitCode.NO_INPUT: "Input or model missing",
    ExitCode.CANNOT_CREATE: "The output cannot be created",
    ExitCode.IO_ERROR: "The output cannot be written",
    ExitCode.TRY_AGAIN: "Stopped from outside; run it again to go on",
}


def _key(dest: str) -> str:
    return f"[{dest.upper()}]"


def _options() -> Iterator[argparse.Action]:
    """Yield the actions of the parser that are inputs, positionals first."""
    actions = build_parser()._actions  # argparse has no public way to list them
    skipped = {"help", "version"}
    yield from (action for action in actions if not action.option_strings)
    yield from (action for action in actions if action.option_strings and action.dest not in skipped)


def _flag(action: argparse.Action) -> str:
    """Return the first long spelling of an option."""
    return next(option for option in action.option_strings if option.startswith("--"))


def _input(action: argparse.Action) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " ").capitalize(),
        "description": " ".join((action.help or "").split()),
        "type": "String",
        "value-key": _key(action.dest),
        "optional": action.dest not in _POSITIONALS,
    }
    if action.option_strings:
        entry["command-line-flag"] = _flag(action)
    if action.nargs == 0:
        entry["type"] = "Flag"
    elif action.dest in _FILES:
        entry["type"] = "File"
    elif getattr(action.type, "__name__", "") == "_whole_number":
        entry.update({"type": "Number", "integer": True, "minimum": 1})
    if action.nargs == "+":
        entry["list"] = True
    choices = LEVELS if action.dest == "level" else action.choices
    if choices:
        entry["value-choices"] = [str(choice) for choice in choices]
    return entry


def _outputs() -> list[dict[str, Any]]:
    outputs = (
        ("output", "Derivatives", "Folder of the derivatives, a BIDS dataset", "", False),
        ("description", "Dataset description", "Says what made the derivatives", "/dataset_description.json", True),
        ("group_images", "Table of images", "One row an image (group level)", "/group_images.tsv", True),
        ("group_volumes", "Table of measures", "One row a label of an image (group level)", "/group_volumes.tsv", True),
        ("group_page", "Group page", "Page over all images (group level)", "/group.html", True),
    )
    return [
        {
            "id": key,
            "name": name,
            "description": text,
            "path-template": f"{_key('output_dir')}{path}",
            "optional": optional,
        }
        for key, name, text, path, optional in outputs
    ]


def descriptor() -> dict[str, Any]:
    """Return the Boutiques descriptor of the BIDS App."""
    inputs = [_input(action) for action in _options()]
    command = " ".join([PROGRAM, *(entry["value-key"] for entry in inputs)])
    return {
        "name": PROGRAM,
        "tool-version": __version__,
        "author": "totalspineseg_bids developers",
        "description": (
            "Segments and labels vertebrae, discs, spinal cord and canal in MRI of a BIDS dataset "
            f"(by default {', '.join(DEFAULT_SUFFIXES)}) with the TotalSpineSeg method."
        ),
        "url": "https://github.com/neuropoly/totalspineseg",
        "schema-version": SCHEMA_VERSION,
        "command-line": command,
        "container-image": {"type": "docker", "image": f"{PROGRAM}:{__version__}"},
        "inputs": inputs,
        "output-files": _outputs(),
        "groups": [
            {
                "id": "what_to_do",
                "name": "What to do instead of the work",
                "description": "List what would be done, or only write the reports",
                "members": ["dry_run", "reports_only"],
                "mutually-exclusive": True,
            },
            {
                "id": "steps",
                "name": "Steps of the method",
                "description": "Instead of both steps",
                "members": ["single_step", "step1_only"],
                "mutually-exclusive": True,
            },
        ],
        "error-codes": [{"code": int(code), "description": text} for code, text in _ERRORS.items()],
        "suggested-resources": {"cpu-cores": 4, "ram": 8, "walltime-estimate": 600},
        "tags": {"domain": ["neuroinformatics", "mri", "spine"], "toolbox": "totalspineseg"},
    }


def descriptor_text() -> str:
    """Return the text of ``boutiques.json``."""
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


def schema_text() -> str:
    """Return the JSON schema of invocations, as Boutiques makes it of the descriptor.

    Raises
    ------
    ImportError
        If Boutiques is not installed.
    """
    from boutiques.invocationSchemaHandler import generateInvocationSchema  # noqa: PLC0415 - for developers only

    return json.dumps(generateInvocationSchema(descriptor()), indent=2, ensure_ascii=False) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the descriptor to the first file that is named, or to standard output, and the schema to the second."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        sys.stdout.write(descriptor_text())
    for name, text in zip(arguments, (descriptor_text, schema_text), strict=False):
        Path(name).write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
