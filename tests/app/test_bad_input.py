"""Bad input files: the exit code and message of each kind, and that valid images beside them are processed."""

from __future__ import annotations

import ctypes
import gzip
import json
import multiprocessing
import os
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from processes import as_plain_user, config, dataset, finish, say_to, work  # type: ignore[import-not-found]
from tiny_spine import contents, make_dataset, save, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.app.crash import read_crashes
from totalspineseg_bids.bids.query import Selection, find_images
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.cli.bids_app import main
from totalspineseg_bids.files import read_json

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")

Maker = Callable[[Path], object]


def write(content: bytes) -> Maker:
    return lambda path: path.write_bytes(content)


def image(data: np.ndarray, affine: np.ndarray | None = None) -> Maker:
    def make(path: Path) -> None:
        if affine is None:
            save(path, data)
        else:
            nib.save(nib.Nifti1Image(data, affine), path)

    return make


def changed(change: Callable[[nib.Nifti1Header], None]) -> Maker:
    """A gzip-compressed image whose header bytes were changed after it was written."""

    def make(path: Path) -> None:
        content = gzip.decompress(save(path, tiny_image()).read_bytes())
        header = nib.Nifti1Header(content[:348], check=False)
        change(header)
        path.write_bytes(gzip.compress(header.binaryblock + content[348:]))

    return make


def cut(keep: float) -> Maker:
    def make(path: Path) -> None:
        content = save(path, tiny_image()).read_bytes()
        path.write_bytes(content[: int(keep * len(content))])

    return make


def without_checksum(path: Path) -> None:
    path.write_bytes(save(path, tiny_image()).read_bytes()[:-8])


def flipped(path: Path) -> None:
    content = bytearray(save(path, tiny_image()).read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def with_values(**values: float) -> Maker:
    """An image with single voxels of another value."""

    def make(path: Path) -> None:
        data = tiny_image().astype(np.float32)
        for number, value in enumerate(values.values()):
            data[0, 0, number] = value
        save(path, data)

    return make


def colours(path: Path) -> None:
    data = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


def whole_numbers_of_64_bits(path: Path) -> None:
    affine = np.diag([1.0, 1, 1, 1])
    nib.save(nib.Nifti1Image(tiny_image().astype(np.int64), affine, dtype=np.int64), path)


def no_header_affine(header: nib.Nifti1Header) -> None:
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row] = 0
    header["sform_code"], header["qform_code"] = 1, 0


def huge_promise(header: nib.Nifti1Header) -> None:
    header["dim"][1:4] = (2200, 2200, 2200)


def other_qform(path: Path) -> None:
    moved = nib.Nifti1Image(tiny_image(), np.eye(4))
    moved.set_sform(np.eye(4), 1)
    moved.set_qform(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 25, 1)
    nib.save(moved, path)


def no_codes(path: Path) -> None:
    plain = nib.Nifti1Image(tiny_image(), None)
    plain.header["pixdim"][1:4] = 1
    plain.header["sform_code"] = plain.header["qform_code"] = 0
    nib.save(plain, path)


def bad_sidecar(path: Path) -> None:
    save(path, tiny_image())
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text('{"EchoTime": ')


def unreadable(path: Path) -> None:
    save(path, tiny_image()).chmod(0)


def sheared() -> np.ndarray:
    affine = np.eye(4)
    affine[0, 2] = 0.12
    return affine


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is made, the exit code it stands for, and what is said of it.

    Where the code is 0 the image is done, and ``says`` is the note on its sidecar (nothing is noted if empty).
    """

    make: Maker
    code: int
    says: str


KINDS = {
    "truncated": Kind(cut(0.5), 65, "truncated or damaged; copy or convert it again"),
    "barelybegun": Kind(write(b"\x1f\x8b\x08"), 65, "truncated or damaged"),
    "nochecksum": Kind(without_checksum, 65, "truncated or damaged"),
    "flippedbit": Kind(flipped, 65, "truncated or damaged"),
    "notgzip": Kind(write(b"this is text, not an image"), 65, "named .gz but not gzip"),
    "plainnifti": Kind(lambda p: write(gzip.decompress(save(p, tiny_image()).read_bytes()))(p), 65, "not gzip"),
    "gzippedtext": Kind(write(gzip.compress(b"text " * 200)), 65, "not a valid NIfTI header"),
    "empty": Kind(write(b""), 65, "the file is empty"),
    "twod": Kind(image(tiny_image()[:, :, 0]), 65, "is 2D"),
    "oneslice": Kind(image(tiny_image()[:, :, :1]), 65, "is 2D"),
    "onevoxel": Kind(image(tiny_image()[:1, :1, :1]), 65, "is 2D (1 x 1 x 1)"),
    "fived": Kind(image(np.stack([np.stack([tiny_image()] * 2, 3)] * 2, 4)), 65, "5 dimensions"),
    "allzero": Kind(image(np.zeros((8, 8, 8), np.int16)), 65, "every voxel is zero"),
    "constant": Kind(image(np.full((8, 8, 8), 7, np.int16)), 65, "every voxel is the same value (7)"),
    "allnan": Kind(image(np.full((8, 8, 8), np.nan, np.float32)), 65, "NaN"),
    "complex": Kind(image(tiny_image().astype(np.complex64)), 65, "holds complex values"),
    "colours": Kind(colours, 65, "colour (RGB)"),
    "hugevoxels": Kind(image(tiny_image(), np.diag([900.0, 900, 900, 1])), 65, "not plausible"),
    "tinyvoxels": Kind(image(tiny_image(), np.diag([1e-4, 1e-4, 1e-4, 1])), 65, "not plausible"),
    "zeroaffine": Kind(changed(no_header_affine), 65, "the affine is zero"),
    "flataffine": Kind(image(tiny_image(), np.eye(4) + np.eye(4, k=1) * [0, 99, 0, 0]), 65, "degenerate"),
    "hugepromise": Kind(changed(huge_promise), 65, "2200 x 2200 x 2200"),
    "negativesize": Kind(changed(lambda h: h["dim"].__setitem__(2, -5)), 65, "dimensions"),
    "folder": Kind(lambda p: p.mkdir(), 65, "is a folder, not an image"),
    "brokenlink": Kind(lambda p: p.symlink_to("../../.git/annex/objects/x"), 66, "content not fetched"),
    "annexpointer": Kind(write(b"/annex/objects/MD5E-s123--abc.nii.gz\n"), 66, "content not fetched"),
    "unreadable": Kind(unreadable, 66, "no permission to read it"),
    "fourd": Kind(image(np.stack([tiny_image()] * 3, axis=3)), 0, "volume:mean-of-3"),
    "somenan": Kind(with_values(a=np.nan, b=np.nan), 0, "non-finite-voxels:2"),
    "someinf": Kind(with_values(a=np.inf, b=-np.inf, c=np.inf), 0, "non-finite-voxels:3"),
    "negative": Kind(with_values(a=-300.0, b=-1.0), 0, ""),
    "int64": Kind(whole_numbers_of_64_bits, 0, ""),
    "sheared": Kind(image(tiny_image(), sheared()), 0, "sheared-affine"),
    "otherqform": Kind(other_qform, 0, "qform-sform-differ"),
    "nocodes": Kind(no_codes, 0, "no-orientation-in-header"),
    "badsidecar": Kind(bad_sidecar, 0, ""),
}
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
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
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


def test_there_are_at_least_thirty_kinds() -> None:
    assert len(KINDS) >= 30


@pytest.mark.parametrize("name", KINDS)
def test_each_kind(outcome: Outcome, name: str) -> None:
    kind = KINDS[name]
    sidecar = read_json(outcome.out / f"{stem(name)}_seg-totalspineseg_desc-T2w_dseg.json")
    failure = read_crashes(outcome.out).get(f"{stem(name)}_T2w.nii.gz")
    if kind.code == 0:
        assert failure is None
        assert sidecar is not None
        assert sidecar["Status"] == "labelled"
        assert sidecar["InputNotes"] == ([kind.says] if kind.says else [])
        return
    assert sidecar is None
    assert failure is not None
    assert failure.exit_code == kind.code
    assert f"{stem(name)}_T2w.nii.gz: " in failure.reason
    assert kind.says in failure.reason
    assert "\n" not in failure.reason
    assert failure.reason.split(": ", 1)[1] in (outcome.out / f"sub-{name}.html").read_text().replace("&#39;", "'")
    assert not [p for p in (outcome.out / f"sub-{name}").rglob("*") if p.is_file()]


@pytest.mark.parametrize("code", sorted({kind.code for kind in KINDS.values()}))
def test_exit_code_and_last_line_of_a_run(outcome: Outcome, code: int) -> None:
    assert outcome.codes[code] == code
    number = sum(kind.code == code for kind in KINDS.values())
    if code:
        start = f"totalspineseg-bids: {number} of {number + 1} images failed, the first: "
        assert outcome.last[code].startswith(start)
        assert "_T2w.nii.gz" in outcome.last[code]


def test_the_good_image_is_done_and_the_output_valid(outcome: Outcome) -> None:
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


def test_oddly_named_files_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = ["sub-good/anat/sub-good_T2w copy.nii.gz", "sub-good/anat/sub-other_T2w.nii.gz", "sub-good/anat/T2w.nii.gz"]
    raw = make_dataset(tmp_path / "raw", dict.fromkeys([GOOD, *odd], tiny_image()))
    arguments = [str(raw), str(tmp_path / "out"), "participant", "--model", "bundled"]
    assert main([*arguments, "--strict-validation"]) == 16
    last = capsys.readouterr().err.splitlines()
    assert "not a valid BIDS dataset" in last[-1]
    assert all(any(name.rsplit("/", 1)[1] in line for line in last) for name in odd)
    finish(config(raw, tmp_path / "out"))
    assert [source.relative for source in find_images(raw, Selection())] == [GOOD]


def test_two_files_of_one_name_fail_both(tmp_path: Path) -> None:
    names = ["sub-01/anat/sub-01_run-1_T2w.nii", "sub-01/anat/sub-01_run-1_T2w.nii.gz"]
    raw = make_dataset(tmp_path / "raw", dict.fromkeys([GOOD, *names], tiny_image()))
    assert as_plain_user(config(raw, tmp_path / "out"), tmp_path / "says") == 65
    assert " and ".join(names) in (tmp_path / "says").read_text().splitlines()[-1]
    assert (tmp_path / "out/sub-good/anat/sub-good_seg-totalspineseg_desc-T2w_dseg.json").is_file()


@pytest.mark.parametrize("below", ["", "sub-good", "results", ".."])
def test_output_among_the_input(tmp_path: Path, below: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw = dataset(tmp_path / "raw", [GOOD])
    before = contents(raw)
    assert main([str(raw), str(raw / below), "participant", "--model", "bundled"]) == 64
    assert "give a folder" in capsys.readouterr().err.splitlines()[-1]
    assert contents(raw) == before


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    raw = dataset(tmp_path / "raw", [GOOD])
    (tmp_path / "out").mkdir(mode=0o555)
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        assert as_plain_user(config(raw, out), tmp_path / "says") == 73
        last = (tmp_path / "says").read_text().splitlines()[-1]
        assert str(out) in last
        assert "Permission denied" in last
    assert list((tmp_path / "out").iterdir()) == []


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
@pytest.mark.usefixtures("fast_figures")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
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


class Hostile:
    """Runs a program when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.witness),)


def test_a_checkpoint_that_would_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from tests.inference.untrained import write_untrained_model

    raw, witness = dataset(tmp_path / "raw", [GOOD]), tmp_path / "it-ran"
    labels = {"background": 0, "disc": [1, 2], "disc_L5_S": 2, "vertebrae": 3, "canal": 4}
    step1 = {"channel_names": {"0": "MRI"}, "labels": labels, "regions_class_order": [1, 2, 3, 4]}
    model = write_untrained_model(tmp_path / "model", step1)
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": Hostile(witness)}, checkpoint)
    arguments = [str(raw), str(tmp_path / "out"), "participant", "--skip-bids-validation", "--step1-only", "--model"]
    assert main([*arguments, str(tmp_path / "model")]) == 66
    last = capsys.readouterr().err.splitlines()[-1]
    assert str(checkpoint) in last
    assert "mkdir" in last
    assert not witness.exists()


@pytest.mark.parametrize("entry", ["../escaped.txt", "/escaped.txt", "link"])
def test_a_model_zip_that_reaches_outside(
    tmp_path: Path, entry: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODELS", str(tmp_path / "models"))
    raw, path = dataset(tmp_path / "raw", [GOOD]), tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(entry)
        info.external_attr = (0o644 | (stat.S_IFLNK if entry == "link" else stat.S_IFREG)) << 16
        archive.writestr(info, "/etc/passwd")
    arguments = [str(raw), str(tmp_path / "out"), "participant", "--skip-bids-validation", "--model", str(path)]
    assert main(arguments) == 66
    assert "model.zip is refused" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not (tmp_path / "models").exists()
    assert json.loads((raw / "dataset_description.json").read_text())["Name"] == "Tiny"
