"""Graph of bone voxels: shortest paths from each voxel to the vertebral bodies.

Steps that change the expected height of the body (`body_height`) cost more, so that a spinous process stays with
its own vertebra even if it points far down or touches the arches of its neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from totalspineseg_bids.segmentation.labelling.instances.parameters import HEIGHT_COST

#: Half of the 18 neighbours of a cell, so that every edge of the grid is listed once.
NEIGHBOURS = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (0, 1, -1), (1, 0, 1), (1, 0, -1), (1, 1, 0), (1, -1, 0))


class VoxelGraph:
    """Graph of vertebral cells, connected within a class.

    Parameters
    ----------
    cells
        Grid indices, shape (N, 3).
    classes
        Class of each cell, shape (N,); cells are neighbours only within a class.
    loose
        Classes that connect to every other class, because they do not separate vertebrae.
    height
        Expected height of the body of each cell, in cells, shape (N,).
    """

    def __init__(
        self,
        cells: NDArray[np.int64],
        classes: NDArray[np.uint8],
        loose: NDArray[np.uint8],
        height: NDArray[np.float64],
    ) -> None:
        low = cells.min(axis=0)
        number = np.full(tuple(cells.max(axis=0) - low + 3), -1, np.int32)
        local = cells - low + 1
        rows = np.array([number.shape[1] * number.shape[2], number.shape[2], 1])
        place, flat = local @ rows, number.reshape(-1)
        flat[place] = np.arange(len(cells))
        is_loose = np.isin(classes, loose)
        ends: list[tuple[NDArray[np.intp], NDArray[np.int32]]] = []
        lengths = []
        for step in NEIGHBOURS:
            other = flat[place + int(rows @ step)]
            mine = np.flatnonzero(other >= 0)
            other = other[mine]
            joined = (classes[mine] == classes[other]) | is_loose[mine] | is_loose[other]
            mine, other = mine[joined], other[joined]
            ends.append((mine, other))
            lengths.append(np.sqrt(np.abs(step).sum()) + HEIGHT_COST * np.abs(height[mine] - height[other]))
        self._mine = np.concatenate([mine for mine, _ in ends])
        self._other = np.concatenate([other for _, other in ends])
        self._length = np.concatenate(lengths)

    def grow(self, seeds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Assign every cell to the nearest seed along paths within its class.

        Parameters
        ----------
        seeds
            Instance number of each seed cell, 0 for others, shape (N,).

        Returns
        -------
        NDArray[np.int64]
            Instance number of each cell; 0 where no seed can be reached.
        """
        result = seeds.copy()
        open_ = seeds == 0
        # Seeds keep their instance, so edges between seeds are not needed.
        used = open_[self._mine] | open_[self._other]
        mine, other = self._mine[used], self._other[used]
        has_edge = np.zeros(len(seeds), bool)
        has_edge[mine] = has_edge[other] = True
        nodes = np.flatnonzero(has_edge)
        starts = np.flatnonzero(seeds[nodes])
        if len(starts) == 0:
            return result
        number = np.cumsum(has_edge, dtype=np.int32) - 1
        weighted_edges = self._length[used], (number[mine], number[other])
        graph = sparse.coo_matrix(weighted_edges, shape=(len(nodes), len(nodes))).tocsr()
        distance, _, source = csgraph.dijkstra(
            graph, directed=False, indices=starts, min_only=True, return_predecessors=True
        )
        reached = np.flatnonzero(np.isfinite(distance))
        result[nodes[reached]] = seeds[nodes[np.asarray(source)[reached]]]
        return result
