"""A model comes to its place whole, or not at all."""

import pytest

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.training.synthetic import bundle
from totalspineseg_bids.training.synthetic.bundle import put_in_place

DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "disc": [1, 2], "disc_C2_C3": 2, "canal": 3},
    "regions_class_order": [1, 2, 3],
}


def test_one_that_is_too_large_leaves_what_is_there(tmp_path, monkeypatch):
    source = write_untrained_model(tmp_path / "source", DATASET)
    destination = tmp_path / "bundled"
    first = put_in_place(source, destination, "Dataset101_x", "first")
    assert first == destination / "Dataset101_x"
    load_model(first)
    put_in_place(source, destination, "Dataset101_x", "second")
    assert (first / "MODEL_CARD.md").read_text() == "second"
    monkeypatch.setattr(bundle, "SIZE_LIMIT_MB", 0.001)
    with pytest.raises(ModelError, match="over the limit"):
        put_in_place(source, destination, "Dataset101_x", "third")
    assert (first / "MODEL_CARD.md").read_text() == "second"
    assert [path.name for path in destination.iterdir()] == ["Dataset101_x"]
