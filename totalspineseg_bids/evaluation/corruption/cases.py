"""Cases of the suite: subjects, views, class maps and damages, all drawn from seeds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.evaluation.corruption import subjects
from totalspineseg_bids.evaluation.corruption.damage import DAMAGES, LATE, blind
from totalspineseg_bids.segmentation.class_map import ClassMap

LAYOUTS = ("r20240601-step2", "r20241115-step2")
#: Variants, with the views in which landmarks on both sides identify them.
VARIANTS: dict[str, tuple[SpineVariant, tuple[str, ...]]] = {
    "11 thoracic": (SpineVariant(11, 5), ("whole",)),
    "13 thoracic": (SpineVariant(13, 5), ("whole",)),
    "4 lumbar": (SpineVariant(12, 4), ("whole", "thoracolumbar", "lumbar")),
    "6 lumbar": (SpineVariant(12, 6), ("whole", "thoracolumbar", "lumbar")),
}
SHAPES: dict[str, str] = {"strong kyphosis": "kyphosis", "strong scoliosis": "scoliosis", "child": "child"}
#: How often each view is drawn.
_VIEW_SHARE = {
    "whole": 0.22,
    "cervical": 0.17,
    "cervicothoracic": 0.12,
    "upper": 0.07,
    "thoracolumbar": 0.12,
    "junction": 0.07,
    "lumbar": 0.17,
    "low": 0.06,
}
_SUBJECTS = 4
#: Seeds of subjects of the fitting and of the reporting split do not meet.
SPLITS = {"fit": 1000, "report": 5000}


@dataclass(frozen=True)
class Plan:
    """Recipe of a case."""

    group: str
    """``single``, ``pair`` or ``blind``."""
    kind: str
    """Name in the table."""
    damages: tuple[str, ...]
    """Damages, in order of application."""
    seed: int
    """Of everything random but the subject."""
    split: str
    """``fit`` or ``report``."""


def plans(split: str, singles: int, pairs: int, blinds: int) -> list[Plan]:
    """List the cases of a split.

    Parameters
    ----------
    split : str
        ``fit`` or ``report``.
    singles : int
        Cases a kind of single damage.
    pairs : int
        Cases of two damages, in all.
    blinds : int
        Cases without a landmark, in all.
    """
    kinds = [*DAMAGES, *VARIANTS, *SHAPES]
    listed = [Plan("single", kind, (kind,), n, split) for kind in kinds for n in range(singles)]
    rng = np.random.default_rng(SPLITS[split])
    for n in range(pairs):
        first, second = (str(k) for k in rng.choice(kinds[1:], 2, replace=False))
        listed.append(Plan("pair", f"{first} + {second}", (first, second), n, split))
    listed += [Plan("blind", "no landmark", (), n, split) for n in range(blinds)]
    return listed


def make(plan: Plan) -> subjects.Case | None:
    """Make a case; None if its damages cannot be combined."""
    rng = np.random.default_rng([SPLITS[plan.split], zlib.crc32(plan.kind.encode()), plan.seed])
    layout = ClassMap.named(LAYOUTS[(plan.seed + zlib.crc32(plan.kind.encode())) % 2])
    for _ in range(12):
        with suppress(subjects.ImpossibleError):
            return _attempt(plan, layout, rng)
    return None


def _attempt(plan: Plan, layout: ClassMap, rng: np.random.Generator) -> subjects.Case:
    variants = [d for d in plan.damages if d in VARIANTS]
    shapes = [d for d in plan.damages if d in SHAPES]
    subjects.require(len(variants) <= 1 and len(shapes) <= 1)
    views, shares = list(_VIEW_SHARE), np.array(list(_VIEW_SHARE.values()))
    view = str(rng.choice(views, p=shares / shares.sum()))
    variant = SpineVariant()
    if variants:
        variant, allowed = VARIANTS[variants[0]]
        view = str(rng.choice(allowed))
    if plan.group == "blind":
        view = str(rng.choice([*subjects.BLIND_VIEWS, *subjects.VIEWS]))
    seed = SPLITS[plan.split] + int(rng.integers(2 if variants or shapes else _SUBJECTS))
    subject = subjects.make_subject(seed, variant, SHAPES[shapes[0]] if shapes else "ordinary")
    case = subjects.make_case(subject, view, layout, rng, swap=bool(rng.random() < 0.5))
    case.damages = plan.damages
    if plan.group == "blind":
        blind(case, rng)
        return case
    for name in sorted((d for d in plan.damages if d in DAMAGES), key=lambda d: LATE.index(d) if d in LATE else -1):
        DAMAGES[name](case, rng)
    return case


def make_all(listed: list[Plan]) -> Iterator[tuple[Plan, subjects.Case]]:
    """Make cases, leaving out those whose damages cannot be combined."""
    for plan in listed:
        case = make(plan)
        if case is not None:
            yield plan, case
