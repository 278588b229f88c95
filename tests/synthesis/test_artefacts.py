"""Each artefact does what its name says, in numpy and in torch, alone and in a group."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from totalspineseg_bids.synthesis.arrays import NUMPY, Draws
from totalspineseg_bids.synthesis.artefacts import LEFT_RIGHT, SIGNAL_ARTEFACTS, STORED_ARTEFACTS, Scan, add_artefacts

_ARTEFACTS = {artefact.name: artefact for artefact in (*SIGNAL_ARTEFACTS, *STORED_ARTEFACTS)}


def _block() -> np.ndarray:
    """A bright block in the back half of a dark image."""
    image = np.full((12, 40, 44), 0.1, np.float32)
    image[3:9, 6:18, 10:34] = 1.0
    return image


def _changed(name, parameter, image, arrays=NUMPY):
    """Return an image with an artefact of a strength; numpy or torch draws from the same stream."""
    scan = Scan((4.0, 1.0, 1.0), LEFT_RIGHT, Draws(image.shape, np.random.default_rng(0), arrays))
    artefact = replace(_ARTEFACTS[name], probability=1.0, bounds=(parameter, parameter))
    return add_artefacts(arrays.on(image), (artefact,), scan)


#: Strength of an artefact, and a test for its effect on the image.
EFFECTS = {
    "surface coil": (20.0, lambda image: image[6, 2, 5] > 4 * image[6, 38, 5]),
    "wrap-around": (0.4, lambda image: (image > _block() - 1e-5).all() and (image > _block() + 0.005).mean() > 0.2),
    "ringing": (0.5, lambda image: _edge_overshoot(image) > 0.03 and np.ptp(image[6, 24:, 5:40]) > 0.01),
    "edge enhancement": (1.0, lambda image: _edge_overshoot(image) > 0.1 and abs(image[6, 12, 22] - 1) < 0.1),
    "hot pixels": (-3.0, lambda image: 5 < (image > 1.3).sum() < 30),
    "inversion": (1.1, lambda image: image[6, 12, 22] < 0.2 and image[0, 0, 0] > 0.9),
    "slice windows": (0.3, lambda image: len(np.unique(image[:, 0, 0])) > 5 and np.ptp(image[4]) > np.ptp(image[0])),
}


def _edge_overshoot(image):
    return float(image[6, 8:16, 10:34].max()) - 1.0


@pytest.mark.parametrize("name", EFFECTS)
def test_an_artefact_does_what_its_name_says(name):
    parameter, effect = EFFECTS[name]
    image = _block()
    changed = _changed(name, parameter, image)
    assert (changed.dtype, changed.shape) == (np.float32, image.shape)
    assert changed.min() >= 0
    np.testing.assert_array_equal(image, _block())
    assert effect(changed)


@pytest.mark.parametrize("name", _ARTEFACTS)
def test_artefacts_of_slices_of_any_number_are_finite_and_alike_in_torch(name, tensors):
    for shape in ((1, 24, 30), (9, 16, 12)):
        image = np.random.default_rng(1).random(shape, dtype=np.float32)
        for parameter in _ARTEFACTS[name].bounds:
            expected = _changed(name, parameter, image)
            assert np.isfinite(expected).all()
            np.testing.assert_allclose(_changed(name, parameter, image.copy(), tensors).numpy(), expected, atol=5e-3)


@pytest.mark.parametrize("name", _ARTEFACTS)
def test_only_the_chosen_images_of_a_group_have_an_artefact(name, tensors):
    group = torch.from_numpy(np.stack([_block()] * 20))
    scan = Scan((4.0, 1.0, 1.0), LEFT_RIGHT, Draws(tuple(group.shape), np.random.default_rng(0), tensors))
    changed = add_artefacts(group, (replace(_ARTEFACTS[name], probability=0.5),), scan)
    count = sum(not torch.equal(one, other) for one, other in zip(changed, group, strict=True))
    assert 4 < count < 16
