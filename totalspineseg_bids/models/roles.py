"""What a model is for, told by the names in its ``dataset.json``, never by the name of its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any


class Role(str, Enum):
    """Place of a model in the method.

    ``STEP1`` finds structures and landmark discs, ``STEP2`` tells odd from even with the odd discs as its second
    channel, ``SINGLE`` names every level at once. ``SCOUT`` is a single-step model that is coarse enough to lend its
    levels to the two steps as evidence, in a fraction of their time. ``REFINE`` moves the borders of what step 2 found
    and tells odd from even again.
    """

    STEP1 = "step1"
    STEP2 = "step2"
    SINGLE = "single"
    SCOUT = "scout"
    REFINE = "refine"

    @property
    def needs(self) -> str:
        """What ``dataset.json`` must have for this role, for a message."""
        return _NEEDS[self]


_NEEDS = {
    Role.STEP1: "1 channel and the labels disc, canal, vertebrae and landmark discs such as disc_C2_C3",
    Role.STEP2: "2 channels and the labels vertebrae_O and vertebrae_E",
    Role.SINGLE: "1 channel and a label for every level, such as vertebrae_C3 and disc_L3_L4",
    Role.REFINE: "11 channels and the labels vertebrae, disc, canal, cord, vertebrae_O and vertebrae_E",
    Role.SCOUT: "1 channel, a label for every level, and voxels of 10 mm³ or more in plans.json",
}
_LANDMARKS = {"disc_C2_C3", "disc_C7_T1", "disc_T12_L1", "disc_L5_S"}
#: Voxels of a scout are at least this large, mm³: one pass over an image then costs little beside the two steps.
SCOUT_VOXEL_MM3 = 10.0
#: The image, six logits and the image measured by four structures (`segmentation.refinement`).
_REFINE_CHANNELS, _REFINED = 11, {"vertebrae", "disc", "canal", "cord", "vertebrae_O", "vertebrae_E"}
_NAMED_LEVELS = {"vertebrae_C3", "vertebrae_T6", "vertebrae_L3", "disc_L3_L4"}


def needed_roles(*, single_step: bool = False, step1_only: bool = False) -> tuple[Role, ...]:
    """Return the models that a way of working needs.

    Parameters
    ----------
    single_step
        The model that names all levels at once.
    step1_only
        The first of the two steps alone.
    """
    if single_step:
        return (Role.SINGLE,)
    return (Role.STEP1,) if step1_only else (Role.STEP1, Role.STEP2)


def role_of(dataset: Mapping[str, Any]) -> Role | None:
    """Return what a model is for, or ``None`` if it is for none of this.

    Parameters
    ----------
    dataset
        Content of its ``dataset.json``.
    """
    labels = dataset.get("labels")
    channels = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(labels, Mapping) or not isinstance(channels, Mapping):
        return None
    names = set(labels)
    if len(channels) == 2:
        return Role.STEP2 if {"vertebrae_O", "vertebrae_E"} <= names else None
    if len(channels) == _REFINE_CHANNELS:
        return Role.REFINE if names == {"background", *_REFINED} else None
    if len(channels) != 1:
        return None
    if names >= _NAMED_LEVELS:
        return Role.SINGLE
    vertebrae = any(name.startswith("vertebrae") for name in names)
    return Role.STEP1 if {"disc", "canal"} <= names and vertebrae and names & _LANDMARKS else None


def is_scout(plans: Mapping[str, Any]) -> bool:
    """Tell whether the plans of a single-step model make it coarse enough for a scout.

    Parameters
    ----------
    plans
        Content of its ``plans.json``.
    """
    configurations = plans.get("configurations")
    configuration = configurations.get("3d_fullres") if isinstance(configurations, Mapping) else None
    spacing = configuration.get("spacing") if isinstance(configuration, Mapping) else None
    if not isinstance(spacing, Sequence) or len(spacing) != 3:
        return False
    return math.prod(float(step) for step in spacing) >= SCOUT_VOXEL_MM3
