"""The content of one image on the page of a participant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image on the page of a participant.

    Examples
    --------
    >>> report = ImageReport("sub-01_T2w.nii.gz", {"subject": "01", "suffix": "T2w"}, flags=["T13"])
    >>> report.status
    'labelled'
    """

    title: str
    """Heading, usually the file name of the source image."""
    entities: Mapping[str, str] = field(default_factory=dict)
    """BIDS entities, such as ``{"subject": "01", "session": "a", "suffix": "T2w"}``."""
    status: str = "labelled"
    """``labelled``, ``abstained``, ``no-spine`` or ``failed``."""
    reason: str | None = None
    """Why the status is not ``labelled``; empty or ``None`` otherwise."""
    flags: Sequence[str] = ()
    """Findings to review."""
    rows: Sequence[Mapping[str, str]] = ()
    """Rows of the image's dseg table as text: ``index``, ``name``, ``abbreviation``, ``color``, ``confidence`` and the
    columns of `measurement.COLUMNS`; ``n/a`` where a value is missing."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """Kind of figure (see `figures.write_figures`) to its path relative to the page."""
    labels_digest: str = ""
    """Digest of the label map before corrections; without it, the page does not offer to correct the levels."""
    corrections: Sequence[Mapping[str, str]] = ()
    """Corrections that were applied: ``label``, ``correction``, ``scope``, ``map`` and ``note``."""
    edited_map: str = ""
    """File name of the edited label map that was applied, if any."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Software, model, input and date as name to value."""
    bundled: bool = False
    """Whether the bundled model was used, which the top of the page says."""
    measures: Mapping[str, str] = field(default_factory=dict)
    """Values of `measurement.POSTURE_COLUMNS` and `measurement.QUALITY_COLUMNS` as text."""
    profile: Sequence[Mapping[str, str]] = ()
    """Rows of the table of areas along the column, with the columns of `measurement.levels.PROFILE_COLUMNS`."""
