"""The levels of the spine: order, names, ids per label scheme, abbreviations and colours.

This is the only module that knows them. Arrays inside the program carry the *canonical* ids, which are
the seed's 50 ids (18-41, 92, 200-224) and a few more for what that list has no id for:

========================  =========  =====================================
what                      canonical  later public releases (``totalspineseg``)
========================  =========  =====================================
vertebra T13              230        33
vertebra L6               231        46
disc T12-T13              232        83
disc L5-L6                233        96
unnamed vertebra 1 to 30  101-130    101-130
unnamed disc 1 to 30      151-180    151-180
========================  =========  =====================================

*Unnamed* labels number the column from the top where the evidence does not decide the levels.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LabelScheme = Literal["totalsegmri", "totalspineseg"]
LABEL_SCHEMES: tuple[LabelScheme, ...] = ("totalsegmri", "totalspineseg")
DEFAULT_SCHEME: LabelScheme = "totalsegmri"
#: Former names of label schemes, which are accepted everywhere.
SCHEME_ALIASES: dict[str, LabelScheme] = {"seed": DEFAULT_SCHEME}

CORD_ID = 200
CANAL_ID = 201
SACRUM_ID = 92
MAX_UNNAMED = 30
_UNNAMED_VERTEBRA_BASE = 100
_UNNAMED_DISC_BASE = 150


class Structure(IntEnum):
    """Anatomical structure of a voxel or component, whatever its level."""

    NONE = 0
    DISC = 1
    VERTEBRA = 2
    SACRUM = 3
    CANAL = 4
    CORD = 5

    @property
    def text(self) -> str:
        """Name of the structure in reports and JSON files."""
        return {Structure.CORD: "spinal_cord", Structure.CANAL: "spinal_canal"}.get(self, self.name.lower())


@dataclass(frozen=True, slots=True)
class AnatomicalLabel:
    """One entry of the label list."""

    id: int
    """Canonical id, 1 to 255."""
    name: str
    """Machine-readable name as in the seed's list, such as ``vertebrae_C1`` or ``disc_C2_C3``."""
    structure: Structure
    """What it is."""
    level: str
    """``"C1"``, ``"C2-C3"``, ``"S"``; empty for cord, canal and unnamed labels."""
    abbreviation: str
    """Short text for figures."""
    hex_color: str
    """``#rrggbb``; the same in every output. Neighbours differ, also in brightness."""
    public_id: int
    """Id in the scheme of the later public releases."""

    @property
    def color(self) -> tuple[int, int, int]:
        """Red, green, blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.hex_color[1:])
        return red, green, blue

    def id_in(self, scheme: LabelScheme) -> int:
        """Return the id in a label scheme."""
        return self.public_id if scheme == "totalspineseg" else self.id


def _read_labels() -> tuple[AnatomicalLabel, ...]:
    with Path(__file__).with_name("labels.tsv").open(encoding="utf-8", newline="") as stream:
        return tuple(
            AnatomicalLabel(
                id=int(row["id"]),
                name=row["name"],
                structure=Structure[row["structure"].upper()],
                level=row["level"],
                abbreviation=row["abbreviation"],
                hex_color=row["color"],
                public_id=int(row["public_id"]),
            )
            for row in csv.DictReader(stream, delimiter="\t")
        )


#: Every label (``labels.tsv``): vertebrae, then discs, both in craniocaudal order, cord, canal and the unnamed ones.
LABELS: tuple[AnatomicalLabel, ...] = _read_labels()
BY_ID: dict[int, AnatomicalLabel] = {label.id: label for label in LABELS}
#: Structure of each canonical id, shape (256,); ``Structure.NONE`` for ids that are no label.
STRUCTURES: NDArray[np.uint8] = np.array([BY_ID[n].structure if n in BY_ID else 0 for n in range(256)], np.uint8)
_VERTEBRA_BY_LEVEL = {
    label.level: label for label in LABELS if label.level and label.structure in (Structure.VERTEBRA, Structure.SACRUM)
}
_DISC_BY_LEVEL = {label.level: label for label in LABELS if label.level and label.structure is Structure.DISC}

#: Craniocaudal order of the vertebrae, supernumerary levels in their place; ``S`` is the sacrum.
VERTEBRA_LEVELS: tuple[str, ...] = tuple(_VERTEBRA_BY_LEVEL)

#: Discs in craniocaudal order, supernumerary ones in their place, named by both neighbours; the disc above L1 is always
#: T12-L1, above S always L5-S.
DISC_LEVELS: tuple[str, ...] = tuple(_DISC_BY_LEVEL)

#: Regular disc names, C2-C3 to L5-S (23 of them).
REGULAR_DISCS: tuple[str, ...] = tuple(level for level in DISC_LEVELS if level not in {"T12-T13", "L5-L6"})

#: The four landmark discs of the method.
LANDMARK_DISCS: tuple[str, ...] = ("C2-C3", "C7-T1", "T12-L1", "L5-S")


def vertebra(level: str) -> AnatomicalLabel:
    """Return the label of a vertebra (or of the sacrum, ``"S"``) by its level.

    Raises
    ------
    KeyError
        If there is no such level.
    """
    return _VERTEBRA_BY_LEVEL[level]


def disc(level: str) -> AnatomicalLabel:
    """Return the label of a disc by its two neighbours, such as ``"C2-C3"``.

    Raises
    ------
    KeyError
        If there is no such disc.
    """
    return _DISC_BY_LEVEL[level]


def unnamed(structure: Structure, number: int) -> AnatomicalLabel:
    """Return the label of the ``number``-th (from 1, craniocaudal) vertebra or disc without a level.

    Raises
    ------
    ValueError
        If the structure has no unnamed labels or the number is not in 1 to 30.
    """
    bases = {Structure.VERTEBRA: _UNNAMED_VERTEBRA_BASE, Structure.DISC: _UNNAMED_DISC_BASE}
    if structure not in bases or not 1 <= number <= MAX_UNNAMED:
        msg = f"no unnamed label for {structure.text} number {number}"
        raise ValueError(msg)
    return BY_ID[bases[structure] + number]


def is_unnamed(label_id: int) -> bool:
    """Return whether a canonical id belongs to a component without a level."""
    return any(base < label_id <= base + MAX_UNNAMED for base in (_UNNAMED_VERTEBRA_BASE, _UNNAMED_DISC_BASE))


@dataclass(frozen=True, slots=True)
class SpineVariant:
    """Number of thoracic and lumbar vertebrae of a spine (12 and 5 in most people)."""

    thoracic: int = 12
    lumbar: int = 5

    def __post_init__(self) -> None:
        if self.thoracic not in (11, 12, 13) or self.lumbar not in (4, 5, 6):
            msg = f"thoracic must be 11-13 and lumbar 4-6, not {self.thoracic} and {self.lumbar}"
            raise ValueError(msg)

    def vertebrae(self) -> tuple[str, ...]:
        """Return the vertebral levels of this spine in craniocaudal order, sacrum last."""
        thoracic = [f"T{i}" for i in range(1, self.thoracic + 1)]
        lumbar = [f"L{i}" for i in range(1, self.lumbar + 1)]
        return (*(f"C{i}" for i in range(1, 8)), *thoracic, *lumbar, "S")

    def discs(self) -> tuple[str, ...]:
        """Return the disc levels in craniocaudal order, one below each vertebra from C2 on.

        The disc above L1 is always ``T12-L1`` and the one above the sacrum always ``L5-S``, whatever the
        number of vertebrae, because these names stand for landmarks.
        """
        names = []
        levels = self.vertebrae()[1:]
        for upper, lower in itertools.pairwise(levels):
            if lower == "L1":
                names.append("T12-L1")
            elif lower == "S":
                names.append("L5-S")
            else:
                names.append(f"{upper}-{lower}")
        return tuple(names)


def recorded_scheme(scheme: str) -> str:
    """Return the name of a label scheme in sidecars, reports and digests.

    Files keep the former name of the default scheme, so that results of earlier versions stay complete.

    >>> recorded_scheme("totalsegmri"), recorded_scheme("totalspineseg")
    ('seed', 'totalspineseg')
    """
    return next((former for former, name in SCHEME_ALIASES.items() if name == scheme), scheme)


@cache
def _lookup(scheme: LabelScheme) -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for label in LABELS:
        table[label.id] = label.id_in(scheme)
    return table


def to_scheme(labels: NDArray[np.uint8], scheme: LabelScheme) -> NDArray[np.uint8]:
    """Translate an array of canonical ids (any shape) into a label scheme; 0 stays 0."""
    translated: NDArray[np.uint8] = _lookup(scheme)[labels]
    return translated


def from_scheme(labels: NDArray[np.integer], scheme: LabelScheme) -> NDArray[np.uint8]:
    """Translate ids of a label scheme back to canonical ids; ids the scheme does not have become 0."""
    inverse = np.zeros(256, np.uint8)
    for label in LABELS:
        inverse[label.id_in(scheme)] = label.id
    known: NDArray[np.uint8] = inverse[np.where((labels >= 0) & (labels < 256), labels, 0)]
    return known


def guess_scheme(ids: Collection[int], expected: LabelScheme = DEFAULT_SCHEME) -> LabelScheme:
    """Return the label scheme that has most of some ids; the expected one if none has more.

    >>> guess_scheme([1, 2, 41, 42, 92, 93]), guess_scheme([21, 22])
    ('totalspineseg', 'totalsegmri')
    """

    def count(scheme: LabelScheme) -> int:
        known = {label.id_in(scheme) for label in LABELS}
        return sum(number in known for number in ids)

    return max((expected, *LABEL_SCHEMES), key=count)


def level_point_value(disc_level: str) -> int | None:
    """Return the value of a disc in the point-label image, as in the Spinal Cord Toolbox.

    C1-C2 = 2, C2-C3 = 3, … L5-S = 25. Supernumerary discs have no value there: ``None``.
    """
    if disc_level == "C1-C2":
        return 2
    if disc_level in REGULAR_DISCS:
        return 3 + REGULAR_DISCS.index(disc_level)
    return None


def itksnap_table(scheme: LabelScheme = DEFAULT_SCHEME) -> str:
    """Return the label description file that ITK-SNAP imports (index, RGB, alpha, visible, mesh, name)."""
    lines = ['    0     0    0    0        0  0  0    "Clear Label"']
    for label in sorted(LABELS, key=lambda item: item.id_in(scheme)):
        red, green, blue = label.color
        lines.append(f'{label.id_in(scheme):5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{label.name}"')
    return "\n".join(lines) + "\n"


def slicer_table(scheme: LabelScheme = DEFAULT_SCHEME) -> str:
    """Return the colour table (``.ctbl``) that 3D Slicer reads (index, name, RGBA)."""
    lines = ["# Color table: totalspineseg_bids", "0 background 0 0 0 0"]
    for label in sorted(LABELS, key=lambda item: item.id_in(scheme)):
        red, green, blue = label.color
        lines.append(f"{label.id_in(scheme)} {label.name} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"
