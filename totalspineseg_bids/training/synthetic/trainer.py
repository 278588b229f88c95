"""The nnU-Net trainer class behind ``synthetic_training``; importing it needs nnU-Net's folders in the environment."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from totalspineseg_bids.imaging.atomic import atomic_writer
from totalspineseg_bids.inference.checkpoint import read_checkpoint
from totalspineseg_bids.training.synthetic.batches import Batch, drawn_in_processes, drawn_in_thread
from totalspineseg_bids.training.synthetic.hardware import computes_bfloat16, describe_machine
from totalspineseg_bids.training.synthetic.label_map_pool import PoolEntry
from totalspineseg_bids.training.synthetic.options import SyntheticTraining
from totalspineseg_bids.training.synthetic.patch_dataset import SyntheticPatchDataset
from totalspineseg_bids.training.synthetic.region_loss import RegionLoss
from totalspineseg_bids.training.synthetic.warm_start import matching_heads, warm_start_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.utils.data import IterableDataset

_TRAINING_STREAM, _VALIDATION_STREAM = 0, 1
_PARITIES = ("_O", "_E")
#: Steps between two lines of the log. Drawing curves and saving take a second, in which a GPU does dozens of steps.
_STEPS_AN_EPOCH, _STEPS_AN_EPOCH_ON_GPU = 100, 1000


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


class nnUNetTrainerSynthetic(nnUNetTrainer):  # type: ignore[misc] # noqa: N801 - nnU-Net finds trainers by such names
    """Train on synthetic patches until a budget of time is spent.

    Call ``prepare`` before ``run_training``.
    """

    #: Axes along which inference may mirror: half of the poses are mirrored left to right, none top to bottom.
    mirrored_axes: tuple[int, ...] = (2,)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        # nnU-Net records these by name in the checkpoint, so the signature has to be its own.
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
        self.num_iterations_per_epoch = _STEPS_AN_EPOCH_ON_GPU if self.device.type == "cuda" else _STEPS_AN_EPOCH
        self.num_val_iterations_per_epoch = 4
        self.save_every = 5
        #: Whether the network computes in 16 bits while it learns; weights, losses and what is saved have 32.
        self.bfloat16 = computes_bfloat16(self.device)
        self.clock = Clock()
        self.step = 0
        self.skipped = 0

    def prepare(self, training: SyntheticTraining, pool: list[PoolEntry]) -> None:
        """Set training data and duration, and build the network."""
        self.training = training
        self.pool = pool
        self.initial_lr = training.learning_rate
        self.initialize()

    def initialize(self) -> None:
        """Build network, optimiser, loss and the table from label values to regions."""
        self.num_input_channels = len(self.dataset_json["channel_names"])
        torch.manual_seed(self.training.seed)
        self.network = self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            self.enable_deep_supervision,
        ).to(self.device, memory_format=torch.channels_last_3d)
        #: The network as a step computes it: compiled where nnU-Net does so, with the same weights.
        self.stepped: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(self.network) if self._do_i_compile() else self.network
        )
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self._set_batch_size_and_oversample()
        self.average = running_average(self.network)
        self._prepare_loss()
        self.inference_allowed_mirroring_axes = self.mirrored_axes
        self.was_initialized = True

    def _prepare_loss(self) -> None:
        """Build the loss of a step, and nnU-Net's own, which its validation prints."""
        names = [name for name in self.dataset_json["labels"] if name != "background"]
        #: What is asked of an image that comes without odd discs, and of one with them.
        self.asked = torch.ones(2, len(names), device=self.device)
        self.asked[0, [row for row, name in enumerate(names) if name.endswith(_PARITIES)]] = 0.0
        self.region_loss = RegionLoss(
            self.label_manager.foreground_regions,
            float(self.configuration_manager.spacing[0]),
            self.device,
            nested_weight=self.training.nested_weight,
            compiled=self._do_i_compile(),
        )
        dice = {"batch_dice": False, "do_bg": True, "smooth": self.region_loss.smooth, "ddp": False}
        self.loss = DC_and_BCE_loss({}, dice, dice_class=MemoryEfficientSoftDiceLoss)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """AdamW; the learning rate follows the clock, so there is no scheduler."""
        fused = self.device.type == "cuda"
        return torch.optim.AdamW(self.network.parameters(), lr=self.initial_lr, weight_decay=1e-3, fused=fused), None

    def take_weights(self, checkpoint: Path) -> None:
        """Start from the weights of another model; new channels start with zero weight."""
        source = read_checkpoint(checkpoint)["network_weights"]
        description = json.loads((checkpoint.parent.parent / "dataset.json").read_text(encoding="utf-8"))
        heads = matching_heads(self.dataset_json["labels"], description["labels"])
        own, taken = warm_start_weights(self.network.state_dict(), source, heads)
        self.network.load_state_dict(own)
        self.average = running_average(self.network)
        self.print_to_log_file(f"{taken} of {len(own)} tensors start from {checkpoint.name}")

    def get_dataloaders(self) -> tuple[Iterator[Any], Iterator[Any]]:
        """Open the training and validation streams."""
        seed, dataset = self.training.seed, self.training.dataset
        stream = self._stream([seed, dataset, _TRAINING_STREAM, self.step])
        validation = self._stream([seed, dataset, _VALIDATION_STREAM])
        batch_size, workers = self.training.batch_size, self.training.workers
        if workers == 0 and isinstance(stream, SyntheticPatchDataset) and isinstance(validation, SyntheticPatchDataset):
            return (
                drawn_in_thread(stream.groups(batch_size), self.device),
                drawn_in_thread(validation.groups(1), self.device),
            )
        pinned = self.device.type == "cuda"
        return drawn_in_processes(stream, batch_size, workers, pinned=pinned), drawn_in_processes(validation)

    def _stream(self, seed: list[int]) -> IterableDataset[Any]:
        patch = tuple(self.configuration_manager.patch_size)
        spacing = float(self.configuration_manager.spacing[0])
        device = self.device if self.device.type == "cuda" else None
        return SyntheticPatchDataset(self.pool, self.training.dataset, patch, spacing, seed, device=device)

    def on_train_start(self) -> None:
        """Write what inference needs beside the checkpoints, and open the streams."""
        from batchgenerators.utilities.file_and_folder_operations import save_json  # noqa: PLC0415

        base = Path(self.output_folder_base)
        base.mkdir(parents=True, exist_ok=True)
        save_json(self.plans_manager.plans, str(base / "plans.json"), sort_keys=False)
        save_json(self.dataset_json, str(base / "dataset.json"), sort_keys=False)
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.clock.resume(self.clock.before)

    def on_train_epoch_start(self) -> None:
        """Log the learning rate of the epoch's first step."""
        self.network.train()
        rate = self.initial_lr * learning_rate_factor(self._progress(), self.step)
        self.print_to_log_file(f"Epoch {self.current_epoch}: step {self.step}, learning rate {rate:.2e}")
        self.logger.log("lrs", rate, self.current_epoch)

    def _progress(self) -> float:
        return self.clock.seconds / (60.0 * self.training.minutes)

    def _to_device(self, batch: Batch) -> Batch:
        data, values = (part.to(self.device, non_blocking=True) for part in batch)
        return data.contiguous(memory_format=torch.channels_last_3d), values

    def batch_loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch as the stream gives it.

        An image that comes without odd discs does not say which discs and vertebrae are odd: not asked.
        """
        data, values = self._to_device(batch)
        hinted = data[:, 1:].flatten(1).any(1).int()
        return self.region_loss(self.stepped(data), values, self.asked[hinted])

    def train_step(self, batch: Any) -> dict[str, Any]:  # noqa: ANN401
        """Run one step; skip it if loss or gradient is not finite."""
        rate = self.initial_lr * learning_rate_factor(self._progress(), self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = self.batch_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.step += 1
        if bool(torch.isfinite(loss + norm)):
            self.optimizer.step()
            self.average.update_parameters(self.network)
        else:
            self.skipped += 1
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: Batch) -> dict[str, Any]:
        """Pseudo Dice of a patch, as nnU-Net counts it."""
        data, values = self._to_device(batch)
        target = self.region_loss.table[:, values.int()].transpose(0, 1)
        result: dict[str, Any] = super().validation_step({"data": data, "target": target})
        return result

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint with the averaged weights, and beside them what resuming needs."""
        checkpoint = {
            "network_weights": self.average.module.state_dict(),
            "training_weights": self.network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "synthetic": {
                "seconds": self.clock.seconds,
                "step": self.step,
                "skipped": self.skipped,
                "average_steps": int(self.average.n_averaged) - 1,
                "seed": self.training.seed,
                "minutes": self.training.minutes,
                "learning_rate": self.training.learning_rate,
                "nested_weight": self.training.nested_weight,
                "bfloat16": self.bfloat16,
                "batch_size": self.training.batch_size,
                "machine": describe_machine(self.device),
            },
        }
        with atomic_writer(Path(filename)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Resume from a checkpoint of this class (only from a trusted file: it is unpickled)."""
        super().load_checkpoint(filename_or_checkpoint)
        checkpoint = torch.load(filename_or_checkpoint, map_location=self.device, weights_only=False)
        self.average.module.load_state_dict(checkpoint["network_weights"])
        self.network.load_state_dict(checkpoint["training_weights"])
        state = checkpoint["synthetic"]
        self.clock.before = state["seconds"]
        self.step, self.skipped = state["step"], state["skipped"]
        self.average.n_averaged.fill_(state["average_steps"] + 1)

    def on_train_end(self) -> None:
        """Write the final checkpoint; keep the last one, from which a longer training can resume."""
        folder = Path(self.output_folder)
        self.current_epoch -= 1
        self.save_checkpoint(str(folder / "checkpoint_latest.pth"))
        self.save_checkpoint(str(folder / "checkpoint_final.pth"))
        self.current_epoch += 1
        del self.dataloader_train, self.dataloader_val
        self.print_to_log_file(
            f"{self.step} steps in {self.clock.seconds / 60:.1f} minutes, {self.skipped} left out as not finite"
        )

    def run_training(self) -> None:
        """Train until the minutes are spent."""
        self.on_train_start()
        while self._progress() < 1.0:
            self.on_epoch_start()
            self.on_train_epoch_start()
            outputs = []
            for _ in range(self.num_iterations_per_epoch):
                outputs.append(self.train_step(next(self.dataloader_train)))
                if self._progress() >= 1.0:
                    break
            self.on_train_epoch_end(outputs)
            with torch.no_grad():
                self.on_validation_epoch_start()
                validation = [
                    self.validation_step(next(self.dataloader_val)) for _ in range(self.num_val_iterations_per_epoch)
                ]
                self.on_validation_epoch_end(validation)
            self.on_epoch_end()
        self.on_train_end()
