"""The command line: spellings, precedence, exit codes and last lines."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from totalspineseg_bids import __version__
from totalspineseg_bids.cli import bids_app
from totalspineseg_bids.cli.bids_app import main, parse_config
from totalspineseg_bids.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
generated = SimpleNamespace(**runpy.run_path(str(ROOT / "tools/generate_descriptor.py")))


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "raw"
    (root / "sub-01" / "anat").mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


@pytest.fixture
def required(dataset, tmp_path):
    return [str(dataset), str(tmp_path / "out"), "participant"]


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["--participant-label", "01", "sub-02"], "participant_label", ("01", "02")),
        (["--participant_label", "sub-01"], "participant_label", ("01",)),
        (["--session-id", "a", "b"], "session_label", ("a", "b")),
        (["--suffix", "T1rho", "UNIT1"], "suffix", ("T1rho", "UNIT1")),
        (["--skip_bids_validator"], "skip_bids_validation", True),
        (["--nprocs", "3"], "n_cpus", 3),
        (["--n_cpus", "3"], "n_cpus", 3),
        (["-w", "/tmp/x"], "work_dir", Path("/tmp/x")),  # noqa: S108
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--label-scheme", "seed"], "label_scheme", "totalsegmri"),
        (["--localizer", "acq-loc"], "localizer", "acq-loc"),
        (["--volume", "2"], "volume", 2),
        (["--force"], "force", True),
        (["--progress"], "progress", True),
        (["--no-progress"], "progress", False),
        (["-q"], "verbose", 0),
        (["-v"], "verbose", 2),
    ],
)
def test_every_spelling_reaches_its_setting(required, options, field, value):
    assert getattr(parse_config([*required, *options]), field) == value


def test_options_may_precede_positional_arguments(required):
    config = parse_config(["--force", "--n-cpus", "2", *required])
    assert (config.analysis_level, config.force, config.n_cpus) == ("participant", True, 2)
    config = parse_config([required[0], "--model", "bundled", *required[1:]])
    assert (config.analysis_level, config.model) == ("participant", "bundled")


def test_command_line_before_toml_before_environment(required, tmp_path, monkeypatch):
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODEL", "of-environment")
    monkeypatch.setenv("TOTALSPINESEG_BIDS_DEVICE", "cpu")
    file = tmp_path / "run.toml"
    file.write_text('model = "of-toml"\nn-cpus = 4\nforce = true\n')
    config = parse_config([*required, "--config-file", str(file), "--n-cpus", "2"])
    assert (config.model, config.device, config.n_cpus, config.force) == ("of-toml", "cpu", 2, True)
    assert parse_config([*required, "--model", "of-line", "--config-file", str(file)]).model == "of-line"


def test_everything_may_come_from_toml(required, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(parse_config([*required, "--suffix", "T2w"]).to_toml({"version": "x"}))
    assert parse_config(["--config-file", str(file)]) == parse_config([*required, "--suffix", "T2w"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{raw}", "{out}"], 64, "analysis_level not given"),
        (["{raw}", "{out}", "session"], 17, "unknown analysis level 'session'"),
        (["{raw}", "{out}", "participant", "--nonsense"], 64, "--nonsense"),
        (["{raw}", "{out}", "participant", "--n-cpus", "many"], 64, "must be a whole number"),
        (["{raw}", "{out}", "participant", "--engine", "tf"], 64, "invalid choice"),
        (["{raw}", "{out}", "participant", "--device", "gpu"], 64, "device 'gpu'"),
        (["{raw}", "{out}", "participant", "--config-file", "{raw}/absent.toml"], 66, "absent.toml"),
        (["{raw}", "{out}", "participant", "--participant-label", ""], 64, "participant_label has an empty value"),
        (["{raw}", "{out}", "participant", "--corrections", ""], 64, "the path is empty"),
        (["{raw}/absent", "{out}", "participant"], 66, "no such dataset"),
        (["{raw}/sub-01", "{out}", "participant"], 16, "no dataset_description.json"),
        (["{raw}", "{raw}", "participant"], 64, "give a folder outside it"),
        (["{raw}", "{out}", "group"], 66, "run the participant level first"),
        (["{raw}", "{out}", "participant", "--skip-bids-validation"], 18, "no image matches"),
        (["{raw}", "{out}", "participant", "--skip-bids-validation", "--participant-label", "9"], 18, "no participant"),
    ],
)
def test_errors_have_their_exit_code_and_a_last_line(required, arguments, code, says, capsys):
    raw, out, _ = required
    assert main([text.format(raw=raw, out=out) for text in arguments]) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("totalspineseg-bids: ")
    assert says in last


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ({"Name": "Mine"}, "is a raw dataset, whose description would be replaced"),
        (
            {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]},
            "is a derivative dataset made by fMRIPrep",
        ),
        ({"DatasetType": "derivative", "GeneratedBy": [{"Name": "totalspineseg_bids"}]}, ""),
        ({"DatasetType": "raw", "GeneratedBy": [{"Name": "totalspineseg_bids"}]}, "is a raw dataset made by totalsp"),
        ({"DatasetType": "derivative"}, ""),
        ([], ""),
    ],
)
def test_another_dataset_is_no_output_folder(required, description, says, capsys):
    out = Path(required[1])
    out.mkdir()
    (out / "dataset_description.json").write_text(json.dumps(description))
    # Without a reason to refuse the folder, the dataset has no image.
    assert main([*required, "--skip-bids-validation"]) == (64 if says else 18)
    assert says in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed")
def test_a_current_folder_that_was_removed_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["raw", "out", "participant"]) == 64
    assert "raw: the current folder was removed" in capsys.readouterr().err.splitlines()[-1]


def test_the_real_segmenter_says_which_model_is_missing(dataset, required, tmp_path, capsys):
    (dataset / "sub-01/anat/sub-01_T2w.nii.gz").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    options = ["--skip-bids-validation", "--model"]
    assert main([*required, *options, str(tmp_path / "empty")]) == 66
    last = capsys.readouterr().err.splitlines()[-1]
    assert "step1" in last
    assert main([*required, *options, "r00000000"]) == 66
    assert "r00000000" in capsys.readouterr().err.splitlines()[-1]


def test_help_and_version(tmp_path, monkeypatch, capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        group in text for group in ("which images:", "method:", "output:", "resources:", "running:", "examples:")
    )
    assert "--participant_label" not in text  # accepted, not shown
    assert max(len(line) for line in text.splitlines()) <= 120
    assert main([]) == 0
    capsys.readouterr()
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODELS", str(tmp_path))
    assert main(["--version"]) == 0
    assert "default model r20251124, not installed)" in capsys.readouterr().out
    (tmp_path / "r20251124").mkdir()
    assert main(["--version"]) == 0
    version = capsys.readouterr().out
    assert version.startswith(f"totalspineseg-bids {__version__} (nnU-Net ")
    assert all(name in version for name in ("torch", "OpenVINO", "default model r20251124)"))


def test_info_describes_the_program_as_json(capsys):
    assert main(["--info", "json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["Version"] == __version__
    assert [model["Name"] for model in described["Models"] if model["Default"]] == ["r20251124"]
    assert described["Devices"][0] == "cpu"
    schemes = described["LabelSchemes"]
    assert {label["name"]: label["index"] for label in schemes["totalspineseg"]}["disc_C2_C3"] == 63
    assert {label["name"]: label["index"] for label in schemes["totalsegmri"]}["disc_C2_C3"] == 224
    assert main(["--info", "xml"]) == 64


def test_help_loads_none_of_the_heavy_libraries():
    script = (
        "import sys; from totalspineseg_bids.cli.bids_app import main; main(['--help']); main(['--version'])\n"
        "heavy = {'torch', 'nnunetv2', 'bids', 'openvino', 'nibabel', 'pandas', 'scipy'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_boutiques_json_is_current():
    assert (ROOT / "boutiques.json").read_text(encoding="utf-8") == generated.descriptor_text(), "run: make descriptor"


def test_the_generated_table_of_settings_is_current():
    guide = (ROOT / generated.USER_GUIDE).read_text(encoding="utf-8")
    assert guide == generated.guide_text(guide), "run: make descriptor"
    for flag in ("--participant-label", "--session-id", "--no-joint-session", "--quiet"):
        assert f"`{flag}`" in generated.settings_table()


def test_boutiques_descriptor_is_whole():
    descriptor = generated.descriptor()
    ids = [entry["id"] for entry in descriptor["inputs"]]
    assert {*SETTINGS, "level", "config_file", "quiet"} - {"analysis_level"} == set(ids)
    assert ids[:3] == ["bids_dir", "output_dir", "level"]
    keys = [entry["value-key"] for entry in descriptor["inputs"]]
    assert descriptor["command-line"].split() == [bids_app.PROGRAM, *keys]
    by_id = {entry["id"]: entry for entry in descriptor["inputs"]}
    assert by_id["level"]["value-choices"] == ["participant", "group"]
    assert by_id["participant_label"]["list"]
    assert by_id["label_scheme"]["value-choices"] == ["totalsegmri", "totalspineseg", "seed"]
    assert by_id["n_cpus"]["type"] == "Number"
    assert (by_id["force"]["type"], by_id["force"]["command-line-flag"]) == ("Flag", "--force")


def test_boutiques_accepts_the_descriptor_and_builds_command_lines(tmp_path):
    pytest.importorskip("boutiques")
    from boutiques import bosh

    path = str(ROOT / "boutiques.json")
    bosh(["validate", path])
    invocation = {"bids_dir": str(tmp_path), "output_dir": "out", "level": "participant"}
    invocation |= {"participant_label": ["01", "02"], "n_cpus": 4, "force": True}
    (tmp_path / "invocation.json").write_text(json.dumps(invocation))
    done = bosh(["exec", "simulate", path, "-i", str(tmp_path / "invocation.json")])
    expected = f"totalspineseg-bids {tmp_path} out participant --participant-label 01 02 --n-cpus 4 --force"
    assert expected in " ".join(str(done).split())


def test_the_invocation_schema_and_its_example_fit_the_descriptor():
    pytest.importorskip("boutiques")
    jsonschema = pytest.importorskip("jsonschema")
    folder = ROOT / "docs" / "platforms"
    assert (folder / "invocation.schema.json").read_text(encoding="utf-8") == generated.schema_text(), (
        "run: make descriptor"
    )
    schema = json.loads(generated.schema_text())
    from boutiques import bosh

    done = bosh(["exec", "simulate", str(ROOT / "boutiques.json"), "-i", str(folder / "invocation.json")])
    (command,) = {line.strip() for line in str(done).splitlines() if line.startswith(bids_app.PROGRAM)}
    assert command in (folder / "platforms.md").read_text(encoding="utf-8")
    example = json.loads((folder / "invocation.json").read_text())
    jsonschema.validate(example, schema)
    for wrong in ({"level": "session"}, {"n_cpus": "four"}, {"nonsense": 1}, {"single_step": True, "step1_only": True}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**example, **wrong}, schema)
