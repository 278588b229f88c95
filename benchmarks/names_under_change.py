"""Names of the levels of real images under changes that leave the anatomy as it is.

``python benchmarks/names_under_change.py BIDS [--model MODEL]`` segments each image of a dataset as it is and cropped,
tilted, noisy, blurred, darker at one end, or with other grey values, and compares the names voxel by voxel. No truth is
needed: a name that differs from that of the unchanged image is wrong in one of the two. Prints a row per image and
change; the last line counts other names without a reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.imaging.io import read_image
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.segmentation.api import to_grid
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

#: Kept range of the craniocaudal extent, from caudal (0) to cranial (1).
CROPS = ((0.0, 0.75), (0.25, 1.0), (0.15, 0.85), (0.0, 0.6), (0.4, 1.0))
#: Share of the voxels named in both maps that must keep their names.
_SAME = 0.75


@dataclass(frozen=True)
class Changed:
    """An image after a change."""

    name: str
    """Kind of change."""
    volume: Volume
    """The image."""
    kept: tuple[slice, slice, slice] = (slice(None),) * 3
    """Voxels of the unchanged image that it holds."""


@dataclass(frozen=True)
class Row:
    """Names of a changed image, compared with those of the unchanged one."""

    name: str
    """Kind of change."""
    outcome: str
    """same, abstained, other names with a reason, or other names without one (``silent``)."""
    share: float
    """Share of the voxels named in both maps with the same name; NaN if there is none."""


def crops(image: Volume) -> Iterator[Changed]:
    """Yield craniocaudal parts of an image."""
    axis, sign = _craniocaudal(image)
    length = image.data.shape[axis]
    whole = nib.Nifti1Image(image.data, image.affine)
    for low, high in CROPS:
        start, stop = (low, high) if sign > 0 else (1 - high, 1 - low)
        kept = [slice(None)] * 3
        kept[axis] = slice(round(start * length), round(stop * length))
        part = whole.slicer[tuple(kept)]
        cropped = Volume(np.ascontiguousarray(part.dataobj), part.affine)
        yield Changed(f"{low:.0%} to {high:.0%}", cropped, (kept[0], kept[1], kept[2]))


def other_values(image: Volume) -> Iterator[Changed]:
    """Yield an image with noise, blur, shading or other grey values, and tilted by ten degrees."""
    data, affine = np.asarray(image.data, np.float32), image.affine
    axis, _ = _craniocaudal(image)
    bright = float(np.percentile(data, 99))
    rng = np.random.default_rng(0)
    shading = np.exp(np.linspace(-0.8, 0.8, data.shape[axis])).reshape([-1 if k == axis else 1 for k in range(3)])
    made = {
        "noise 5 %": data + rng.normal(0, 0.05 * bright, data.shape),
        "noise 10 %": data + rng.normal(0, 0.1 * bright, data.shape),
        "shading": data * shading,
        "gamma 0.6": np.clip(data / bright, 0, 2) ** 0.6 * bright,
        "gamma 1.6": np.clip(data / bright, 0, 2) ** 1.6 * bright,
        "blur": ndimage.gaussian_filter(data, 0.6 / np.asarray(image.spacing)),
        "8 bits": np.floor(255 * np.clip(data / bright, 0, 1)),
    }
    for name, values in made.items():
        yield Changed(name, Volume(values.astype(np.float32), affine))
    cosine, sine = np.cos(np.deg2rad(10)), np.sin(np.deg2rad(10))
    tilt = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]])
    yield Changed("tilt 10 degrees", Volume(data, tilt @ affine))


def compare(image: Volume, segmenter: SpineSegmenter, changes: Sequence[Changed]) -> list[Row]:
    """Segment an image and its changes; return a row per change, or none if the image itself is not named."""
    first = segmenter.segment(image)
    if first.status is not SpineStatus.LABELLED:
        return []
    names = _names(first, image)
    return [_row(change, names[change.kept], segmenter) for change in changes]


def _row(change: Changed, before: NDArray[np.uint8], segmenter: SpineSegmenter) -> Row:
    spine = segmenter.segment(change.volume)
    after = _names(spine, change.volume)
    both = (before > 0) & (after > 0)
    share = float((before == after)[both].mean()) if both.any() else float("nan")
    if spine.status is not SpineStatus.LABELLED:
        return Row(change.name, "abstained", share)
    if share >= _SAME:
        return Row(change.name, "same", share)
    warned = all(c.reason for c in spine.components if c.level)
    return Row(change.name, "other names, with a reason" if warned else "silent", share)


def _names(spine: LabelledSpine, image: Volume) -> NDArray[np.uint8]:
    """Return the labels of discs and vertebrae on the grid of the image."""
    labels = np.asarray(to_grid(spine, image.geometry).labels)
    named = [c.label_id for c in spine.components if c.level]
    return np.where(np.isin(labels, named), labels, 0).astype(np.uint8)


def _craniocaudal(image: Volume) -> tuple[int, int]:
    """Return the voxel axis that runs craniocaudally, and 1 if it runs to the head."""
    orientation = io_orientation(image.affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    return axis, int(orientation[axis, 1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare the names of real images under crops, noise and grey values.")
    parser.add_argument("dataset", type=Path, help="BIDS dataset")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--threads", type=positive)
    arguments = parser.parse_args()
    segmenter = SpineSegmenter(resolve(arguments.model), threads=arguments.threads)
    silent = rows = 0
    for path in sorted(arguments.dataset.glob("sub-*/**/anat/*.nii.gz")):
        image = read_image(path)
        for row in compare(image, segmenter, [*crops(image), *other_values(image)]):
            print(f"{path.name:32} {row.name:16} {row.share:5.3f}  {row.outcome}", flush=True)
            silent, rows = silent + (row.outcome == "silent"), rows + 1
    print(f"other names without a reason: {silent} of {rows}")


if __name__ == "__main__":
    main()
