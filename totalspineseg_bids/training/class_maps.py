"""Classes of the three datasets of the method, in the form of the r20240601 family.

A *dataset* here is what nnU-Net calls one: 101 is step 1 (image in, eight classes out), 102 is step 2 (image and odd
discs in, fourteen classes out) and 103 is the single-step model with every level. All are region based: a region such
as ``disc`` is the union of several values, and values are written in ``regions_class_order`` when the network's
sigmoid outputs become a label map.

The names and values are those of the public models of that family (FACTS: TotalSpineSeg releases r20240601 to
r20240826), so that models trained here and there share one layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from totalspineseg_bids.segmentation.class_map import ClassMap

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

#: Values of each region. Its first value is that of what belongs to none of the regions within it.
REGIONS: dict[DatasetId, Mapping[str, tuple[int, ...]]] = {
    101: ClassMap.named("r20240601-step1").labels,
    102: ClassMap.named("r20240601-step2").labels,
    103: ClassMap.named("r20240601-full").labels,
}


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
    """
    return describe_dataset(CHANNEL_NAMES[dataset], REGIONS[dataset], num_training, **extra)


def describe_dataset(
    channels: Sequence[str],
    labels: Mapping[str, Sequence[int]],
    num_training: int,
    *,
    regions: bool = True,
    **extra: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return the content of a ``dataset.json`` (nnU-Net v2, ``documentation/dataset_format.md``).

    Parameters
    ----------
    channels : sequence of str
        Names of the channels.
    labels : mapping of str to sequence of int
        Values of each class or region, without the background.
    num_training : int
        Number of training cases.
    regions : bool, default True
        Whether classes are regions, which may contain each other. Each region writes its first value, in the order of
        ``labels``, and later ones overwrite earlier ones: a union comes before its parts.
    **extra
        Further entries.
    """
    return {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, **{k: v[0] if len(v) == 1 else list(v) for k, v in labels.items()}},
        **({"regions_class_order": [values[0] for values in labels.values()]} if regions else {}),
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
        **extra,
    }
