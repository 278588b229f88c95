"""Schedule of a synthetic training: clock, learning rate and moving average of the weights."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_WARM_UP_STEPS = 100
_EMA_DECAY = 0.998
#: The running average starts to matter after about this many steps.
_EMA_DELAY = 10


class Clock:
    """Training time so far, over every stretch, in seconds."""

    def __init__(self) -> None:
        self.before = 0.0
        self.started = time.monotonic()

    def resume(self, before: float) -> None:
        """Continue from the elapsed time of an earlier run."""
        self.before, self.started = before, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training in all."""
        return self.before + time.monotonic() - self.started


def learning_rate_factor(progress: float, step: int) -> float:
    """Linear warm-up over the first steps, then polynomial decay over the training time (0 to 1)."""
    return float(min(1.0, (step + 1) / _WARM_UP_STEPS) * max(0.0, 1.0 - progress) ** 0.9)


def running_average(network: torch.nn.Module) -> AveragedModel:
    """Return an exponential moving average of a network's weights, which starts from them."""

    def update(averaged: Any, current: Any, updates: torch.Tensor | int) -> None:  # noqa: ANN401 - as torch calls it
        decay = min(_EMA_DECAY, (1 + int(updates)) / (_EMA_DELAY + int(updates)))
        get_ema_multi_avg_fn(decay)(averaged, current, updates)  # type: ignore[no-untyped-call]

    average = AveragedModel(network, multi_avg_fn=update)
    # Else the first update would copy the network.
    average.n_averaged.fill_(1)
    return average
