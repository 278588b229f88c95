import json
import subprocess
import sys

import numpy as np
import pytest

from tests.columns import make_column
from tests.images import block, data, save
from totalspineseg_bids import anatomy
from totalspineseg_bids.cli.tools import build_parser, main
from totalspineseg_bids.errors import ExitCode
from totalspineseg_bids.training.semantic_targets import semantic_map

#: L2 to sacrum.
TRUTH = make_column(first="L2").truth


def test_help_is_quick_to_import():
    code = "import sys; from totalspineseg_bids.cli.tools import main; main(['train', '--help']); "
    code += "assert not {'torch', 'nnunetv2', 'nibabel', 'openvino'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


COMMANDS = "segment label models synthesize prepare plan train evaluate compare export train-bundled train-refinement"


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_subcommand_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["segment"], ["train", "w", "104"], ["train", "w", "101", "--fold", "x"]]
)
def test_usage_errors(arguments, capsys):
    assert main(arguments) == ExitCode.USAGE
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("totalspineseg-tools: ")


def test_options_of_the_seed_workflow():
    options = build_parser().parse_args(["train", "work", "102", "--fold", "all", "--c", "--device", "cpu"])
    assert (options.datasets, options.fold, options.resume) == ([102], "all", True)
    assert build_parser().parse_args(["train", "work", "101", "--fold", "3"]).fold == 3


def test_missing_input_and_model(tmp_path, capsys):
    assert main(["segment", str(tmp_path / "no.nii.gz"), str(tmp_path / "out.nii.gz")]) == ExitCode.NO_INPUT
    assert "no.nii.gz: no such file" in capsys.readouterr().err.splitlines()[-1]
    image = save(tmp_path / "a.nii.gz", block())
    assert main(["segment", str(image), str(tmp_path / "o"), "--model", "nonsense"]) == ExitCode.NO_INPUT
    assert "nonsense" in capsys.readouterr().err.splitlines()[-1]
    assert main(["segment", str(image), str(tmp_path / "o"), "--single-step", "--step1-only"]) == ExitCode.USAGE


def test_the_environment_sets_defaults(tmp_path, monkeypatch, capsys):
    image, out = str(save(tmp_path / "a.nii.gz", block())), str(tmp_path / "o")
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODEL", "of-environment")
    assert main(["segment", image, out]) == ExitCode.NO_INPUT
    assert "of-environment" in capsys.readouterr().err.splitlines()[-1]
    assert main(["segment", image, out, "--model", "of-line"]) == ExitCode.NO_INPUT
    assert "of-line" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("TOTALSPINESEG_BIDS_ENGINE", "tf")
    assert main(["segment", image, out]) == ExitCode.USAGE
    assert "TOTALSPINESEG_BIDS_ENGINE" in capsys.readouterr().err.splitlines()[-1]


def test_label_names_levels(tmp_path, capsys):
    truth = TRUTH
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
    assert json.loads(report.read_text())["label_scheme"] == "seed"  # as in reports of earlier versions
    before = report.read_bytes()
    for alias in ("seed", "totalsegmri"):
        assert main([*arguments, "--label-scheme", alias]) == 0
        assert report.read_bytes() == before
    assert main([*arguments, "--label-scheme", "totalspineseg"]) == 0
    np.testing.assert_array_equal(data(out), anatomy.to_scheme(got, "totalspineseg"))


def test_label_abstains_without_evidence(tmp_path):
    truth = TRUTH.copy()
    truth[np.isin(truth, (anatomy.disc("L5-S").id, anatomy.SACRUM_ID, anatomy.vertebra("L5").id))] = 0
    semantic = save(tmp_path / "in.nii.gz", semantic_map(truth, 101))
    out, report = tmp_path / "out.nii.gz", tmp_path / "out.json"
    arguments = ["label", str(semantic), str(out), "--layout", "r20240601-step1", "--report", str(report)]
    assert main(arguments) == 0
    content = json.loads(report.read_text())
    assert content["status"] == "abstained"
    assert all(c["level"] is None for c in content["components"])


def test_label_errors(tmp_path, capsys):
    semantic = str(save(tmp_path / "in.nii.gz", semantic_map(TRUTH, 101)))
    assert main(["label", semantic, str(tmp_path / "o.nii.gz"), "--layout", "r1999"]) == ExitCode.USAGE
    assert main(["label", semantic, semantic, "--layout", "r20240601-step1"]) == ExitCode.USAGE
    other = str(save(tmp_path / "other.nii.gz", TRUTH))
    assert main(["label", other, str(tmp_path / "o.nii.gz"), "--layout", "r20240601-step1"]) == ExitCode.USAGE
    assert (
        "other.nii.gz: holds the values 18, 19, 20, 21, 92, …, which the layout r20240601-step1"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "o.nii.gz").exists()


def test_prepare_and_evaluate(tmp_path, capsys):
    truth = TRUTH
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


def test_models_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODELS", str(tmp_path))
    assert main(["models", "list"]) == 0
    assert "r20251124 (default)" in capsys.readouterr().out
    assert main(["models", "path", "r20241115"]) == ExitCode.NO_INPUT
    assert main(["models", "install", str(tmp_path / "no.zip")]) == ExitCode.NO_INPUT
    assert main(["models"]) == ExitCode.USAGE


def test_synthesize(tmp_path, capsys):
    assert main(["synthesize", str(tmp_path), "--subjects", "1", "--fov", "nonsense"]) == ExitCode.USAGE
    assert main(["synthesize", str(tmp_path), "--subjects", "0"]) == ExitCode.USAGE
    (tmp_path / "dataset_description.json").write_text('{"Name": "Mine"}')
    assert main(["synthesize", str(tmp_path), "--subjects", "1"]) == ExitCode.USAGE
    assert "is a raw dataset, whose files would be replaced" in capsys.readouterr().err
