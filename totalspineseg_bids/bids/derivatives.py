"""Read the completed images of an output folder from their sidecars and tables."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from totalspineseg_bids.bids.names import SEGMENTATION, DerivativeNames, SourceImage, is_source_name
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.checks import is_fetched
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS
from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS

logger = logging.getLogger(__name__)

_RAW = "bids:raw:"
_COLUMNS = POSTURE_COLUMNS | QUALITY_COLUMNS
_T = TypeVar("_T", dict[str, Any], list[Any])


@dataclass(frozen=True, slots=True)
class ImageDerivatives:
    """Derivatives of one completed image, or the failure of one."""

    source: SourceImage
    """Raw image; its path is relative, because the raw dataset may be absent."""
    sidecar: dict[str, Any]
    """Content of the main sidecar; of a failed image, ``Status`` and ``Reason``."""
    rows: tuple[dict[str, str], ...] = ()
    """Rows of the label table."""

    @property
    def names(self) -> DerivativeNames:
        """Names of the derivatives."""
        return DerivativeNames.of(self.source)

    @property
    def status(self) -> str:
        """``labelled``, ``abstained``, ``no-spine`` or ``failed``."""
        return str(self.sidecar.get("Status", "unknown"))

    @property
    def reason(self) -> str | None:
        """Reason for any status but ``labelled``."""
        reason = self.sidecar.get("Reason")
        return str(reason) if reason else None

    @property
    def flags(self) -> tuple[str, ...]:
        """Findings about the labelling and the file that should be reviewed."""
        return tuple(map(str, (*self._entry("Flags", list), *self._entry("InputNotes", list))))

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the visible levels, vertebrae first."""
        return tuple(map(str, self._entry("LevelsInView", list)))

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self._entry("Model", dict).get("Name", ""))

    @property
    def bundled(self) -> bool:
        """True for the bundled model, which is meant for trying out the program."""
        return self._entry("Model", dict).get("Bundled") is True

    @property
    def corrections(self) -> dict[str, Any]:
        """Corrections by readers; empty without any."""
        return self._entry("Corrections", dict)

    @property
    def measures(self) -> dict[str, str]:
        """Angles of the spine and quality of the image, as text."""
        values = self._entry("Posture", dict) | self._entry("ImageQuality", dict)
        # Earlier versions wrote numbers as text.
        numbers = {n: _COLUMNS[n].format(v) for n, v in values.items() if n in _COLUMNS and isinstance(v, int | float)}
        return {name: numbers.get(name, str(value)) for name, value in values.items()}

    @property
    def figures(self) -> dict[str, str]:
        """Paths of the figures below the output folder, by kind."""
        return {str(kind): str(path) for kind, path in self._entry("Figures", dict).items()}

    def _entry(self, key: str, kind: type[_T]) -> _T:
        """Return an entry of the sidecar; empty if it is absent or of another type."""
        value = self.sidecar.get(key)
        return value if isinstance(value, kind) else kind()


def read_derivatives(output: Path, participants: Collection[str] = ()) -> Iterator[ImageDerivatives]:
    """Read the completed images of an output folder, sorted by path.

    A sidecar or table that cannot be read is reported in the log and skipped.

    Parameters
    ----------
    output : Path
        Output folder.
    participants : collection of str
        Labels of participants, without ``sub-``; empty means all.

    Raises
    ------
    MissingInputError
        If the content of a file was not fetched, or dropped, by DataLad.
    """
    folders = [f"sub-{label}{middle}/*" for label in participants or ("*",) for middle in ("", "/ses-*")]
    paths = [path for folder in folders for path in output.glob(f"{folder}/*_seg-{SEGMENTATION}_*dseg.json")]
    check_fetched(output, [file for path in sorted(paths) for file in (path, path.with_suffix(".tsv"))])
    found = {result.source.relative: result for path in sorted(paths) if (result := _read(output, path)) is not None}
    for relative in sorted(found):
        yield found[relative]


def check_fetched(output: Path, files: Iterable[Path]) -> None:
    """Raise an error if the content of derivatives is absent.

    Raises
    ------
    MissingInputError
        If there is such a file; the message names the first.
    """
    absent = [path for path in files if not is_fetched(path)]
    if absent:
        example = absent[0].relative_to(output)
        msg = f"{output}: content of {len(absent)} results not fetched, such as {example}; run 'datalad get' on them"
        raise MissingInputError(msg)


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
        rows = [{}]
    # A table of an image without a spine has no rows.
    if rows and not {"index", "name", "level"} <= rows[0].keys():
        logger.warning("%s: has no table that can be read, left out", path.relative_to(output))
        return None
    return ImageDerivatives(SourceImage(relative, Path(relative)), sidecar, tuple(rows))
