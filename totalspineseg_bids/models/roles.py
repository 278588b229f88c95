"""The place of a model in the method, by its ``dataset.json``, never by the name of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from totalspineseg_bids.inference.options import InferenceMode


class Role(str, Enum):
    """Place of a model in the method.

    ``STEP1`` finds structures and landmark discs. ``STEP2`` separates odd from even vertebrae, with the odd discs as a
    second channel. ``SINGLE`` names every level at once. ``LEVEL_PRIOR`` is a coarse single-step model over the whole
    field of view, whose level probabilities are evidence for the two steps. ``REFINE`` corrects the borders of step 2
    and its odd and even vertebrae.
    """

    STEP1 = "step1"
    STEP2 = "step2"
    SINGLE = "single"
    #: The value is part of the model digest in sidecars.
    LEVEL_PRIOR = "scout"
    REFINE = "refine"

    @property
    def needs(self) -> str:
        """Requirement on ``dataset.json`` for this role, for messages."""
        return _NEEDS[self]


_NEEDS = {
    Role.STEP1: "1 channel and the labels disc, canal, vertebrae and landmark discs such as disc_C2_C3",
    Role.STEP2: "2 channels and the labels vertebrae_O and vertebrae_E",
    Role.SINGLE: "1 channel and a label for every level, such as vertebrae_C3 and disc_L3_L4",
    Role.REFINE: "11 channels and the labels vertebrae, disc, canal, cord, vertebrae_O and vertebrae_E",
    Role.LEVEL_PRIOR: "1 channel, a label for every level, and level_prior = true",
}
_LANDMARKS = {"disc_C2_C3", "disc_C7_T1", "disc_T12_L1", "disc_L5_S"}
#: Entry of ``dataset.json`` that makes a single-step model a level prior too; nnU-Net ignores it.
LEVEL_PRIOR_KEY = "level_prior"
#: The image, six logits and the image measured by four structures (`segmentation.refinement`).
_REFINE_CHANNELS, _REFINED = 11, {"vertebrae", "disc", "canal", "cord", "vertebrae_O", "vertebrae_E"}
_NAMED_LEVELS = {"vertebrae_C3", "vertebrae_T6", "vertebrae_L3", "disc_L3_L4"}


def needed_roles(mode: InferenceMode) -> tuple[Role, ...]:
    """Return the models that a mode needs.

    Examples
    --------
    >>> [role.value for role in needed_roles(InferenceMode.TWO_STEP)]
    ['step1', 'step2']
    """
    return {
        InferenceMode.TWO_STEP: (Role.STEP1, Role.STEP2),
        InferenceMode.SINGLE_STEP: (Role.SINGLE,),
        InferenceMode.STEP1: (Role.STEP1,),
    }[mode]


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
