"""Centreline of the spinal canal: a smooth curve that orders everything else.

The curve comes from the canal's voxels (cord included) by their order *within* the canal, not by height: a graph of
coarse cells gives every cell its distance along the canal from one end, so that kyphosis, scoliosis and tilted fields
of view are ordered as well as straight columns. Gaps are bridged, ends continued in a straight line.

All lengths are mm in *local* coordinates: voxel index times voxel size on the canonical grid (x right, y anterior,
z cranial as far as an oblique field of view allows).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

Points = NDArray[np.float64]

_CELL_MM = 4.0
_LOOKUP_MM = 6.0
_MANY_POINTS = 3000
#: Points of the canal that its centreline is fitted to, about.
_FIT_POINTS = 8000
_BIN_MM = 5.0
_SMOOTH_MM = 8.0
_EXTENSION_MM = 250.0
#: A canal shorter than this is as wide as it is long: its own shape does not tell its direction.
_SHORT_MM = 45.0
_SMALLEST_PART_MM3 = 250.0
#: Gap between parts of the canal, across which they still count as one column.
_LARGEST_GAP_MM = 160.0


class Projection(NamedTuple):
    """Points seen from the curve.

    Attributes
    ----------
    s
        Arc length of the nearest point of the curve, mm; 0 at its cranial end, beyond the ends negative or larger
        than the curve's length.
    anterior, lateral
        Offset from the curve towards the front and towards the side (x), mm.
    """

    s: NDArray[np.float64]
    anterior: NDArray[np.float64]
    lateral: NDArray[np.float64]

    def rows(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Projection:
        """Return some of the points, by mask or index."""
        return Projection(self.s[which], self.anterior[which], self.lateral[which])


@dataclass(frozen=True)
class Centerline:
    """A smooth curve from cranial to caudal, continued in straight lines at both ends.

    Attributes
    ----------
    points
        Shape (N, 3), mm, about 1 mm apart, with the straight ends.
    s
        Arc length of the points; 0 and ``length`` are the ends of what was seen.
    length
        Length of the seen part, mm.
    """

    points: Points
    s: NDArray[np.float64]
    length: float

    def __post_init__(self) -> None:
        tangent = np.gradient(self.points, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
        front = np.array([0.0, 1.0, 0.0]) - tangent * tangent[:, 1:2]
        # Where the canal runs straight backwards (the tip of the sacrum) "front" is what cranial would be.
        weak = np.linalg.norm(front, axis=1) < 0.2
        front[weak] = np.array([0.0, 0.0, 1.0]) - tangent[weak] * tangent[weak, 2:3]
        front /= np.linalg.norm(front, axis=1, keepdims=True)
        object.__setattr__(self, "_tangent", tangent)
        object.__setattr__(self, "_front", front)
        object.__setattr__(self, "_tree", cKDTree(self.points))

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
        tangent: Points = self._tangent[nearest]  # type: ignore[attr-defined]
        front: Points = self._front[nearest]  # type: ignore[attr-defined]
        offset = points - self.points[nearest]
        along = np.einsum("ij,ij->i", offset, tangent)
        side = np.cross(front, tangent)
        return Projection(
            self.s[nearest] + np.clip(along, -2.0, 2.0),
            np.einsum("ij,ij->i", offset, front),
            np.einsum("ij,ij->i", offset, side),
        )

    def _nearest(self, points: Points) -> NDArray[np.intp]:
        """Index of the curve's point nearest to each point.

        For many points the search runs once a coarse cell; each point then slides along the tangent to its foot.
        """
        tree: cKDTree = self._tree  # type: ignore[attr-defined]
        if len(points) < _MANY_POINTS:
            return np.asarray(tree.query(points)[1], np.intp)
        cell = np.floor(points / _LOOKUP_MM).astype(np.int64)
        cell -= cell.min(axis=0)
        shape = cell.max(axis=0) + 1
        flat = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
        start = np.full(int(np.prod(shape)), -1, np.intp)
        start[flat] = np.arange(len(points))
        used = np.flatnonzero(start >= 0)
        start[used] = np.asarray(tree.query(points[start[used]])[1], np.intp)
        nearest: NDArray[np.intp] = start[flat]
        tangent: Points = self._tangent  # type: ignore[attr-defined]
        for _ in range(3):
            along = np.einsum("ij,ij->i", points - self.points[nearest], tangent[nearest])
            nearest = np.clip(nearest + np.rint(along).astype(np.intp), 0, len(self.points) - 1)
        return nearest


def centerline_from_canal(points: Points, cell_volume_mm3: float) -> Centerline | None:
    """Fit the centreline to canal voxels.

    Parameters
    ----------
    points
        Canal and cord voxels, local mm, shape (N, 3); a regular subsample will do.
    cell_volume_mm3
        Volume that each point stands for.

    Returns
    -------
    Centerline or None
        ``None`` where there is too little canal (less than about 250 mm³).
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
        # Bins across the curve instead of across the first guess's direction.
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


def centerline_from_discs(centers: Points, behind_mm: float = 18.0) -> Centerline | None:
    """Fit the curve to disc centres where there is no canal, shifted backwards to where the canal would run.

    Parameters
    ----------
    centers
        Disc centres, local mm, shape (N, 3), any order.
    behind_mm
        Usual distance from a disc's centre to the canal's.

    Returns
    -------
    Centerline or None
        ``None`` without any disc.
    """
    if len(centers) == 0:
        return None
    ordered = centers[np.argsort(-centers[:, 2])] if len(centers) < 4 else centers[_chain_order(centers)]
    if ordered[0, 2] < ordered[-1, 2]:
        ordered = ordered[::-1]
    shifted = ordered - np.array([0.0, behind_mm, 0.0])
    if len(shifted) == 1:
        shifted = shifted + np.array([[0.0, 0.0, 5.0], [0.0, 0.0, -5.0]])
    return _finish(_resample(_smooth(_resample(shifted, _BIN_MM)), 1.0))


def extend_with_discs(line: Centerline, centers: Points, reach_mm: float = 90.0) -> Centerline:
    """Bend the straight ends of a centreline along the discs that lie beyond the seen canal.

    Parameters
    ----------
    line
        Curve of the seen canal.
    centers
        Centres of all discs, local mm, shape (N, 3).
    reach_mm
        Largest distance from one disc to the next for it to count.

    Returns
    -------
    Centerline
        The same curve where no disc lies more than 20 mm beyond an end.
    """
    if len(centers) == 0:
        return line
    seen = line.project(centers)
    inside = (seen.s > 0) & (seen.s < line.length) & (seen.anterior > 0) & (np.abs(seen.lateral) < 25)
    behind = float(np.median(seen.anterior[inside])) if inside.any() else 18.0
    points = line.seen
    changed = False
    for end, sign in ((0, -1.0), (-1, 1.0)):
        for _ in range(30):
            current = _finish(points)
            place = current.project(centers)
            past = -place.s if sign < 0 else place.s - current.length
            near = (past > 20.0) & (past < reach_mm) & (np.abs(place.lateral) < 40) & (np.abs(place.anterior) < 60)
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
    return _finish(points) if changed else line


def _coarse_cells(points: Points) -> tuple[Points, NDArray[np.float64]]:
    """Average the points within cubes; return the means and how many points each holds."""
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
    """Distance of each cell from one end of the canal, along the canal; parts are joined by their nearest cells."""
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
        lengths.append(best[0])
        rows.append(best[2])
        columns.append(best[3])
        joined.add(best[1])
        candidates.remove(best[1])
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


def _distances(graph: sparse.csr_matrix, start: int) -> NDArray[np.float64]:
    return np.asarray(csgraph.dijkstra(graph, directed=False, indices=start), np.float64)  # type: ignore[call-overload]


def _binned_path(points: Points, position: NDArray[np.float64]) -> Points:
    """Mean point per bin of the position; empty bins are left out."""
    index = np.floor((position - position.min()) / _BIN_MM).astype(np.int64)
    counts = np.bincount(index)
    usable = counts >= max(2.0, 0.12 * float(np.median(counts[counts > 0])))
    means = np.stack([np.bincount(index, points[:, k]) for k in range(3)], axis=1)[usable] / counts[usable][:, None]
    return np.asarray(means, np.float64)


def _smooth(path: Points) -> Points:
    """Smooth a polyline of even steps; the ends are continued by point reflection, so that they stay in place."""
    even = _resample(path, _BIN_MM)
    if len(even) < 4:
        return even
    pad = min(len(even) - 1, 6)
    head = 2 * even[0] - even[pad:0:-1]
    tail = 2 * even[-1] - even[-2 : -pad - 2 : -1]
    padded = np.vstack([head, even, tail])
    smoothed = ndimage.gaussian_filter1d(padded, _SMOOTH_MM / _BIN_MM, axis=0, mode="nearest")
    return np.asarray(smoothed[pad : len(padded) - pad], np.float64)


def _resample(path: Points, step: float) -> Points:
    """Put points at even steps along a polyline."""
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    keep = np.concatenate([[True], lengths > 1e-6])
    path = path[keep]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    number = max(2, round(float(arc[-1]) / step) + 1)
    at = np.linspace(0.0, float(arc[-1]), number)
    return np.stack([np.interp(at, arc, path[:, k]) for k in range(3)], axis=1)


def _short_line(points: Points) -> Centerline:
    """Fit a line to a canal that is seen over a short stretch only: one mean a height, then a straight fit."""
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
    """Order points along a chain: the order of distances in their minimum spanning tree from its far end."""
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    tree = sparse.csr_matrix(csgraph.minimum_spanning_tree(distance))
    start = int(np.argmax(centers[:, 2]))
    for _ in range(2):
        along = _distances(tree, start)
        start = int(np.argmax(along))
    return np.argsort(along)


def _finish(dense: Points) -> Centerline:
    """Add the straight ends and the arc length."""
    if dense[0, 2] < dense[-1, 2]:
        dense = dense[::-1]
    window = min(len(dense) - 1, 20)
    up = dense[0] - dense[window]
    down = dense[-1] - dense[-1 - window]
    up, down = up / max(np.linalg.norm(up), 1e-9), down / max(np.linalg.norm(down), 1e-9)
    reach = np.arange(1.0, _EXTENSION_MM + 1)[:, None]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    points = np.vstack([(dense[0] + reach * up)[::-1], dense, dense[-1] + reach * down])
    s = np.concatenate([-reach[::-1, 0], arc, arc[-1] + reach[:, 0]])
    return Centerline(points, s, float(arc[-1]))
