"""Files that are generated from the declared settings, so that they cannot disagree with the command line.

``make descriptor`` writes the Boutiques descriptor (schema 0.5), the JSON schema of its invocations, for which the
package ``boutiques`` is needed, and the table in the user guide.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from totalspineseg_bids import __version__
from totalspineseg_bids.cli.bids_app import PROGRAM, options
from totalspineseg_bids.config import DEFAULT_SUFFIXES, MUTUALLY_EXCLUSIVE, Setting, SettingGroup, SettingKind
from totalspineseg_bids.errors import ExitCode

ROOT = Path(__file__).resolve().parents[1]
DESCRIPTOR = "boutiques.json"
INVOCATION_SCHEMA = "docs/platforms/invocation.schema.json"
USER_GUIDE = "docs/usage.md"
_TABLE = re.compile(r"(<!-- settings[^\n]*-->\n).*(<!-- end of settings -->)", re.DOTALL)
_ERRORS = {
    ExitCode.UNSPECIFIED: "Several kinds of failure, or one without a code of its own",
    ExitCode.INVALID_DATASET: "The input is not a valid BIDS dataset",
    ExitCode.UNKNOWN_LEVEL: "Unknown analysis level",
    ExitCode.NOTHING_SELECTED: "The filters select no image",
    ExitCode.USAGE: "Invalid command line or configuration",
    ExitCode.BAD_DATA: "An image cannot be used",
    ExitCode.NO_INPUT: "Input or model missing",
    ExitCode.CANNOT_CREATE: "The output cannot be created",
    ExitCode.IO_ERROR: "Input/output error",
    ExitCode.TRY_AGAIN: "Interrupted; run the same command again to continue",
}
_GROUPS = (
    ("what_to_do", "Alternatives to processing", "List what would be done, or only rebuild the reports"),
    ("steps", "Steps of the method", "Replace the two steps"),
    ("validation", "Validation of the dataset", "Skip the validation, or refuse every error"),
)


def _long_flag(setting: Setting) -> str:
    return next(flag for flag in setting.flags if flag.startswith("--"))


def _input(setting: Setting) -> dict[str, Any]:
    name = setting.former_name or setting.name
    types = {
        SettingKind.FLAG: "Flag",
        SettingKind.COUNT: "Number",
        SettingKind.PATH: "File" if setting.is_input else "String",
    }
    entry: dict[str, Any] = {
        "id": name,
        "name": name.replace("_", " ").capitalize(),
        "description": setting.help_text,
        "type": types.get(setting.kind, "String"),
        "value-key": f"[{name.upper()}]",
        "optional": not setting.required,
    }
    if setting.flags:
        entry["command-line-flag"] = _long_flag(setting)
    if setting.kind is SettingKind.COUNT:
        entry |= {"integer": True, "minimum": 1}
    if setting.kind is SettingKind.LABELS:
        entry["list"] = True
    if setting.choices:
        entry["value-choices"] = [*setting.choices, *setting.aliases]
    return entry


def _outputs() -> list[dict[str, Any]]:
    outputs = (
        ("output", "Derivatives", "Folder of the derivatives, a BIDS dataset", "", False),
        (
            "description",
            "Dataset description",
            "Software and source datasets",
            "/dataset_description.json",
            True,
        ),
        ("group_images", "Table of images", "One row per image (group level)", "/group_images.tsv", True),
        ("group_volumes", "Table of measures", "One row per label and image (group level)", "/group_volumes.tsv", True),
        ("group_page", "Group page", "Report on all images (group level)", "/group.html", True),
    )
    return [
        {
            "id": key,
            "name": name,
            "description": text,
            "path-template": f"[OUTPUT_DIR]{path}",
            "optional": optional,
        }
        for key, name, text, path, optional in outputs
    ]


def descriptor() -> dict[str, Any]:
    """Return the Boutiques descriptor of the BIDS App."""
    inputs = [_input(setting) for setting in options()]
    command = " ".join([PROGRAM, *(entry["value-key"] for entry in inputs)])
    return {
        "name": PROGRAM,
        "tool-version": __version__,
        "author": "totalspineseg_bids developers",
        "description": (
            "Segment and label vertebrae, discs, spinal cord and canal in MRI of a BIDS dataset "
            f"(by default {', '.join(DEFAULT_SUFFIXES)}) with the TotalSpineSeg method."
        ),
        "url": "https://github.com/neuropoly/totalspineseg",
        "schema-version": "0.5",
        "command-line": command,
        "container-image": {"type": "docker", "image": f"{PROGRAM}:{__version__}"},
        "inputs": inputs,
        "output-files": _outputs(),
        "groups": [
            {"id": key, "name": name, "description": text, "members": list(members), "mutually-exclusive": True}
            for (key, name, text), members in zip(_GROUPS, MUTUALLY_EXCLUSIVE, strict=True)
        ],
        "error-codes": [{"code": int(code), "description": text} for code, text in _ERRORS.items()],
        "suggested-resources": {"cpu-cores": 4, "ram": 8, "walltime-estimate": 600},
        "tags": {"domain": ["neuroinformatics", "mri", "spine"], "toolbox": "totalspineseg"},
    }


def descriptor_text() -> str:
    """Return the text of ``boutiques.json``."""
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


def schema_text() -> str:
    """Return the JSON schema of invocations that Boutiques derives from the descriptor.

    Raises
    ------
    ImportError
        If Boutiques is not installed.
    """
    from boutiques.invocationSchemaHandler import generateInvocationSchema  # noqa: PLC0415 - for developers only

    return json.dumps(generateInvocationSchema(descriptor()), indent=2, ensure_ascii=False) + "\n"


def settings_table() -> str:
    """Return the table of all options in Markdown, one section per group."""
    lines: list[str] = []
    for group in SettingGroup:
        lines += [
            "",
            f"**{group.value.capitalize()}**",
            "",
            "| option | value | default | meaning |",
            "|---|---|---|---|",
            *(_row(setting) for setting in options() if setting.group is group),
        ]
    return "\n".join(lines).strip() + "\n"


def _row(setting: Setting) -> str:
    spelled = [f"`{flag}`" for flag in setting.flags] or [f"`{setting.name.upper()}`"]
    if setting.kind is SettingKind.FLAG and setting.default is not False:
        spelled.append(f"`--no-{_long_flag(setting).removeprefix('--')}`")
    values = " ".join(f"`{value}`" for value in setting.choices or (setting.metavar,) if value)
    default = setting.default_text and f"`{setting.default_text}`"
    meaning = setting.help + (f"; `{setting.variable}` sets the default" if setting.variable else "")
    cells = (", ".join(spelled), values, default, meaning)
    return "| " + " | ".join(cell.replace("|", r"\|").replace("*:", r"\*:") for cell in cells) + " |"


def guide_text(text: str) -> str:
    """Return the text of the user guide with a current table of settings.

    Parameters
    ----------
    text
        Text of the guide, with the table between two marks.
    """
    return _TABLE.sub(lambda match: f"{match[1]}\n{settings_table()}\n{match[2]}", text)


def main() -> int:
    """Write the generated files of this checkout."""
    guide = ROOT / USER_GUIDE
    guide.write_text(guide_text(guide.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / DESCRIPTOR).write_text(descriptor_text(), encoding="utf-8")
    (ROOT / INVOCATION_SCHEMA).write_text(schema_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
