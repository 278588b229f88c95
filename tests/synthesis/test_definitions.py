"""Bright-line checks of docs/definitions.md: the ranges are those measured on eight manual masks of SPIDER."""

import numpy as np
import pytest
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.io import write_labels
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.synthesis.body_profile import ENDPLATE, FAT, SOFT
from totalspineseg_bids.synthesis.definitions import follow_definitions, measure_disc, measure_lumbar_spine
from totalspineseg_bids.synthesis.degeneration import draw_disc_shape, draw_endplate, fracture, remaining_height
from totalspineseg_bids.synthesis.parametric import SpineParameters, make_spine
from totalspineseg_bids.synthesis.surroundings import read_label_map

_DISCS = ("T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S")
_BODIES = ("L1", "L2", "L3", "L4", "L5")
#: Lowest and highest median of a spine.
_RANGES = {
    "endplate": (1.2, 2.0),
    "thickness": (4.0, 10.5),
    "disc : gap": (0.55, 0.82),
    "disc : endplate": (0.94, 1.09),
    "canal : L1": (0.18, 0.52),
    "canal : L3": (0.11, 0.34),
    "canal : L5": (0.04, 0.19),
    "in front": (1.0, 4.3),
    "behind": (2.0, 10.5),
}


def _outside(measured: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measured.items() if not _RANGES[name][0] <= value <= _RANGES[name][1]}


@pytest.mark.parametrize("seed", range(3))
def test_sizes_and_clearances_of_synthetic_spines_lie_in_the_range_of_manual_masks(seed):
    assert not _outside(measure_lumbar_spine(make_spine(np.random.default_rng(seed))))


def test_discs_of_neck_and_chest_keep_about_one_millimetre(spine):
    for level in ("C4-C5", "C6-C7", "T3-T4", "T7-T8", "T10-T11"):
        found = measure_disc(spine, level)
        assert 0.6 <= float(np.nanmean(found.gap)) <= 1.6, level


def test_the_canal_ends_in_the_upper_sacrum(spine):
    bottoms = [np.argwhere(np.isin(spine.data, ids))[:, 2].min() for ids in ([anatomy.CANAL_ID], [anatomy.SACRUM_ID])]
    top = np.argwhere(spine.data == anatomy.SACRUM_ID)[:, 2].max()
    assert 0.2 < (top - bottoms[0]) / (top - bottoms[1]) < 0.65


def _like_ct_masks(spine: Volume) -> Volume:
    """Return a spine whose discs touch the bodies and whose canal fills the bony ring, as masks of CT have them."""
    labels = spine.data.copy()
    discs = np.isin(labels, [anatomy.disc(level).id for level in anatomy.REGULAR_DISCS])
    nearest = ndimage.distance_transform_edt(~discs, return_distances=False, return_indices=True)
    gap = labels == ENDPLATE
    labels[gap] = labels[tuple(axis[gap] for axis in nearest)]
    canal = labels == anatomy.CANAL_ID
    ring = ndimage.binary_dilation(canal, iterations=9) & (labels == FAT)
    for shift in range(1, 5):
        ring |= np.roll(canal, shift, axis=1) & (labels == SOFT)
    labels[ring] = anatomy.CANAL_ID
    return Volume(labels, spine.affine)


def test_label_maps_are_converted_once(spine):
    touching = _like_ct_masks(spine)
    before = _outside(measure_lumbar_spine(touching))
    assert {"endplate", "in front"} <= before.keys()
    converted = follow_definitions(touching)
    after = measure_lumbar_spine(converted)
    # A layer is one voxel; the slope of the discs makes it thicker on average.
    assert 0.9 <= after["endplate"] <= 2.0
    assert not _outside(after).keys() & {"disc : gap", "disc : endplate", "in front", "behind"}
    assert np.count_nonzero(converted.data == anatomy.CANAL_ID) < 0.8 * np.count_nonzero(
        touching.data == anatomy.CANAL_ID
    )
    again = follow_definitions(converted)
    assert np.mean(again.data != converted.data) < 1e-4


def test_a_spine_that_follows_the_definitions_stays_as_it_is(spine):
    assert follow_definitions(spine) is spine


def test_a_spine_without_surroundings_gets_a_body_and_keeps_its_labels(spine, tmp_path):
    lumbar = np.isin(spine.data, [*(anatomy.vertebra(level).id for level in ("T12", *_BODIES)), anatomy.CANAL_ID])
    lumbar |= np.isin(spine.data, [anatomy.disc(level).id for level in _DISCS])
    top = np.argwhere(spine.data == anatomy.vertebra("T12").id)[:, 2].max()
    lumbar[:, :, top:] = False
    # Sagittal slices of 4 mm, as in SPIDER.
    labels = np.where(lumbar, spine.data, 0).astype(np.uint8)[30:-30:4]
    affine = spine.affine @ np.diag([4.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = spine.affine[:3, 3] + 30 * spine.affine[:3, 0]
    write_labels(tmp_path / "dseg.nii.gz", labels, affine)
    whole = read_label_map(tmp_path / "dseg.nii.gz")
    assert set(range(1, 11)) - {4, 8} <= set(np.unique(whole.data))
    assert np.any(whole.data == anatomy.CORD_ID)
    assert np.any(whole.data[:, :, -40] == anatomy.CANAL_ID)
    assert np.any(whole.data == anatomy.SACRUM_ID)
    grid = Geometry(labels.shape, affine)
    kept = restore_labels(whole.data, whole.affine, grid)
    for level in _DISCS[1:]:
        one, two = (part == anatomy.disc(level).id for part in (kept, labels))
        assert 2 * np.count_nonzero(one & two) / (np.count_nonzero(one) + np.count_nonzero(two)) > 0.85, level


def test_a_degenerate_disc_is_thin_and_bulges():
    shapes = [
        draw_disc_shape("L", grade, 1.0, np.random.default_rng(seed)) for grade in (0.0, 0.9) for seed in range(40)
    ]
    assert remaining_height(np.array([0.0, 1.0])).tolist() == pytest.approx([1.0, 0.38])
    for bulge in ("front", "back", "side", "osteophytes"):
        healthy, degenerate = (
            np.mean([getattr(shape, bulge) for shape in part]) for part in (shapes[:40], shapes[40:])
        )
        assert degenerate > healthy + 0.3, bulge


def test_a_fracture_lowers_the_body_and_its_disc_follows():
    plate = fracture(draw_endplate(1.0, 27.0, 0.0, np.random.default_rng(0)), 27.0, np.random.default_rng(1))
    across, along = (line.astype(np.float32) for line in np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21)))
    depth = plate.depth(across, along, np.hypot(across, along))
    assert 0.15 * 27 < depth.max() <= plate.deepest < 0.5 * 27


def test_a_block_vertebra_has_no_disc():
    parameters = SpineParameters(block="L2-L3", degeneration=0.5, fractures=2)
    labels = make_spine(np.random.default_rng(2), spacing=2.0, parameters=parameters).data
    assert not np.any(labels == anatomy.disc("L2-L3").id)
    assert np.any(labels == anatomy.disc("L3-L4").id)
