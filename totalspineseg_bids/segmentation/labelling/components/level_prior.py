"""Probabilities of each level by a coarse network over the whole field of view, as evidence for components.

Probabilities are used instead of classes, because they keep the uncertainty between neighbouring levels. They are
averaged over the voxels of each component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.grid import foreground_box, reachable_box
from totalspineseg_bids.imaging.masks import indices_of
from totalspineseg_bids.imaging.volume import Affine
from totalspineseg_bids.segmentation.class_map import ClassMap, LabelMeaning
from totalspineseg_bids.segmentation.labelling.components import parameters
from totalspineseg_bids.segmentation.labelling.records import ComponentVoxels, Observation


@dataclass(frozen=True, slots=True)
class LevelPrior:
    """Level probabilities of a coarse network on its own grid.

    Examples
    --------
    >>> layout = ClassMap.named("r20240601-full")
    >>> chance = np.full((2, 4, 4, 4), 0.5, np.float32)
    >>> prior = LevelPrior.from_classes(chance, ["background", "disc_L3_L4"], layout, np.eye(4))
    >>> [meaning and meaning.level for meaning in prior.meanings]
    [None, 'L3-L4']
    """

    probabilities: NDArray[np.float32]
    """float, shape (C, X, Y, Z), one channel per class."""
    meanings: tuple[LabelMeaning | None, ...]
    """Meaning of each channel, ``None`` for background and other structures, length C."""
    affine: Affine
    """Voxel index of that grid to scanner space, RAS+, mm, shape (4, 4)."""

    @classmethod
    def from_classes(
        cls, probabilities: NDArray[np.float32], names: Sequence[str], layout: ClassMap, affine: Affine
    ) -> LevelPrior:
        """Create a prior from class names.

        Parameters
        ----------
        probabilities
            float32, shape (C, X, Y, Z).
        names
            Class name of each channel, length C.
        layout
            Meaning of the class names.
        affine
            Voxel index to scanner space, mm, shape (4, 4).
        """
        values = {name: layout.labels[name] for name in names if name in layout.labels}
        meanings = tuple(layout.meanings.get(values[name][0]) if name in values else None for name in names)
        return cls(probabilities, meanings, affine)


def sacrum_mask(semantic: NDArray[np.bool_], affine: Affine, level_prior: LevelPrior) -> NDArray[np.bool_]:
    """Return which voxels of a bone mask are sacrum rather than any vertebra by the prior.

    Parameters
    ----------
    semantic
        Vertebrae and sacrum, shape (X, Y, Z).
    affine
        Voxel of that grid to scanner space.
    level_prior
        Probabilities of every level.

    Returns
    -------
    ndarray
        Boolean, shape of ``semantic``.
    """
    sacral = [row for row, m in enumerate(level_prior.meanings) if m is not None and m.kind is Structure.SACRUM]
    others = [row for row, m in enumerate(level_prior.meanings) if m is not None and m.kind is Structure.VERTEBRA]
    result = np.zeros(semantic.shape, bool)
    if not sacral:
        return result
    probability = level_prior.probabilities[sacral].sum(axis=0)
    seen = (probability > parameters.PRIOR_SACRUM) & (probability > level_prior.probabilities[others].sum(axis=0))
    extent = foreground_box(seen)
    to_prior = np.linalg.inv(level_prior.affine) @ affine
    box = extent and reachable_box(to_prior, [(part.start, part.stop) for part in extent], result.shape)
    if not box:
        return result
    index = indices_of(semantic[box]) + np.array([part.start for part in box])
    place, inside = _places(index, to_prior, level_prior)
    result[tuple(index[inside].T)] = seen[tuple(place[inside].T)]
    return result


def with_level_prior(
    observations: Sequence[Observation], parts: Sequence[ComponentVoxels], affine: Affine, level_prior: LevelPrior
) -> list[Observation]:
    """Add the prior's level probabilities to each component; to the sacrum those of sacrum and vertebrae.

    Parameters
    ----------
    observations
        Components of the image.
    parts
        Their voxels: discs, bodies and sacrum.
    affine
        Voxel of the components' grid to scanner space.
    level_prior
        Probabilities of every level.

    Returns
    -------
    list[Observation]
        The same components with ``level_prior`` set: level -> probability; they sum to at most 1, and to less if
        part of the component is something else by the prior.
    """
    to_prior = np.linalg.inv(level_prior.affine) @ affine
    kinds = (Structure.DISC, Structure.VERTEBRA, Structure.SACRUM)
    rows = {kind: _rows(level_prior.meanings, kind) for kind in kinds}
    # Distinguish a sacrum from further vertebrae.
    rows[Structure.SACRUM] |= rows[Structure.VERTEBRA]
    voxels = dict(zip(kinds, parts, strict=True))
    result = []
    for observation in observations:
        found = voxels[observation.kind]
        index = found.index[found.part == observation.part]
        shares = _shares(index, to_prior, level_prior, rows[observation.kind])
        result.append(replace(observation, level_prior=shares) if shares else observation)
    return result


def _rows(meanings: Sequence[LabelMeaning | None], kind: Structure) -> dict[str, int]:
    return {m.level: row for row, m in enumerate(meanings) if m is not None and m.kind is kind and m.level}


def _places(
    index: NDArray[np.int64], to_prior: Affine, level_prior: LevelPrior
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the nearest voxel of the prior for each voxel, shape (N, 3), and whether it is inside its grid, (N,)."""
    place = np.rint(index @ to_prior[:3, :3].T + to_prior[:3, 3]).astype(np.int64)
    inside = (place >= 0) & (place < np.array(level_prior.probabilities.shape[1:]))
    return place, np.asarray(inside.all(axis=1))


def _shares(
    index: NDArray[np.int64], to_prior: Affine, level_prior: LevelPrior, rows: dict[str, int]
) -> dict[str, float]:
    """Return the mean probability of each level over the voxels of a component."""
    place, inside = _places(index, to_prior, level_prior)
    if not rows or np.count_nonzero(inside) < min(parameters.PRIOR_FEWEST_VOXELS, len(index)):
        return {}
    x, y, z = place[inside].T
    mean = level_prior.probabilities[np.array(list(rows.values()))[:, None], x, y, z].mean(axis=1)
    total = float(mean.sum())
    if total < 1e-3:
        return {}
    credit = min(1.0, total / parameters.PRIOR_FULL_CREDIT)
    return {level: float(credit * share / total) for level, share in zip(rows, mean, strict=True) if share > 1e-4}
