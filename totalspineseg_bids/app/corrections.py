"""Corrections of readers: read from tables and edited label maps, matched to images, applied to results."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from totalspineseg_bids.anatomy import LabelScheme, from_scheme, to_scheme
from totalspineseg_bids.app.uncorrected import SegmentedImage
from totalspineseg_bids.bids.names import RESOLUTIONS, SEGMENTATION, DerivativeNames, SourceImage
from totalspineseg_bids.bids.tables import read_given_table
from totalspineseg_bids.errors import ImageError, UsageError
from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.io import file_digest, read_labels
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.corrections import (
    Correction,
    CorrectionError,
    Scope,
    apply_corrections,
    digest_labels,
)
from totalspineseg_bids.segmentation.edited_map import apply_edited_map

_REQUIRED: Final = ("image", "label", "correction")
_MAP_NAME: Final = re.compile(
    rf"(?P<stem>sub-\w[\w+-]*?)_seg-{SEGMENTATION}(?:_res-1mm)?_desc-(?P<suffix>[0-9a-zA-Z]+)_dseg\.nii(?:\.gz)?"
)
#: Shortest accepted start of a digest in a table.
_SHORTEST_DIGEST: Final = 8


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    """One line of a table of corrections."""

    correction: Correction
    """Statement about one structure."""
    place: str
    """File and line, for messages."""
    labels_digest: str = ""
    """Start of the digest of the label map that the reader saw; empty if it was not given."""
    note: str = ""
    """Remark of the reader."""


@dataclass(frozen=True, slots=True)
class ImageCorrections:
    """Corrections of one image."""

    rows: tuple[CorrectionRow, ...] = ()
    """Lines of tables, in order."""
    edited: Path | None = None
    """Edited label map, to which the lines are applied."""
    edited_digest: str = ""
    """SHA-256 of the edited map."""
    files: tuple[str, ...] = ()
    """Names of the files they come from."""

    def __bool__(self) -> bool:
        """Return whether there is any correction."""
        return bool(self.rows or self.edited_digest)

    @property
    def digest(self) -> str:
        """SHA-256 of the corrections; empty without any."""
        if not self:
            return ""
        rows = [[r.correction.label, r.correction.name, r.correction.scope.value, r.labels_digest] for r in self.rows]
        return hashlib.sha256(json.dumps([rows, self.edited_digest]).encode()).hexdigest()

    def describe(self, output: Path) -> dict[str, Any] | None:
        """Return the entry of the sidecar, paths relative to the output folder; ``None`` without corrections."""
        if not self:
            return None
        rows = [
            {
                "Label": row.correction.label,
                "Correction": row.correction.name,
                "Scope": row.correction.scope.value,
                **({"LabelsDigest": row.labels_digest} if row.labels_digest else {}),
                **({"Note": row.note} if row.note else {}),
            }
            for row in self.rows
        ]
        edited = {}
        if self.edited is not None:
            path = Path(os.path.relpath(self.edited, output)).as_posix()
            edited = {"EditedMap": path, "EditedMapDigest": self.edited_digest}
        return {"Files": list(self.files), "Rows": rows, **edited}

    @classmethod
    def from_sidecar(cls, sidecar: Mapping[str, Any], folder: Path = Path()) -> ImageCorrections:
        """Return the corrections that a sidecar records; its paths are relative to a folder."""
        entry = sidecar.get("Corrections")
        if not isinstance(entry, dict):
            return cls()
        rows = tuple(
            CorrectionRow(
                Correction(row["Label"], row["Correction"], Scope(row["Scope"])),
                f"{', '.join(entry['Files'])}: entry {number}",
                row.get("LabelsDigest", ""),
                row.get("Note", ""),
            )
            for number, row in enumerate(entry["Rows"], start=1)
        )
        edited = entry.get("EditedMap")
        path = Path(os.path.normpath(folder / edited)) if edited else None
        return cls(rows, path, entry.get("EditedMapDigest", ""), tuple(entry["Files"]))

    @classmethod
    def recorded(cls, output: Path, names: DerivativeNames) -> ImageCorrections:
        """Return the corrections of the results of an image in the output folder."""
        sidecars = (read_json(output / names.labels(".json", resolution)) for resolution in RESOLUTIONS)
        return next((cls.from_sidecar(s, output) for s in sidecars if s and s.get("Corrections")), cls())


@dataclass
class CorrectionFiles:
    """Content of a table or folder of corrections, by image."""

    rows: dict[str, list[CorrectionRow]] = field(default_factory=dict)
    """Lines by image name."""
    maps: dict[str, Path] = field(default_factory=dict)
    """Edited label map by image name."""

    @classmethod
    def read(cls, path: Path) -> CorrectionFiles:
        """Read a table, or a folder of tables and edited label maps.

        Parameters
        ----------
        path : Path
            ``.tsv`` file, or folder with such files and, at any depth, label maps with the names of the derivatives.

        Raises
        ------
        MissingInputError
            If a table cannot be read.
        UsageError
            If a table lacks a column or has an unknown value, two maps are of one image, or the folder has neither.
        """
        found = cls()
        tables = [path] if path.is_file() else sorted(path.glob("*.tsv"))
        maps = [] if path.is_file() else sorted(path.rglob("*_dseg.nii*"))
        if not tables and not maps:
            msg = f"{path}: holds neither tables nor label maps; a table with a header only undoes all corrections"
            raise UsageError(msg)
        for table in tables:
            found._read_table(table)
        for file in maps:
            match = _MAP_NAME.fullmatch(file.name)
            image = f"{match['stem']}_{match['suffix']}" if match else ""
            if not image:
                msg = f"{file}: does not have the name of a label map of this program; give it that of the map it edits"
                raise UsageError(msg)
            if image in found.maps:
                msg = f"{file}: {found.maps[image]} is of the same image; keep one of them"
                raise UsageError(msg)
            found.maps[image] = file
        return found

    def _read_table(self, path: Path) -> None:
        for line, row in enumerate(read_given_table(path), start=2):
            missing = [name for name in _REQUIRED if not row.get(name)]
            if missing:
                msg = f"{path}: line {line}: {missing[0]} is missing; it needs the columns {', '.join(_REQUIRED)}"
                raise UsageError(msg)
            scope = row.get("scope") or Scope.ONE.value
            if scope not in {item.value for item in Scope}:
                msg = f"{path}: line {line}: scope '{scope}' is not one of {', '.join(item.value for item in Scope)}"
                raise UsageError(msg)
            digest = row.get("map", "")
            if digest and len(digest) < _SHORTEST_DIGEST:
                msg = f"{path}: line {line}: map '{digest}' must have {_SHORTEST_DIGEST} digits or more"
                raise UsageError(msg)
            correction = Correction(row["label"], row["correction"], Scope(scope))
            entry = CorrectionRow(correction, f"{path}: line {line}", digest, row.get("note", ""))
            self.rows.setdefault(row["image"], []).append(entry)

    def of(self, image: str) -> ImageCorrections:
        """Return the corrections of an image."""
        rows, edited = tuple(self.rows.get(image, ())), self.maps.get(image)
        files = dict.fromkeys(Path(row.place.rpartition(": line ")[0]).name for row in rows)
        return ImageCorrections(
            rows,
            edited,
            "" if edited is None else file_digest(edited),
            (*files, *([] if edited is None else [edited.name])),
        )

    def check_images(self, selected: Iterable[SourceImage], dataset: Path) -> None:
        """Refuse corrections of images that the dataset does not have.

        Raises
        ------
        ImageError
            If there is one; the message names it.
        """
        known = {source.name for source in selected}
        for image in sorted({*self.rows, *self.maps} - known):
            participant = image.partition("_")[0]
            if not re.fullmatch(r"[\w+-]+", image) or not any((dataset / participant).rglob(f"{image}.nii*")):
                place = self.maps[image] if image in self.maps else self.rows[image][0].place
                msg = f"{place}: there is no image {image} in {dataset}; remove or correct the line or file"
                raise ImageError(msg)


def correct(
    image: SegmentedImage, corrections: ImageCorrections, source: SourceImage, grid: Volume, scheme: LabelScheme
) -> SegmentedImage:
    """Apply corrections to a result.

    Parameters
    ----------
    image : SegmentedImage
        Result before corrections.
    corrections : ImageCorrections
        Edited map, then lines of tables in order.
    source : SourceImage
        The image, for messages.
    grid : Volume
        The image.
    scheme : LabelScheme
        Label scheme of the edited map.

    Raises
    ------
    ImageError
        If a correction does not fit the result; the message names file, line and image.
    """
    spine, native = image.spine, image.native
    digest = digest_labels(spine)
    if corrections.edited is not None:
        if file_digest(corrections.edited) != corrections.edited_digest:
            msg = f"{corrections.edited}: {source.name}: the edited map has changed; give it again with --corrections"
            raise ImageError(msg)
        try:
            spine, native = apply_edited_map(spine, native, _read_edited(corrections.edited, scheme), grid)
        except CorrectionError as error:
            msg = f"{corrections.edited}: {source.name}: {error}"
            raise ImageError(msg) from error
    for row in corrections.rows:
        if not digest.startswith(row.labels_digest.lower()):
            msg = (
                f"{row.place}: {source.name}: the correction was made for the label map {row.labels_digest[:12]}, but"
                f" the map is {digest[:12]} (another image, model or version); look at the result and correct it again"
            )
            raise ImageError(msg)
        try:
            spine, table = apply_corrections(spine, [row.correction])
        except CorrectionError as error:
            msg = f"{row.place}: {source.name}: {error}"
            raise ImageError(msg) from error
        native = table[native]
    return SegmentedImage(spine, native, image.kept)


def _read_edited(path: Path, scheme: LabelScheme) -> Volume:
    volume = read_labels(path)
    labels = from_scheme(volume.data, scheme)
    unknown = np.unique(volume.data[to_scheme(labels, scheme) != volume.data])
    if len(unknown):
        msg = f"the value {unknown[0]} is no label of the scheme '{scheme}'"
        raise CorrectionError(msg)
    return Volume(labels, volume.affine)
