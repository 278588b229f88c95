"""Passes and overlap of each network for each quality, from the measured trade-off of accuracy against time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from totalspineseg_bids.inference.options import Quality
from totalspineseg_bids.models.roles import Role

if TYPE_CHECKING:
    from totalspineseg_bids.inference.model import NnUNetModel


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """Limits of a network's sliding window; a model whose plans ask for less keeps its own values."""

    passes: int | None = None
    """Maximum number of mirrored or shifted copies of each patch that are averaged; None for no limit."""
    step: float = 0.0
    """Minimum distance of neighbouring patches, as a fraction of their size."""
    growth: float | None = None
    """Maximum number of voxels of a patch relative to those of training; that of the plans if None. A patch of step 2
    that has twice as many takes 1 GB.
    """

    def step_of(self, model: NnUNetModel) -> float:
        """Return the distance of neighbouring patches of a model.

        A model whose plans do not state it keeps nnU-Net's, with which public models were evaluated.
        """
        return max(model.tile_step, self.step) if "tile_step_size" in model.configuration else model.tile_step

    def growth_of(self, model: NnUNetModel) -> float:
        """Return the maximum number of voxels of a patch of a model, relative to those of training.

        A public model keeps to the size of training patches, as in nnU-Net.
        """
        if self.growth is None or "tile_step_size" not in model.configuration:
            return model.patch_growth
        return self.growth


#: By quality and role; a role without an entry has no limits. Measured with ``benchmarks/bench_frontier.py``.
WINDOW_LIMITS: Mapping[Quality, Mapping[Role, WindowLimits]] = MappingProxyType(
    {
        "fast": {
            Role.STEP1: WindowLimits(step=0.85, growth=2.25),
            Role.STEP2: WindowLimits(passes=1, step=0.85, growth=2.25),
            Role.REFINE: WindowLimits(passes=1),
        },
        "standard": {
            Role.STEP1: WindowLimits(step=0.85, growth=2.25),
            Role.STEP2: WindowLimits(passes=2, step=0.85, growth=2.25),
            Role.REFINE: WindowLimits(passes=1),
        },
        "best": {},
    }
)
