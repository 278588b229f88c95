import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.model import NnUNetModel, load_model
from totalspineseg_bids.inference.preprocess import head_restorer, prepare, resampling_function

from .samples import STEP2, image


def model_with(folder: Path, changes: dict[str, Any], **options: Any) -> NnUNetModel:
    path = write_untrained_model(folder, STEP2, **options)
    plans = json.loads((path / "plans.json").read_text())
    plans["configurations"]["3d_fullres"].update(changes)
    (path / "plans.json").write_text(json.dumps(plans))
    return load_model(path)


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[float, float, float]]] = {
    "z-score": ({}, {}, (1.0, 1.0, 1.0)),
    "masked": ({"use_mask_for_norm": [True, False]}, {}, (1.0, 1.0, 1.0)),
    "CT": ({"normalization_schemes": ["CTNormalization", "NoNormalization"]}, {}, (0.7, 1.0, 1.2)),
    "rescale": ({"normalization_schemes": ["RescaleTo01Normalization"] * 2}, {}, (1.0, 1.0, 1.0)),
    "resampled": ({}, {"spacing": (1.5, 1.2, 0.9)}, (1.0, 1.0, 1.0)),
    "thick slices": ({}, {}, (1.0, 4.0, 1.0)),
    "transposed": ({}, {"transpose": (1, 2, 0), "spacing": (1.0, 1.2, 1.4)}, (1.1, 0.8, 1.0)),
    "torch resampling": (
        {
            "resampling_fn_data": "resample_torch_fornnunet",
            "resampling_fn_data_kwargs": {"is_seg": False, "force_separate_z": False},
        },
        {},
        (0.8, 1.0, 1.2),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_nnunets_preprocessor(name: str, tmp_path: Path) -> None:
    changes, options, spacing = VARIANTS[name]
    model = model_with(tmp_path, changes, **options)
    data = image(2, (16, 12, 20)).transpose(0, 3, 2, 1)
    plans = PlansManager(json.loads((model.path / "plans.json").read_text()))
    expected, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        data, None, {"spacing": list(spacing[::-1])}, plans, plans.get_configuration("3d_fullres"), STEP2
    )
    found = prepare(data, spacing[::-1], model)
    np.testing.assert_allclose(found.data, expected, atol=1e-6)
    assert found.full_shape == properties["shape_before_cropping"]
    assert [[part.start, part.stop] for part in found.box] == properties["bbox_used_for_cropping"]


@pytest.mark.parametrize("spacing", [(0.8, 1.2, 1.1), (4.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
@pytest.mark.parametrize("function", ["resample_data_or_seg_to_shape", "resample_torch_fornnunet"])
def test_logits_go_back_as_in_nnunet(spacing: tuple[float, float, float], function: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"resampling_fn_probabilities": function}
    if function == "resample_torch_fornnunet":
        changes["resampling_fn_probabilities_kwargs"] = {"is_seg": False, "force_separate_z": False}
    model = model_with(tmp_path, changes)
    prepared = prepare(image(2, (9, 12, 15)).transpose(0, 3, 2, 1), spacing[::-1], model)
    assert prepared.resampled
    logits = np.random.default_rng(0).normal(size=prepared.data.shape[1:]).astype(np.float32)
    expected = resampling_function(model, "probabilities")(
        logits[None], prepared.cropped_shape, model.network_spacing, prepared.spacing
    )[0]
    found = head_restorer(model, prepared)(torch.from_numpy(logits)).numpy()
    assert found.shape == prepared.cropped_shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_image_of_zeros_is_kept_whole(tmp_path: Path) -> None:
    prepared = prepare(np.zeros((2, 5, 6, 7), np.float32), (1.0, 1.0, 1.0), model_with(tmp_path, {}))
    assert prepared.data.shape == (2, 5, 6, 7)
    assert np.isfinite(prepared.data).all()


def test_unknown_names_in_the_plans(tmp_path: Path) -> None:
    model = model_with(tmp_path / "a", {"normalization_schemes": ["Magic", "NoNormalization"]})
    with pytest.raises(ModelError, match="channel 0"):
        prepare(np.ones((2, 5, 6, 7), np.float32), (1.0, 1.0, 1.0), model)
    model = model_with(tmp_path / "b", {"resampling_fn_data": "magic"})
    with pytest.raises(ModelError, match="resampling_fn_data"):
        prepare(np.ones((2, 5, 6, 7), np.float32), (2.0, 1.0, 1.0), model)
