"""Estimates of memory, time and cores of a job, from the headers of its images and the size of the model.

The times are rounded up from runs of the bundled models on two cores (docs/bundled-model.md), with headroom for slower
machines; those of a GPU and of the public models are assumed. A job that exceeds them is repeated
with twice the memory and time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from totalspineseg_bids.cluster.plan import Resources
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.imaging.memory import MemoryNeed, estimate_memory

#: Memory beyond the estimate for one image with the bundled models, and of each MB of weights.
_MEMORY_HEADROOM, _MB_PER_WEIGHT_MB = 1.25, 4
#: Core-seconds of a million voxels at 1 mm: without networks, and of each MB of weights.
_SECONDS_PER_MVOXEL, _SECONDS_PER_WEIGHT_MB = 8.0, 0.1
#: On a GPU, seconds of a million voxels at 1 mm.
_GPU_SECONDS_PER_MVOXEL = 2.0
#: Seconds to load the libraries and models, and of an image of any size.
_START_SECONDS, _IMAGE_SECONDS = 60.0, 20.0
#: Factor for slower and busier machines, and the shortest time limit, minutes.
_HEADROOM, _SHORTEST_MINUTES = 3.0, 5
#: Images larger than this get four cores instead of two, million voxels at 1 mm.
_LARGE_MVOXEL = 4.0
#: A whole spine, for an image whose header cannot be read.
_UNKNOWN = MemoryNeed(least=1300, likely=5300, size="unknown", megavoxels=12)
#: Two public networks, for a model that is in a container only, MB.
_UNKNOWN_WEIGHTS_MB = 500.0
#: Jobs get images for this time, including headroom, minutes.
BATCH_MINUTES = 30
#: Fewest jobs for each that runs at the same time, so that all end at about the same time.
JOBS_IN_TURN = 4
#: Group level, measured with 10,000 images (`benchmarks/bench_group_report.py`).
GROUP_RESOURCES = Resources(mem_mb=4000, minutes=30, threads=1)


def memory_need(path: Path) -> MemoryNeed:
    """Return size and memory of an image, from its header; those of a whole spine if it cannot be read."""
    try:
        return estimate_memory(path)
    except SpineAppError:
        return _UNKNOWN


def weights_mb(config: RunConfig) -> float:
    """Return the size of the model's weights, MB; that of the public models where it is in a container only."""
    from totalspineseg_bids.models.registry import resolve  # noqa: PLC0415
    from totalspineseg_bids.models.roles import Role  # noqa: PLC0415

    if config.container is not None:
        return _UNKNOWN_WEIGHTS_MB
    try:
        models = resolve(config.model, need=())
    except SpineAppError:
        return _UNKNOWN_WEIGHTS_MB
    folders = {folder for role in Role if (folder := models.get(role)) is not None}
    return sum(file.stat().st_size for folder in folders for file in folder.glob("fold_*/checkpoint_*.pth")) / 1e6


def estimate(images: Sequence[MemoryNeed], weights: float, config: RunConfig, cores: int | None = None) -> Resources:
    """Estimate the resources of a job; settings of the configuration take precedence.

    Parameters
    ----------
    images : sequence of MemoryNeed
        Images that the job reads, from `memory_need`.
    weights : float
        Size of the model's weights, MB.
    config : RunConfig
        Settings of the run.
    cores : int, optional
        Cores of a job where the configuration sets none; by default they depend on the sizes.
    """
    largest = max((image.megavoxels for image in images), default=0.0)
    gpus = config.gpus or int(config.device.startswith("cuda"))
    threads = config.n_cpus or cores or (4 if gpus or largest > _LARGE_MVOXEL else 2)
    per_mvoxel = _SECONDS_PER_MVOXEL + _SECONDS_PER_WEIGHT_MB * weights
    seconds_per_mvoxel = _GPU_SECONDS_PER_MVOXEL if gpus else per_mvoxel / threads
    seconds = (
        _START_SECONDS + _IMAGE_SECONDS * len(images) + seconds_per_mvoxel * sum(image.megavoxels for image in images)
    )
    memory = _MEMORY_HEADROOM * max((image.likely for image in images), default=0.0) + _MB_PER_WEIGHT_MB * weights
    return Resources(
        mem_mb=config.mem_mb or math.ceil(memory / 100) * 100,
        minutes=config.time or max(_SHORTEST_MINUTES, math.ceil(_HEADROOM * seconds / 60)),
        threads=threads,
        gpus=gpus,
        fixed=tuple(name for name, value in (("mem_mb", config.mem_mb), ("minutes", config.time)) if value),
    )
