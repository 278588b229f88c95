from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.cli.tools import build_parser, main
from totalspineseg_bids.cli.tools_files import Job, find_jobs, segment_files, verdict
from totalspineseg_bids.errors import ExitCode, ImageError, NothingSelectedError, SpineAppError, UsageError
from totalspineseg_bids.imaging.grid import to_working_grid
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.result import Component, LabelledSpine, SpineStatus
from totalspineseg_bids.training.semantic import semantic_map

TURNED = np.array([[0, 0, -1, 23], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)


def column(shape: tuple[int, int, int] = (40, 60, 120)) -> np.ndarray:
    """L2 to sacrum as boxes with discs between and a canal behind, RAS, 1 mm."""
    labels = np.zeros(shape, np.uint8)
    discs = [anatomy.disc(level).id for level in ("L2-L3", "L3-L4", "L4-L5", "L5-S")]
    vertebrae = [anatomy.vertebra(level).id for level in ("L2", "L3", "L4", "L5", "S")]
    for number, vertebra in enumerate(vertebrae):
        top = shape[2] - 2 - 24 * number
        labels[5:35, 25:55, max(0, top - 17) : top] = vertebra
        if number < len(discs):
            labels[5:35, 25:55, max(0, top - 24) : max(0, top - 17)] = discs[number]
    labels[13:27, 9:23] = anatomy.CANAL_ID
    labels[16:24, 12:20] = anatomy.CORD_ID
    return labels


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def data(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


class Threshold:
    """A segmenter that calls bright voxels L3 and dark ones nothing."""

    def segment(self, volume: Volume, *, localizer: Volume | None = None) -> LabelledSpine:
        working = to_working_grid(volume)
        label = anatomy.vertebra("L3").id
        labels = np.where(working.data > 50, label, 0).astype(np.uint8)
        if working.data.max() > 1000:
            msg = "out of memory"
            raise RuntimeError(msg)
        if not labels.any():
            return LabelledSpine(labels, working.affine, (), SpineStatus.NO_SPINE, "neither canal nor disc in view")
        component = Component(label, Structure.VERTEBRA, "L3", 0.9, "L2", None, False, float(labels.sum()), (0, 0, 0))
        return LabelledSpine(labels, working.affine, (component,), SpineStatus.LABELLED)


def block(value: float = 100.0) -> np.ndarray:
    image = np.zeros((6, 8, 10), np.float32)
    image[2:4, 3:6, 2:9] = value
    image[0, 0, 0] = 1
    return image


def test_help_is_quick_to_import() -> None:
    code = "import sys; from totalspineseg_bids.cli.tools import main; main(['train', '--help']); "
    code += "assert not {'torch', 'nnunetv2', 'nibabel', 'openvino'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "command",
    [
        "segment",
        "label",
        "models",
        "synthesize",
        "prepare",
        "plan",
        "train",
        "evaluate",
        "compare",
        "export",
        "train-bundled",
    ],
)
def test_every_subcommand_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["segment"], ["train", "w", "104"], ["train", "w", "101", "--fold", "x"]]
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("totalspineseg-tools: ")


def test_options_of_the_seed_workflow() -> None:
    options = build_parser().parse_args(["train", "work", "102", "--fold", "all", "--c", "--device", "cpu"])
    assert (options.datasets, options.fold, options.resume) == ([102], "all", True)
    assert build_parser().parse_args(["train", "work", "101", "--fold", "3"]).fold == 3


def test_jobs_of_files_and_folders(tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "a.nii.gz", block())
    deeper = save(tmp_path / "in" / "x" / "b.nii", block())
    save(tmp_path / "in" / "derivatives" / "c.nii.gz", block())
    out = tmp_path / "out"
    assert find_jobs(image, out / "z.nii.gz") == [Job(image, out / "z.nii.gz")]
    assert find_jobs(image, out) == [Job(image, out / "a.nii.gz")]
    assert find_jobs(tmp_path / "in", out) == [Job(image, out / "a.nii.gz"), Job(deeper, out / "x" / "b.nii")]
    nested = save(tmp_path / "bids" / "sub-1" / "ses-2" / "anat" / "sub-1_ses-2_T2w.nii.gz", block())
    save(tmp_path / "bids" / "sub-1" / "ses-2" / "func" / "sub-1_ses-2_bold.nii.gz", block())
    jobs = find_jobs(tmp_path / "bids", tmp_path / "bids" / "out")
    assert jobs == [Job(nested, tmp_path / "bids" / "out" / "sub-1" / "ses-2" / "anat" / nested.name)]
    for target in (image, tmp_path / "in"):
        with pytest.raises(UsageError, match="replace the input"):
            find_jobs(image, target)
    with pytest.raises(UsageError, match="replace the input"):
        find_jobs(tmp_path / "in", tmp_path / "in")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingSelectedError):
        find_jobs(tmp_path / "empty", out)


def test_one_bad_file_does_not_cost_the_others(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    image = block()
    save(source / "a.nii.gz", np.ascontiguousarray(image[::-1].transpose(1, 2, 0)), TURNED)
    (source / "b.nii.gz").write_bytes((source / "a.nii.gz").read_bytes()[:80])
    save(source / "c.nii.gz", block(20.0))
    save(source / "d.nii.gz", block(5000.0))
    save(source / "e.nii.gz", image)
    outcomes = list(segment_files(find_jobs(source, out), Threshold(), scheme="totalspineseg", report=True))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False, True]
    assert "no-spine" in outcomes[2].line
    assert "d.nii.gz: RuntimeError" in outcomes[3].line
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a.nii.gz", "e.nii.gz"]
    np.testing.assert_array_equal(data(out / "e.nii.gz"), np.where(image > 50, 43, 0))
    turned = nib.load(out / "a.nii.gz")
    np.testing.assert_array_equal(turned.affine, TURNED)
    np.testing.assert_array_equal(
        np.asanyarray(turned.dataobj)[:, :, ::-1].transpose(2, 0, 1), np.where(image > 50, 43, 0)
    )
    report = json.loads((out / "e.json").read_text())
    assert report["components"][0] == report["components"][0] | {"label": 43, "level": "L3", "runner_up": "L2"}
    assert json.loads((out / "c.json").read_text())["status"] == "no-spine"
    with pytest.raises(SpineAppError, match=r"2 of 5 images failed; the first: .*b\.nii\.gz") as caught:
        verdict(outcomes)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    with pytest.raises(ImageError):
        verdict(outcomes[1:2])
    assert verdict([outcomes[0], outcomes[2]]) == 0


def test_missing_input_and_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(tmp_path / "no.nii.gz"), str(tmp_path / "out.nii.gz")]) == ExitCode.NO_INPUT
    assert "no.nii.gz: no such file" in capsys.readouterr().err.splitlines()[-1]
    image = save(tmp_path / "a.nii.gz", block())
    assert main(["segment", str(image), str(tmp_path / "o"), "--model", "nonsense"]) == ExitCode.NO_INPUT
    assert "nonsense" in capsys.readouterr().err.splitlines()[-1]


def test_label_names_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = column()
    semantic = save(tmp_path / "in.nii.gz", semantic_map(truth, 102))
    out, report = tmp_path / "out.nii.gz", tmp_path / "out.json"
    arguments = ["label", str(semantic), str(out), "--layout", "r20240601-step2", "--report", str(report)]
    assert main(arguments) == 0
    assert "labelled" in capsys.readouterr().out
    got = data(out)
    for level in ("L5-S", "L4-L5", "L3-L4", "L2-L3"):
        disc = anatomy.disc(level).id
        assert ((got == disc) & (truth == disc)).sum() > 0.9 * (truth == disc).sum()
    levels = {c["name"]: c for c in json.loads(report.read_text())["components"]}
    assert levels["disc_L5_S"]["level"] == "L5-S"
    assert 0 <= levels["disc_L5_S"]["confidence"] <= 1
    assert main([*arguments, "--label-scheme", "totalspineseg"]) == 0
    np.testing.assert_array_equal(data(out), anatomy.to_scheme(got, "totalspineseg"))


def test_label_abstains_without_evidence(tmp_path: Path) -> None:
    truth = column()
    truth[np.isin(truth, (anatomy.disc("L5-S").id, anatomy.SACRUM_ID, anatomy.vertebra("L5").id))] = 0
    semantic = save(tmp_path / "in.nii.gz", semantic_map(truth, 101))
    out, report = tmp_path / "out.nii.gz", tmp_path / "out.json"
    arguments = ["label", str(semantic), str(out), "--layout", "r20240601-step1", "--report", str(report)]
    assert main(arguments) == 0
    content = json.loads(report.read_text())
    assert content["status"] == "abstained"
    assert all(c["level"] is None for c in content["components"])


def test_label_errors(tmp_path: Path) -> None:
    semantic = save(tmp_path / "in.nii.gz", semantic_map(column(), 101))
    assert main(["label", str(semantic), str(tmp_path / "o.nii.gz"), "--layout", "r1999"]) == ExitCode.USAGE
    assert main(["label", str(semantic), str(semantic), "--layout", "r20240601-step1"]) == ExitCode.USAGE
    image = save(tmp_path / "image.nii.gz", block() + 0.5)
    arguments = ["label", str(image), str(tmp_path / "o.nii.gz"), "--layout", "r20240601-step1"]
    assert main(arguments) == ExitCode.BAD_DATA


def test_prepare_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = column((36, 57, 60))
    for number in range(2):
        save(tmp_path / "d" / f"sub-{number}" / "anat" / f"sub-{number}_T2w.nii.gz", truth.astype(np.float32))
    save(tmp_path / "d" / "derivatives/labels/sub-0/anat/sub-0_T2w_label-spine_dseg.nii.gz", truth)
    work = str(tmp_path / "work")
    arguments = ["prepare", work, str(tmp_path / "d"), "--datasets", "101", "--test", "0"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "sub-1_T2w.nii.gz: no label image" in out
    assert "1 images to train on, 0 to test on, 1 left out" in out
    assert main([*arguments, "--strict"]) == ExitCode.BAD_DATA
    assert main(["plan", work, "103"]) == ExitCode.NO_INPUT
    labels = str(tmp_path / "d" / "derivatives" / "labels")
    capsys.readouterr()
    assert main(["evaluate", labels, labels, "--output", str(tmp_path / "e")]) == 0
    assert "100 %" in capsys.readouterr().out
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["summary"]["dice_levels"] == 1.0
    assert main(["evaluate", labels, str(tmp_path / "nowhere")]) == ExitCode.NO_INPUT


def test_models_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODELS", str(tmp_path))
    assert main(["models", "list"]) == 0
    assert "r20251124 (default)" in capsys.readouterr().out
    assert main(["models", "path", "r20241115"]) == ExitCode.NO_INPUT
    assert main(["models", "install", str(tmp_path / "no.zip")]) == ExitCode.NO_INPUT
    assert main(["models"]) == ExitCode.USAGE


def test_synthesize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthesize", str(tmp_path), "--subjects", "1", "--fov", "nonsense"]) == ExitCode.USAGE
    assert main(["synthesize", str(tmp_path), "--subjects", "0"]) == ExitCode.USAGE
