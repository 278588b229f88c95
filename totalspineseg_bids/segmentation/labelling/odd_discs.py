"""Compute the second input channel of step 2, a mask of every second disc."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.segmentation.labelling.parameters import ADULT_STEP_MM, LEAST_STEP_MM
from totalspineseg_bids.segmentation.result import Component, LabelledSpine


def odd_discs(spine: LabelledSpine) -> NDArray[np.uint8]:
    """Mark every second disc of a labelled spine.

    In a named column discs are counted from C2-C3, which is odd; in a numbered one from the first disc in view. Discs
    that were not found and supernumerary discs are counted too, so that the parity does not flip within an image.

    Parameters
    ----------
    spine
        Labelled map with at least the discs.

    Returns
    -------
    NDArray[np.uint8]
        0 and 1, shape (X, Y, Z) of the labels.

    Examples
    --------
    >>> from totalspineseg_bids.segmentation.class_map import ClassMap
    >>> from totalspineseg_bids.segmentation.labelling import label_map
    >>> layout = ClassMap.named("r20240601-step1")
    >>> semantic = np.zeros((60, 70, 90), np.uint8)
    >>> semantic[20:40, 14:28] = layout.labels["canal"][0]
    >>> semantic[10:50, 30:62, 23:34] = semantic[10:50, 30:62, 61:72] = layout.labels["disc"][0]
    >>> odd = odd_discs(label_map(semantic, np.eye(4), layout))
    >>> bool(odd[30, 40, 66]), bool(odd[30, 40, 28])
    (True, False)
    """
    table = np.zeros(256, np.uint8)
    for component, turn in disc_turns(spine):
        table[component.label_id] = turn % 2 == 0
    marked: NDArray[np.uint8] = table[spine.labels]
    return marked


def disc_turns(spine: LabelledSpine) -> list[tuple[Component, int]]:
    """Return each disc with its number in the column: 0 for C2-C3, increasing caudally, missing discs counted."""
    discs = [c for c in spine.components if c.structure is Structure.DISC]
    order = {level: n for n, level in enumerate(_variant(spine).discs())}
    turns: list[int | None] = [order.get(c.level) if c.level is not None else None for c in discs]
    known = [n for n, turn in enumerate(turns) if turn is not None]
    if discs and not known:
        turns[0], known = 0, [0]
    # The most probable levels of unnamed neighbours may be shifted, but together, so their difference counts the gaps.
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
    """Count the levels from a disc to the next one by their most probable levels, otherwise by the gaps around it."""
    here, there = guesses[n], guesses[n + 1]
    if here is not None and there is not None and there > here:
        return there - here
    around = [g for k, g in enumerate(gaps[max(0, n - 3) : n + 4], start=max(0, n - 3)) if k != n]
    typical = float(np.median(around)) if around else ADULT_STEP_MM
    return max(1, round(gaps[n] / max(typical, LEAST_STEP_MM)))


def _variant(spine: LabelledSpine) -> SpineVariant:
    thoracic = 13 if "T13" in spine.flags else 11 if "11-thoracic" in spine.flags else 12
    lumbar = 6 if "L6" in spine.flags else 4 if "4-lumbar" in spine.flags else 5
    return SpineVariant(thoracic, lumbar)
