"""Classes of the three datasets of the method, in the form of the r20240601 family.

A *dataset* here is what nnU-Net calls one: 101 is step 1 (image in, eight classes out), 102 is step 2 (image and odd
discs in, fourteen classes out) and 103 is the single-step model with every level. All are region based: a region such
as ``disc`` is the union of several values, and values are written in ``regions_class_order`` when the network's
sigmoid outputs become a label map.

The names and values are those of the public models of that family (FACTS: TotalSpineSeg releases r20240601 to
r20240826), so that models trained here and there share one layout.
"""

from __future__ import annotations

from typing import Any, Literal

from totalspineseg_bids import anatomy

DatasetId = Literal[101, 102, 103]
DATASETS: tuple[DatasetId, ...] = (101, 102, 103)

#: Folder names below ``nnUNet_raw`` and in exported models.
DATASET_NAMES: dict[DatasetId, str] = {
    101: "Dataset101_TotalSpineSeg_step1",
    102: "Dataset102_TotalSpineSeg_step2",
    103: "Dataset103_TotalSpineSeg_full",
}

#: nnU-Net chooses the normalisation by channel name: z-score for any name it does not know, none for ``noNorm``.
CHANNEL_NAMES: dict[DatasetId, tuple[str, ...]] = {101: ("MRI",), 102: ("MRI", "noNorm"), 103: ("MRI",)}

#: Values that a region owns, by region name; the first name of each group is the union of the others.
Regions = dict[str, tuple[int, ...]]


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


STEP1_REGIONS: Regions = {
    "disc": _span(1, 5),
    "disc_C2_C3": (2,),
    "disc_C7_T1": (3,),
    "disc_T12_L1": (4,),
    "disc_L5_S": (5,),
    "vertebrae": (6,),
    "canal": _span(7, 9),
    "csf": (8,),
    "cord": (9,),
}

STEP2_REGIONS: Regions = {
    "disc": _span(1, 7),
    "disc_O": (2,),
    "disc_E": (3,),
    "disc_C2_C3": (4,),
    "disc_C7_T1": (5,),
    "disc_T12_L1": (6,),
    "disc_L5_S": (7,),
    "vertebrae": _span(8, 14),
    "vertebrae_O": (9,),
    "vertebrae_E": (10,),
    "vertebrae_C2": (11,),
    "vertebrae_T1": (12,),
    "vertebrae_T12": (13,),
    "sacrum": (14,),
    "canal": _span(15, 17),
    "csf": (16,),
    "cord": (17,),
}


def _full_regions() -> Regions:
    """Every regular level: discs 1-27, vertebrae 28-56, canal 57-59, with a union for each part of the column."""
    regular_vertebrae = (
        [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 6)]
    )
    regions: Regions = {"disc": _span(1, 27)}
    value = 2
    for part in "CTL":
        # A disc belongs to the part of its upper vertebra.
        names = [d for d in anatomy.REGULAR_DISCS if d.startswith(part)]
        regions[f"disc_{part}"] = _span(value, value + len(names))
        for offset, name in enumerate(names, start=1):
            regions["disc_" + name.replace("-", "_")] = (value + offset,)
        value += len(names) + 1
    regions["vertebrae"] = _span(value, 56)
    value += 1
    for part in "CTL":
        names = [v for v in regular_vertebrae if v.startswith(part)]
        # The lumbar union holds the sacrum, as in the public layout.
        regions[f"vertebrae_{part}"] = _span(value, value + len(names) + (part == "L"))
        for offset, name in enumerate(names, start=1):
            regions[f"vertebrae_{name}"] = (value + offset,)
        value += len(names) + 1
    regions["sacrum"] = (value,)
    regions["canal"] = _span(57, 59)
    regions["cord"] = (58,)
    regions["csf"] = (59,)
    return regions


FULL_REGIONS: Regions = _full_regions()

REGIONS: dict[DatasetId, Regions] = {101: STEP1_REGIONS, 102: STEP2_REGIONS, 103: FULL_REGIONS}


def nnunet_labels(dataset: DatasetId) -> dict[str, int | list[int]]:
    """Return the ``labels`` entry of ``dataset.json``: background, then each region's value or list of values."""
    labels: dict[str, int | list[int]] = {"background": 0}
    for name, values in REGIONS[dataset].items():
        labels[name] = values[0] if len(values) == 1 else list(values)
    return labels


def regions_class_order(dataset: DatasetId) -> list[int]:
    """Return the value that each region writes, in the order of ``labels``; later ones overwrite earlier ones.

    Each region writes its first value. A union therefore comes before its parts and leaves its own value only where
    none of them is found.
    """
    return [values[0] for values in REGIONS[dataset].values()]


def dataset_json(dataset: DatasetId, /, num_training: int, **extra: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the content of an nnU-Net ``dataset.json``.

    Parameters
    ----------
    dataset : DatasetId
        101, 102 or 103.
    num_training : int
        Number of training cases.
    **extra
        Further entries that nnU-Net ignores (``name``, ``description``, ``licence``, ``dataset``).

    Returns
    -------
    dict
        As nnU-Net v2 documents the file (``documentation/dataset_format.md``).
    """
    return {
        "channel_names": {str(i): name for i, name in enumerate(CHANNEL_NAMES[dataset])},
        "labels": nnunet_labels(dataset),
        "regions_class_order": regions_class_order(dataset),
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
        **extra,
    }
