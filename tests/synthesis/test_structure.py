"""Images show changes inside the tissues: degeneration, endplate changes, atrophy, veins, metal."""

import numpy as np
import pytest
import torch

from totalspineseg_bids.synthesis import structure
from totalspineseg_bids.synthesis.appearance import render
from totalspineseg_bids.synthesis.arrays import NUMPY, Draws, TorchArrays
from totalspineseg_bids.synthesis.structure import label_factors

_SHARES = ("LESIONS", "VEINS", "ATROPHY", "METAL")
_PAIRS = ("MODIC", "ODD_VERTEBRA", "VACUUM")


def _set_shares(monkeypatch, **shares):
    """Set the shares of images (and of their labels) that have a change; 0 for those not named."""
    for name in _SHARES:
        monkeypatch.setattr(structure, name, shares.get(name, 0.0))
    for name in _PAIRS:
        monkeypatch.setattr(structure, name, (shares.get(name, 0.0),) * 2)


def _spread(image, column, *ids):
    """Return the relative standard deviation of the intensities of labels."""
    values = image[np.isin(column, ids)]
    return values.std() / values.mean()


def _highest(image, column):
    """Return the brightest marrow relative to the median."""
    values = image[np.isin(column, (20, 21))]
    return np.quantile(values, 0.999) / np.median(values)


def _difference(image, column):
    """Return the contrast of two neighbouring vertebrae."""
    one, other = (np.median(image[column == label]) for label in (20, 21))
    return abs(np.log(one / other))


@pytest.mark.parametrize(
    ("share", "contrast", "measure"),
    [
        ("MODIC", "T1w", lambda image, column: _spread(image, column, 20, 21)),
        ("LESIONS", "T2w", _highest),
        ("ODD_VERTEBRA", "T1w", _difference),
        ("VACUUM", "T2w", lambda image, column: (image[np.isin(column, (204, 205))] < 0.04).mean()),
        ("ATROPHY", "T2w", lambda image, column: np.quantile(image[column == 2], 0.8)),
        ("METAL", "T1w", lambda image, column: (image[column > 0] < 0.05).mean()),
    ],
)
def test_a_change_shows_in_its_tissue(monkeypatch, column, share, contrast, measure):
    means = []
    for value in (0.0, 1.0):
        _set_shares(monkeypatch, **{share: value})
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


def test_images_of_a_group_have_changes_of_their_own(monkeypatch, column):
    _set_shares(monkeypatch, **dict.fromkeys((*_SHARES, *_PAIRS), 0.5))
    arrays = TorchArrays(torch.device("cpu"), 1)
    group = torch.stack([arrays.on(column)] * 6)
    images = render(group, np.random.default_rng(0), contrast=["T2w"] * 6, arrays=arrays)
    assert images.shape == group.shape
    assert torch.isfinite(images).all()
    assert float(images.min()) >= 0
    assert not torch.equal(images[0], images[1])
