"""Passes and overlap of the networks by quality."""

from types import SimpleNamespace
from typing import Any

import pytest

from totalspineseg_bids.inference.options import QUALITIES, InferenceOptions
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.models.roles import Role
from totalspineseg_bids.segmentation.networks import SegmentationNetworks
from totalspineseg_bids.segmentation.quality import WINDOW_LIMITS, WindowLimits


def model_of(step: float | None, growth: float = 1.0) -> Any:
    configuration = {} if step is None else {"tile_step_size": step}
    return SimpleNamespace(tile_step=step or 0.5, patch_growth=growth, configuration=configuration)


@pytest.mark.parametrize(("limits", "model", "step", "growth"), [
    (WindowLimits(), model_of(0.7, 3.0), 0.7, 3.0),
    (WindowLimits(step=0.85, growth=2.0), model_of(0.7, 3.0), 0.85, 2.0),
    (WindowLimits(step=0.85, growth=2.0), model_of(0.9), 0.9, 2.0),
    # A public model keeps nnU-Net's overlap and size of patches, with which it was evaluated.
    (WindowLimits(step=0.85, growth=2.0), model_of(None), 0.5, 1.0),
])  # fmt: skip
def test_limits_apply_to_models_whose_plans_state_the_overlap(limits, model, step, growth):
    assert limits.step_of(model) == step
    assert limits.growth_of(model) == growth


def test_a_lower_quality_never_takes_more_passes():
    passes = [
        [WINDOW_LIMITS[quality].get(role, WindowLimits()).passes or 8 for quality in QUALITIES]
        for role in (Role.STEP1, Role.STEP2, Role.REFINE)
    ]
    assert all(list(row) == sorted(row) for row in passes)
    assert WINDOW_LIMITS["best"] == {}


def test_the_bundled_networks_take_the_passes_of_the_quality():
    models = resolve("bundled")
    counts = {}
    for quality in QUALITIES:
        networks = SegmentationNetworks(models, InferenceOptions(quality=quality))
        assert networks.digests
        counts[quality] = [len(networks.predictors[role].transforms) for role in (Role.STEP2, Role.REFINE)]
    assert counts == {"fast": [1, 1], "standard": [2, 1], "best": [4, 4]}
