"""Schedule of a synthetic training: clock, learning rate and moving average of the weights."""

from __future__ import annotations

import time

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

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


class RunningAverage:
    """Exponential moving average of a network's weights."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        """Update the average with the network's weights."""
        self.steps += 1
        decay = min(_EMA_DECAY, (1 + self.steps) / (_EMA_DELAY + self.steps))
        current = network.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        # All at once: a GPU would wait for hundreds of small calls.
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update([self.weights[name] for name in floating], [current[name] for name in floating], 0)
        for name in current.keys() - set(floating):
            self.weights[name].copy_(current[name])
