"""Read the completed images of an output folder from their sidecars and tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalspineseg_bids.bids.names import SEGMENTATION, DerivativeNames, SourceImage, is_source_name
from totalspineseg_bids.bids.publish import read_json
from totalspineseg_bids.bids.tables import read_table

logger = logging.getLogger(__name__)

_RAW = "bids:raw:"


@dataclass(frozen=True, slots=True)
class ImageDerivatives:
    """Derivatives of one completed image."""

    source: SourceImage
    """Raw image; its path is relative, because the raw dataset may be absent."""
    sidecar: dict[str, Any]
    """Content of the main sidecar."""
    rows: tuple[dict[str, str], ...]
    """Rows of the label table."""

    @property
    def names(self) -> DerivativeNames:
        """Names of the derivatives."""
        return DerivativeNames.of(self.source)

    @property
    def status(self) -> str:
        """Status of the labelling: ``labelled``, ``abstained`` or ``no-spine``."""
        return str(self.sidecar.get("Status", "unknown"))

    @property
    def reason(self) -> str | None:
        """Reason for any status but ``labelled``."""
        reason = self.sidecar.get("Reason")
        return str(reason) if reason else None

    @property
    def flags(self) -> tuple[str, ...]:
        """Findings about the labelling and the file that should be reviewed."""
        found: list[str] = []
        for key in ("Flags", "InputNotes"):
            value = self.sidecar.get(key)
            found += [str(item) for item in value] if isinstance(value, list) else []
        return tuple(found)

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the visible levels, vertebrae first."""
        value = self.sidecar.get("LevelsInView")
        return tuple(str(item) for item in value) if isinstance(value, list) else ()

    @property
    def model(self) -> str:
        """Name of the model."""
        value = self.sidecar.get("Model")
        return str(value.get("Name", "")) if isinstance(value, dict) else ""

    @property
    def bundled(self) -> bool:
        """True for the bundled model, which is meant for trying out the program."""
        value = self.sidecar.get("Model")
        return isinstance(value, dict) and value.get("Bundled") is True

    @property
    def figures(self) -> dict[str, str]:
        """Paths of the figures below the output folder, by kind."""
        value = self.sidecar.get("Figures")
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def read_derivatives(output: Path, participant: str | None = None) -> Iterator[ImageDerivatives]:
    """Read the completed images of an output folder, sorted by path.

    A sidecar or table that cannot be read is reported in the log and skipped.

    Parameters
    ----------
    output : Path
        Output folder.
    participant : str, optional
        Label of a participant, without ``sub-``; all participants by default.
    """
    pattern = f"sub-{participant or '*'}"
    found: dict[str, ImageDerivatives] = {}
    for folder in (f"{pattern}/*", f"{pattern}/ses-*/*"):
        for path in sorted(output.glob(f"{folder}/*_seg-{SEGMENTATION}_*dseg.json")):
            result = _read(output, path)
            if result is not None:
                found[result.source.relative] = result
    for relative in sorted(found):
        yield found[relative]


def _read(output: Path, path: Path) -> ImageDerivatives | None:
    sidecar = read_json(path)
    if sidecar is None:
        logger.warning("%s: cannot be read, left out", path)
        return None
    if "Digests" not in sidecar:  # the sidecar of a second resolution
        return None
    sources = sidecar.get("Sources")
    uri = str(sources[0]) if isinstance(sources, list) and sources else ""
    relative = uri.removeprefix(_RAW)
    if not uri.startswith(_RAW) or not is_source_name(relative):
        logger.warning("%s: names no source image, left out", path)
        return None
    try:
        rows = read_table(path.with_suffix(".tsv"))
    except (OSError, ValueError):
        logger.warning("%s: has no table that can be read, left out", path.relative_to(output))
        return None
    return ImageDerivatives(SourceImage(relative, Path(relative)), sidecar, tuple(rows))
