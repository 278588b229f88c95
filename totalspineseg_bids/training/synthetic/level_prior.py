"""The bundled single-step model: coarse sagittal slices, a whole field of view at once, every level by its name.

Steps 1 and 2 see a part of the column at full detail and know few levels by name. T7 and T8 differ only in their
position among the other structures in view, so this network (Dataset103) trades detail for view: a sagittal slice of
58 x 22 cm at 3 x 3.5 mm, as people count levels.
In nnU-Net's terms it is a 3D network whose kernels and patch are one slice
thick; a slice costs a fraction of a patch of the other steps, so that a CPU sees tens of thousands of fields of view
in an hour of training. Its classes exclude each other (softmax), one a level: every voxel of every image teaches
levels, not only the four landmark discs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.models.roles import LEVEL_PRIOR_KEY
from totalspineseg_bids.training.class_maps import CHANNEL_NAMES, DATASET_NAMES, describe_dataset
from totalspineseg_bids.training.synthetic.small_plans import small_plans

#: The network takes the axes left-right, superior-inferior, posterior-anterior (nnU-Net's ``transpose_forward``).
TRANSPOSE: tuple[int, int, int] = (2, 0, 1)
#: In that order, voxels and mm.
PATCH: tuple[int, int, int] = (1, 192, 64)
SPACING: tuple[float, float, float] = (5.0, 3.0, 3.5)
KERNEL: tuple[int, int, int] = (1, 3, 3)
FEATURES: tuple[int, ...] = (16, 32, 64, 96, 128, 160, 160)
STRIDES: tuple[tuple[int, int, int], ...] = (
    (1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 1)
)  # fmt: skip

#: In targets: neither right nor wrong.
IGNORE = 255

_LABELS: tuple[anatomy.AnatomicalLabel, ...] = (
    *(anatomy.disc(level) for level in anatomy.REGULAR_DISCS),
    *(anatomy.vertebra(level) for level in anatomy.VERTEBRA_LEVELS if level not in {"T13", "L6"}),
    anatomy.BY_ID[anatomy.CANAL_ID],
    anatomy.BY_ID[anatomy.CORD_ID],
)
_PLAIN_NAMES = {Structure.CANAL: "canal", Structure.CORD: "cord"}
#: The last vertebra of a region carries its class whatever their number.
_SAME_CLASS = {"T13": "T12", "L6": "L5"}


def level_prior_dataset_json(num_training: int) -> dict[str, Any]:
    """Return nnU-Net's ``dataset.json`` of the bundled single-step model: one label per level."""
    names = [_PLAIN_NAMES.get(label.structure, label.name) for label in _LABELS]
    labels = {name: (value,) for value, name in enumerate(names, start=1)}
    return describe_dataset(CHANNEL_NAMES[103], labels, num_training, regions=False, **{LEVEL_PRIOR_KEY: True})


def level_prior_plans() -> dict[str, Any]:
    """Return nnU-Net plans of the bundled single-step model."""
    return small_plans(
        DATASET_NAMES[103],
        CHANNEL_NAMES[103],
        patch=PATCH,
        spacing=SPACING,
        features=FEATURES,
        strides=STRIDES,
        convolutions=1,
        kernel=KERNEL,
        transpose=TRANSPOSE,
    )


@cache
def level_prior_table() -> NDArray[np.uint8]:
    """Return the look-up table from canonical ids to this model's labels, shape (256,), read-only.

    T13 and L6 have the classes of T12 and L5; a disc that no regular spine has is ``IGNORE``.
    """
    table = np.zeros(256, np.uint8)
    for value, label in enumerate(_LABELS, start=1):
        table[label.id] = value
    for label in anatomy.LABELS:
        if label.structure is Structure.VERTEBRA and label.level in _SAME_CLASS:
            table[label.id] = table[anatomy.vertebra(_SAME_CLASS[label.level]).id]
        elif label.structure is Structure.DISC and label.level and label.level not in anatomy.REGULAR_DISCS:
            table[label.id] = IGNORE
    table.setflags(write=False)
    return table
