"""What a page is told about an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image on the page of a subject.

    Attributes
    ----------
    title
        Name of the image for people, usually the file name of the source.
    entities
        BIDS entities, such as ``{"subject": "01", "session": "a", "suffix": "T2w"}``.
    status
        ``labelled``, ``abstained``, ``no-spine`` or ``failed``.
    reason
        Why, for anything but ``labelled``; empty or ``None`` otherwise.
    flags
        Findings a person should look at.
    rows
        Rows of the image's dseg table, as text: ``index``, ``name``, ``abbreviation``, ``color``, ``confidence`` and
        the columns of ``measurement.COLUMNS``; ``n/a`` where there is no value.
    figures
        Kind (as returned by ``figures.write_figures``) -> path relative to the page.
    provenance
        What made it, name -> value: software, model, input, date. Columns of ``measurement.POSTURE_COLUMNS`` among
        them are shown with the measures.
    """

    title: str
    entities: Mapping[str, str] = field(default_factory=dict)
    status: str = "labelled"
    reason: str | None = None
    flags: Sequence[str] = ()
    rows: Sequence[Mapping[str, str]] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
