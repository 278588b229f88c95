import numpy as np
import pytest
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.parametric import SpineParameters, make_spine


def _expected(variant: SpineVariant) -> set[int]:
    ids = {anatomy.vertebra(level).id for level in variant.vertebrae()}
    return ids | {anatomy.disc(level).id for level in variant.discs()} | {anatomy.CORD_ID, anatomy.CANAL_ID}


def _volumes(volume: Volume) -> dict[int, float]:
    """Volume of every label, mL."""
    ids, counts = np.unique(volume.data, return_counts=True)
    return {int(i): float(n) * float(np.prod(volume.spacing)) / 1000 for i, n in zip(ids, counts, strict=True)}


@pytest.mark.parametrize("counts", [(12, 5), (11, 5), (13, 5), (12, 4), (12, 6)])
def test_every_level_of_a_variant_is_there(counts):
    variant = SpineVariant(*counts)
    volume = make_spine(np.random.default_rng(sum(counts)), variant=variant, spacing=2.5)
    ids = {int(i) for i in np.unique(volume.data)}
    assert {i for i in ids if i >= 18} == _expected(variant)
    assert ids >= set(range(10))


def test_grid(spine):
    assert spine.data.dtype == np.uint8
    assert spine.spacing == (1.0, 1.0, 1.0)
    assert spine.geometry.orientation == "RAS"
    assert 150 < spine.data.shape[0] < 200


def test_sizes_are_those_of_an_adult(spine):
    volumes = _volumes(spine)
    # Whole vertebrae and discs of adults in mL, generous bounds around the open atlases.
    for level, low, high in (("C4", 6, 14), ("T1", 10, 22), ("T7", 15, 32), ("L3", 33, 70), ("S", 110, 260)):
        assert low < volumes[anatomy.vertebra(level).id] < high, level
    for level, low, high in (("C4-C5", 0.5, 2.6), ("T7-T8", 1.8, 7.5), ("L3-L4", 8, 22), ("L5-S", 8, 24)):
        assert low < volumes[anatomy.disc(level).id] < high, level
    assert 15 < volumes[anatomy.CORD_ID] < 40


def test_levels_run_from_top_to_bottom(spine):
    ids = [anatomy.disc(level).id for level in SpineVariant().discs()]
    boxes = ndimage.find_objects(spine.data)
    heights = [boxes[i - 1][2].start + boxes[i - 1][2].stop for i in ids]
    assert np.all(np.diff(heights) < 0)


def test_each_disc_lies_within_three_millimetres_of_its_two_vertebrae_and_of_no_other(spine):
    variant = SpineVariant()
    bodies = variant.vertebrae()[1:]
    boxes = ndimage.find_objects(spine.data)
    for position, level in enumerate(variant.discs()):
        label = anatomy.disc(level).id
        box = tuple(slice(max(0, s.start - 4), s.stop + 4) for s in boxes[label - 1])
        part = spine.data[box]
        assert ndimage.label(part == label)[1] == 1, level
        around = set(np.unique(part[ndimage.binary_dilation(part == label, iterations=3)]))
        neighbours = {anatomy.vertebra(name).id for name in bodies[position : position + 2]}
        vertebrae = {i for i in around if 18 <= i <= 41 or i in {92, 230, 231}}
        assert vertebrae == neighbours, level


def test_cord_has_canal_all_around_it(spine):
    top = int(np.flatnonzero((spine.data == anatomy.CORD_ID).any(axis=(0, 1)))[-1])
    part = spine.data[:, :, : top - 1]
    cord = part == anatomy.CORD_ID
    box = ndimage.find_objects(cord.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in box)
    part, cord = part[box], cord[box]
    shell = ndimage.binary_dilation(cord) & ~cord
    shell[:, :, -2:] = False
    assert np.mean(part[shell] == anatomy.CANAL_ID) > 0.995


def test_parameters_change_the_size():
    small, large = (
        make_spine(np.random.default_rng(0), spacing=3.0, parameters=SpineParameters(scale=s)) for s in (0.85, 1.1)
    )
    label = anatomy.vertebra("L3").id
    assert _volumes(large)[label] > 1.6 * _volumes(small)[label]
