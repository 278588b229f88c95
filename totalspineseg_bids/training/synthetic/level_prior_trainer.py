"""nnU-Net trainer class of the bundled single-step model; importing it needs nnU-Net's folders in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from totalspineseg_bids.training.synthetic.level_prior import IGNORE
from totalspineseg_bids.training.synthetic.level_prior_patches import LevelPriorPatchDataset
from totalspineseg_bids.training.synthetic.trainer import nnUNetTrainerSynthetic

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset

#: Background voxels away from the spine that count, as part of all others that do; they are many and easy.
_FAR_SHARE = 0.6


class nnUNetTrainerScout(nnUNetTrainerSynthetic):  # noqa: N801 - nnU-Net finds trainers by such names
    """Cross-entropy over levels, at the voxels of the spine, those around it and a sample of the others.

    With some fifty classes the last layer and the loss would cost more than the rest of the network if they were
    computed everywhere; the spine fills a few per cent of a field of view.
    """

    #: Its patches are one slice from left to right.
    mirrored_axes = ()

    def _prepare_loss(self) -> None:
        self.last_features: torch.Tensor | None = None
        self.network.decoder.seg_layers[-1].register_forward_pre_hook(self._keep_features)

    def _keep_features(self, _layer: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        self.last_features = inputs[0]

    def _stream(self, seed: list[int]) -> IterableDataset[Any]:
        return LevelPriorPatchDataset(self.pool, seed)

    def _counted(self, values: torch.Tensor) -> torch.Tensor:
        """Return the flat indices of the voxels that count."""
        spine = (values > 0) & (values != IGNORE)
        around = functional.max_pool3d(spine[:, None].float(), 3, 1, 1)[:, 0] > 0
        near = (around & (values != IGNORE)).flatten().nonzero()[:, 0]
        far = torch.randint(values.numel(), (max(64, int(_FAR_SHARE * len(near))),), device=values.device)
        return torch.cat([near, far[values.flatten()[far] == 0]])

    def _logits(self, data: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        self.network(data)
        features, layer = self.last_features, self.network.decoder.seg_layers[-1]
        self.last_features = None
        assert features is not None  # noqa: S101 - the hook has run
        flat = features.permute(0, 2, 3, 4, 1).reshape(-1, features.shape[1])[index]
        return functional.linear(flat.float(), layer.weight.flatten(1), layer.bias)

    def batch_loss(self, batch: Any) -> torch.Tensor:  # noqa: ANN401
        """Cross-entropy at the voxels that count."""
        data, target = self._to_device(batch)
        index = self._counted(target)
        return functional.cross_entropy(self._logits(data, index), target.flatten()[index].long())

    def validation_step(self, batch: Any) -> dict[str, Any]:  # noqa: ANN401
        """Loss, and hits and misses a level, at the voxels that count."""
        data, target = self._to_device(batch)
        index = self._counted(target)
        logits, truth = self._logits(data, index), target.flatten()[index].long()
        found = logits.argmax(1)
        count = logits.shape[1]
        hits = torch.bincount(truth[found == truth], minlength=count)
        return {
            "loss": functional.cross_entropy(logits, truth).cpu().numpy(),
            "tp_hard": _numpy(hits[1:]),
            "fp_hard": _numpy((torch.bincount(found, minlength=count) - hits)[1:]),
            "fn_hard": _numpy((torch.bincount(truth, minlength=count) - hits)[1:]),
        }


def _numpy(counts: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return counts.cpu().numpy().astype(np.float64)
