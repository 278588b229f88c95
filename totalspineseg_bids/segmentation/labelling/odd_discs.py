"""The second input channel of step 2: every second disc."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.segmentation.result import Component, LabelledSpine

_ADULT_STEP_MM = 25.0


def odd_discs(spine: LabelledSpine, *, parity: int = 0) -> NDArray[np.uint8]:
    """Mark every second disc of a labelled spine.

    Named columns count from C2-C3, which is odd; numbered ones from the first disc in view. A disc that was not found
    keeps its turn, so that the parity does not flip within an image, and so does a supernumerary one.

    Parameters
    ----------
    spine
        Labelled map, at least its discs.
    parity
        0 marks the odd discs, 1 the even ones.

    Returns
    -------
    NDArray[np.uint8]
        0 and 1, on the grid of the labels.
    """
    table = np.zeros(256, np.uint8)
    for component, turn in disc_turns(spine):
        table[component.label_id] = (turn + parity) % 2 == 0
    marked: NDArray[np.uint8] = table[spine.labels]
    return marked


def disc_turns(spine: LabelledSpine) -> list[tuple[Component, int]]:
    """Return each disc with its turn, an integer whose parity alternates along the column; C2-C3 has turn 0."""
    discs = [c for c in spine.components if c.structure is Structure.DISC]
    order = {level: n for n, level in enumerate(_variant(spine).discs())}
    turns: list[int | None] = [order.get(c.level) if c.level is not None else None for c in discs]
    known = [n for n, turn in enumerate(turns) if turn is not None]
    if discs and not known:
        turns[0], known = 0, [0]
    # A numbered disc's best guess may be off, but it is so for its neighbours too, and counts what is missing between.
    guesses = [order.get(c.level or c.runner_up or "") for c in discs]
    gaps = [float(np.linalg.norm(np.subtract(a.centroid_mm, b.centroid_mm))) for a, b in itertools.pairwise(discs)]
    steps = [_steps(guesses, gaps, n) for n in range(len(gaps))]
    for n in range(1, len(discs)):
        if turns[n] is None and turns[n - 1] is not None:
            turns[n] = (turns[n - 1] or 0) + steps[n - 1]
    for n in range(len(discs) - 2, -1, -1):
        if turns[n] is None:
            turns[n] = (turns[n + 1] or 0) - steps[n]
    return [(c, t or 0) for c, t in zip(discs, turns, strict=True)]


def _steps(guesses: Sequence[int | None], gaps: Sequence[float], n: int) -> int:
    """How many levels lie between a disc and the next one: by their best guesses, else by the gaps around it."""
    here, there = guesses[n], guesses[n + 1]
    if here is not None and there is not None and there > here:
        return there - here
    around = [g for k, g in enumerate(gaps[max(0, n - 3) : n + 4], start=max(0, n - 3)) if k != n]
    typical = float(np.median(around)) if around else _ADULT_STEP_MM
    return max(1, round(gaps[n] / max(typical, 8.0)))


def _variant(spine: LabelledSpine) -> SpineVariant:
    thoracic = 13 if "T13" in spine.flags else 11 if "11-thoracic" in spine.flags else 12
    lumbar = 6 if "L6" in spine.flags else 4 if "4-lumbar" in spine.flags else 5
    return SpineVariant(thoracic, lumbar)
