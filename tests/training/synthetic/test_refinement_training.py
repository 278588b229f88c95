"""The training of the network that refines the borders of step 2."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceMode, InferenceOptions
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.models.roles import Role
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.refinement import CHANNELS, PRIOR_CHANNELS, REFINED_ROLES
from totalspineseg_bids.segmentation.semantic_map import SemanticMap
from totalspineseg_bids.training.synthetic import refinement_training
from totalspineseg_bids.training.synthetic.bundle import publish_refinement
from totalspineseg_bids.training.synthetic.refinement_cases import RefinementCase, make_cases, write_images
from totalspineseg_bids.training.synthetic.refinement_training import (
    loss_of,
    model_folder,
    targets,
    train,
    train_refinement,
    untrained,
    write_model,
)

SHAPE = (50, 64, 66)
IDS = {
    "vertebrae": [anatomy.vertebra("L3").id],
    "disc": [anatomy.disc("L3-L4").id],
    "canal": [anatomy.CANAL_ID, anatomy.CORD_ID],
    "cord": [anatomy.CORD_ID],
}


@pytest.fixture
def case():
    """A dark bone that step 2 saw two voxels too thin, a disc and a canal with a cord."""
    rng = np.random.default_rng(0)
    truth = np.zeros(SHAPE, np.uint8)
    truth[10:40, 36:56, 6:30] = truth[20:30, 8:20, 6:60] = anatomy.vertebra("L3").id
    truth[10:40, 36:56, 30:38] = anatomy.disc("L3-L4").id
    truth[18:32, 22:34], truth[22:28, 26:30] = anatomy.CANAL_ID, anatomy.CORD_ID
    masks = {role: np.isin(truth, ids) for role, ids in IDS.items()}
    masks |= {"vertebrae_O": masks["vertebrae"], "vertebrae_E": np.zeros(SHAPE, bool)}
    image = np.where(masks["vertebrae"], -1.0, 0.7) + 0.1 * rng.standard_normal(SHAPE)
    found = {**masks, "vertebrae": ndimage.binary_erosion(masks["vertebrae"], iterations=2)}
    chance = {role: np.where(mask, 0.97, 0.03).astype(np.float16) for role, mask in found.items()}
    return RefinementCase(image.astype(np.float16), chance, truth)


def test_cases_come_back_as_they_were_written(case, tmp_path):
    case.save(tmp_path / "a.npz")
    again = RefinementCase.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(again.image, case.image)
    np.testing.assert_array_equal(again.truth, case.truth)
    assert set(again.probabilities) == set(REFINED_ROLES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_the_cord_is_of_the_canal_and_the_sacrum_of_the_vertebrae():
    ids = np.array([anatomy.CORD_ID, anatomy.CANAL_ID, anatomy.SACRUM_ID, anatomy.disc("L5-S").id, 0], np.uint8)
    chance = {role: np.zeros(5, np.float16) for role in REFINED_ROLES}
    rows = dict(zip(REFINED_ROLES, targets(ids, chance).tolist(), strict=True))
    assert rows["cord"] == [True, False, False, False, False]
    assert rows["canal"] == [True, True, False, False, False]
    assert rows["vertebrae"] == [False, False, True, False, False]
    assert rows["disc"] == [False, False, False, True, False]
    assert not any(rows["vertebrae_O"] + rows["vertebrae_E"])


@pytest.mark.parametrize("counted_otherwise", [False, True])
def test_odd_is_what_the_steps_called_odd(counted_otherwise):
    ids = np.repeat([anatomy.vertebra(level).id for level in ("T11", "T12", "L1", "L2", "S")], 10).astype(np.uint8)
    even, odd = np.isin(np.arange(50) // 10, (0, 2)), np.isin(np.arange(50) // 10, (1, 3))
    told = (even, odd) if counted_otherwise else (odd, even)
    # A few voxels are wrong, as ever.
    told = tuple(mask ^ (np.arange(50) % 10 == 3) for mask in told)
    chance = {"vertebrae": np.ones(50), "vertebrae_O": 0.8 * told[0], "vertebrae_E": 0.8 * told[1]}
    rows = dict(zip(REFINED_ROLES, targets(ids, chance), strict=True))
    np.testing.assert_array_equal(rows["vertebrae_O"], even if counted_otherwise else odd)
    np.testing.assert_array_equal(rows["vertebrae_E"], odd if counted_otherwise else even)


def test_it_learns_goes_on_and_ships(case, tmp_path, monkeypatch):
    case.save(tmp_path / "a.npz")
    checkpoint = tmp_path / "checkpoint.pth"
    monkeypatch.setattr(refinement_training, "PATCH", (32, 32, 32))
    monkeypatch.setattr(refinement_training, "FEATURES", (8, 8, 8, 8))
    _, first = train([tmp_path / "a.npz"], steps=10, seed=1, checkpoint=checkpoint)
    weights, state = train([tmp_path / "a.npz"], steps=80, seed=1, checkpoint=checkpoint)
    assert (first["step"], state["step"]) == (10, 80)
    assert state["seconds"] > first["seconds"]
    assert state["loss"] < 0.9 * first["loss"]
    # What is done already is not done again, and keeps what is known of it.
    _, again = train([tmp_path / "a.npz"], steps=80, seed=1, checkpoint=checkpoint)
    assert again == state
    write_model(model_folder(tmp_path), weights, state)
    shipped = publish_refinement(tmp_path, tmp_path)
    assert "80 steps" in (shipped / "MODEL_CARD.md").read_text()
    assert "BodyParts3D" not in (shipped / "MODEL_CARD.md").read_text()
    assert resolve(str(shipped), need=(Role.REFINE,)).refine is not None


def test_it_starts_from_another_network_with_the_same_stages(case, tmp_path, monkeypatch):
    monkeypatch.setattr(refinement_training, "PATCH", (16, 16, 16))
    case.save(tmp_path / "a.npz")

    def trained(name, steps, **source):
        return train([tmp_path / "a.npz"], steps=steps, seed=0, checkpoint=tmp_path / name, **source)

    monkeypatch.setattr(refinement_training, "FEATURES", (8, 8, 8, 8))
    source = write_model(tmp_path / "one", *trained("c.pth", 2)) / "fold_all" / "checkpoint_final.pth"
    second = trained("d.pth", 1, start_from=source)
    assert second[1]["start"] == "2 steps"
    write_model(model_folder(tmp_path), *second)
    card = (publish_refinement(tmp_path, tmp_path / "bundled") / "MODEL_CARD.md").read_text()
    assert "trained for 2 steps" in card
    monkeypatch.setattr(refinement_training, "FEATURES", (12, 8, 8, 8))
    with pytest.raises(ModelError, match=r"c\.pth is of a network with other stages"):
        trained("c.pth", 3)
    with pytest.raises(ModelError, match=r"cannot start from .*one.*stages, features or channels"):
        trained("e.pth", 1, start_from=source)


def test_a_wrong_parity_costs_more_than_a_border():
    truth = torch.zeros(1, len(REFINED_ROLES), 8, 8, 8)
    truth[:, [0, 4], 2:6, 2:6, 2:6] = 1
    right = 6 * truth - 3
    flipped = right.clone()
    flipped[:, [4, 5]] = right[:, [5, 4]]
    lost = right.clone()
    lost[:, [0, 4], 2:6, 2:6, 2:6] = -3
    assert loss_of(right, truth) < loss_of(lost, truth) < loss_of(flipped, truth)


def test_untrained_it_gives_back_what_step_2_found(tmp_path):
    network = untrained()
    state = {"cases": 1, "real_maps": []}
    write_model(tmp_path / "m", network.state_dict(), state)
    model = load_model(tmp_path / "m")
    channels = np.random.default_rng(0).standard_normal((CHANNELS, *SHAPE)).astype(np.float32)
    found = Predictor(model, InferenceOptions(engine="torch", precision="fp32"), step=model.tile_step).predict(
        channels, (1.0, 1.0, 1.0), keep=REFINED_ROLES
    )
    for row, role in zip(PRIOR_CHANNELS, REFINED_ROLES, strict=True):
        np.testing.assert_array_equal(found.probabilities[role] > 0.5, channels[row] > 0)


def test_without_a_spine_in_any_image_there_is_nothing_to_train(tmp_path):
    with pytest.raises(ModelError, match="no case"):
        train([], steps=1, seed=0, checkpoint=tmp_path / "c.pth")
    with pytest.raises(ModelError, match="train-refinement"):
        publish_refinement(tmp_path, tmp_path)


class FakeNetworks:
    """Steps 1 and 2 that find a block in every image, or nothing."""

    mode = InferenceMode.TWO_STEP

    def __init__(self, *, blind=False):
        self.blind = blind
        self.digests = {Role.STEP2: "0123456789abcdef"}
        self.calls = 0

    def locate(self, _image, _report):
        return None, None

    def step1(self, image, _region, _report):
        self.calls += 1
        labels = np.zeros(image.data.shape, np.uint8)
        if not self.blind:
            labels[tuple(slice(n // 3, 2 * n // 3) for n in labels.shape)] = 1
        return self._map(labels, "step1")

    def step2(self, _channels, _spacing, roi, _report):
        return self._map(roi.astype(np.uint8), "step2")

    def refine(self, _intensities, _spacing, _first, second, _report):
        return second

    def as_support(self, first):
        return first

    @staticmethod
    def _map(labels, step):
        chance = {role: labels.astype(np.float32) for role in REFINED_ROLES}
        return SemanticMap(labels, ClassMap.named(f"r20240601-{step}"), chance)


def test_from_images_to_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(refinement_training, "PATCH", (16, 16, 16))
    networks = FakeNetworks()
    folder = train_refinement(tmp_path, networks, images=2, steps=2)
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2
    assert torch.load(folder / "fold_all" / "checkpoint_final.pth", weights_only=True)["refinement"]["real_maps"] == []
    train_refinement(tmp_path, networks, images=2, steps=2)
    assert networks.calls == 2


def test_images_without_a_spine_are_left_out(tmp_path):
    datasets = write_images(tmp_path / "images", 1, 0, None)
    assert make_cases(tmp_path / "cases", datasets, FakeNetworks(blind=True)) == []
