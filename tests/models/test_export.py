import shutil

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.models.export import strip_checkpoint

from .conftest import dataset_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model folder with what training leaves in a checkpoint."""
    folder = write_untrained_model(tmp_path_factory.mktemp("trained"), dataset_of("step1"), folds=2)
    for file in folder.rglob("*.pth"):
        checkpoint = torch.load(file, weights_only=False)
        checkpoint["optimizer_state"] = {"state": {0: {"momentum_buffer": torch.zeros(50_000)}}}
        checkpoint["logging"] = {"mean_fg_dice": [np.float64(0.5)]}
        checkpoint["init_args"].update(plans={"dataset_name": "x"}, device=torch.device("cpu"))
        torch.save(checkpoint, file)
    return folder


@pytest.fixture(scope="module")
def stripped(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stripped") / trained.name
    shutil.copytree(trained, folder)
    for file in folder.rglob("*.pth"):
        strip_checkpoint(trained / file.relative_to(folder), file)
    return folder


def test_small_and_close(trained, stripped):
    before, after = load_model(trained), load_model(stripped)
    was, size = (sum(file.stat().st_size for file in folder.rglob("*.pth")) for folder in (trained, stripped))
    # Tensors that the network lists under several names are written once.
    parameters = sum({t.data_ptr(): t.numel() for t in before.weights[0].values()}.values())
    assert size < 2 * (2 * parameters + 40_000)
    assert size < was / 4
    assert set(before.weights[0]) == set(after.weights[0])
    for name, weights in before.weights[1].items():
        torch.testing.assert_close(after.weights[1][name], weights, rtol=1e-3, atol=1e-3)


def test_nnunets_predictor_loads_it(stripped):
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(stripped), None, "checkpoint_final.pth")
    assert len(predictor.list_of_parameters) == 2
    assert next(predictor.network.parameters()).dtype == torch.float32
    content = torch.load(stripped / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert content["init_args"] == {"configuration": "3d_fullres", "fold": 0}
    assert "optimizer_state" not in content


def test_values_beyond_half_precision_are_kept(trained, tmp_path):
    file = tmp_path / "big.pth"
    checkpoint = torch.load(trained / "fold_0" / "checkpoint_final.pth", weights_only=False)
    key = next(iter(checkpoint["network_weights"]))
    checkpoint["network_weights"][key] = torch.full((3,), 1e6)
    torch.save(checkpoint, file)
    strip_checkpoint(file, tmp_path / "small.pth")
    found = torch.load(tmp_path / "small.pth", weights_only=True)["network_weights"][key]
    assert torch.equal(found, torch.full((3,), 1e6))
