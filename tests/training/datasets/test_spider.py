"""SPIDER's archives from a web server into a BIDS dataset that ``prepare`` takes."""

import hashlib
import io
import json
import shutil
import zipfile
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from tests.images import data
from totalspineseg_bids import anatomy
from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.errors import ImageError, MissingInputError, NothingSelectedError
from totalspineseg_bids.training.datasets import catalog
from totalspineseg_bids.training.datasets.catalog import find_source
from totalspineseg_bids.training.datasets.get import GetOptions, get_dataset, state_of
from totalspineseg_bids.training.datasets.labels import merge_labels
from totalspineseg_bids.training.datasets.spider import label_table, map_labels, read_mha
from totalspineseg_bids.training.prepare import prepare

sitk = pytest.importorskip("SimpleITK")


def lumbar() -> np.ndarray:
    """SPIDER's mask of L5 to L3 with discs, canal and a vertebra cut by the field of view, (front-back, down, left)."""
    mask = np.zeros((40, 60, 8), np.uint8)
    for number in range(3):
        top = 44 - 15 * number
        mask[5:20, top : top + 11, 1:7] = 1 + number
        mask[5:20, top + 11 : top + 15, 1:7] = 201 + number
    mask[5:20, :11, 1:7] = 104
    mask[22:30, :, 3:6] = 100
    return mask


def mha(array, folder):
    """Return the file of sagittal slices of 3 mm: axes run from front to back, downwards and to the left."""
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetDirection((0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    image.SetSpacing((0.8, 0.9, 3.0))
    image.SetOrigin((-12.0, 5.0, 40.0))
    path = folder / "x.mha"
    sitk.WriteImage(image, str(path), useCompression=True)
    return path.read_bytes()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def published(server, tmp_path):
    """Three series of two patients as Zenodo has them; a fourth has no mask, and a mask holds a strange value."""
    mask = lumbar()
    image = (mask.astype(np.int16) * 3 + np.arange(40, dtype=np.int16)[:, None, None]).astype(np.int16)
    bad = mask.copy()
    bad[0, 0, 0] = 99
    images, masks = {}, {}
    for name in ("1_t1", "1_t2", "12_t2_SPACE", "13_t2", "14_t2"):
        images[f"images/{name}.mha"] = mha(image, tmp_path)
        masks[f"masks/{name}.mha"] = mha(bad if name == "14_t2" else mask, tmp_path)
    del masks["masks/13_t2.mha"]
    images["__MACOSX/images/._1_t1.mha"] = b"x"
    digests = {}
    for name, members in (("images.zip", images), ("masks.zip", masks)):
        content = zipped(members)
        (tmp_path / "served" / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    return replace(find_source("spider"), url=server.address, digests=digests)


def test_values_of_the_masks():
    table = label_table()
    levels = {1: "L5", 5: "L1", 6: "T12", 24: "C1", 101: "L5", 124: "C1", 201: "L5-S", 206: "T12-L1", 223: "C2-C3"}
    assert {value: anatomy.BY_ID[table[value]].level for value in levels} == levels
    assert anatomy.BY_ID[table[100]].name == "spinal_canal"
    assert len(table) == 1 + 2 * 24 + 23
    mapped = map_labels(np.array([[0, 1], [100, 201]], np.int64), "x")
    assert mapped.tolist() == [[0, 18], [201, 202]]
    with pytest.raises(ImageError, match="x: value 99"):
        map_labels(np.array([0, 99]), "x")


def test_place_in_space(tmp_path):
    """Every voxel is where SimpleITK says, in RAS."""
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / "x.mha"
    path.write_bytes(mha(array, tmp_path))
    volume = read_mha(path)
    np.testing.assert_array_equal(volume.data, array)
    image = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(volume.affine @ (*index, 1), [-lps[0], -lps[1], lps[2], 1])
        assert image.GetPixel(index) == array[index]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match="own name"):
        read_mha(path, "own name")


def test_get_convert_and_prepare(published, tmp_path):
    root = tmp_path / "bids"
    result = get_dataset(published, root)
    assert (result.selected, result.fetched) == (5, 3)
    reasons = dict(result.failed)
    assert "no mask" in reasons["sub-013_acq-lowresSag_T2w"]
    assert "value 99" in reasons["sub-014_acq-lowresSag_T2w"]
    folder = root / "spider-challenge-2023"
    names = {path.name for path in folder.glob("sub-*/anat/*")}
    assert names == {
        "sub-001_acq-lowresSag_T1w.nii.gz",
        "sub-001_acq-lowresSag_T2w.nii.gz",
        "sub-012_acq-highresSag_T2w.nii.gz",
    }
    image = nib.load(folder / "sub-001" / "anat" / "sub-001_acq-lowresSag_T2w.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("P", "I", "L")
    assert image.get_data_dtype() == np.int16
    name = "derivatives/labels/sub-012/anat/sub-012_acq-highresSag_seg-spider_desc-T2w_dseg.nii.gz"
    assert set(np.unique(data(folder / name))) == {
        0,
        18,
        19,
        20,
        21,
        201,
        202,
        203,
        204,
    }  # L2 (21) is the one that is cut
    assert json.loads((folder / "dataset_description.json").read_text())["License"] == "CC BY 4.0"
    assert (folder / "participants.tsv").read_text().split() == ["participant_id", "sub-001", "sub-012"]
    summary = prepare([folder], tmp_path / "work", datasets=(101,), label_scheme="auto", test_fraction=0)
    assert (summary.training, summary.refused) == (3, ())
    assert summary.levels["disc_L5_S"] == (3, 0)


def test_stop_and_go_on(published, server, tmp_path):
    root = tmp_path / "bids"
    half = (tmp_path / "served" / "images.zip").stat().st_size // 2
    server.break_after = [half]
    get_dataset(published, root, GetOptions(subjects=("001",)))
    assert f"bytes={half}-" in server.ranges
    server.ranges.clear()
    again = get_dataset(published, root, GetOptions(subjects=("sub-012",)))
    assert (again.fetched, server.ranges) == (1, [])
    assert get_dataset(published, root, GetOptions(verify=True)).fetched == 0
    assert state_of(published, root) == "3 of 5"
    with pytest.raises(NothingSelectedError, match="no series of 999"):
        get_dataset(published, root, GetOptions(subjects=("999",)))


def test_digests(published, tmp_path):
    root, downloads = tmp_path / "bids", tmp_path / "bids/.downloads" / published.name
    with pytest.raises(ImageError, match=r"images\.zip.*published 0000"):
        get_dataset(replace(published, digests={"images.zip": "0" * 64}), root)
    # Without published digests, those of the first download are recorded; a file that changes later is refused.
    silent = replace(published, digests={})
    get_dataset(silent, root)
    assert json.loads((downloads / "digests.json").read_text())["masks.zip"]["origin"] == "first download"
    (downloads / "masks.zip").write_bytes((downloads / "masks.zip").read_bytes() + b"x")
    with pytest.raises(ImageError, match="recorded"):
        get_dataset(silent, root)


def test_without_a_network(published, tmp_path):
    root = tmp_path / "bids"
    away = replace(published, url="http://127.0.0.1:9/files")
    with pytest.raises(MissingInputError, match=r"without a network here.*images\.zip and run the same command again"):
        get_dataset(away, root)
    folder = root / ".downloads" / published.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("images.zip", "masks.zip"):
        shutil.copy(tmp_path / "served" / name, folder / name)
    assert get_dataset(away, root).fetched == 3


def test_labels_are_merged(tmp_path):
    root = tmp_path / "bids"
    (root / "spider-challenge-2023").mkdir(parents=True)
    place = "spider-challenge-2023/derivatives/labels_iso/sub-001/anat/x_label-spine_dseg.nii.gz"
    archive = tmp_path / "labels.zip"
    members = {
        f"bids/{place}": b"labels",
        "bids/whole-spine/derivatives/labels_iso/sub-1/anat/y.nii.gz": b"of a dataset that is not here",
        "bids/spider-challenge-2023/derivatives/../../../../escaped": b"climbs out",
        "bids/spider-challenge-2023/README": b"no derivative",
    }
    archive.write_bytes(zipped(members))
    names = ["spider-challenge-2023", "whole-spine"]
    for former, written in ((None, 1), (None, 0), (b"other ", 1)):
        if former:
            (root / place).write_bytes(former)
        assert merge_labels(archive, root, names) == {"spider-challenge-2023": (1, written)}
        assert (root / place).read_bytes() == b"labels"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bids", "labels.zip"]
    assert len(list(root.rglob("*"))) == 6
    archive.write_bytes(b"no zip")
    with pytest.raises(ImageError, match="not a readable zip"):
        merge_labels(archive, root, names)


def test_command_line(published, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(catalog, "SOURCES", (published,))
    place = "spider-challenge-2023/derivatives/labels_iso/sub-001/anat/z.nii.gz"
    (tmp_path / "served" / "labels.zip").write_bytes(zipped({f"bids/{place}": b"labels"}))
    root = tmp_path / "bids"
    listed = ["datasets", "list", "--to", str(root)]
    assert main(listed) == 0
    assert "absent" in capsys.readouterr().out
    get = ["datasets", "get", "spider", "--to", str(root), "--labels", f"{server.address}/labels.zip"]
    assert main([*get, "--subjects", "1", "12"]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 files, 3 fetched now" in out
    assert "1 label files of labels.zip, 1 written now" in out
    assert (root / place).read_bytes() == b"labels"
    assert main(listed) == 0
    assert "complete" in capsys.readouterr().out
    assert main(get) == 66
    assert "did not come" in capsys.readouterr().out
    assert main(["datasets", "get", "mnist", "--to", str(root)]) == 64
