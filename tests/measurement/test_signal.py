import numpy as np
import pytest

from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, disc, vertebra
from totalspineseg_bids.imaging.volume import Volume

from .phantom import Phantom, components_of, measure, of_structure

LEVELS = ("L3", "L4", "L5")
CSF, BODY, ANNULUS, NUCLEUS = 300.0, 150.0, 60.0, 180.0
NAMES = ("disc_csf_ratio", "disc_body_ratio", "nucleus_csf_ratio")


@pytest.fixture(scope="module")
def spine():
    """Label map with its affine and centreline, and its image: CSF, bone, annulus, nucleus and dark surroundings."""
    labels, affine, _, line = Phantom(LEVELS, height=24.3, disc_height=8.2).rasterise((1.0, 1.0, 1.0))
    image = np.full(labels.shape, 20.0)
    image[labels == CANAL_ID], image[labels == CORD_ID] = CSF, 120.0
    for level in LEVELS:
        image[labels == vertebra(level).id] = BODY
    for name in ("L3-L4", "L4-L5"):
        voxels = np.argwhere(labels == disc(name).id)
        middle, size = voxels.mean(axis=0), np.ptp(voxels, axis=0) + 1
        inner = (((voxels - middle) / (0.35 * size)) ** 2).sum(axis=1) <= 1
        image[tuple(voxels.T)] = np.where(inner, NUCLEUS, ANNULUS)
    return labels, affine, line, image


def discs_of(spine, image, labels=None, partial=()):
    own, affine, line, _ = spine
    labels = own if labels is None else labels
    found = components_of(labels, affine, partial=partial)
    return of_structure(measure(labels, affine, found, line, image=image).levels, Structure.DISC)


def bias(shape, share, axis):
    """A field that rises by a share of its mean from one end of an axis to the other."""
    ramp = np.linspace(1 - share / 2, 1 + share / 2, shape[axis])
    return np.moveaxis(np.broadcast_to(ramp, (*(shape[a] for a in range(3) if a != axis), shape[axis])), -1, axis)


@pytest.mark.parametrize(
    ("scale", "share", "axis", "tolerance"),
    [(1.0, 0, 2, 0.01), (1e-5, 0, 2, 0.01), (4e6, 0, 2, 0.01), (1.0, 0.6, 2, 0.03), (1.0, 0.4, 0, 0.03)],
    ids=["plain", "tiny values", "huge values", "bias along the spine", "bias from side to side"],
)
def test_signal_of_discs_is_that_of_the_phantom_at_any_scale_and_bias(spine, scale, share, axis, tolerance):
    labels, affine, _, plain = spine
    rows = discs_of(spine, Volume(scale * plain * bias(plain.shape, share, axis), affine))
    assert len(rows) == 2
    for row in rows:
        mean = float(plain[labels == row.label_id].mean())
        if not share:
            assert float(row.as_row()["disc-signal"]) == pytest.approx(scale * mean, rel=1e-4)
        assert row.disc_csf_ratio == pytest.approx(mean / CSF, rel=tolerance)
        assert row.disc_body_ratio == pytest.approx(mean / BODY, rel=tolerance)
        assert row.nucleus_csf_ratio == pytest.approx(NUCLEUS / CSF, rel=tolerance)
        assert row.measure_note is None


def test_the_image_may_have_another_grid(spine):
    labels, affine, _, plain = spine
    fine = Volume(
        plain.repeat(2, axis=0)[::-1], affine @ np.array([[-0.5, 0, 0, labels.shape[0] - 0.75], *np.eye(4)[1:]])
    )
    given, found = (discs_of(spine, image) for image in (Volume(plain, affine), fine))
    for name in NAMES:
        assert [getattr(row, name) for row in found] == pytest.approx([getattr(row, name) for row in given], rel=1e-6)


def test_without_csf_or_a_whole_disc_ratios_are_missing_with_the_reason(spine):
    labels, affine, _, plain = spine
    image = Volume(plain, affine)
    filled = np.where(labels == CANAL_ID, np.uint8(CORD_ID), labels)
    for row in discs_of(spine, image, filled):
        assert (row.disc_csf_ratio, row.nucleus_csf_ratio) == (None, None)
        assert row.disc_body_ratio == pytest.approx(row.disc_signal / BODY, rel=0.01)
        assert "no CSF beside the disc" in (row.measure_note or "")
    cut = discs_of(spine, image, partial=("L4-L5",))[1]
    assert [getattr(cut, name) for name in ("disc_signal", *NAMES)] == [None] * 4
    assert cut.measure_note == "cut by the field of view"
    beyond = discs_of(spine, Volume(plain[:, :4, :4], affine))
    assert all(getattr(row, name) is None for row in beyond for name in ("disc_signal", *NAMES))


def test_signal_at_or_below_zero_gives_no_ratio(spine):
    _, affine, _, plain = spine
    rows = discs_of(spine, Volume(plain - 1000.0, affine))
    assert all(getattr(row, name) is None for row in rows for name in NAMES)
    assert all(row.disc_signal is not None for row in rows)
