"""Training of the refinement network (`segmentation.refinement`)."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.imaging.atomic import atomic_writer
from totalspineseg_bids.inference.checkpoint import StateDict, read_checkpoint
from totalspineseg_bids.inference.local_network import LocalNetwork
from totalspineseg_bids.models.roles import Role
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.networks import SegmentationNetworks
from totalspineseg_bids.segmentation.refinement import (
    CHANNELS,
    PARITIES,
    PRIOR_CHANNELS,
    PRIOR_SCALE,
    REFINED_ROLES,
    TISSUES,
    parities,
    refinement_channels,
)
from totalspineseg_bids.synthesis.surroundings import label_map_files
from totalspineseg_bids.training.class_maps import DATASET_NAMES, REGIONS, describe_dataset
from totalspineseg_bids.training.semantic_targets import semantic_map
from totalspineseg_bids.training.synthetic.hardware import computes_bfloat16
from totalspineseg_bids.training.synthetic.refinement_cases import CASE_FORMAT, RefinementCase, make_cases, write_images
from totalspineseg_bids.training.synthetic.small_plans import CONFIGURATION, PLANS_NAME, small_plans, write_model_folder

logger = logging.getLogger(__name__)

DATASET_NAME = "Dataset104_TotalSpineSeg_refine"
CLASS = f"{LocalNetwork.__module__}.{LocalNetwork.__qualname__}"
#: Voxels, left-right, posterior-anterior, superior-inferior.
PATCH = (48, 80, 80)
#: At inference, in nnU-Net's order of axes; only the memory depends on it, and on how much larger a patch may be.
INFERENCE_PATCH = (128, 96, 64)
PATCH_GROWTH = 4.0
#: The output of a voxel depends only on its neighbourhood, so that patches need little overlap.
TILE_STEP = 0.85
#: Of each stage, from voxels of 2 mm on.
FEATURES, BLOCKS = (64, 96, 128, 128), (1, 2, 2, 2)
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
BATCH = 2
LEARNING_RATE = 3e-3
#: For a network that is trained already: a higher rate would undo its training.
_LATER_RATE = 1.5e-3
#: Weight of the parity loss beside that of borders: a process of the wrong parity is not a border error.
_PARITY_WEIGHT = 0.3
_EMA = 0.998
_SAVED_EVERY = 250
_STEP2 = ClassMap.from_labels(REGIONS[102], DATASET_NAMES[102])
_ODD, _EVEN = (REFINED_ROLES.index(role) for role in PARITIES)

_STRUCTURES: dict[str, tuple[Structure, ...]] = {
    "vertebrae": (Structure.VERTEBRA, Structure.SACRUM),
    "disc": (Structure.DISC,),
    "canal": (Structure.CANAL, Structure.CORD),
    "cord": (Structure.CORD,),
}


def dataset_json(num_training: int) -> dict[str, Any]:
    """Return nnU-Net's ``dataset.json``; its regions are the roles that are refined."""
    labels = {
        "vertebrae": (1, 2, 3),
        "disc": (4,),
        "canal": (5, 6),
        "cord": (6,),
        "vertebrae_O": (2,),
        "vertebrae_E": (3,),
    }
    return describe_dataset(["noNorm"] * CHANNELS, labels, num_training)


def plans() -> dict[str, Any]:
    """Return nnU-Net plans of the refinement network."""
    made = small_plans(
        DATASET_NAME,
        ["noNorm"] * CHANNELS,
        patch=INFERENCE_PATCH,
        features=FEATURES,
        strides=STRIDES,
        inference={
            "tile_step_size": TILE_STEP,
            "use_mirroring": True,
            "patch_growth": PATCH_GROWTH,
            "use_bfloat16": True,
        },
    )
    made["configurations"][CONFIGURATION]["architecture"] = {
        "network_class_name": CLASS,
        "arch_kwargs": architecture(),
        "_kw_requires_import": [],
    }
    return made


def architecture() -> dict[str, Any]:
    """Return the arguments of the refinement network but for its channels."""
    return {
        "features": list(FEATURES),
        "blocks": list(BLOCKS),
        "strides": [list(stride) for stride in STRIDES],
        "prior": list(PRIOR_CHANNELS),
        "prior_scale": PRIOR_SCALE,
    }


def untrained() -> LocalNetwork:
    """Return an untrained refinement network."""
    return LocalNetwork(CHANNELS, num_classes=len(REFINED_ROLES), **architecture())


def targets(truth: NDArray[np.uint8], probabilities: Mapping[str, NDArray[np.floating]]) -> NDArray[np.bool_]:
    """Return the mask of each role, shape (6, *truth.shape).

    Parameters
    ----------
    truth : uint8 array
        Canonical ids.
    probabilities : mapping of str to float array
        What the steps found (`RefinementCase.probabilities`): odd is what they call odd.
    """
    tissues = [np.isin(anatomy.STRUCTURES, _STRUCTURES[role])[truth] for role in TISSUES]
    parity = parities(semantic_map(truth, 102), _STEP2)
    odd, even = (parity == wanted for wanted in PARITIES.values())
    is_odd = probabilities["vertebrae_O"] > probabilities["vertebrae_E"]
    found = (probabilities["vertebrae"] > 0.5) & (odd | even)
    # Where no landmark is in view the steps count from the first disc there is.
    if found.any() and (is_odd == odd)[found].mean() < 0.5:
        odd, even = even, odd
    return np.stack([*tissues, odd, even])


class _Patches:
    """Patches of all cases, around the bone and discs of step 2, which are read from files in ``folder``."""

    def __init__(self, cases: Iterable[RefinementCase], seed: int, folder: Path) -> None:
        self._rng = np.random.default_rng(seed)
        self._channels, self._targets, self._centres = [], [], []
        for case in cases:
            channels = refinement_channels(case.image.astype(np.float32), case.probabilities)
            self._channels.append(_on_disk(_in_network_order(channels).half(), folder))
            target = _in_network_order(targets(case.truth, case.probabilities))
            self._targets.append(_on_disk(target, folder))
            found = (case.probabilities["vertebrae"] > 0.5) | (case.probabilities["disc"] > 0.5)
            self._centres.append(4 * np.argwhere(found[::4, ::4, ::4]))
        volumes = np.array([len(centres) for centres in self._centres], float)
        # Whole columns hold more that differs than short views, but not by as much as they are longer.
        self._share = np.sqrt(volumes) / np.sqrt(volumes).sum()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        size = PATCH[::-1]
        while True:
            data, truth = (torch.zeros(BATCH, rows, *size) for rows in (CHANNELS, len(REFINED_ROLES)))
            for number in range(BATCH):
                self._draw(data[number], truth[number])
            yield data, truth

    def _draw(self, data: torch.Tensor, truth: torch.Tensor) -> None:
        """Write a patch into tensors of zeros; voxels beyond the end of a case stay zero."""
        rng = self._rng
        number = int(rng.choice(len(self._share), p=self._share))
        channels, target, centres = self._channels[number], self._targets[number], self._centres[number]
        centre = centres[int(rng.integers(len(centres)))] + rng.integers(-12, 13, 3)
        at, to = [], []
        for middle, wanted, length in zip(centre[::-1], truth.shape[1:], target.shape[1:], strict=True):
            start = int(np.clip(middle - wanted // 2, 0, max(0, length - wanted)))
            at.append(slice(start, start + wanted))
            to.append(slice(0, min(wanted, length)))
        mirrored, counted_otherwise = rng.random(2) < 0.5
        for into, source in ((data, channels), (truth, target)):
            part = source[(slice(None), *at)]
            into[(slice(None), *to)] = part.flip(-1) if mirrored else part
        if counted_otherwise:
            # Which of the two the steps call odd depends on where they begin to count.
            for rows, one, other in ((data, PRIOR_CHANNELS[_ODD], PRIOR_CHANNELS[_EVEN]), (truth, _ODD, _EVEN)):
                rows[[one, other]] = rows[[other, one]]


def _in_network_order(values: NDArray[np.generic]) -> torch.Tensor:
    """Return (rows, X, Y, Z) in nnU-Net's order of axes, (rows, Z, Y, X)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 2, 1)))


def _on_disk(values: torch.Tensor, folder: Path) -> torch.Tensor:
    """Move values to a file without a name that is mapped into memory; a case takes about 100 MB."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        stored = torch.from_file(file.name, shared=True, size=values.numel(), dtype=values.dtype)
    return stored.view(values.shape).copy_(values)


def loss_of(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return Dice of each role over the batch + binary cross-entropy + that of odd against even within bone."""
    probability = torch.sigmoid(logits)
    axes = (0, 2, 3, 4)
    overlap, total = (probability * truth).sum(axes), probability.sum(axes) + truth.sum(axes)
    # Smoothed as for the steps, so that a role out of view counts too.
    dice = (2.0 * overlap + 100.0) / (total + 100.0)
    has_parity = truth[:, _ODD] + truth[:, _EVEN]
    wrong = functional.softplus((logits[:, _ODD] - logits[:, _EVEN]) * (truth[:, _EVEN] - truth[:, _ODD])) * has_parity
    parity = wrong.sum() / (has_parity.sum() + 100.0)
    return functional.binary_cross_entropy_with_logits(logits, truth) + (1.0 - dice).mean() + _PARITY_WEIGHT * parity


def train(
    paths: list[Path],
    *,
    steps: int,
    seed: int,
    checkpoint: Path,
    start_from: Path | None = None,
    real_maps: Sequence[str] = (),
) -> tuple[StateDict, dict[str, Any]]:
    """Train for a number of steps, resuming from a checkpoint if there is one.

    Parameters
    ----------
    paths : list of Path
        Cases.
    steps : int
        Of two patches each.
    seed : int
        Of weights and patches.
    checkpoint : Path
        Written now and then and at the end.
    start_from : Path, optional
        Checkpoint of a refinement network to start from where ``checkpoint`` is not there yet.
    real_maps : sequence of str
        Names of the label maps of real anatomy behind the cases, for the model card.

    Returns
    -------
    weights : dict of str to Tensor
        Their running average.
    state : dict
        Steps, seconds, seed, cases, last loss.

    Raises
    ------
    ModelError
        If there is no case, or the checkpoint or the network to start from has other stages.
    """
    if not paths:
        msg = "no case to train the refinement network on: steps 1 and 2 found no spine in any image"
        raise ModelError(msg)
    torch.manual_seed(seed)
    network = untrained()
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "start": None}
    if start_from is not None and not checkpoint.exists():
        state["start"] = _start(network, start_from)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_EMA))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        if stored.get("architecture") != architecture():
            msg = f"{checkpoint} is of a network with other stages; remove it, or train it on with the version it is of"
            raise ModelError(msg)
        network.load_state_dict(stored["network"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        state = stored["state"]
    rate = LEARNING_RATE if state["start"] is None else _LATER_RATE
    done = int(state["step"])
    if done >= steps:
        return dict(average.module.state_dict()), state
    start = time.perf_counter() - float(state["seconds"])
    recent: list[float] = []
    patches = iter(_Patches(map(RefinementCase.load, paths), seed + done, checkpoint.parent))
    bfloat16 = computes_bfloat16(torch.device("cpu"))
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.01, 1.0 - step / steps) ** 0.9
        data, truth = next(patches)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(data)
        loss = loss_of(logits.float(), truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if bool(torch.isfinite(loss + norm)):
            optimizer.step()
            average.update_parameters(network)
            recent.append(float(loss.detach()))
        else:
            logger.warning("step %d is skipped: its loss or gradient is not finite", step + 1)
        if step + 1 == steps or (step + 1) % _SAVED_EVERY == 0:
            state = {
                "step": step + 1,
                "start": state["start"],
                "seconds": time.perf_counter() - start,
                "seed": seed,
                "cases": len(paths),
                "learning_rate": rate,
                "batch_size": BATCH,
                "bfloat16": bfloat16,
                "real_maps": list(real_maps),
                "loss": float(np.mean(recent[-200:])),
            }
            logger.info("step %d of %d, loss %.4f", step + 1, steps, state["loss"])
            parts: dict[str, Any] = {"network": network, "average": average, "optimizer": optimizer}
            content = {name: part.state_dict() for name, part in parts.items()}
            with atomic_writer(checkpoint) as file:
                torch.save({**content, "state": state, "architecture": architecture()}, file)
    return dict(average.module.state_dict()), state


def _start(network: LocalNetwork, source: Path) -> str:
    """Load the weights of another refinement network and return how it was trained."""
    checkpoint = read_checkpoint(source)
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError as error:
        msg = f"cannot start from {source}: its stages, features or channels are not those of this network"
        raise ModelError(msg) from error
    earlier = checkpoint.get("refinement")
    # Shipped checkpoints have weights only.
    steps = f"{earlier['step']} steps" if earlier else "steps given in its model card"
    return f"{steps}, after {earlier['start']}" if earlier and earlier.get("start") else steps


def model_folder(work_dir: Path) -> Path:
    """Return the nnU-Net model folder that a training leaves."""
    return work_dir / "refinement" / DATASET_NAME / f"nnUNetTrainer__{PLANS_NAME}__{CONFIGURATION}"


def train_refinement(
    work_dir: Path,
    networks: SegmentationNetworks,
    *,
    images: int,
    steps: int,
    seed: int = 0,
    label_maps: Path | None = None,
    start_from: Path | None = None,
) -> Path:
    """Draw images, run steps 1 and 2 on them, train and write the model; resume an earlier call.

    Parameters
    ----------
    work_dir : Path
        Gets a folder ``refinement``.
    networks : SegmentationNetworks
        Of the two steps whose borders are to be refined (``unrefined``).
    images : int
        To learn from.
    steps : int
        Of two patches.
    seed : int, default 0
        Of images, patches and weights.
    label_maps : Path, optional
        Folder of tissue label maps of real anatomy; a quarter of the images is then drawn from them.
    start_from : Path, optional
        Checkpoint of a refinement network to start from (`train`).

    Returns
    -------
    Path
        The model folder.
    """
    folder = work_dir / "refinement"
    datasets = write_images(folder / "images", images, seed, label_maps)
    # What another step 2 made of the images is of no use to this one's.
    of_step2 = networks.digests[Role.STEP2][:12]
    paths = make_cases(folder / f"cases_{of_step2}_{CASE_FORMAT}", datasets, networks)
    checkpoint = folder / f"checkpoint_{of_step2}.pth"
    maps = [] if label_maps is None else list(label_map_files(label_maps))
    weights, state = train(paths, steps=steps, seed=seed, checkpoint=checkpoint, start_from=start_from, real_maps=maps)
    return write_model(model_folder(work_dir), weights, state)


def write_model(folder: Path, weights: StateDict, state: Mapping[str, Any]) -> Path:
    """Write a trained refinement network as a model folder of nnU-Net and return the folder."""
    write_model_folder(
        folder,
        dataset_json(state["cases"]),
        plans(),
        network_weights=weights,
        trainer_name="nnUNetTrainer",
        inference_allowed_mirroring_axes=(2,),
        refinement=state,
    )
    return folder
