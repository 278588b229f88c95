"""Centreline of the spinal canal: a smooth curve along which levels are ordered.

`Centerline.from_canal` fits voxels of the canal ordered by their distance *within* the canal, not by height: a graph of
coarse cells gives each cell its distance from one end, so that kyphosis, scoliosis and tilted fields of view are
ordered correctly. `Centerline.from_polyline` smooths points that are ordered already. Both extend the curve by straight
lines beyond its ends.

Lengths are mm. Axes point right, anterior and cranial: those of scanner space, or *local* ones (voxel index times
voxel size on a grid in canonical orientation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID
from totalspineseg_bids.imaging.volume import Affine

Points = NDArray[np.float64]
Vector = NDArray[np.float64]

#: Edge of the cells of the graph through the canal, and of the cells that share one nearest-point search, mm.
_CELL_MM = 4.0
_LOOKUP_MM = 6.0
_MANY_POINTS = 3000
#: Approximate number of canal points that the centreline is fitted to.
_FIT_POINTS = 8000
#: Length of the bins along the canal, and smoothing across them (standard deviation), mm.
_BIN_MM = 5.0
_SMOOTH_MM = 8.0
#: Length of the straight ends, and of the section that gives their direction, mm.
_EXTENSION_MM = 250
_END_MM = 20
#: A shorter canal is about as wide as it is long, so that its shape does not give its direction, mm.
_SHORT_MM = 45.0
_SMALLEST_PART_MM3 = 250.0
#: Largest gap between parts of the canal that count as one column, mm.
_LARGEST_GAP_MM = 160.0
#: A part this far from the canal, more than 60 degrees off its direction, lies beside it and is no part of it.
_ASIDE_MM, _ASIDE_COSINE = 10.0, 0.5
#: Radius around the nearest point of the canal in which its direction is measured, mm.
_DIRECTION_MM = 40.0
#: The same for polylines: smoothing (less than a vertebra, more than the steps of the voxels) and straight ends, mm.
_POLYLINE_SMOOTH_MM = 4.0
_POLYLINE_EXTENSION_MM = 40
_POLYLINE_END_MM = 10
_SHORTEST_POLYLINE_MM = 2.0
#: Usual distance from the centre of a disc to the canal behind it, and largest distance from one disc to the next, mm.
_CANAL_BEHIND_DISC_MM = 18.0
_NEXT_DISC_MM = 90.0
#: Number of samples on each side over which a direction is averaged.
_HALF_WINDOW = 6
#: Height of the slabs whose mean positions make a polyline from a label map, mm.
_SLAB_MM = 2.0


def unit(vector: Vector) -> Vector:
    """Return a vector scaled to length 1; a null vector stays null.

    Examples
    --------
    >>> unit(np.array([0.0, 3.0, 4.0])).tolist()
    [0.0, 0.6, 0.8]
    """
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def orthogonal(vector: Vector, axis: Vector) -> Vector:
    """Return the unit vector along the part of ``vector`` perpendicular to the unit vector ``axis``.

    Examples
    --------
    >>> orthogonal(np.array([2.0, 0.0, 5.0]), np.array([0.0, 0.0, 1.0])).tolist()
    [1.0, 0.0, 0.0]
    """
    return unit(vector - float(vector @ axis) * axis)


class Projection(NamedTuple):
    """Positions of N points relative to a centreline.

    Examples
    --------
    >>> place = Projection(np.array([3.0, 40.0]), np.array([12.0, 9.0]), np.array([0.0, 1.0]))
    >>> place.rows(place.s > 10).anterior.tolist()
    [9.0]
    """

    s: NDArray[np.float64]
    """Arc length of the nearest point of the curve, mm; 0 at the cranial end, negative or beyond the length outside."""
    anterior: NDArray[np.float64]
    """Offset from the curve towards the front, mm."""
    lateral: NDArray[np.float64]
    """Offset from the curve towards the side (x), mm."""

    def rows(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Projection:
        """Return some of the points, by mask or index."""
        return Projection(self.s[which], self.anterior[which], self.lateral[which])


@dataclass(frozen=True)
class Centerline:
    """Smooth curve from cranial to caudal, extended by straight lines at both ends.

    Examples
    --------
    >>> line = Centerline.from_polyline(np.array([[0.0, 0.0, 100.0], [0.0, 0.0, 0.0]]))
    >>> round(line.length), line.project(np.array([[0.0, 10.0, 70.0]])).s.round().tolist()
    (100, [30.0])
    """

    points: Points
    """Samples about 1 mm apart, with the straight ends, shape (N, 3), mm."""
    s: NDArray[np.float64]
    """Arc length of the samples, shape (N,), mm; 0 and ``length`` are the ends of the seen part."""
    length: float
    """Length of the seen part, mm."""

    @classmethod
    def from_canal(cls, points: Points, cell_volume_mm3: float) -> Centerline | None:
        """Fit the centreline to voxels of the spinal canal.

        Parameters
        ----------
        points : (N, 3) float, mm
            Voxels of canal and cord, or a regular subsample.
        cell_volume_mm3 : float
            Volume that each point represents.

        Returns
        -------
        Centerline or None
            ``None`` if the canal is smaller than about 250 mm³.
        """
        if len(points) * cell_volume_mm3 < _SMALLEST_PART_MM3:
            return None
        cells, counts = _coarse_cells(points)
        order = _order_along(cells, counts * cell_volume_mm3)
        if order is None:
            return None
        kept, along = order
        if np.ptp(along[kept]) < _SHORT_MM:
            return _short_line(points[_members(points, cells, kept)])
        members = _members(points, cells, kept)
        inside = points[members]
        inside = inside[:: max(1, len(inside) // _FIT_POINTS)]
        _, cell_of = cKDTree(cells[kept]).query(inside)
        position = along[kept][cell_of]
        path = _binned_path(inside, position)
        for _ in range(3):
            # Bin along the fitted curve instead of along the initial path.
            if len(path) < 3:
                return _short_line(inside)
            dense = _resample(_smooth(path), 1.0)
            tree = cKDTree(dense)
            _, nearest = tree.query(inside)
            arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
            tangent = np.gradient(dense, axis=0)
            tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
            beyond = np.einsum("ij,ij->i", inside - dense[nearest], tangent[nearest])
            path = _binned_path(inside, arc[nearest] + beyond)
        return _finish(_resample(_smooth(path), 1.0))

    @classmethod
    def from_discs(cls, centers: Points) -> Centerline | None:
        """Fit the curve to disc centres where no canal is visible.

        Parameters
        ----------
        centers : (N, 3) float, mm
            Disc centres in any order.

        Returns
        -------
        Centerline or None
            ``None`` without discs.
        """
        if len(centers) == 0:
            return None
        ordered = centers[np.argsort(-centers[:, 2])] if len(centers) < 4 else centers[_chain_order(centers)]
        if ordered[0, 2] < ordered[-1, 2]:
            ordered = ordered[::-1]
        shifted = ordered - np.array([0.0, _CANAL_BEHIND_DISC_MM, 0.0])
        if len(shifted) == 1:
            shifted = shifted + np.array([[0.0, 0.0, 5.0], [0.0, 0.0, -5.0]])
        return _finish(_resample(_smooth(_resample(shifted, _BIN_MM)), 1.0))

    @classmethod
    def from_polyline(cls, points_mm: Points) -> Centerline | None:
        """Smooth and resample points of shape (N, 3), mm, in craniocaudal order.

        Returns
        -------
        Centerline or None
            ``None`` if the points span less than 2 mm.
        """
        points = np.asarray(points_mm, np.float64).reshape(-1, 3)
        points = points[np.isfinite(points).all(axis=1)]
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        arc = np.concatenate([[0.0], np.cumsum(steps[steps > 1e-6])])
        if len(points) == 0 or arc[-1] < _SHORTEST_POLYLINE_MM:
            return None
        points = points[np.concatenate([[True], steps > 1e-6])]
        at = np.arange(0.0, arc[-1] + 1e-9, 1.0)
        curve = np.stack([np.interp(at, arc, points[:, axis]) for axis in range(3)], axis=1)
        pad = min(len(curve) - 1, int(3 * _POLYLINE_SMOOTH_MM))
        smooth = _smooth_mirrored(curve, min(_POLYLINE_SMOOTH_MM, pad / 3), pad)
        return _with_straight_ends(smooth, _POLYLINE_EXTENSION_MM, _POLYLINE_END_MM)

    @classmethod
    def from_labels(cls, labels: NDArray[np.uint8], affine: Affine) -> Centerline | None:
        """Follow canal and cord of a label map in slabs of 2 mm along z of scanner space.

        Parameters
        ----------
        labels : (X, Y, Z) uint8
            Canonical ids.
        affine : (4, 4) float
            Voxel index to scanner space (RAS+, mm).
        """
        voxels = np.argwhere((labels == CANAL_ID) | (labels == CORD_ID))
        if len(voxels) == 0:
            return None
        points = apply_affine(affine, voxels)
        slab = np.floor((points[:, 2] - points[:, 2].min()) / _SLAB_MM).astype(np.intp)
        count = np.bincount(slab)
        centres = np.stack([np.bincount(slab, points[:, axis]) for axis in range(3)], axis=1)[count > 0]
        return cls.from_polyline((centres / count[count > 0, None])[::-1])

    def extend_along_discs(self, centers: Points) -> Centerline:
        """Bend the straight ends along the discs that lie beyond the seen canal.

        Parameters
        ----------
        centers : (N, 3) float, mm
            Centres of all discs.

        Returns
        -------
        Centerline
            The same curve if no disc lies more than 20 mm beyond an end.
        """
        if len(centers) == 0:
            return self
        seen = self.project(centers)
        inside = (seen.s > 0) & (seen.s < self.length) & (seen.anterior > 0) & (np.abs(seen.lateral) < 25)
        behind = float(np.median(seen.anterior[inside])) if inside.any() else 18.0
        points = self.seen
        changed = False
        for end, sign in ((0, -1.0), (-1, 1.0)):
            for _ in range(30):
                current = _finish(points)
                place = current.project(centers)
                past = -place.s if sign < 0 else place.s - current.length
                near = (
                    (past > 20.0)
                    & (past < _NEXT_DISC_MM)
                    & (np.abs(place.lateral) < 40)
                    & (np.abs(place.anterior) < 60)
                )
                if not near.any():
                    break
                chosen = int(np.flatnonzero(near)[np.argmin(past[near])])
                front = current.project(centers[chosen : chosen + 1])
                step = centers[chosen] - current.at(float(place.s[chosen]))
                unit = step / max(float(np.linalg.norm(step)), 1e-6)
                target = centers[chosen] - unit * behind * np.sign(front.anterior[0] or 1.0)
                joined = np.vstack([target, points]) if end == 0 else np.vstack([points, target])
                points = _resample(_smooth(_resample(joined, _BIN_MM)), 1.0)
                changed = True
        return _finish(points) if changed else self

    @cached_property
    def tangent(self) -> Points:
        """Unit vectors along the curve, pointing caudally, shape (N, 3)."""
        tangent = np.gradient(self.points, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
        return np.asarray(tangent)

    @cached_property
    def up(self) -> Points:
        """Unit vectors along the curve, pointing cranially, shape (N, 3)."""
        return -self.tangent

    @cached_property
    def front(self) -> Points:
        """Unit vectors perpendicular to the curve, pointing anteriorly, shape (N, 3)."""
        tangent = self.tangent
        front = np.array([0.0, 1.0, 0.0]) - tangent * tangent[:, 1:2]
        # Where the canal runs posteriorly (tip of the sacrum), anterior is the cranial side.
        weak = np.linalg.norm(front, axis=1) < 0.2
        front[weak] = np.array([0.0, 0.0, 1.0]) - tangent[weak] * tangent[weak, 2:3]
        front /= np.linalg.norm(front, axis=1, keepdims=True)
        return np.asarray(front)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)

    @property
    def seen(self) -> Points:
        """The points of the seen part, cranial to caudal, shape (M, 3)."""
        return self.points[(self.s >= -1e-6) & (self.s <= self.length + 1e-6)]

    def at(self, s: float) -> NDArray[np.float64]:
        """Return the point of the curve at an arc length, shape (3,)."""
        return np.array([np.interp(s, self.s, self.points[:, k]) for k in range(3)])

    def project(self, points: Points) -> Projection:
        """Project points of shape (N, 3) on the curve."""
        if len(points) == 0:
            empty = np.zeros(0)
            return Projection(empty, empty, empty)
        nearest = self._nearest(points)
        tangent, front = self.tangent[nearest], self.front[nearest]
        offset = points - self.points[nearest]
        along = np.einsum("ij,ij->i", offset, tangent)
        side = np.cross(front, tangent)
        return Projection(
            self.s[nearest] + np.clip(along, -2.0, 2.0),
            np.einsum("ij,ij->i", offset, front),
            np.einsum("ij,ij->i", offset, side),
        )

    def _nearest(self, points: Points) -> NDArray[np.intp]:
        """Return the index of the sample nearest to each point.

        For many points, one search per coarse cell gives a start, which moves along the tangent to the nearest sample.
        """
        if len(points) < _MANY_POINTS:
            return np.asarray(self._tree.query(points)[1], np.intp)
        cell = np.floor(points / _LOOKUP_MM).astype(np.int64)
        cell -= cell.min(axis=0)
        shape = cell.max(axis=0) + 1
        flat = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
        start = np.full(int(np.prod(shape)), -1, np.intp)
        start[flat] = np.arange(len(points))
        used = np.flatnonzero(start >= 0)
        start[used] = np.asarray(self._tree.query(points[start[used]])[1], np.intp)
        nearest: NDArray[np.intp] = start[flat]
        moving = np.arange(len(points))
        for _ in range(3):
            here = nearest[moving]
            along = np.einsum("ij,ij->i", points[moving] - self.points[here], self.tangent[here])
            moved = np.clip(here + np.rint(along).astype(np.intp), 0, len(self.points) - 1)
            nearest[moving] = moved
            moving = moving[moved != here]
        return nearest

    def nearest(self, point: Vector) -> int:
        """Return the index of the sample nearest to a point (mm)."""
        return int(np.argmin(((self.points - point) ** 2).sum(axis=1)))

    def direction(self, index: int) -> Vector:
        """Return the mean cranial direction around a sample."""
        low, high = max(0, index - _HALF_WINDOW), min(len(self.up), index + _HALF_WINDOW + 1)
        return unit(self.up[low:high].mean(axis=0))


def _coarse_cells(points: Points) -> tuple[Points, NDArray[np.float64]]:
    """Average the points within cubes; return the means and the number of points of each cube."""
    index = np.floor(points / _CELL_MM).astype(np.int64)
    index -= index.min(axis=0)
    shape = index.max(axis=0) + 1
    flat = (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
    _, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(inverse, points[:, k]) for k in range(3)], axis=1) / counts[:, None]
    return means, counts.astype(np.float64)


def _members(points: Points, cells: Points, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if kept.all():
        return np.ones(len(points), bool)
    _, nearest = cKDTree(cells).query(points)
    members: NDArray[np.bool_] = kept[nearest]
    return members


def _order_along(cells: Points, volumes: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """Return which cells belong to the canal and their distance along it; parts are joined at their nearest cells."""
    pairs = cKDTree(cells).query_pairs(1.8 * _CELL_MM, output_type="ndarray")
    count = len(cells)
    weight = np.linalg.norm(cells[pairs[:, 0]] - cells[pairs[:, 1]], axis=1)
    graph = sparse.coo_matrix((np.maximum(weight, 1e-3), (pairs[:, 0], pairs[:, 1])), shape=(count, count)).tocsr()
    number, part = csgraph.connected_components(graph, directed=False)
    size = np.bincount(part, volumes)
    main = int(np.argmax(size))
    if size[main] < _SMALLEST_PART_MM3 / 2:
        return None
    joined = {main}
    rows, columns, lengths = [], [], []
    candidates = [p for p in range(number) if p != main and size[p] >= min(_SMALLEST_PART_MM3, 0.2 * size[main])]
    while candidates:
        base = np.flatnonzero(np.isin(part, list(joined)))
        tree = cKDTree(cells[base])
        best: tuple[float, int, int, int] | None = None
        for candidate in candidates:
            members = np.flatnonzero(part == candidate)
            found = tree.query(cells[members])
            apart, nearest = np.asarray(found[0]), np.asarray(found[1])
            k = int(np.argmin(apart))
            if best is None or apart[k] < best[0]:
                best = float(apart[k]), candidate, int(members[k]), int(base[nearest[k]])
        if best is None or best[0] > _LARGEST_GAP_MM:
            break
        candidates.remove(best[1])
        if _lies_aside(cells[best[2]], cells[best[3]], cells[base]):
            continue
        lengths.append(best[0])
        rows.append(best[2])
        columns.append(best[3])
        joined.add(best[1])
    if rows:
        links = np.asarray(lengths), (np.asarray(rows), np.asarray(columns))
        extra = sparse.coo_matrix(links, shape=(count, count)).tocsr()
        graph = graph + extra
    kept = np.isin(part, list(joined))
    start = int(np.flatnonzero(kept)[np.argmax(cells[kept, 2])])
    distance = np.zeros(count)
    for _ in range(2):
        distance = _distances(graph, start)
        distance[~kept | ~np.isfinite(distance)] = -1
        start = int(np.argmax(distance))
    if cells[start, 2] > cells[int(np.argmin(np.where(distance < 0, np.inf, distance))), 2]:
        distance[kept] = distance[kept].max() - distance[kept]
    return kept, distance


def _lies_aside(point: Vector, nearest: Vector, canal: Points) -> bool:
    """Return whether a point lies beside the canal, not beyond its end or in a gap of it."""
    away = point - nearest
    near = canal[np.linalg.norm(canal - nearest, axis=1) < _DIRECTION_MM]
    direction = np.linalg.svd(near - near.mean(axis=0), full_matrices=False)[2][0]
    if np.linalg.norm(away) < _ASIDE_MM or np.ptp(near @ direction) < _SHORT_MM:
        return False
    return bool(abs(away @ direction) < _ASIDE_COSINE * np.linalg.norm(away))


def _distances(graph: sparse.csr_matrix, start: int) -> NDArray[np.float64]:
    return np.asarray(csgraph.dijkstra(graph, directed=False, indices=start), np.float64)  # type: ignore[call-overload]


def _binned_path(points: Points, position: NDArray[np.float64]) -> Points:
    """Average the points in each bin of the position; nearly empty bins are omitted."""
    index = np.floor((position - position.min()) / _BIN_MM).astype(np.int64)
    counts = np.bincount(index)
    usable = counts >= max(2.0, 0.12 * float(np.median(counts[counts > 0])))
    means = np.stack([np.bincount(index, points[:, k]) for k in range(3)], axis=1)[usable] / counts[usable][:, None]
    return np.asarray(means, np.float64)


def _smooth(path: Points) -> Points:
    """Resample a polyline to even steps and smooth it."""
    even = _resample(path, _BIN_MM)
    return even if len(even) < 4 else _smooth_mirrored(even, _SMOOTH_MM / _BIN_MM, min(len(even) - 1, 6))


def _smooth_mirrored(curve: Points, sigma: float, pad: int) -> Points:
    """Smooth a curve of even steps; reflection through its end points keeps the ends in place."""
    head = 2 * curve[0] - curve[pad:0:-1]
    tail = 2 * curve[-1] - curve[-2 : -pad - 2 : -1]
    padded = np.concatenate([head, curve, tail])
    smoothed = ndimage.gaussian_filter1d(padded, sigma, axis=0, mode="nearest")
    return np.asarray(smoothed[pad : pad + len(curve)], np.float64)


def _resample(path: Points, step: float) -> Points:
    """Resample a polyline to even steps."""
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    keep = np.concatenate([[True], lengths > 1e-6])
    path = path[keep]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    number = max(2, round(float(arc[-1]) / step) + 1)
    at = np.linspace(0.0, float(arc[-1]), number)
    return np.stack([np.interp(at, arc, path[:, k]) for k in range(3)], axis=1)


def _short_line(points: Points) -> Centerline:
    """Fit a straight line to a canal of which only a short section is visible."""
    height = points[:, 2]
    top, bottom = float(height.max()), float(height.min())
    if top - bottom < 4.0:
        direction = np.zeros(2)
    else:
        direction = np.array([np.polyfit(height, points[:, k], 1)[0] for k in range(2)])
        direction = np.clip(direction, -1.0, 1.0)
    middle = points.mean(axis=0)
    ends = [
        np.array([*(middle[:2] + direction * (z - middle[2])), z]) for z in (top, max(min(bottom, top - 1.0), bottom))
    ]
    if np.allclose(ends[0], ends[1]):
        ends[1] = ends[0] - np.array([0.0, 0.0, 1.0])
    return _finish(_resample(np.stack(ends), 1.0))


def _chain_order(centers: Points) -> NDArray[np.intp]:
    """Order points along a chain by their distance from one end of their minimum spanning tree."""
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    tree = sparse.csr_matrix(csgraph.minimum_spanning_tree(distance))
    start = int(np.argmax(centers[:, 2]))
    for _ in range(2):
        along = _distances(tree, start)
        start = int(np.argmax(along))
    return np.argsort(along)


def _finish(dense: Points) -> Centerline:
    """Order a curve from cranial to caudal and add the straight ends."""
    return _with_straight_ends(dense[::-1] if dense[0, 2] < dense[-1, 2] else dense, _EXTENSION_MM, _END_MM)


def _with_straight_ends(curve: Points, extension_mm: int, end_mm: int) -> Centerline:
    """Extend a curve by straight lines; samples of ``curve`` and of the ends are 1 mm apart."""
    window = min(len(curve) - 1, end_mm)
    up, down = unit(curve[0] - curve[window]), unit(curve[-1] - curve[-1 - window])
    reach = np.arange(1.0, extension_mm + 1)[:, None]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    points = np.concatenate([(curve[0] + reach * up)[::-1], curve, curve[-1] + reach * down])
    s = np.concatenate([-reach[::-1, 0], arc, arc[-1] + reach[:, 0]])
    return Centerline(points, s, float(arc[-1]))
