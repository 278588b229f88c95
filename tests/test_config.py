"""One record of a run: what it refuses, how it is written and read back."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalspineseg_bids import __version__
from totalspineseg_bids.config import DEFAULT_SUFFIXES, RunConfig, localizer_terms, read_toml
from totalspineseg_bids.errors import DatasetError, MissingInputError, OutputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECORDS = Path(__file__).parent / "data" / "records"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


def config(dataset: Path, **settings_: Any) -> RunConfig:
    base = {"bids_dir": dataset, "output_dir": dataset.parent / "out", "analysis_level": "participant"}
    return RunConfig.from_mapping({**base, **settings_})


def test_labels_come_without_prefix_once_and_split(dataset):
    c = config(dataset, participant_label=["sub-01", "01", "02 03", 4], session_label="ses-a,b", suffix=[])
    assert c.participant_label == ("01", "02", "03", "4")
    assert c.session_label == ("a", "b")
    assert c.suffix == DEFAULT_SUFFIXES


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"engine": "tf"}, UsageError, "engine 'tf' is not one of auto, openvino, torch"),
        ({"precision": "int8"}, UsageError, "precision 'int8' is not one of auto, fp32, bf16, fp16"),
        ({"label_scheme": "x"}, UsageError, "label_scheme"),
        ({"output_resolution": "2mm"}, UsageError, "output_resolution"),
        ({"n_cpus": 0}, UsageError, "n_cpus must be"),
        ({"omp_nthreads": "four"}, UsageError, "omp_nthreads must be"),
        ({"force": "yes"}, UsageError, "force must be true or false"),
        ({"volume": "median"}, UsageError, "volume must be"),
        ({"volume": -1}, UsageError, "volume must be"),
        ({"model": ""}, UsageError, "model is empty"),
        ({"participant_label": ["a_b"]}, UsageError, "not a BIDS label"),
        ({"participant_label": ["../x"]}, UsageError, "not a BIDS label"),
        ({"participant_label": [1.5]}, UsageError, "list of labels"),
        ({"single_step": True, "step1_only": True}, UsageError, "exclude each other"),
        ({"dry_run": True, "reports_only": True}, UsageError, "exclude each other"),
        ({"localizer": "acq-"}, UsageError, "cannot read"),
        ({"participnt_label": ["01"]}, UsageError, "did you mean 'participant_label'"),
        ({"bids_filter_file": "/does/not/exist.json"}, MissingInputError, "no such file"),
        ({"bids_dir": 3}, UsageError, "must be a path"),
    ],
)
def test_wrong_values_are_refused(dataset, values, error, message):
    with pytest.raises(error, match=message):
        config(dataset, **values)


def test_places_that_cannot_be_right(dataset, tmp_path):
    for out in (dataset, dataset.parent, dataset / "out", dataset / "sub-01"):
        with pytest.raises(UsageError):
            config(dataset, output_dir=out)
    assert config(dataset, output_dir=dataset / "derivatives" / "spine").output_dir.name == "spine"
    (tmp_path / "file").write_text("x")
    (tmp_path / "bare").mkdir()
    for places, error, message in (
        ({"output_dir": tmp_path / "file"}, OutputError, "is a file"),
        ({"bids_dir": tmp_path / "file"}, MissingInputError, "is a file"),
        ({"bids_dir": tmp_path / "bare"}, DatasetError, "not a BIDS dataset"),
    ):
        with pytest.raises(error, match=message):
            config(dataset, **{"output_dir": tmp_path / "o", **places})
    assert config(dataset, bids_dir=tmp_path / "bare", output_dir=tmp_path / "o", skip_bids_validation=True)
    assert config(dataset, bids_dir="/gone", analysis_level="group").analysis_level == "group"


def test_only_what_changes_the_result_changes_the_digest(dataset):
    digest = config(dataset).digest
    for same in ({"n_cpus": 3}, {"force": True}, {"participant_label": ["01"]}, {"precision": "fp32"}, {"model": "x"}):
        assert config(dataset, **same).digest == digest
    for other in ({"label_scheme": "totalspineseg"}, {"output_resolution": "both"}, {"single_step": True}):
        assert config(dataset, **other).digest != digest


def test_the_resolution_written_last_is_the_native_one_where_there_is_one(dataset):
    assert config(dataset).resolutions == (None,)
    assert config(dataset, output_resolution="1mm").resolutions == ("1mm",)
    assert config(dataset, output_resolution="both").resolutions[-1] is None


def test_toml_with_hyphens_and_relative_paths(dataset):
    path = dataset.parent / "run.toml"
    path.write_text(f'bids-dir = "{dataset.name}"\noutput_dir = "out"\nlevel = "participant"\nn-cpus = 2\n')
    c = RunConfig.from_mapping(read_toml(path))
    assert (c.bids_dir, c.n_cpus) == (dataset, 2)
    path.write_text("n_cpus = [")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_toml(path)
    with pytest.raises(MissingInputError):
        read_toml(dataset / "absent.toml")


@pytest.mark.parametrize("name", ["run_defaults", "run_all_settings"])
def test_run_records_of_version_0_1_0_still_load(dataset, tmp_path, name):
    shutil.copytree(dataset, tmp_path / "data")
    record = tmp_path / "record.toml"
    shutil.copy(RECORDS / f"{name}.toml", record)
    stored = tomllib.loads(record.read_text())
    c = RunConfig.from_mapping(read_toml(record))
    assert (c.bids_dir, c.output_dir) == (tmp_path / "data", tmp_path / "derivatives")
    assert (c.analysis_level, c.label_scheme) == (stored.pop("level"), "totalsegmri")
    for key in set(stored) - {"record", "bids_dir", "output_dir", "label_scheme", "bids_database_dir", "work_dir"}:
        value = getattr(c, key)
        assert (list(value) if isinstance(value, tuple) else value) == stored[key]
    keys = ("label_scheme", "output_resolution", "single_step", "step1_only", "localizer", "joint_session", "volume")
    text = json.dumps(
        {"version": __version__, "quality": "standard", "roi": "auto", **{key: stored.get(key) for key in keys}},
        sort_keys=True,
    )
    assert c.digest == hashlib.sha256(text.encode()).hexdigest()


def test_former_names_of_the_level_and_the_label_scheme_are_accepted(dataset):
    base = {"bids_dir": dataset, "output_dir": dataset.parent / "out"}
    for scheme in ("seed", "totalsegmri"):
        c = RunConfig.from_mapping({**base, "level": "participant", "label-scheme": scheme})
        assert (c.analysis_level, c.label_scheme) == ("participant", "totalsegmri")
        environment = {"TOTALSPINESEG_BIDS_LABEL_SCHEME": scheme}
        assert RunConfig.from_mapping({**base, "level": "group"}, environment=environment).digest == c.digest


TEXT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)


SETTINGS = st.fixed_dictionaries(
    {
        "model": TEXT,
        "participant_label": st.lists(st.from_regex(r"[0-9a-zA-Z]{1,4}", fullmatch=True), max_size=3),
        "n_cpus": st.none() | st.integers(1, 64),
        "force": st.booleans(),
        "progress": st.none() | st.booleans(),
        "volume": st.just("mean") | st.integers(0, 9),
    }
)


@settings(max_examples=40)
@given(values=SETTINGS)
def test_a_record_reads_back_as_the_same_configuration(dataset, values):
    c = config(dataset, **values)
    path = dataset.parent / "record.toml"
    path.write_text(c.to_toml({"version": "1", "command": 'a "b" \\ c'}), encoding="utf-8", newline="")
    assert RunConfig.from_mapping(read_toml(path)) == c


def test_localizer_filters():
    assert localizer_terms("acq-loc_T1w") == {"acq": "loc", "suffix": "T1w"}
    assert localizer_terms("acq=loc, T1w") == {"acq": "loc", "suffix": "T1w"}
    with pytest.raises(UsageError):
        localizer_terms("acq-loc__T1w")


def test_environment_variables_set_defaults_and_are_named_in_errors(dataset):
    base = {"bids_dir": dataset, "output_dir": dataset.parent / "out", "analysis_level": "participant"}

    def with_environment(settings_=(), **variables):
        environment = {f"TOTALSPINESEG_BIDS_{name}": value for name, value in variables.items()}
        return RunConfig.from_mapping({**base, **dict(settings_)}, environment=environment)

    variables = {"MODEL": "bundled", "N_CPUS": "3", "DEVICE": ""}
    found = with_environment(**variables)
    assert (found.model, found.n_cpus, found.threads, found.device) == ("bundled", 3, 3, "auto")
    assert with_environment({"n_cpus": 1}, **variables).n_cpus == 1
    assert with_environment({"omp-nthreads": 2}, **variables).threads == 2
    wrong = {"DEVICE": "gpu", "ENGINE": "tf", "PRECISION": "int8", "LABEL_SCHEME": "x", "N_CPUS": "many"}
    for name, value in wrong.items():
        with pytest.raises(UsageError, match=f"TOTALSPINESEG_BIDS_{name}"):
            with_environment(**{name: value})
