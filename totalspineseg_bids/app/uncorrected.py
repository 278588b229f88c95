"""Result of an image before corrections: written once, read to correct it without the networks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.bids.names import DerivativeNames
from totalspineseg_bids.bids.sidecar import Digests
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.segmentation.result import ColumnHypothesis, Component, DiscPoint, LabelledSpine, SpineStatus

_FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class SegmentedImage:
    """Labelled spine with its labels on the grid of the image."""

    spine: LabelledSpine
    """Labelled spine on the working grid."""
    native: NDArray[np.uint8]
    """Its labels on the grid of the image, canonical ids, shape (X, Y, Z)."""
    kept: tuple[str, ...] = ()
    """Files, below the output folder, that were written with it and do not depend on corrections."""


def write_uncorrected(
    output: Path, names: DerivativeNames, digests: Digests, image: SegmentedImage, files: Sequence[str]
) -> None:
    """Write a result before corrections; equal results give equal bytes.

    Parameters
    ----------
    output : Path
        Output folder.
    names : DerivativeNames
        Names of the derivatives.
    digests : Digests
        Digests of input, settings and model.
    image : SegmentedImage
        Result.
    files : sequence of str
        Files, below the output folder, that were written with it and do not depend on corrections.
    """
    spine = image.spine
    content = {
        "Format": _FORMAT,
        "Digests": digests.of_segmentation().as_dict(),
        "Files": list(files),
        "Status": spine.status.value,
        "Reason": spine.reason,
        "Flags": list(spine.flags),
        "Components": [{**asdict(c), "structure": int(c.structure)} for c in spine.components],
        "DiscPoints": [asdict(point) for point in spine.disc_points],
        "Hypothesis": None if spine.hypothesis is None else asdict(spine.hypothesis),
    }
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        content=np.array(json.dumps(content)),
        working=spine.labels,
        native=image.native,
        affine=spine.affine,
        centerline=spine.centerline_mm,
        padding=np.zeros(0, np.bool_) if spine.padding is None else spine.padding,
    )
    write_bytes(output / names.uncorrected, stream.getvalue())


def read_uncorrected(output: Path, names: DerivativeNames, digests: Digests) -> SegmentedImage | None:
    """Return the result before corrections; ``None`` unless it fits the digests and its files exist."""
    try:
        with np.load(output / names.uncorrected) as file:
            content: dict[str, Any] = json.loads(str(file["content"]))
            valid = content["Format"] == _FORMAT and content["Digests"] == digests.of_segmentation().as_dict()
            if not valid or not all((output / name).is_file() for name in content["Files"]):
                return None
            arrays = {name: file[name] for name in ("working", "native", "affine", "centerline")}
            padding = file.get("padding")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError):
        return None
    hypothesis = content["Hypothesis"]
    spine = LabelledSpine(
        labels=arrays["working"],
        affine=arrays["affine"],
        components=tuple(_component(entry) for entry in content["Components"]),
        status=SpineStatus(content["Status"]),
        reason=content["Reason"],
        flags=tuple(content["Flags"]),
        centerline_mm=arrays["centerline"],
        disc_points=tuple(DiscPoint(p["level"], _position(p["position_mm"])) for p in content["DiscPoints"]),
        padding=padding if padding is not None and padding.size else None,
        hypothesis=None if hypothesis is None else ColumnHypothesis(**hypothesis),
    )
    return SegmentedImage(spine, arrays["native"], tuple(content["Files"]))


def _position(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = values
    return x, y, z


def _component(entry: dict[str, Any]) -> Component:
    return Component(
        **{**entry, "structure": Structure(entry["structure"]), "centroid_mm": _position(entry["centroid_mm"])}
    )
