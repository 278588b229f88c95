"""Bad input files: the exit code and message of each kind, and that valid images beside them are processed."""

import ctypes
import multiprocessing
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import as_plain_user, config, dataset, finish, say_to, work  # type: ignore[import-not-found]
from tiny_spine import contents, make_dataset, tiny_image  # type: ignore[import-not-found]

from tests.bad_images import KINDS
from totalspineseg_bids.app.crash import read_crashes
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.files import read_json

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")

GOOD = "sub-good/anat/sub-good_T2w.nii.gz"


@dataclass(frozen=True)
class Outcome:
    """Output folder and, by exit code that the kinds stand for, exit code and last line of the run over them."""

    out: Path
    codes: dict[int, int]
    last: dict[int, str]


def stem(kind: str) -> str:
    return f"sub-{kind}/anat/sub-{kind}"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Run over all kinds of one exit code at a time, with a good image among them, as a user with no privileges."""
    base = tmp_path_factory.mktemp("bad")
    raw = make_dataset(base / "raw", {GOOD: tiny_image(seed=1)})
    for name, kind in KINDS.items():
        path = raw / f"{stem(name)}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        kind.make(path)
    folders = [raw, *(path for path in raw.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)  # nobody has to write to the input
    codes, last = {}, {}
    for code in sorted({kind.code for kind in KINDS.values()}):
        labels = ["good", *(name for name, kind in KINDS.items() if kind.code == code)]
        says = base / f"stderr-{code}"
        codes[code] = as_plain_user(config(raw, base / "out", participant_label=labels), says)
        last[code] = (says.read_text().splitlines() or [""])[-1]
    assert as_plain_user(config(raw, base / "out", "group"), base / "stderr-group") == 0
    yield Outcome(base / "out", codes, last)
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind(outcome, name):
    kind = KINDS[name]
    sidecar = read_json(outcome.out / f"{stem(name)}_seg-totalspineseg_desc-T2w_dseg.json")
    failure = read_crashes(outcome.out).get(f"{stem(name)}_T2w.nii.gz")
    if kind.code == 0:
        assert failure is None
        assert sidecar["Status"] == "labelled"
        assert sidecar["InputNotes"] == ([kind.says] if kind.says else [])
        return
    assert sidecar is None
    assert failure.exit_code == kind.code
    assert f"{stem(name)}_T2w.nii.gz: " in failure.reason
    assert kind.says in failure.reason
    assert "\n" not in failure.reason
    assert failure.reason.split(": ", 1)[1] in (outcome.out / f"sub-{name}.html").read_text().replace("&#39;", "'")
    assert not [p for p in (outcome.out / f"sub-{name}").rglob("*") if p.is_file()]


@pytest.mark.parametrize("code", sorted({kind.code for kind in KINDS.values()}))
def test_exit_code_and_last_line_of_a_run(outcome, code):
    assert outcome.codes[code] == code
    number = sum(kind.code == code for kind in KINDS.values())
    if code:
        start = f"totalspineseg-bids: {number} of {number + 1} images failed, the first: "
        assert outcome.last[code].startswith(start)
        assert "_T2w.nii.gz" in outcome.last[code]


def test_the_good_image_is_done_and_the_output_valid(outcome):
    rows = {row["participant"]: row for row in read_table(outcome.out / "group_images.tsv")}
    assert rows["sub-good"]["status"] == "labelled"
    assert {name for name, kind in KINDS.items() if rows[f"sub-{name}"]["status"] == "failed"} == {
        name for name, kind in KINDS.items() if kind.code
    }
    assert {row["participant"] for row in read_table(outcome.out / "group_volumes.tsv")} == {
        "sub-good",
        *(f"sub-{name}" for name, kind in KINDS.items() if kind.code == 0),
    }
    assert validate(outcome.out) == []


def test_two_files_of_one_name_fail_both(tmp_path):
    names = ["sub-01/anat/sub-01_run-1_T2w.nii", "sub-01/anat/sub-01_run-1_T2w.nii.gz"]
    raw = make_dataset(tmp_path / "raw", dict.fromkeys([GOOD, *names], tiny_image()))
    assert as_plain_user(config(raw, tmp_path / "out"), tmp_path / "says") == 65
    assert " and ".join(names) in (tmp_path / "says").read_text().splitlines()[-1]
    assert (tmp_path / "out/sub-good/anat/sub-good_seg-totalspineseg_desc-T2w_dseg.json").is_file()


def test_output_that_cannot_be_written(tmp_path):
    raw = dataset(tmp_path / "raw", [GOOD])
    (tmp_path / "out").mkdir(mode=0o555)
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        assert as_plain_user(config(raw, out), tmp_path / "says") == 73
        last = (tmp_path / "says").read_text().splitlines()[-1]
        assert str(out) in last
        assert "Permission denied" in last
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_in_the_output_that_cannot_be_written_costs_its_participant(tmp_path):
    raw = dataset(tmp_path / "raw", [GOOD, "sub-other/anat/sub-other_T2w.nii.gz"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub-other").write_text("in the way")
    assert as_plain_user(config(raw, tmp_path / "out"), tmp_path / "says") == 73
    last = (tmp_path / "says").read_text().splitlines()[-1]
    assert "1 of 2 images failed" in last
    assert f"{tmp_path / 'out/sub-other'}" in last


def _on_a_small_disk(raw: Path, out: Path, copy: Path, kilobytes: int, says: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    out.mkdir()
    new_mounts, private, recursive = 0x00020000, 1 << 18, 16384
    mounted = (
        libc.unshare(new_mounts) == 0
        and libc.mount(b"none", b"/", None, private | recursive, None) == 0
        and libc.mount(b"tmpfs", os.fsencode(out), b"tmpfs", 0, f"size={kilobytes}k".encode()) == 0
    )
    if not mounted:
        os._exit(99)
    say_to(says)
    inner = os.fork()
    if inner == 0:
        work(config(raw, out))
    _, status = os.waitpid(inner, 0)
    shutil.copytree(out, copy)
    os._exit(os.waitstatus_to_exitcode(status))


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up(tmp_path):
    names = ["sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"]
    raw = dataset(tmp_path / "raw", names)
    finish(config(raw, tmp_path / "whole"))
    whole = contents(tmp_path / "whole")
    # Space for the first participant and for six more pages, some of which the log needs.
    pages = sum(-(-len(content) // 4096) for name, content in whole.items() if "sub-02" not in name)
    arguments = (raw, tmp_path / "out", tmp_path / "copy", 4 * (pages + 6), tmp_path / "says")
    process = multiprocessing.get_context("fork").Process(target=_on_a_small_disk, args=arguments)
    process.start()
    process.join()
    if process.exitcode == 99:
        pytest.skip("no file system may be mounted here")
    said = (tmp_path / "says").read_text()
    assert process.exitcode == 74, said
    assert said.splitlines()[-1].startswith(f"totalspineseg-bids: {tmp_path / 'out'}: cannot be written (No space left")
    assert "Traceback" not in said
    left = contents(tmp_path / "copy")
    done = {name: content for name, content in whole.items() if name.startswith("sub-01/")}
    assert {name: left.get(name) for name in done} == done
    assert not any("sub-02" in name and name.endswith("dseg.json") and "totalspineseg" in name for name in left)
