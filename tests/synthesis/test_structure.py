"""Images show changes inside the tissues: degeneration, endplate changes, atrophy, veins, metal."""

import numpy as np
import pytest
import torch

from totalspineseg_bids.synthesis import structure
from totalspineseg_bids.synthesis.appearance import render
from totalspineseg_bids.synthesis.arrays import NUMPY, Draws
from totalspineseg_bids.synthesis.structure import label_factors

_SHARES = ("LESIONS", "VEINS", "ATROPHY", "METAL")
_PAIRS = ("MODIC", "ODD_VERTEBRA", "VACUUM")


def _set_shares(monkeypatch, **shares):
    """Set the shares of images (and of their labels) that have a change; 0 for those not named."""
    for name in _SHARES:
        monkeypatch.setattr(structure, name, shares.get(name, 0.0))
    for name in _PAIRS:
        monkeypatch.setattr(structure, name, (shares.get(name, 0.0),) * 2)


def _marrow(image, column):
    return image[np.isin(column, (20, 21))]


#: Contrast in which a change shows, and a measure of it.
CHANGES = {
    "MODIC": ("T1w", lambda image, column: _marrow(image, column).std() / _marrow(image, column).mean()),
    "LESIONS": (
        "T2w",
        lambda image, column: np.quantile(_marrow(image, column), 0.999) / np.median(_marrow(image, column)),
    ),
    "ODD_VERTEBRA": (
        "T1w",
        lambda image, column: abs(np.log(np.median(image[column == 20]) / np.median(image[column == 21]))),
    ),
    "VACUUM": ("T2w", lambda image, column: (image[np.isin(column, (204, 205))] < 0.04).mean()),
    "ATROPHY": ("T2w", lambda image, column: np.quantile(image[column == 2], 0.8)),
    "METAL": ("T1w", lambda image, column: (image[column > 0] < 0.05).mean()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_shows_in_its_tissue(monkeypatch, column, change):
    contrast, measure = CHANGES[change]
    means = []
    for value in (0.0, 1.0):
        _set_shares(monkeypatch, **{change: value})
        images = [render(column, np.random.default_rng(seed), contrast=contrast) for seed in range(24)]
        means.append(float(np.mean([measure(image, column) for image in images])))
    assert means[1] > 1.05 * means[0]


def test_degeneration_darkens_discs_of_water_weighted_images_only():
    draws = Draws((4, 4, 4), np.random.default_rng(0), NUMPY)
    water, none = (np.stack([label_factors([loss], draws) for _ in range(200)]) for loss in (2.0, 0.0))
    assert np.log(water[:, 204]).std() > 0.4
    assert np.log(none[:, 204]).std() < 0.1
    assert np.log(water[:, 200]).std() < 0.1
    # Discs of one spine resemble each other.
    assert np.corrcoef(np.log(water[:, 204]), np.log(water[:, 205]))[0, 1] > 0.3


def test_images_of_a_group_have_changes_of_their_own(monkeypatch, column, tensors):
    _set_shares(monkeypatch, **dict.fromkeys((*_SHARES, *_PAIRS), 0.5))
    group = torch.stack([tensors.on(column)] * 6)
    images = render(group, np.random.default_rng(0), contrast=["T2w"] * 6, arrays=tensors)
    assert images.shape == group.shape
    assert torch.isfinite(images).all()
    assert float(images.min()) >= 0
    assert not torch.equal(images[0], images[1])
