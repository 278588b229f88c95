"""Resources of jobs, from image headers."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from totalspineseg_bids.cluster.resources import estimate, memory_need
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.imaging.memory import MemoryNeed


def config(tmp_path: Path, **settings: object) -> RunConfig:
    (tmp_path / "dataset_description.json").touch()
    places = {"bids_dir": tmp_path, "output_dir": tmp_path / "derivatives/out", "analysis_level": "participant"}
    return RunConfig.from_mapping({**places, "executor": "slurm", **settings})


def spine(megavoxels: float) -> MemoryNeed:
    return MemoryNeed(least=1000, likely=1000 + 400 * megavoxels, size="", megavoxels=megavoxels)


def test_the_size_of_an_image_is_that_at_1_mm(tmp_path):
    image = nib.Nifti1Image(np.zeros((10, 20, 30, 2), np.int16), np.diag([-4.0, 2, 1, 1]))
    nib.save(image, tmp_path / "image.nii.gz")
    assert memory_need(tmp_path / "image.nii.gz").megavoxels == pytest.approx(10 * 20 * 30 * 8 / 1e6)
    assert memory_need(tmp_path / "absent.nii.gz").megavoxels > 10


def test_more_voxels_and_larger_models_get_more(tmp_path):
    small, large = (estimate([spine(size)], 40, config(tmp_path)) for size in (1, 12))
    assert small.mem_mb < large.mem_mb
    assert small.minutes < large.minutes
    assert small.threads < large.threads
    assert estimate([spine(12)], 500, config(tmp_path)).mem_mb > large.mem_mb
    two = estimate([spine(12), spine(12)], 40, config(tmp_path))
    assert two.mem_mb == large.mem_mb
    assert two.minutes > large.minutes


def test_a_retry_gets_twice_as_much_of_what_the_user_has_not_set(tmp_path):
    first = estimate([spine(1)], 40, config(tmp_path, time=7, n_cpus=3))
    second = first.of_attempt(2)
    assert (second.mem_mb, second.minutes, second.threads) == (2 * first.mem_mb, 7, 3)


def test_a_gpu_is_asked_for_once(tmp_path):
    assert estimate([spine(1)], 40, config(tmp_path)).gpus == 0
    assert estimate([spine(1)], 40, config(tmp_path, device="cuda")).gpus == 1
    assert estimate([spine(1)], 40, config(tmp_path, gpus=2)).gpus == 2
