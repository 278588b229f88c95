from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec

from tests.columns import dice
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.synthesis.acquisition import (
    Protocol,
    acquire,
    draw_protocol,
    grid_of,
    sample_image,
    sample_truth,
    to_nifti,
)
from totalspineseg_bids.synthesis.fields_of_view import PlacedField

_THICK = from_matvec(np.diag([4.0, 1.0, 1.0]), (1.5, 0, 0))
_PLAIN = Protocol("sagittal", 1.0, 3.0, (4.0, -3.0, 5.0), 0.002, 0.02, False, "PIR", "int16", False)


def _ball() -> Volume:
    """A vertebra-labelled ball of 14 mm radius and a smaller disc-labelled one above it."""
    x, y, z = np.ogrid[:60, :70, :80]
    labels = np.where((x - 30) ** 2 + (y - 35) ** 2 + (z - 30) ** 2 < 14**2, 20, 2).astype(np.uint8)
    labels[(x - 30) ** 2 + (y - 35) ** 2 + (z - 60) ** 2 < 8**2] = 204
    affine = from_matvec(np.diag([1.0, 1.0, 1.0]), (-30, -40, 200))
    return Volume(labels, affine)


def _acquire(seed=0, **protocol):
    """Return the body, and image and truth of it in which the ball is bright."""
    body = _ball()
    signal = Volume((body.data == 20).astype(np.float32), body.affine)
    field = PlacedField("lumbar", np.array([0.0, -5.0, 240.0]), np.array([50.0, 56.0, 64.0]))
    return body, *acquire(signal, body, field, replace(_PLAIN, **protocol), np.random.default_rng(seed))


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "ASL", "LPS", "SAR"])
@pytest.mark.parametrize("plane", ["sagittal", "axial", "isotropic"])
def test_truth_lies_on_the_image(orientation, plane):
    body, image, truth = _acquire(orientation=orientation, plane=plane)
    assert image.geometry.same_grid(truth.geometry)
    assert image.geometry.orientation == orientation
    assert dice(image.data > 0.5 * image.data.max(), truth.data == 20) > 0.95
    # Nothing moved: the ball's centre is where it was in scanner space.
    center = nib.affines.apply_affine(truth.affine, np.argwhere(truth.data == 20).mean(axis=0))
    assert np.allclose(center, [0.0, -5.0, 230.0], atol=0.7)
    volume = np.sum(truth.data == 20) * truth.geometry.voxel_volume
    assert volume == pytest.approx(np.sum(body.data == 20), rel=0.06)
    assert set(np.unique(truth.data)) == {0, 20, 204}


def test_truth_is_what_fills_most_of_a_voxel():
    labels = np.full((12, 6, 6), 2, np.uint8)
    labels[0:3], labels[4:5], labels[8:12] = 20, 21, 22
    truth = sample_truth(Volume(labels, np.eye(4)), Geometry((3, 6, 6), _THICK))
    assert np.array_equal(truth[:, 3, 3], [20, 0, 22])


def test_thick_slices_average():
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None, None], (12, 6, 6))
    sampled = sample_image(Volume(ramp, np.eye(4)), Geometry((3, 6, 6), _THICK))
    assert np.allclose(sampled[:, 2:4, 2:4], np.array([1.5, 5.5, 9.5])[:, None, None], atol=1e-4)


def test_slices_follow_a_leaning_column():
    field = PlacedField("lumbar", np.zeros(3), np.array([60.0, 200.0, 280.0]), lean_deg=10.0)
    up = grid_of(field, replace(_PLAIN, rotation_deg=(0.0, 0.0, 0.0))).affine[:3, 2]
    assert np.rad2deg(np.arctan2(up[0], up[2])) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("storage", "scaled"), [("int16", False), ("int16", True), ("uint16", False), ("uint8", True), ("float32", False)]
)
def test_storage_keeps_the_image(storage, scaled):
    rng = np.random.default_rng(0)
    image = Volume(rng.random((8, 9, 10), dtype=np.float32), np.diag([3.0, 1.0, 1.0, 1.0]))
    nifti = to_nifti(image, replace(_PLAIN, storage=storage, scaled=scaled), rng)  # type: ignore[arg-type]
    assert nifti.get_data_dtype() == np.dtype(storage)
    slope = float(nifti.header["scl_slope"])
    assert (np.isfinite(slope) and slope != 1.0) == scaled
    raw = np.asarray(nifti.dataobj, np.float32)
    assert np.corrcoef(raw.ravel(), image.data.ravel())[0, 1] > 0.999


def test_drawn_protocols_cover_what_is_used():
    rng = np.random.default_rng(0)
    drawn = [draw_protocol(name, rng) for name in ("whole", "lumbar") for _ in range(150)]
    assert {p.plane for p in drawn} == {"sagittal", "axial", "isotropic"}
    assert {p.storage for p in drawn} == {"int16", "uint16", "uint8", "float32"}
    assert len({p.orientation for p in drawn}) > 8
    assert all(p.plane != "axial" for p in drawn[:150])


def test_artefacts_change_the_image_but_not_the_truth():
    changed = 0
    for seed in range(8):
        (_, image, truth), (_, other, same) = (_acquire(seed, artefacts=artefacts) for artefacts in (False, True))
        assert np.array_equal(truth.data, same.data)
        assert image.geometry.same_grid(other.geometry)
        changed += bool(np.abs(other.data - image.data).max() > 0.1)
    assert changed >= 3
