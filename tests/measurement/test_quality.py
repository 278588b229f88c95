import numpy as np
import pytest

from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS, ImageQuality, measure_quality

from .phantom import Phantom

CSF, CORD, REST = 300.0, 100.0, 200.0
GRIDS = {
    "isotropic": ((1.0, 1.0, 1.0), None),
    "thick sagittal": ((3.3, 0.7, 0.7), None),
    "thick axial": ((0.7, 0.7, 4.0), None),
    "flipped axes": ((1.0, 1.0, 1.0), np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])),
}


def phantom_image(grid):
    labels, affine, _, _ = Phantom(("L3", "L4")).rasterise(*GRIDS[grid])
    image = np.where(labels, REST, 20.0)
    image[labels == CANAL_ID], image[labels == CORD_ID] = CSF, CORD
    return labels, affine, image


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (1e-6, 0.0), (1e5, 0.5)])
def test_noise_and_contrast_are_those_of_the_phantom_at_any_scale_and_bias(grid, scale, bias):
    labels, affine, image = phantom_image(grid)
    noise = np.random.default_rng(0).normal(0, 8.0, image.shape)
    ramp = np.linspace(1 - bias / 2, 1 + bias / 2, image.shape[1])[:, None]
    quality = measure_quality(Volume(scale * (image + noise) * ramp, affine), labels)
    assert quality.snr == pytest.approx(CORD / 8.0, rel=0.05 + bias / 5)
    assert quality.cord_csf_contrast == pytest.approx((CSF - CORD) / (CSF + CORD), abs=0.02)


def test_dark_fluid_has_negative_contrast_and_what_is_not_in_view_has_no_value():
    labels, affine, image = phantom_image("isotropic")
    dark = measure_quality(Volume(500.0 - image, affine), labels)
    assert dark.cord_csf_contrast == pytest.approx(-1 / 3, abs=0.01)
    assert dark.snr is None  # no noise at all
    without = np.where(labels == CORD_ID, np.uint8(CANAL_ID), labels)
    assert measure_quality(Volume(image, affine), without) == ImageQuality()
    assert measure_quality(Volume(image, affine), np.zeros_like(labels)) == ImageQuality()
    assert ImageQuality().as_row() == dict.fromkeys(QUALITY_COLUMNS, "n/a")


def test_missing_values_are_left_out():
    labels, affine, image = phantom_image("isotropic")
    noisy = image + np.random.default_rng(1).normal(0, 5.0, image.shape)
    noisy[:, ::7], noisy[:, 3::7] = np.nan, np.inf
    quality = measure_quality(Volume(noisy, affine), labels)
    assert quality.snr == pytest.approx(CORD / 5.0, rel=0.1)
    assert quality.cord_csf_contrast == pytest.approx(0.5, abs=0.02)
