"""Class maps: the meaning of the integers of a semantic map, by role names.

Models of different releases number their classes differently but share the names: ``disc``, ``disc_C2_C3``,
``vertebrae_O``, ``sacrum``, ``canal``, ``cord`` and so on. A *class map* lists these names and their integers, as in
nnU-Net's ``dataset.json``. A name with several integers is a region; its first integer marks voxels of the region
that belong to none of its more specific classes.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import DISC_LEVELS, VERTEBRA_LEVELS, Structure
from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.files import parse_file
from totalspineseg_bids.imaging.masks import apply_table

#: Releases that share the numbers of an earlier one.
_SAME_AS: dict[str, str] = {
    **{f"r20240826-{kind}": f"r20240601-{kind}" for kind in ("step1", "step2", "full")},
    **{f"r20241005-{kind}": f"r20241115-{kind}" for kind in ("step1", "step2", "full")},
    **{f"r20251124-{kind}": f"r20241115-{kind}" for kind in ("step1", "step2")},
}
_KIND_PATTERN = re.compile(r"^(disc|vertebrae)(?:_(.+))?$")


class Parity(IntEnum):
    """One of the two alternating classes of vertebrae."""

    UNKNOWN = 0
    ODD = 1
    EVEN = 2


@dataclass(frozen=True, slots=True)
class LabelMeaning:
    """Meaning of one integer."""

    kind: Structure
    """Tissue."""
    level: str | None = None
    """``"C2-C3"`` for a disc, ``"T12"`` for a vertebra, ``"S"``; ``None`` where the class has no level."""
    region: str | None = None
    """``"C"``, ``"T"`` or ``"L"`` for classes that stand for a part of the column."""
    parity: Parity = Parity.UNKNOWN
    """Odd or even class."""


_PLAIN_ROLES: dict[str, LabelMeaning] = {
    "cord": LabelMeaning(Structure.CORD),
    "canal": LabelMeaning(Structure.CANAL),
    "csf": LabelMeaning(Structure.CANAL),
    "sacrum": LabelMeaning(Structure.SACRUM, level="S"),
    "vertebrae_S": LabelMeaning(Structure.SACRUM, level="S"),
}


def _meaning(name: str) -> LabelMeaning | None:
    """Parse a role name; None for names outside the spine."""
    match = _KIND_PATTERN.match(name)
    if name in _PLAIN_ROLES or not match:
        return _PLAIN_ROLES.get(name)
    kind = Structure.DISC if match[1] == "disc" else Structure.VERTEBRA
    detail = match[2]
    if detail is None:
        return LabelMeaning(kind)
    if detail in {"O", "E"}:
        return LabelMeaning(kind, parity=Parity.ODD if detail == "O" else Parity.EVEN)
    level = detail.replace("_", "-")
    known = level in (DISC_LEVELS if kind is Structure.DISC else VERTEBRA_LEVELS)
    if not known and detail not in {"C", "T", "L"}:
        return None
    return LabelMeaning(kind, level=level if known else None, region=level[0])


@dataclass(frozen=True)
class ClassMap:
    """Names of a semantic map's classes with their integers."""

    name: str
    """For messages."""
    labels: Mapping[str, tuple[int, ...]]
    """Role name to the integers that carry it, most general integer first; without background."""

    def __post_init__(self) -> None:
        if not self.has("disc") and not self.has("canal"):
            msg = (
                f"layout {self.name}: neither a 'disc' nor a 'canal' class among {', '.join(self.labels) or 'nothing'}"
            )
            raise UsageError(msg)
        if any(not 0 < value < 256 for values in self.labels.values() for value in values):
            msg = f"layout {self.name}: label values must lie in 1 to 255"
            raise UsageError(msg)

    @classmethod
    def from_labels(cls, labels: Mapping[str, int | Sequence[int]] | None, name: str = "labels") -> ClassMap:
        """Build a class map from a mapping of names to one integer or several (a region).

        Source: nnU-Net v2, ``documentation/region_based_training.md``.

        Raises
        ------
        UsageError
            If no name is known, or a value is not an integer from 1 to 255.
        """
        if not isinstance(labels, Mapping) or not labels:
            msg = f"{name}: no 'labels' entry as in nnU-Net's dataset.json"
            raise UsageError(msg)
        resolved: dict[str, tuple[int, ...]] = {}
        for role, value in labels.items():
            if role in {"background", "ignore"}:
                continue
            values = (value,) if isinstance(value, int | np.integer) else tuple(value)
            if not all(isinstance(v, int | np.integer) for v in values):
                msg = f"layout {name}: the value of '{role}' is not an integer or a list of integers"
                raise UsageError(msg)
            resolved[role] = tuple(int(v) for v in values)
        return cls(name, resolved)

    @classmethod
    def from_file(cls, path: str | Path) -> ClassMap:
        """Read a class map from a ``dataset.json`` file.

        Raises
        ------
        MissingInputError
            If the file cannot be read.
        UsageError
            If it is not such a file.
        """
        content = parse_file(Path(path), json.loads, "JSON")
        if not isinstance(content, Mapping):
            msg = f"layout {path} is not a dataset.json"
            raise UsageError(msg)
        return cls.from_labels(content.get("labels"), str(path))

    @classmethod
    def named(cls, name: str) -> ClassMap:
        """Return the class map of a public release, such as ``"r20240601-step2"``.

        Raises
        ------
        UsageError
            If there is no class map of this name; the message lists the names.
        """
        if name not in class_map_names():
            msg = f"unknown layout '{name}'; known are {', '.join(class_map_names())}, or give a dataset.json"
            raise UsageError(msg)
        text = (
            importlib.resources.files(f"{__package__}.class_maps")
            .joinpath(f"{_SAME_AS.get(name, name)}.json")
            .read_text("utf-8")
        )
        return cls.from_labels(json.loads(text)["labels"], name)

    @classmethod
    def resolve(cls, spec: str | Path | Mapping[str, Any] | ClassMap) -> ClassMap:
        """Return a class map from an object, a mapping, the name of a release or a ``dataset.json``."""
        if isinstance(spec, ClassMap):
            return spec
        if isinstance(spec, Mapping):
            return cls.from_labels(spec.get("labels", spec))
        if isinstance(spec, Path) or str(spec).endswith(".json"):
            return cls.from_file(spec)
        return cls.named(spec)

    def has(self, role: str) -> bool:
        """Return True if a role exists; for ``disc`` and ``vertebrae`` its parts suffice."""
        return bool(self.values_of(role))

    def values_of(self, role: str) -> tuple[int, ...]:
        """Return the integers of a role; for ``disc``, ``vertebrae`` and ``canal`` those of their parts as well.

        The sacrum does not count as ``vertebrae``; the cord and the fluid around it count as ``canal``.
        """
        found = set(self.labels.get(role, ()))
        parts = {"disc": "disc_", "vertebrae": "vertebrae_"}
        if role in parts:
            found |= {v for name, values in self.labels.items() if name.startswith(parts[role]) for v in values}
        if role == "canal":
            found |= {v for name in ("cord", "csf") for v in self.labels.get(name, ())}
        if role == "vertebrae":
            found -= set(self.labels.get("sacrum", ()))
        return tuple(sorted(found))

    @cached_property
    def meanings(self) -> dict[int, LabelMeaning]:
        """Meaning of each integer, from the most specific name that holds it."""
        result: dict[int, LabelMeaning] = {}
        # Names with many integers first, so that narrower ones override them.
        for name, values in sorted(self.labels.items(), key=lambda item: -len(item[1])):
            meaning = _meaning(name)
            if meaning is not None:
                result.update(dict.fromkeys(values, meaning))
        return result

    @cached_property
    def kind_table(self) -> NDArray[np.uint8]:
        """Look-up table of shape (256,), integer to `Structure`."""
        table = np.zeros(256, np.uint8)
        for value, meaning in self.meanings.items():
            table[value] = meaning.kind
        return table

    def kinds(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the `Structure` of each voxel of a map, same shape."""
        return apply_table(labels, self.kind_table)

    def check_values(self, labels: NDArray[np.integer], place: object = "the map") -> None:
        """Reject a map with integers that have no meaning, because it was made with other classes.

        Raises
        ------
        UsageError
            If there are such integers.
        """
        present = np.unique(labels)
        if len(unknown := present[~np.isin(present, [0, *(v for values in self.labels.values() for v in values)])]):
            values = ", ".join(map(str, unknown[:5])) + (", …" if len(unknown) > 5 else "")
            msg = f"{place}: holds the values {values}, which the layout {self.name} does not have; give its own layout"
            raise UsageError(msg)

    def select(self, labels: NDArray[np.uint8], *kinds: Structure) -> NDArray[np.bool_]:
        """Return which voxels of a map belong to one of some structures, same shape."""
        return apply_table(labels, np.isin(self.kind_table, kinds)).view(np.bool_)

    @property
    def level_names(self) -> frozenset[str]:
        """Levels that have a class of their own."""
        return frozenset(m.level for m in self.meanings.values() if m.level is not None)

    @property
    def has_parity(self) -> bool:
        """True if vertebrae alternate between two classes."""
        return any(m.parity and m.kind is Structure.VERTEBRA for m in self.meanings.values())

    @property
    def separates_vertebrae(self) -> bool:
        """True if neighbouring vertebrae have different integers, by parity or by level."""
        levels = [m for m in self.meanings.values() if m.kind is Structure.VERTEBRA and m.level is not None]
        return self.has_parity or len(levels) > 10


@cache
def class_map_names() -> tuple[str, ...]:
    """Return the names that :meth:`ClassMap.named` knows."""
    files = importlib.resources.files(f"{__package__}.class_maps").iterdir()
    return tuple(sorted({*_SAME_AS, *(f.name.removesuffix(".json") for f in files if f.name.endswith(".json"))}))
