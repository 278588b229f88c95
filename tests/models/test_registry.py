import json

import pytest

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.models import catalog
from totalspineseg_bids.models.install import install
from totalspineseg_bids.models.registry import available, resolve
from totalspineseg_bids.models.roles import Role, role_of

from .conftest import NAMES, TRAINER, dataset_of, write_folder, write_zip


@pytest.mark.parametrize("role", ["step1", "step2", "single"])
def test_roles_by_label_names(role):
    assert role_of(dataset_of(role)) is Role(role)


@pytest.mark.parametrize(
    "dataset",
    [
        {},
        {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}},
        {"labels": {"background": 0, "vertebrae_O": 1}, "channel_names": {"0": "MRI", "1": "noNorm"}},
        {
            "labels": {"background": 0, "vertebrae_O": 1, "vertebrae_E": 2},
            "channel_names": {"0": "a", "1": "b", "2": "c"},
        },
        {"labels": [], "channel_names": {}},
    ],
)
def test_other_models_have_no_role(dataset):
    assert role_of(dataset) is None


@pytest.mark.parametrize(("entry", "prior"), [(True, True), (False, False), ("yes", False), (None, False)])
def test_dataset_json_makes_a_single_step_model_a_level_prior(tmp_path, entry, prior):
    dataset = dataset_of("single") | ({} if entry is None else {"level_prior": entry})
    folder = write_folder(tmp_path / "set", "step1", "step2", "single")
    (folder / NAMES["single"] / TRAINER / "dataset.json").write_text(json.dumps(dataset))
    found = resolve(str(folder))
    assert found.single == folder / NAMES["single"] / TRAINER
    assert found.level_prior == (found.single if prior else None)


def test_folder_with_misleading_names(tmp_path):
    """The labels decide the role of a model: here the folder names are swapped."""
    for role, other in (("step1", "step2"), ("step2", "step1")):
        write_folder(tmp_path / "set", role, top=NAMES[other])
    found = resolve(str(tmp_path / "set"))
    assert found.step1 == tmp_path / "set" / NAMES["step2"] / TRAINER
    assert found.step2 == tmp_path / "set" / NAMES["step1"] / TRAINER
    assert found.single is None
    assert (found.name, found.bundled) == ("set", False)


def test_results_tree_of_nnunet(tmp_path):
    write_folder(tmp_path / "data" / "nnUNet" / "results", "step1", "step2", "single")
    found = resolve(str(tmp_path / "data"))
    assert None not in (found.step1, found.step2, found.single)


def test_zip_is_unpacked_once(tmp_path, cache):
    archive = write_zip(tmp_path / "both.zip", "step1", "step2")
    first, second = resolve(str(archive)), resolve(str(archive))
    assert first == second
    assert first.step1.is_relative_to(cache)
    assert not list(cache.rglob(".part-*"))
    assert [info.name for info in available() if info.kind == "local"] == []


def test_folder_of_zips_as_downloaded(tmp_path):
    for role in ("step1", "step2"):
        write_zip(tmp_path / "exports" / f"{NAMES[role]}.zip", role)
    assert resolve(str(tmp_path / "exports")).step2 is not None


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_missing_role_is_named(tmp_path, kind):
    path = write_folder(tmp_path / "one", "step1") if kind == "folder" else write_zip(tmp_path / "one.zip", "step1")
    with pytest.raises(ModelError, match=r"one.*no step2 model.*vertebrae_O") as caught:
        resolve(str(path))
    assert "\n" not in str(caught.value)
    assert resolve(str(path), need=["step1"]).step1 is not None


def test_single_step_model_is_enough_by_itself(tmp_path):
    found = resolve(str(write_folder(tmp_path / "single", "single")))
    assert found.require("single") == found.single
    with pytest.raises(ModelError, match="no step1 model"):
        found.require("step1")
    with pytest.raises(ModelError, match="no step2 model"):
        resolve(str(tmp_path / "single"), need=["step2"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("r19990101", "neither a file, a folder nor a known name"),
        ("{folder}/empty", r"empty.*no step1 model"),
        ("{folder}/set", "2 step1 models"),
    ],
    ids=["unknown", "empty folder", "two models of one role"],
)
def test_what_is_no_set_of_models_is_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "set" / "old", "step1", "step2")
    write_folder(tmp_path / "set" / "new", "step1")
    with pytest.raises(ModelError, match=message):
        resolve(name.format(folder=tmp_path))


def test_release_that_is_not_installed_tells_both_ways_on():
    with pytest.raises(ModelError) as caught:
        resolve()
    message = str(caught.value)
    assert f"totalspineseg-tools models install {catalog.DEFAULT_MODEL}" in message
    assert "--model bundled" in message
    assert catalog.DEFAULT_MODEL == "r20251124"


def test_bundled(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "BUNDLED_FOLDER", write_folder(tmp_path / "bundled", "step1", "step2"))
    found = resolve("bundled")
    assert found.bundled
    assert found.name == "bundled"
    assert available()[0].installed


def test_list(tmp_path):
    install(write_zip(tmp_path / "mine.zip", "step1", "step2"), name="mine")
    listed = {info.name: info for info in available()}
    assert list(listed)[:2] == ["bundled", "r20251124"]
    assert listed["r20251124"].default
    assert not listed["r20251124"].installed
    assert listed["mine"].kind == "local"
    assert listed["mine"].roles == (Role.STEP1, Role.STEP2)


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(catalog.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert catalog.cache_folder() == tmp_path / "totalspineseg_bids" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert catalog.cache_folder() == tmp_path / "home" / ".cache" / "totalspineseg_bids" / "models"


def test_addresses_of_the_releases():
    for name, urls in catalog.RELEASES.items():
        suffix = "" if name == "r20240826" else f"_{name}"
        assert [url.rsplit("/", 1)[1] for url in urls] == [
            f"Dataset101_TotalSpineSeg_step1{suffix}.zip",
            f"Dataset102_TotalSpineSeg_step2{suffix}.zip",
        ]
        assert all(f"/neuropoly/totalspineseg/releases/download/{name}/" in url for url in urls)
