"""Datasets as people have them: what surrounds the images must not cost the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_spine import make_dataset, save, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.bids.validate import find_validator
from totalspineseg_bids.cli.bids_app import parse_config
from totalspineseg_bids.config import RunConfig

GOOD = ("sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")
Factory = Callable[[RunConfig], LoadedSegmenter]


def write(name: str, text: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    def make(raw: Path) -> None:
        path = raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))

    return make


def add(*names: str) -> Callable[[Path], object]:
    def make(raw: Path) -> None:
        for name in names:
            save(raw / name, tiny_image())

    return make


def both(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(raw: Path) -> None:
        for step in steps:
            step(raw)

    return make


def description(encoding: str) -> Callable[[Path], object]:
    content = {"Name": "Tiny", "BIDSVersion": "1.10.0", "Authors": ["José"]}
    return write("dataset_description.json", json.dumps(content, ensure_ascii=False), encoding)


@dataclass(frozen=True)
class Kind:
    """A kind of dataset: how it is made, the options of the run, and what the run does and says."""

    make: Callable[[Path], object]
    says: tuple[str, ...] = ()
    """Parts of the messages; each is on exactly one line."""
    options: tuple[str, ...] = ()
    code: int = 0
    done: tuple[str, ...] = GOOD
    """Images that are processed."""
    lacks: tuple[str, ...] = ()
    """Text that is in no message."""


KINDS = {
    "func sidecar without a key": Kind(
        both(
            add("sub-01/func/sub-01_task-rest_bold.nii.gz"),
            write("sub-01/func/sub-01_task-rest_bold.json", '{"TaskName": "rest"}'),
        ),
        ("SIDECAR_KEY_REQUIRED /sub-01/func/sub-01_task-rest_bold.nii.gz:",),
    ),
    "participant not in the table": Kind(
        write("participants.tsv", "participant_id\tage\nsub-01\t5\n"), ("PARTICIPANT_ID_MISMATCH /participants.tsv:",)
    ),
    "scans.tsv names an absent file": Kind(
        write("sub-01/sub-01_scans.tsv", "filename\tacq_time\nanat/sub-01_T1w.nii.gz\tn/a\n"),
        ("SCANS_FILENAME_NOT_MATCH_DATASET",),
    ),
    "two READMEs": Kind(write("README.md", "Text.\n"), ("MULTIPLE_README_FILES /README (and 1 more)",)),
    "unknown suffix": Kind(add("sub-01/anat/sub-01_STIR.nii.gz"), ("NOT_INCLUDED",)),
    "unknown suffix that is selected": Kind(
        add("sub-01/anat/sub-01_STIR.nii.gz"),
        ("NOT_INCLUDED /sub-01/anat/sub-01_STIR.nii.gz; correct it or give --skip-bids-validation",),
        ("--suffix", "STIR", "T2w"),
        16,
        (),
    ),
    "incomplete MP2RAGE": Kind(
        add("sub-01/anat/sub-01_inv-1_MP2RAGE.nii.gz"), ("SIDECAR_KEY_REQUIRED /sub-01/anat/sub-01_inv-1_MP2RAGE",)
    ),
    "strict": Kind(
        write("README.md", "Text.\n"),
        ("not a valid BIDS dataset, 2 errors, the first is MULTIPLE_README_FILES",),
        ("--strict-validation",),
        16,
        (),
    ),
    "selected sidecar with a wrong value": Kind(
        write("sub-01/anat/sub-01_T2w.json", '{"EchoTime": "long"}'),
        ("1 error in files of the selected images",),
        code=16,
        done=(),
    ),
    "description with a byte-order mark": Kind(description("utf-8-sig"), ("INVALID_JSON_ENCODING",)),
    "description in Latin-1": Kind(description("latin-1"), ("dataset_description.json: is not UTF-8",)),
    "description that is no JSON": Kind(
        write("dataset_description.json", '{"Name": '), ("dataset_description.json: cannot be read",), code=16, done=()
    ),
    "participants that do not exist": Kind(
        write("participants.tsv", "participant_id\nsub-01\nsub-02\nsub-09\n"),
        ("has no participant nobody; check --participant-label",),
        ("--participant-label", "nobody"),
        18,
        (),
    ),
    "one participant that does not exist": Kind(
        write("participants.tsv", "participant_id\nsub-01\nsub-02\nsub-09\n"),
        ("has no participant 08",),
        ("--participant-label", "01", "02", "08"),
    ),
}


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
@pytest.mark.usefixtures("fast_figures")
@pytest.mark.parametrize("name", KINDS)
def test_each_kind(name: str, tmp_path: Path, factory: Factory, capsys: pytest.CaptureFixture[str]) -> None:
    kind, out = KINDS[name], tmp_path / "out"
    raw = make_dataset(tmp_path / "raw", dict.fromkeys(GOOD, tiny_image()))
    kind.make(raw)
    settings = parse_config([str(raw), str(out), "participant", "--model", "bundled", *kind.options])
    assert run(settings, factory=factory) == kind.code
    said = capsys.readouterr().err
    for part in kind.says:
        assert sum(part in line for line in said.splitlines()) == 1, (part, said)
    for part in kind.lacks:
        assert part not in said
    marks = (path.relative_to(out).as_posix() for path in out.glob("sub-*/**/*_seg-totalspineseg_desc-*_dseg.json"))
    assert sorted(marks) == [
        image.replace("_T2w.nii.gz", "_seg-totalspineseg_desc-T2w_dseg.json") for image in kind.done
    ]
