"""Reading and writing of NIfTI: what is refused, what is repaired, and that what is written is reproducible."""

import gzip
import os
import re
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import from_matvec

from tests.bad_images import KINDS, Maker, cut, write
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.imaging import atomic
from totalspineseg_bids.imaging.io import (
    file_digest,
    load_image,
    read_image,
    read_labels,
    write_labels,
    write_probability,
)

AFFINE = np.array([[0, 0, 1.5, -3], [-1, 0, 0, 5], [0, 2, 0, 7], [0, 0, 0, 1]], float)


def some_data(shape: tuple[int, ...] = (6, 7, 8), dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def test_reads_values_and_affine_in_the_order_of_the_file(tmp_path):
    data = some_data()
    volume = read_image(save(tmp_path / "x.nii.gz", data))
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, AFFINE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_every_number_type_is_read(tmp_path, dtype, extension):
    data = some_data(dtype=dtype)
    path = tmp_path / f"x{extension}"
    nib.save(nib.Nifti1Image(data, AFFINE, dtype=dtype), path)
    np.testing.assert_array_equal(read_image(path).data, data.astype(np.float32))


def test_nifti2_big_endian_and_scaled_values_are_read(tmp_path):
    data = some_data()
    scaled = nib.Nifti1Image(data.astype(np.float32) / 3, AFFINE)
    scaled.set_data_dtype(np.int16)
    for name, image, expected in (
        ("two.nii.gz", nib.Nifti2Image(data, AFFINE), data),
        ("big.nii", nib.Nifti1Image(data, AFFINE, nib.Nifti1Header(endianness=">")), data),
        ("scaled.nii.gz", scaled, data / 3),
    ):
        nib.save(image, tmp_path / name)
        np.testing.assert_allclose(read_image(tmp_path / name).data, expected, atol=0.01)


def test_trailing_axes_of_one_are_dropped(tmp_path):
    data = some_data((6, 7, 8, 1, 1))
    assert read_image(save(tmp_path / "x.nii.gz", data)).data.shape == (6, 7, 8)


def test_nan_becomes_dark_and_inf_bright(tmp_path):
    data = some_data(dtype=np.float32) + 10
    data[0, 0, 0], data[0, 0, 1], data[0, 0, 2] = np.nan, np.inf, -np.inf
    loaded = load_image(save(tmp_path / "x.nii.gz", data))
    finite = data[np.isfinite(data)]
    assert loaded.volume.data[0, 0].tolist()[:3] == [finite.min(), finite.max(), finite.min()]
    assert loaded.notes == ("non-finite-voxels:3",)


def fitting(kind: str) -> bool:
    return KINDS[kind].code != 0 and (kind != "unreadable" or os.geteuid() != 0)


#: Kinds that depend on the name of the file.
NAMED: dict[str, tuple[str, Maker, str]] = {
    "absent": ("x.nii.gz", lambda path: None, "no such file"),
    "truncated plain": ("x.nii", cut(0.5), "cannot hold them"),
    "gzip of little": ("x.nii.gz", write(gzip.compress(b"hello")), "not a valid NIfTI header"),
    "text": ("x.nii", write(b"hello" * 200), "not a valid NIfTI header"),
    "gzip named nii": ("x.nii", write(gzip.compress(b"x" * 400)), "not named .nii.gz"),
    "other extension": ("x.mgz", write(b"x" * 400), "not a .nii or .nii.gz"),
    **{kind: ("x.nii.gz", KINDS[kind].make, re.escape(KINDS[kind].says)) for kind in filter(fitting, KINDS)},
}


@pytest.mark.parametrize("kind", NAMED)
def test_bad_files_are_refused_by_name_in_one_line(tmp_path, kind):
    name, make, message = NAMED[kind]
    path = tmp_path / name
    make(path)
    with pytest.raises(SpineAppError, match=message) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert caught.value.exit_code == (KINDS[kind].code if kind in KINDS else 66 if kind == "absent" else 65)


@pytest.mark.parametrize("codes", [(0, 2), (1, 1), (2, 1), (0, 0), (1, 0)])
def test_labels_keep_the_geometry_of_the_source_bit_for_bit(tmp_path, codes):
    image = nib.Nifti1Image(some_data(), AFFINE)
    rotated = AFFINE.copy()
    rotated[:3, 3] += 3
    image.set_qform(rotated, codes[0])
    image.set_sform(AFFINE, codes[1])
    nib.save(image, tmp_path / "x.nii.gz")
    source = load_image(tmp_path / "x.nii.gz")
    write_labels(tmp_path / "y.nii.gz", some_data(dtype=np.uint8), source.volume.affine, source.header)
    old, new = nib.load(tmp_path / "x.nii.gz").header, nib.load(tmp_path / "y.nii.gz").header
    for field in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(new[field], old[field])
    np.testing.assert_array_equal(new.get_best_affine(), old.get_best_affine())
    assert new.get_data_dtype() == np.uint8
    assert new.get_intent()[0] == "label"


def test_written_bytes_do_not_depend_on_name_or_time(tmp_path):
    labels = some_data(dtype=np.uint8)
    write_labels(tmp_path / "a.nii.gz", labels, AFFINE)
    write_labels(tmp_path / "b" / "other.nii.gz", labels, AFFINE)
    assert file_digest(tmp_path / "a.nii.gz") == file_digest(tmp_path / "b" / "other.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes()[3] == 0  # no name in the gzip header
    assert struct.unpack("<I", (tmp_path / "a.nii.gz").read_bytes()[4:8]) == (0,)  # no time


@settings(max_examples=25)
@given(
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    seed=st.integers(0, 1000),
    extension=st.sampled_from([".nii", ".nii.gz"]),
)
def test_labels_survive_the_way_to_disk_and_back(tmp_path_factory, shape, seed, extension):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 256, shape).astype(np.uint8)
    matrix = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.3, 5, 3)
    affine = from_matvec(matrix, rng.uniform(-100, 100, 3))
    path = tmp_path_factory.mktemp("labels") / f"x{extension}"
    write_labels(path, labels, affine)
    back = read_labels(path)
    np.testing.assert_array_equal(back.data, labels)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    np.testing.assert_allclose(nib.load(path).get_qform(), affine, atol=1e-2)


def test_probabilities_are_kept_to_a_thousandth(tmp_path):
    p = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    write_probability(tmp_path / "p.nii.gz", p, AFFINE)
    np.testing.assert_allclose(nib.load(tmp_path / "p.nii.gz").get_fdata(), p, atol=0.00051)
    nib.load(tmp_path / "p.nii.gz").header.get_slope_inter()


def test_files_appear_whole_or_not_at_all(tmp_path):
    target = tmp_path / "x.txt"
    atomic.write_text(target, "old")

    def fail() -> None:
        with atomic.atomic_writer(target) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_permissions_follow_the_umask(tmp_path):
    former = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "x.txt", "x")
    finally:
        os.umask(former)
    assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o640


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path):
    mine = atomic.temporary_name(tmp_path / "a.nii.gz")
    host = mine.name.rsplit(".", 2)[1].split("-")[0]
    dead = tmp_path / f".a.nii.gz.{host}-999999999.tmp"
    foreign = tmp_path / ".a.nii.gz.elsewhere-5.tmp"
    other = tmp_path / ".hidden"
    for path in (mine, dead, foreign, other):
        path.write_text("x")
    now = dead.stat().st_mtime
    assert atomic.remove_stale(tmp_path, now) == [dead]
    assert atomic.remove_stale(tmp_path, now + 2 * 24 * 3600) == sorted([mine, foreign])
    assert other.exists()
    assert atomic.remove_stale(tmp_path / "absent", now) == []
