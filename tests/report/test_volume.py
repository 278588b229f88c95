"""The data of the full-resolution viewer."""

import base64
import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from totalspineseg_bids.report import volume
from totalspineseg_bids.report.figures import write_figures
from totalspineseg_bids.report.volume import volume_script


def content_of(script: bytes, name: str) -> dict:
    text = script.decode()
    start = f'(window.spineVolumes ??= {{}})["{name}"] = '
    assert text.startswith(start)
    return json.loads(text.removeprefix(start).removesuffix(";\n"))


def decoded(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_image_and_labels_are_nifti_files_on_the_grid_of_the_image(spine):
    image, labels, affine, *_ = spine
    script = volume_script("sub-01_T2w", image, labels, affine)
    assert script == volume_script("sub-01_T2w", image, labels, affine)
    content = content_of(script, "sub-01_T2w")
    grey, ids = decoded(content["image"]), decoded(content["labels"])
    assert sorted(grey.shape) == sorted(image.data.shape)
    assert grey.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(grey.affine) == ("R", "A", "S")
    np.testing.assert_allclose(grey.affine, ids.affine)
    assert set(np.unique(np.asarray(ids.dataobj))) == set(np.unique(labels))
    for label, centre in content["centres"].items():
        voxel = np.rint(np.linalg.inv(affine) @ [*centre, 1])[:3].astype(int)
        assert labels[tuple(voxel)] == int(label)
    assert set(content["centres"]) == {str(label) for label in np.unique(labels) if label}


def test_without_the_viewer_no_data_are_written(spine, tmp_path, monkeypatch):
    image, labels, affine, *_ = spine
    monkeypatch.setattr("totalspineseg_bids.report.figures.viewer_assets", dict)
    assert volume.VOLUME not in write_figures(tmp_path, "a", image, labels, affine)
    monkeypatch.setattr("totalspineseg_bids.report.figures.viewer_assets", lambda: {"script": b""})
    assert volume.VOLUME in write_figures(tmp_path, "a", image, labels, affine)
    assert volume.VOLUME not in write_figures(tmp_path, "a", image, labels, affine, full_resolution=False)


def test_the_installed_viewer_comes_with_its_licence():
    assets = volume.viewer_assets()
    if not assets:
        pytest.skip("the viewer is not installed")
    assert b"BSD 2-Clause" in assets["figures/niivue.LICENSE"]
    assert b"</script" not in assets[volume.SCRIPT]
