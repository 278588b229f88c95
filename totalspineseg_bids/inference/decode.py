"""Decode logits into a label map, one class at a time, by the rules of nnU-Net's label manager."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

_MAX_LABEL = 255
#: Logit (probability of about 5 %) that a part must exceed to get a voxel where no part exceeds one half.
_LEAST_LOGIT = -3.0
#: Maps the name of each returned probability to the outputs that it covers.
Kept = Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class Heads:
    """The outputs of a network."""

    names: tuple[str, ...]
    """Role of each output."""
    values: tuple[int, ...]
    """Integer each output writes into the label map."""
    regions: bool
    """True where outputs are independent and may overlap (sigmoid), false where they exclude each other (softmax)."""
    families: tuple[int, ...]
    """For each region the output of the outermost region that holds it; its own where none does."""

    @classmethod
    def from_dataset(cls, labels: Mapping[str, tuple[int, ...]], order: Sequence[int] | None) -> Heads:
        """Derive the outputs from the ``labels`` and ``regions_class_order`` of ``dataset.json``.

        A model is region-based as soon as one label covers several integers, as in nnU-Net. The ``ignore`` label
        has no output.

        Raises
        ------
        ValueError
            If order and labels do not fit each other, or an integer does not fit into 8 bits.
        """
        kept = {name: values for name, values in labels.items() if name != "ignore"}
        regions = any(len(values) > 1 for values in kept.values())
        if regions:
            names = tuple(name for name, values in kept.items() if set(values) != {0})
            values = tuple(int(value) for value in order or ())
            if len(values) != len(names):
                msg = f"regions_class_order has {len(values)} entries for {len(names)} regions"
                raise ValueError(msg)
        else:
            names = tuple(sorted(kept, key=lambda name: kept[name]))
            values = tuple(kept[name][0] for name in names)
            if values != tuple(range(len(names))):
                msg = f"labels must be numbered 0 to {len(names) - 1} without gaps"
                raise ValueError(msg)
        if max(values) > _MAX_LABEL:
            msg = f"label {max(values)} does not fit into 8 bits"
            raise ValueError(msg)
        return cls(names, values, regions, _families([frozenset(kept[name]) for name in names]))


def _families(regions: Sequence[frozenset[int]]) -> tuple[int, ...]:
    families = []
    for own, region in enumerate(regions):
        holders = [index for index, other in enumerate(regions) if region < other]
        families.append(max(holders, key=lambda index: len(regions[index]), default=own))
    return tuple(families)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Labels, probabilities and margin decoded from logits."""

    labels: torch.Tensor
    """uint8, shape (A, B, C): the last region in order whose probability exceeds one half, or the largest class."""
    probabilities: dict[str, torch.Tensor]
    """float32 in [0, 1], shape (A, B, C), for each name of ``keep``."""
    margin: torch.Tensor | None = None
    """float16, shape (A, B, C): smallest absolute logit of the regions of ``borders``; 0 is the decision boundary. None
    where none of them is an output."""


def decode(
    head: Callable[[int], torch.Tensor],
    heads: Heads,
    keep: Kept | Collection[str] = (),
    low_priority_roles: Collection[str] = (),
    *,
    exclusive_parts: bool = False,
    borders: Collection[str] = (),
) -> Decoded:
    """Turn logits into labels, probabilities and a margin.

    Parameters
    ----------
    head
        Returns the logits of one output, shape (A, B, C). It is called once per output, and its result may be
        modified in place, so that at most two outputs are in memory at full size.
    heads
        What the outputs mean.
    keep
        Roles whose probability is returned, or names with the roles of each. Several regions are combined by their
        maximum, several classes by their sum.
    low_priority_roles
        Outermost regions that, with their parts, any other region overwrites; in nnU-Net the order alone decides.
    exclusive_parts
        Give each voxel of such a region its most probable part, even below one half, as a vertebra is either odd or
        even. By nnU-Net's rule the voxel gets no part there.
    borders
        Regions from whose logits the margin is computed; a softmax model has none.

    Returns
    -------
    Decoded
        Labels, probabilities and margin.

    Notes
    -----
    A sigmoid exceeds one half where the logit exceeds zero, and the largest softmax is the largest logit; no
    probability is computed unless it is requested.
    """
    kept = by_name(keep)
    if not heads.regions:
        return _decode_classes(head, heads, kept)
    return _decode_regions(head, heads, kept, low_priority_roles, exclusive_parts=exclusive_parts, borders=borders)


def by_name(keep: Kept | Collection[str]) -> Kept:
    """Return ``keep`` as a mapping; a role without a mapping covers the output of the same name."""
    return keep if isinstance(keep, Mapping) else {role: (role,) for role in keep}


def _decode_regions(
    head: Callable[[int], torch.Tensor],
    heads: Heads,
    keep: Kept,
    low_priority_roles: Collection[str],
    *,
    exclusive_parts: bool,
    borders: Collection[str],
) -> Decoded:
    labels: torch.Tensor | None = None
    margin: torch.Tensor | None = None
    probabilities: dict[str, torch.Tensor] = {}
    parts: dict[int, _Parts] = {}
    for index in sorted(
        range(len(heads.names)), key=lambda index: heads.names[heads.families[index]] not in low_priority_roles
    ):
        family = heads.families[index]
        logits = head(index)
        if labels is None:
            labels = torch.zeros(logits.shape, dtype=torch.uint8, device=logits.device)
        if exclusive_parts and heads.names[family] in low_priority_roles and index != family:
            if family not in parts:
                parts[family] = _Parts(labels == heads.values[family], logits)
            chosen = parts[family].chosen(logits)
        else:
            chosen = logits > 0
        _write(labels, chosen, heads.values[index])
        for name in _names_of(heads.names[index], keep):
            probability = torch.sigmoid(logits.float())
            if name in probabilities:
                torch.maximum(probability, probabilities[name], out=probability)
            probabilities[name] = probability
        if heads.names[index] in borders:
            distance = logits.float().abs_()
            margin = distance if margin is None else torch.minimum(margin, distance, out=margin)
    assert labels is not None  # noqa: S101 - a model has at least one output
    return Decoded(labels, probabilities, None if margin is None else margin.half())


def _write(labels: torch.Tensor, chosen: torch.Tensor, value: int) -> None:
    """Set the chosen labels; operations on bits take a tenth of the time of torch's operations with a mask."""
    mask = chosen.view(torch.uint8).neg()  # 255 or 0
    labels.bitwise_and_(~mask).bitwise_or_(mask.bitwise_and_(value))


def _names_of(output: str, keep: Kept) -> list[str]:
    return [name for name, outputs in keep.items() if output in outputs]


class _Parts:
    """Assigns each voxel of a region to one of its parts; the parts are visited in turn.

    Parameters
    ----------
    whole
        Voxels of the region.
    like
        Any logits of the same shape.
    """

    def __init__(self, whole: torch.Tensor, like: torch.Tensor) -> None:
        self._whole = whole
        self._best = torch.full_like(like, _LEAST_LOGIT)

    def chosen(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the voxels where a part is more probable than all earlier ones."""
        self._whole |= logits > 0
        chosen = self._whole & (logits > self._best)
        torch.maximum(self._best, logits, out=self._best)
        return chosen


def _decode_classes(head: Callable[[int], torch.Tensor], heads: Heads, keep: Kept) -> Decoded:
    best = head(0).float()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    kept = {name: best.clone() for name in _names_of(heads.names[0], keep)}
    log_sum = best.clone() if keep else None
    for index in range(1, len(heads.names)):
        logits = head(index).float()
        if log_sum is not None:
            torch.logaddexp(log_sum, logits, out=log_sum)
        for name in _names_of(heads.names[index], keep):
            kept[name] = torch.logaddexp(kept[name], logits) if name in kept else logits.clone()
        _write(labels, logits > best, heads.values[index])
        torch.maximum(best, logits, out=best)
    if log_sum is not None:
        for logits in kept.values():
            logits.sub_(log_sum).exp_()
    return Decoded(labels, kept)
