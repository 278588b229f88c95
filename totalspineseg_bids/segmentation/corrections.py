"""Apply the corrections of a reader to a labelled spine, without networks.

A correction names one structure and what it is. Its scope says which other levels follow, so that a column that is off
by one is corrected with one line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SACRUM_ID, SpineVariant, Structure
from totalspineseg_bids.segmentation.disc_points import TOP_JOINT, locate_discs, sort_points
from totalspineseg_bids.segmentation.result import Component, DiscPoint, LabelledSpine, SpineStatus

#: Label of a correction that moves all levels.
COLUMN: Final = "column"
ABSENT: Final = "absent"
SACRALISED: Final = "sacralised"
SHIFTS: Final = {"up": -1, "down": 1}
#: Flag of every corrected spine.
CORRECTED: Final = "corrected"
_SPELLINGS: Final = {"sacralized": SACRALISED}
_VARIANT_FLAGS: Final = frozenset({"T13", "L6", "11-thoracic", "4-lumbar", "doubtful-levels"})
_COLUMN_PARTS: Final = (Structure.VERTEBRA, Structure.DISC)
_CERVICAL: Final = 7


class CorrectionError(ValueError):
    """A correction that does not fit the labelled spine."""


class Scope(str, Enum):
    """Levels that a correction renames."""

    ONE = "one"
    COLUMN = "column"
    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True)
class Correction:
    """Statement of a reader about one structure of a label map."""

    label: str
    """Structure by name (``disc_L1_L2``), level (``L1-L2``) or abbreviation (``D3?``), or ``column``."""
    name: str
    """Its level, ``absent`` or ``sacralised``; for ``column`` the direction, ``up`` or ``down`` by one level."""
    scope: Scope = Scope.ONE
    """Levels that follow: only this one, the whole column, or this one and all above or below it."""

    def __str__(self) -> str:
        """Return the correction as one phrase."""
        follows = {Scope.COLUMN: "all levels follow", Scope.ONE: ""}.get(self.scope, f"all {self.scope.value} follow")
        return f"{self.label} is {self.name}" + (f", {follows}" if follows and self.label != COLUMN else "")


def digest_labels(spine: LabelledSpine) -> str:
    """Return the SHA-256 of a label map and its grid, which corrections refer to."""
    whole = hashlib.sha256(repr((spine.labels.shape, np.round(spine.affine, 4).tolist())).encode())
    whole.update(np.ascontiguousarray(spine.labels).tobytes())
    return whole.hexdigest()


def apply_corrections(
    spine: LabelledSpine, corrections: Sequence[Correction]
) -> tuple[LabelledSpine, NDArray[np.uint8]]:
    """Apply corrections one after the other; each refers to the names that those before it left.

    Parameters
    ----------
    spine : LabelledSpine
        Labelled spine.
    corrections : sequence of Correction
        Statements of a reader.

    Returns
    -------
    LabelledSpine
        Corrected spine; corrected levels have confidence 1 and say what they were.
    ndarray of uint8
        New canonical id of each canonical id, 0 for removed structures, shape (256,).

    Raises
    ------
    CorrectionError
        If a correction does not fit the spine.
    """
    table = np.arange(256, dtype=np.uint8)
    for correction in corrections:
        spine, step = _apply(spine, correction)
        table = step[table]
    return spine, table


def find_component(spine: LabelledSpine, text: str) -> Component:
    """Return the component that a name, level or abbreviation means.

    Raises
    ------
    CorrectionError
        If the spine has none.
    """
    for component in spine.components:
        label = anatomy.BY_ID[component.label_id]
        if text in {label.name, label.abbreviation, component.level}:
            return component
    seen = ", ".join(anatomy.BY_ID[c.label_id].abbreviation for c in spine.components) or "nothing"
    msg = f"there is no {text} in the label map (it has {seen})"
    raise CorrectionError(msg)


def _apply(spine: LabelledSpine, correction: Correction) -> tuple[LabelledSpine, NDArray[np.uint8]]:
    name = _SPELLINGS.get(correction.name, correction.name)
    column = _Column(spine)
    if correction.label == COLUMN:
        if name not in SHIFTS:
            msg = f"the column moves up or down, not '{name}'"
            raise CorrectionError(msg)
        return _rename(spine, column.shift(SHIFTS[name]))
    component = find_component(spine, correction.label)
    if name == ABSENT:
        return _rename(spine, {component.label_id: 0})
    if name == SACRALISED:
        return _rename(spine, column.sacralise(component))
    if component.structure is Structure.SACRUM and name == "S":
        return _rename(spine, {component.label_id: component.label_id})
    return _rename(spine, column.rename(component, name, correction.scope))


def _level_id(structure: Structure, level: str) -> int:
    try:
        return (anatomy.disc if structure is Structure.DISC else anatomy.vertebra)(level).id
    except KeyError as error:
        msg = f"there is no {structure.text} {level}"
        raise CorrectionError(msg) from error


class _Column:
    """Vertebrae and discs of a spine with their ordinals: C1 is 0, the disc below a vertebra half more than it."""

    def __init__(self, spine: LabelledSpine) -> None:
        self.parts = [c for c in spine.components if c.structure in _COLUMN_PARTS]
        self.has_sacrum = any(c.structure is Structure.SACRUM for c in spine.components)
        self.variant = _variant(spine)
        self.ordinals = self._count()

    def _count(self) -> dict[int, float]:
        """Return the ordinal of each label; components without a level are counted from their neighbours."""
        known = [n for n, part in enumerate(self.parts) if part.level is not None]
        start = known[0] if known else 0
        ordinals: dict[int, float] = {}
        for order, sign in ((range(start, len(self.parts)), 1.0), (range(start - 1, -1, -1), -1.0)):
            for n in order:
                part = self.parts[n]
                before = self.parts[n - int(sign)] if n != start else None
                if part.level is not None:
                    ordinals[part.label_id] = _ordinal(part.level, self.variant)
                elif before is None:
                    ordinals[part.label_id] = 1.0 if part.structure is Structure.VERTEBRA else 1.5
                else:
                    step = 1.0 if before.structure is part.structure else 0.5
                    ordinals[part.label_id] = ordinals[before.label_id] + sign * step
        return ordinals

    def shift(self, offset: int) -> dict[int, int]:
        """Return the new id of each label if the column moves by a number of levels."""
        if not self.parts or any(part.level is None for part in self.parts):
            msg = "the levels are not named, so they cannot move; name one of them, and let the column follow"
            raise CorrectionError(msg)
        return self._moved(self.parts, offset, self.variant, ends_at_sacrum=True)

    def rename(self, component: Component, level: str, scope: Scope) -> dict[int, int]:
        """Return new ids if a component is a given level and those in scope follow."""
        structure = component.structure
        if structure not in _COLUMN_PARTS:
            msg = f"{anatomy.BY_ID[component.label_id].name} has no level to correct"
            raise CorrectionError(msg)
        new = _level_id(structure, level)
        if scope is Scope.ONE:
            return {component.label_id: new}
        variant = _with_level(self.variant, level)
        here = self.ordinals[component.label_id]
        inside: Callable[[float], bool] = {
            Scope.ABOVE: lambda ordinal: ordinal <= here,
            Scope.BELOW: lambda ordinal: ordinal >= here,
        }.get(scope, lambda _: True)
        moving = [part for part in self.parts if inside(self.ordinals[part.label_id])]
        offset = round(_ordinal(level, variant) - here)
        return self._moved(moving, offset, variant, ends_at_sacrum=scope is not Scope.ABOVE)

    def _moved(
        self, moving: Sequence[Component], offset: int, variant: SpineVariant, *, ends_at_sacrum: bool
    ) -> dict[int, int]:
        if ends_at_sacrum and self.has_sacrum and any(part.level for part in self.parts):
            # The sacrum keeps its name, so the number of lumbar vertebrae changes.
            sacrum = len(self.variant.vertebrae()) - 1 + offset
            variant = _make_variant(variant.thoracic, sacrum - _CERVICAL - variant.thoracic)
        return {
            part.label_id: _level_id(part.structure, _level_at(self.ordinals[part.label_id] + offset, variant))
            for part in moving
        }

    def sacralise(self, component: Component) -> dict[int, int]:
        """Return new ids if the lowest vertebra is part of the sacrum."""
        here = self.ordinals.get(component.label_id)
        lowest = max((self.ordinals[p.label_id] for p in self.parts if p.structure is Structure.VERTEBRA), default=None)
        if component.structure is not Structure.VERTEBRA or here is None or here != lowest:
            msg = f"{anatomy.BY_ID[component.label_id].name} is not the lowest vertebra, which alone can be sacralised"
            raise CorrectionError(msg)
        ids = {component.label_id: SACRUM_ID}
        for part in self.parts:
            if part.structure is Structure.DISC and self.ordinals[part.label_id] > here:
                ids[part.label_id] = SACRUM_ID
            elif part.structure is Structure.DISC and self.ordinals[part.label_id] == here - 0.5:
                ids[part.label_id] = anatomy.disc("L5-S").id
        return ids


def _make_variant(thoracic: int, lumbar: int) -> SpineVariant:
    try:
        return SpineVariant(thoracic, lumbar)
    except ValueError as error:
        msg = f"the spine would have {thoracic} thoracic and {lumbar} lumbar vertebrae above its sacrum"
        raise CorrectionError(msg) from error


def _variant(spine: LabelledSpine) -> SpineVariant:
    """Return the numbers of vertebrae that the names of a spine imply."""
    names = {component.level for component in spine.components}
    found = spine.hypothesis
    few_thoracic = found is not None and found.thoracic == 11 and not names & {"T12", "T11-T12"}
    few_lumbar = found is not None and found.lumbar == 4 and not names & {"L5", "L4-L5"}
    thoracic = 13 if names & {"T13", "T12-T13"} else 11 if few_thoracic else 12
    return SpineVariant(thoracic, 6 if names & {"L6", "L5-L6"} else 4 if few_lumbar else 5)


def _with_level(variant: SpineVariant, level: str) -> SpineVariant:
    """Return a variant that has a level."""
    if level in {"T12", "T11-T12"}:
        return replace(variant, thoracic=max(variant.thoracic, 12))
    if level in {"L5", "L4-L5"}:
        return replace(variant, lumbar=max(variant.lumbar, 5))
    if level in {"T13", "T12-T13"}:
        return replace(variant, thoracic=13)
    return replace(variant, lumbar=6) if level in {"L6", "L5-L6"} else variant


def _ordinal(level: str, variant: SpineVariant) -> float:
    if level == TOP_JOINT:
        return 0.5
    if "-" in level:
        return variant.discs().index(level) + 1.5
    return float(variant.vertebrae().index(level))


def _level_at(ordinal: float, variant: SpineVariant) -> str:
    vertebrae, discs = variant.vertebrae(), (TOP_JOINT, *variant.discs())
    names, index = (vertebrae, int(ordinal)) if ordinal == int(ordinal) else (discs, int(ordinal - 0.5))
    if not 0 <= index < len(names) or ordinal < 0:
        msg = "a level would lie above C1 or below the sacrum; remove it first, or let fewer levels follow"
        raise CorrectionError(msg)
    return names[index]


def _rename(spine: LabelledSpine, ids: dict[int, int]) -> tuple[LabelledSpine, NDArray[np.uint8]]:
    """Give components new ids (0: removed; the sacrum takes in others) and update all that depends on their names."""
    targets: dict[int, Component] = {}
    for component in spine.components:
        new = ids.get(component.label_id, component.label_id)
        if new == 0:
            continue
        corrected = _relabelled(component, new) if component.label_id in ids else component
        if new in targets and new != SACRUM_ID:
            both = " and ".join(anatomy.BY_ID[c.label_id].name for c in spine.components if ids.get(c.label_id) == new)
            msg = f"two structures would be {anatomy.BY_ID[new].name} ({both}); let the column follow, or remove one"
            raise CorrectionError(msg)
        targets[new] = _merge(targets[new], corrected) if new in targets else corrected
    table = np.arange(256, dtype=np.uint8)
    table[list(ids)] = list(ids.values())
    levels = {anatomy.BY_ID[old].level: anatomy.BY_ID[new].level if new else "" for old, new in ids.items()}
    components = tuple(targets.values())
    doubtful = any(c.reason and c.level and not c.reason.startswith(CORRECTED) for c in components)
    unnamed = any(c.level is None for c in components if c.structure in _COLUMN_PARTS)
    return (
        replace(
            spine,
            labels=table[spine.labels],
            components=components,
            status=spine.status if unnamed else SpineStatus.LABELLED,
            reason=spine.reason if unnamed or doubtful else None,
            flags=_flags(spine, components, levels, doubtful=doubtful),
            disc_points=_points(spine, ids),
            margin=None,
        ),
        table,
    )


def _relabelled(component: Component, new: int) -> Component:
    label = anatomy.BY_ID[new]
    former = anatomy.BY_ID[component.label_id].abbreviation
    return replace(
        component,
        label_id=new,
        structure=label.structure,
        level=label.level or None,
        confidence=1.0,
        runner_up=None,
        reason=f"{CORRECTED}, was {former}" if new != component.label_id else f"{CORRECTED}: confirmed",
    )


def _merge(first: Component, second: Component) -> Component:
    volume = first.volume_mm3 + second.volume_mm3
    shares = np.array([[first.volume_mm3], [second.volume_mm3]]) / volume
    x, y, z = (float(v) for v in (np.array([first.centroid_mm, second.centroid_mm]) * shares).sum(axis=0))
    return replace(
        first,
        touches_edge=first.touches_edge or second.touches_edge,
        volume_mm3=volume,
        centroid_mm=(x, y, z),
        reason=first.reason or second.reason,
    )


def _points(spine: LabelledSpine, ids: dict[int, int]) -> tuple[DiscPoint, ...]:
    """Return the disc points under their new names."""
    named = {old: anatomy.BY_ID[new].level for old, new in ids.items() if new and anatomy.is_unnamed(old)}
    points = []
    for point in spine.disc_points:
        if point.level == TOP_JOINT:
            changed = {anatomy.vertebra(level).id for level in ("C1", "C2")} & {o for o, n in ids.items() if o != n}
            points += [] if changed else [point]
            continue
        old = anatomy.disc(point.level).id
        label = anatomy.BY_ID.get(ids.get(old, old))
        if label is not None and label.structure is Structure.DISC:
            points.append(replace(point, level=label.level))
    points += locate_discs(spine.labels, spine.affine, spine.centerline_mm, named)
    return sort_points(points)


def _flags(
    spine: LabelledSpine, components: Sequence[Component], levels: dict[str, str], *, doubtful: bool
) -> tuple[str, ...]:
    names = {component.level for component in components}
    flags = [flag for flag in spine.flags if flag not in {*_VARIANT_FLAGS, CORRECTED} and ":" not in flag]
    for kind, _, level in (flag.partition(":") for flag in spine.flags if ":" in flag):
        new = levels.get(level, level)
        if new and not (kind == "missing-disc" and (new in names or level in levels)):
            flags.append(f"{kind}:{new}")
    flags += [level for level, disc in (("T13", "T12-T13"), ("L6", "L5-L6")) if names & {level, disc}]
    if {"T12-L1", "T10-T11"} <= names and not names & {"T12", "T11-T12", "T13"}:
        flags.append("11-thoracic")
    if {"T12-L1", "L5-S"} <= names and not names & {"L5", "L4-L5", "L6"}:
        flags.append("4-lumbar")
    flags += ["doubtful-levels"] if doubtful else []
    return tuple(dict.fromkeys((*flags, CORRECTED)))
