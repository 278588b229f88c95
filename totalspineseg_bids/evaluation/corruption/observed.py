"""The suite without voxels: damaged components of parametric columns, as input of the dynamic programme.

A thousand of these cost what a dozen of semantic maps do, so that weights are fitted and rare failures counted here.
What they leave out is the geometry of voxels: bridges, leaks, torn canals, thick slices.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LANDMARK_DISCS, SpineVariant, Structure
from totalspineseg_bids.evaluation.corruption.cases import LAYOUTS, VARIANTS
from totalspineseg_bids.evaluation.corruption.score import Score
from totalspineseg_bids.evaluation.corruption.subjects import BLIND_VIEWS, VIEWS, ImpossibleError, require, table_of
from totalspineseg_bids.imaging.centerline import Centerline
from totalspineseg_bids.segmentation.class_map import ClassMap, Parity
from totalspineseg_bids.segmentation.labelling.column.cross_check import solve as solve_twice
from totalspineseg_bids.segmentation.labelling.column.naming import name_components
from totalspineseg_bids.segmentation.labelling.column.parameters import WEIGHTS
from totalspineseg_bids.segmentation.labelling.records import (
    CanalExtent,
    ClassShares,
    LevelSolution,
    Naming,
    Observation,
)
from totalspineseg_bids.segmentation.result import SpineStatus
from totalspineseg_bids.synthesis.curve import SpineParameters, build_column

_DOMAIN = 0x0B5E
PRIOR_CLASS_MAP = ClassMap.named("r20240601-full")


@dataclass
class Seen:
    """Components in view with their true names (None for false ones)."""

    names: list[str | None]
    items: list[Observation]
    view: CanalExtent
    layout: ClassMap
    variant: SpineVariant
    lone_right: bool = True

    def discs(self, *, plain: bool = False) -> list[int]:
        """Rows of the discs."""
        rows = [n for n, o in enumerate(self.items) if o.kind is Structure.DISC and self.names[n]]
        return [n for n in rows if self.names[n] not in LANDMARK_DISCS] if plain else rows

    def landmarks(self) -> list[int]:
        """Rows of the landmark discs."""
        return [n for n in self.discs() if self.names[n] in LANDMARK_DISCS]

    def bodies(self) -> list[int]:
        """Rows of the vertebrae."""
        return [n for n, o in enumerate(self.items) if o.kind is Structure.VERTEBRA and self.names[n]]

    def drop(self, rows: set[int]) -> None:
        """Leave components out."""
        keep = [n for n in range(len(self.items)) if n not in rows]
        self.names, self.items = [self.names[n] for n in keep], [self.items[n] for n in keep]

    def add(self, item: Observation) -> None:
        """Add a false component in its place."""
        at = int(np.searchsorted([o.s for o in self.items], item.s))
        self.items.insert(at, item)
        self.names.insert(at, None)

    def vote(self, row: int, class_shares: ClassShares) -> None:
        """Replace the class shares of a component."""
        new = list(self.items[row].class_shares)
        new[0] = class_shares
        self.items[row] = replace(self.items[row], class_shares=tuple(new))


def shares_of(value: int, layout: ClassMap) -> ClassShares:
    """Return the class shares of a component all of whose voxels carry one integer."""
    meaning = layout.meanings[value]
    return ClassShares(
        {meaning.level: 1.0} if meaning.level else {},
        {meaning.region: 1.0} if meaning.region and not meaning.level else {},
        float(meaning.parity is Parity.ODD),
        float(meaning.parity is Parity.EVEN),
        1.0,
        layout.level_names,
    )


def observe(rng: np.random.Generator, variant: SpineVariant, layout: ClassMap, view: str) -> Seen:
    """Draw a subject and list the components of a view of it, with the noise of a good segmentation."""
    drawn = SpineParameters.sample(rng)
    if rng.random() < 0.1:
        drawn = replace(drawn, scale=float(rng.uniform(0.65, 0.82)))
    column = build_column(rng, variant, drawn)
    # As smooth as the centreline that the labelling fits; the canal itself bulges behind every body.
    canal = ndimage.gaussian_filter1d(column.canal.points, 2.7, axis=0, mode="nearest")
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(canal, axis=0), axis=1))])
    line = Centerline(canal, arc, float(arc[-1]))
    table = table_of(variant, layout, swap=bool(rng.random() < 0.5))
    first, last = {**VIEWS, **BLIND_VIEWS}[view]
    order = variant.vertebrae()
    last = last if last in order else order[-2]
    first = first if first in order else "T10"
    low, high = order.index(first), order.index(last)
    rows: list[tuple[str, Structure, np.ndarray, float]] = []
    names = {level.name: level for level in column.levels}
    discs = dict(zip(variant.vertebrae()[1:], variant.discs(), strict=False))
    for n, name in enumerate(order):
        if not low <= n <= high:
            continue
        level = names["S1" if name == "S" else name]
        volume = level.width * level.depth * level.height * 0.8
        if name == "S":
            rows.append((name, Structure.SACRUM, level.frame.origin, 9e4))
            continue
        up = 3.0 * drawn.scale if name == "C2" else 0.0
        rows.append((name, Structure.VERTEBRA, level.frame.origin + level.frame.axes[:, 2] * up, volume))
        if name in discs and n < high:
            below = names["S1" if order[n + 1] == "S" else order[n + 1]]
            gap = float(np.linalg.norm(below.top.origin - level.bottom.origin))
            middle = (below.top.origin + level.bottom.origin) / 2
            rows.append((discs[name], Structure.DISC, middle, level.width * level.depth * gap * 0.72))
    found = Seen([], [], CanalExtent(0.0, 0.0), layout, variant)
    for name, kind, centre, volume in rows:
        spot = centre + rng.normal(0, 0.8 if kind is Structure.DISC else 1.2, 3)
        place = line.project(spot[None])
        number = anatomy.disc(name).id if kind is Structure.DISC else anatomy.vertebra(name).id
        s = float(place.s[0])
        found.names.append(name)
        found.items.append(
            Observation(
                kind,
                spot,
                s,
                s - 3,
                s + 3,
                float(place.anterior[0]),
                float(place.lateral[0]),
                volume * float(np.exp(rng.normal(0, 0.2))),
                touches_edge=False,
                class_shares=(shares_of(int(table[number]), layout),),
                part=len(found.items),
                length_mm=90.0 if kind is Structure.SACRUM else 20.0,
            )
        )
    if first != "C1":
        found.items[0] = replace(found.items[0], touches_edge=bool(rng.random() < 0.6))
    if last != "S":
        found.items[-1] = replace(found.items[-1], touches_edge=bool(rng.random() < 0.6))
    order_ = np.argsort([o.s for o in found.items])
    found.items, found.names = [found.items[k] for k in order_], [found.names[k] for k in order_]
    top, bottom = found.items[0].s, found.items[-1].s
    found.view = CanalExtent(top - 12.0, bottom + (60.0 if last == "S" else 14.0))
    return found


Change = Callable[[Seen, np.random.Generator], None]


def _lose(seen: Seen, rng: np.random.Generator, most: int, least: int = 1, what: str = "disc") -> None:
    kinds = {"disc": seen.discs(plain=True), "landmark": seen.landmarks(), "vertebra": seen.bodies()[1:-1]}
    rows = kinds[what]
    count = int(rng.integers(least, most + 1))
    require(len(rows) >= count + (0 if what == "landmark" else 2))
    start = int(rng.integers(len(rows) - count + 1))
    near = rows[start : start + count]
    chosen = near if rng.random() < 0.5 else [int(k) for k in rng.choice(rows, count, replace=False)]
    seen.drop(set(chosen))


def _plain(seen: Seen, row: int) -> ClassShares:
    near = min(seen.discs(plain=True), key=lambda n: abs(n - row))
    class_shares = seen.items[near].class_shares[0]
    turn = abs(seen.variant.discs().index(str(seen.names[near])) - seen.variant.discs().index(str(seen.names[row])))
    return replace(class_shares, odd=class_shares.even, even=class_shares.odd) if turn % 2 else class_shares


def _unrecognised(seen: Seen, rng: np.random.Generator) -> None:
    rows = seen.landmarks()
    require(rows and seen.discs(plain=True))
    row = int(rng.choice(rows))
    seen.vote(row, _plain(seen, row))


def _misplaced(seen: Seen, rng: np.random.Generator, *, keep: bool = False, near: bool = True) -> None:
    order = seen.variant.discs()
    marks = seen.landmarks()
    plain = seen.discs(plain=True)
    require(plain and (marks or not near))
    if not near:
        target = int(rng.choice(plain))
        level = LANDMARK_DISCS[int(rng.integers(4))]
    else:
        row = int(rng.choice(marks))
        level = str(seen.names[row])
        targets = [n for n in plain if abs(order.index(str(seen.names[n])) - order.index(level)) == 1]
        require(targets)
        target = int(rng.choice(targets))
        if not keep:
            seen.vote(row, _plain(seen, row))
    seen.vote(target, shares_of(seen.layout.labels["disc_" + level.replace("-", "_")][0], seen.layout))


def _specks(seen: Seen, rng: np.random.Generator) -> None:
    rows = seen.discs(plain=True)
    require(len(rows) >= 2)
    for row in rng.choice(rows, 2, replace=False):
        class_shares, share = seen.items[row].class_shares[0], float(rng.uniform(0.1, 0.5))
        level = LANDMARK_DISCS[int(rng.integers(4))]
        seen.vote(int(row), replace(class_shares, levels={level: share}, odd=class_shares.odd * (1 - share)))


def _partly(seen: Seen, rng: np.random.Generator) -> None:
    require(seen.landmarks())
    for row in seen.landmarks():
        class_shares = seen.items[row].class_shares[0]
        seen.vote(row, replace(class_shares, levels={k: float(rng.uniform(0.3, 0.7)) for k in class_shares.levels}))


def _parity(seen: Seen, rng: np.random.Generator) -> None:
    rows = [n for n in seen.bodies() if seen.items[n].class_shares[0].odd + seen.items[n].class_shares[0].even > 0.5]
    require(rows)
    row = int(rng.choice(rows))
    class_shares = seen.items[row].class_shares[0]
    seen.vote(row, replace(class_shares, odd=class_shares.even, even=class_shares.odd))


def _flip(seen: Seen, rng: np.random.Generator) -> None:
    start = int(rng.integers(2, max(3, len(seen.items) - 2)))
    for row in range(start, len(seen.items)):
        class_shares = seen.items[row].class_shares[0]
        seen.vote(row, replace(class_shares, odd=class_shares.even, even=class_shares.odd))


def _undecided(seen: Seen, rng: np.random.Generator) -> None:
    rows = seen.bodies()
    for row in rng.choice(rows, min(3, len(rows)), replace=False):
        seen.vote(int(row), replace(seen.items[row].class_shares[0], odd=0.0, even=0.0, levels={}))


def _false_disc(seen: Seen, rng: np.random.Generator, where: str) -> None:
    rows = seen.discs()
    if where == "above":
        rows = [n for n in rows if seen.names[n] == "C2-C3"]
    require(rows)
    row = int(rng.choice(rows))
    disc = seen.items[row]
    shift = -rng.uniform(11, 26) if where == "above" else rng.uniform(0.35, 0.65) * 20 * rng.choice([-1, 1])
    anterior, lateral = disc.anterior, disc.lateral
    if where == "beside":
        lateral += 40.0
    share = rng.uniform(0.1, 0.5) if where == "body" else rng.uniform(0.3, 1.2)
    seen.add(
        replace(
            disc,
            center=disc.center + np.array([lateral - disc.lateral, 0.0, -shift]),
            s=disc.s + shift,
            anterior=anterior,
            lateral=lateral,
            volume_mm3=disc.volume_mm3 * float(share),
            class_shares=tuple(replace(v, levels={}, odd=0.0, even=0.0) for v in disc.class_shares),
            level_prior={},
        )
    )


def _no_sacrum(seen: Seen, rng: np.random.Generator) -> None:
    rows = {n for n, o in enumerate(seen.items) if o.kind is Structure.SACRUM}
    seen.drop(rows)
    require(rows)


def _false_sacrum(seen: Seen, rng: np.random.Generator) -> None:
    rows = seen.bodies()
    require(len(rows) >= 3 and not any(o.kind is Structure.SACRUM for o in seen.items))
    row = rows[-1]
    seen.items[row] = replace(
        seen.items[row],
        kind=Structure.SACRUM,
        class_shares=(
            ClassShares({"S": 1.0}, {}, 0.0, 0.0, 1.0, seen.layout.level_names),
            *(replace(v, levels={}) for v in seen.items[row].class_shares[1:]),
        ),
        level_prior={},
        length_mm=float(rng.uniform(25, 45)),
    )
    seen.names[row] = None


def _support_map(seen: Seen, rng: np.random.Generator, kind: str) -> None:
    step = 0 if kind == "right" else int(rng.choice([-1, 1]))
    start, stop = 0, len(seen.items)
    if kind == "run":
        start = int(rng.integers(0, max(1, len(seen.items) - 8)))
        stop = int(rng.integers(start + 6, len(seen.items) + 1)) if len(seen.items) > start + 6 else stop
    for row, item in enumerate(seen.items):
        name = seen.names[row]
        levels: dict[str, float] = {}
        if name and rng.random() < 0.9:
            order = seen.variant.discs() if item.kind is Structure.DISC else seen.variant.vertebrae()[:-1]
            if name in order:
                at = order.index(name) + (step if start <= row < stop else 0)
                known = [v for v in order if v in PRIOR_CLASS_MAP.level_names]
                if 0 <= at < len(order) and order[at] in known:
                    levels = {order[at]: float(rng.uniform(0.7, 0.95))}
        class_shares = ClassShares(levels, {}, 0.0, 0.0, WEIGHTS.support_weight, PRIOR_CLASS_MAP.level_names)
        seen.items[row] = replace(item, class_shares=(*item.class_shares, class_shares))


def _level_prior(seen: Seen, rng: np.random.Generator, kind: str) -> None:
    """Give probabilities of levels, as ``labelling.level_prior`` does, instead of a map."""
    _support_map(seen, rng, kind)
    for row, item in enumerate(seen.items):
        levels = dict(item.class_shares[-1].levels)
        seen.items[row] = replace(item, class_shares=item.class_shares[:-1], level_prior=levels)


CHANGES: dict[str, Change] = {
    "clean": lambda _seen, _rng: None,
    "missing disc": partial(_lose, most=1),
    "several discs missing": partial(_lose, most=4, least=2),
    "landmark disc missing": partial(_lose, most=1, what="landmark"),
    "missing vertebra": partial(_lose, most=2, what="vertebra"),
    "landmark unrecognised": _unrecognised,
    "landmarks recognised in part": _partly,
    "landmark class on neighbour": _misplaced,
    "landmark class on both": partial(_misplaced, keep=True),
    "landmark class elsewhere": partial(_misplaced, near=False),
    "landmark specks": _specks,
    "wrong parity": _parity,
    "parity flips": _flip,
    "undecided vertebrae": _undecided,
    "false disc above C2-C3": partial(_false_disc, where="above"),
    "false disc in body": partial(_false_disc, where="body"),
    "false disc beside": partial(_false_disc, where="beside"),
    "no sacrum": _no_sacrum,
    "false sacrum": _false_sacrum,
    "scout right": partial(_support_map, kind="right"),  # language: ok
    "scout shifted by one": partial(_support_map, kind="run"),  # language: ok
    "scout shifted all over": partial(_support_map, kind="all"),  # language: ok
    "level prior right": partial(_level_prior, kind="right"),
    "level prior shifted by one": partial(_level_prior, kind="run"),
    "level prior shifted all over": partial(_level_prior, kind="all"),
}


def _blind(seen: Seen) -> None:
    for row in seen.landmarks() if seen.discs(plain=True) else ():
        seen.vote(row, _plain(seen, row))
    for row in seen.bodies():
        class_shares = seen.items[row].class_shares[0]
        seen.vote(row, replace(class_shares, levels={}))
    seen.drop({n for n, o in enumerate(seen.items) if o.kind is Structure.SACRUM})


def draw(kinds: tuple[str, ...], seed: int, split: int, *, blind: bool = False) -> Seen | None:
    """Draw a damaged view; None if its damages cannot be combined."""
    rng = np.random.default_rng([_DOMAIN, split, seed, zlib.crc32(" ".join(kinds).encode())])
    layout = ClassMap.named(LAYOUTS[seed % 2])
    for _ in range(8):
        variants = [k for k in kinds if k in VARIANTS]
        variant, views = VARIANTS[variants[0]] if variants else (SpineVariant(), tuple(VIEWS))
        view = str(rng.choice([*BLIND_VIEWS, *VIEWS] if blind else views))
        seen = observe(rng, variant, layout, view)
        if blind:
            _blind(seen)
        with suppress(ImpossibleError):
            for kind in kinds:
                CHANGES.get(kind, CHANGES["clean"])(seen, rng)
            seen.lone_right = anchored(seen)
            return seen
    return None


def anchored(seen: Seen) -> bool:
    """Return whether the map has more correct than wrong level classes."""
    right = wrong = 0
    for name, item in zip(seen.names, seen.items, strict=True):
        if item.kind is Structure.SACRUM:
            right, wrong = right + (name == "S"), wrong + (name != "S")
            continue
        for level, share in item.class_shares[0].levels.items():
            if share >= 0.5:
                right, wrong = right + (level == name), wrong + (level != name)
    return right > wrong


def evaluate(seen: Seen, solution: LevelSolution, naming: Naming) -> Score:
    """Score names as the suite of maps does."""
    result = Score(abstained=naming.status is not SpineStatus.LABELLED, anchored=seen.lone_right)
    for n, name in enumerate(seen.names):
        level = solution.levels[n] if naming.ids[n] is not None and not anatomy.is_unnamed(naming.ids[n] or 0) else None
        if name is None:
            continue
        if level == name:
            result.right += 1
        elif level is None:
            result.unnamed += 1
            result.errors.append(f"{name}>-")
        else:
            result.wrong += 1
            result.silent += naming.reasons[n] is None
            result.errors.append(f"{name}>{level}" + ("?" if naming.reasons[n] else ""))
        if level is not None:
            result.confidences.append((solution.confidence[n], level == name))
    result.sure = sum(c >= 0.9 for c, _ in result.confidences)
    result.sure_right = sum(c >= 0.9 and good for c, good in result.confidences)
    return result


def solve(seen: Seen) -> Score:
    """Label and score a case."""
    solution = solve_twice(seen.items, seen.view)
    return evaluate(seen, solution, name_components(seen.items, solution))
