"""Graph of bone voxels: shortest paths from each voxel to the vertebral bodies.

Paths that leave the height at which a body's posterior elements lie (`posterior_profile`) cost more. A spinous process
so stays with its own vertebra, even where it points far down or touches the arches of its neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from totalspineseg_bids.segmentation.labelling.instances.parameters import HEIGHT_COST

#: Half of the neighbours of a cell, by which a grid's edges are listed once.
NEIGHBOURS = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (0, 1, -1), (1, 0, 1), (1, 0, -1), (1, 1, 0), (1, -1, 0))


class VoxelGraph:
    """BoneVoxels cells and the ways between them, within a class.

    Parameters
    ----------
    cells
        Grid indices, shape (N, 3).
    classes
        Class of each cell, shape (N,); cells are neighbours only within a class.
    loose
        Classes that connect to every other class (the undecided ones).
    height
        Of the body that each cell is likely to belong to, in cells, shape (N,).
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
        """Give every cell to the seed that is nearest through cells of its class.

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
        # A seed keeps its own, so what lies between seeds is no way.
        used = open_[self._mine] | open_[self._other]
        mine, other = self._mine[used], self._other[used]
        on_a_way = np.zeros(len(seeds), bool)
        on_a_way[mine] = on_a_way[other] = True
        nodes = np.flatnonzero(on_a_way)
        starts = np.flatnonzero(seeds[nodes])
        if len(starts) == 0:
            return result
        number = np.cumsum(on_a_way, dtype=np.int32) - 1
        links = self._length[used], (number[mine], number[other])
        graph = sparse.coo_matrix(links, shape=(len(nodes), len(nodes))).tocsr()
        distance, _, source = csgraph.dijkstra(
            graph, directed=False, indices=starts, min_only=True, return_predecessors=True
        )
        reached = np.flatnonzero(np.isfinite(distance))
        result[nodes[reached]] = seeds[nodes[np.asarray(source)[reached]]]
        return result
