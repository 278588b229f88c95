"""Machine-readable description of the program for workflow managers: ``totalspineseg-bids --info json``."""

from __future__ import annotations

from typing import Any

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import LABEL_SCHEMES, LABELS
from totalspineseg_bids.errors import ExitCode


def describe_program() -> dict[str, Any]:
    """Return versions, models, devices, label schemes and output patterns as JSON content.

    Examples
    --------
    >>> described = describe_program()
    >>> described["LabelSchemes"]["totalsegmri"][0]["name"]
    'vertebrae_L5'
    >>> described["Outputs"]["labels"]
    'sub-{sub}[/ses-{ses}]/{datatype}/{entities}_seg-totalspineseg[_res-1mm]_desc-{suffix}_dseg.nii.gz'
    """
    from totalspineseg_bids.bids.description import BIDS_VERSION
    from totalspineseg_bids.bids.sidecar import read_software_versions
    from totalspineseg_bids.citation import PROGRAM

    return {
        "Name": PROGRAM,
        "Version": __version__,
        "BIDSVersion": BIDS_VERSION,
        "Software": read_software_versions(),
        "Models": _models(),
        "Devices": _devices(),
        "LabelSchemes": {
            scheme: [
                {
                    "index": label.id_in(scheme),
                    "name": label.name,
                    "abbreviation": label.abbreviation,
                    "structure": label.structure.text,
                    "level": label.level,
                    "color": label.hex_color,
                }
                for label in sorted(LABELS, key=lambda label: label.id_in(scheme))
            ]
            for scheme in LABEL_SCHEMES
        },
        "Outputs": _output_patterns(),
        "ExitCodes": {code.name: code.value for code in ExitCode},
    }


def _models() -> list[dict[str, Any]]:
    from totalspineseg_bids.models.registry import available

    return [
        {
            "Name": model.name,
            "Kind": model.kind,
            "Installed": model.installed,
            "Default": model.default,
            "Roles": [role.value for role in model.roles],
        }
        for model in available()
    ]


def _devices() -> list[str]:
    import torch

    devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*devices, "mps"] if torch.backends.mps.is_available() else devices


def _output_patterns() -> dict[str, str]:
    """Return the path of each kind of file below the output folder; parts in brackets are not always present."""
    from totalspineseg_bids.app import group
    from totalspineseg_bids.bids.names import GROUP_PROFILES, LOGS, PROBABILITIES, DerivativeNames, report_name

    names = DerivativeNames("sub-{sub}[/ses-{ses}]/{datatype}", "{entities}", "{suffix}")
    resolution = "1mm"
    patterns = {
        "labels": names.labels(".nii.gz", resolution),
        "label_table": names.labels(".tsv", resolution),
        "sidecar": names.labels(".json", resolution),
        "profile": names.profile(".tsv"),
        "disc_points": names.points(".nii.gz", resolution),
        **{f"probability_{label}": names.probability(label, ".nii.gz", resolution) for label in PROBABILITIES},
    }
    patterns = {kind: path.replace(f"_res-{resolution}", f"[_res-{resolution}]") for kind, path in patterns.items()}
    return {
        **patterns,
        "participant_report": report_name("{sub}"),
        "failure": names.crash,
        "run_record": f"{LOGS}/run-{{time}}-{{host}}-{{process}}.toml",
        "run_manifest": f"{LOGS}/run-{{time}}-{{host}}-{{process}}.json",
        "group_report": group.PAGE,
        **{
            table: f"{table}.tsv" for table in (group.IMAGES, group.VOLUMES, group.MEASURES, group.WIDE, GROUP_PROFILES)
        },
    }
