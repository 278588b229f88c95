"""Spines of boxes, plates and tubes whose every measure is known."""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure
from totalspineseg_bids.measurement import SpineMeasures, measure_spine
from totalspineseg_bids.segmentation.result import Component, LabelledSpine, SpineStatus

LEVELS = ("L1", "L2", "L3", "L4", "L5")


@dataclass(frozen=True)
class Phantom:
    """Five vertebrae and four discs along a curve; all sizes in mm."""

    levels: tuple[str, ...] = LEVELS
    width: float = 38.0
    depth: float = 28.0
    height: float = 24.0
    disc_height: float = 7.0
    gap: float = 10.0
    canal: tuple[float, float] = (9.0, 11.0)
    cord: tuple[float, float] = (4.0, 6.0)
    #: Bend, 1/mm: forward (kyphosis positive) and to the right; turn about the long axis, rad/mm.
    bend_forward: float = 0.0
    bend_right: float = 0.0
    twist: float = 0.0
    #: Rotation of the whole spine in scanner space.
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    #: Wedge of the vertebra in the middle: how much lower the front is than the back.
    wedge: float = 0.0

    @property
    def pitch(self) -> float:
        return self.height + self.gap

    @property
    def canal_behind(self) -> float:
        return self.depth / 2 + self.canal[0] + 1.0

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arc length (caudal positive), points and frames (columns right, front, up) through the body centres."""
        half = self.pitch * len(self.levels) / 2 + 15.0
        s = np.arange(-half, half, 0.5)
        frames = np.empty((len(s), 3, 3))
        points = np.empty((len(s), 3))
        frame, point = np.eye(3), np.zeros(3)
        start = len(s) // 2
        for order in (range(start, len(s)), range(start, -1, -1)):
            frame, point = np.eye(3), np.zeros(3)
            step = 0.5 if order.step > 0 else -0.5
            for i in order:
                frames[i], points[i] = frame, point
                point = point - step * frame[:, 2]
                turn = step * (
                    self.bend_forward * frame[:, 0] + self.bend_right * frame[:, 1] + self.twist * frame[:, 2]
                )
                # Cranial of the middle the axis leans forward, caudal of it backwards.
                frame = Rotation.from_rotvec(turn).as_matrix() @ frame
        return s - s[start], points @ self.rotation.T, np.einsum("ij,njk->nik", self.rotation, frames)

    def position(self, index: int) -> float:
        return (index - (len(self.levels) - 1) / 2) * self.pitch

    def angle_between(self, upper: int, lower: int, curvature: float) -> float:
        return float(np.degrees((self.position(lower) - self.position(upper)) * curvature))

    def rasterise(self, spacing: tuple[float, float, float], axes: np.ndarray | None = None, margin: float = 6.0):
        """Label map, affine, components and canal centreline on a grid of this spacing and these axes."""
        axes = np.eye(3) if axes is None else axes
        s, points, frames = self.curve()
        matrix = axes * np.asarray(spacing)
        reach = np.array([self.width / 2 + margin, self.canal_behind + 24 + margin, 0.0])
        corners = np.concatenate(
            [
                points + frames[:, :, 0] * x + frames[:, :, 1] * y
                for x in (-reach[0], reach[0])
                for y in (-reach[1], self.depth / 2 + margin)
            ]
        )
        voxel = corners @ np.linalg.inv(matrix).T
        low, high = np.floor(voxel.min(axis=0)), np.ceil(voxel.max(axis=0))
        shape = tuple(int(n) for n in high - low + 1)
        affine = np.eye(4)
        # Off the grid, so that no surface runs through voxel centres.
        affine[:3, :3], affine[:3, 3] = matrix, matrix @ (low + 0.37)
        mm = np.indices(shape).reshape(3, -1).T @ matrix.T + affine[:3, 3]
        labels = np.zeros(len(mm), np.uint8)

        def local(at: float) -> np.ndarray:
            i = int(np.argmin(np.abs(s - at)))
            return (mm - points[i]) @ frames[i]

        for index in range(len(self.levels) - 1):
            r, f, u = local(self.position(index) + self.pitch / 2).T
            inside = ((r / (self.width / 2)) ** 2 + (f / (self.depth / 2)) ** 2 <= 1) & (
                np.abs(u) <= self.disc_height / 2
            )
            labels[inside] = anatomy.disc(f"{self.levels[index]}-{self.levels[index + 1]}").id
        for index, level in enumerate(self.levels):
            r, f, u = local(self.position(index)).T
            wedge = self.wedge if index == len(self.levels) // 2 else 0.0
            half = (self.height - wedge * (f / self.depth + 0.5)) / 2
            body = (np.abs(r) <= self.width / 2) & (np.abs(f) <= self.depth / 2) & (np.abs(u) <= half)
            pedicle = (np.abs(np.abs(r) - 15) <= 3) & (f <= 0) & (f >= -self.canal_behind - 12) & (np.abs(u - 4) <= 5)
            spinous = (
                (np.abs(r) <= 3)
                & (f <= -self.canal_behind - self.canal[0] - 1)
                & (f >= -self.canal_behind - 24)
                & (np.abs(u + 4) <= 6)
            )
            labels[body | pedicle | spinous] = anatomy.vertebra(level).id
        distance, nearest = cKDTree(points).query(mm, distance_upper_bound=45.0)
        found = np.isfinite(distance)
        i = nearest[found]
        offset = mm[found] - points[i]
        r = np.einsum("nk,nk->n", offset, frames[i, :, 0])
        f = np.einsum("nk,nk->n", offset, frames[i, :, 1]) + self.canal_behind
        u = np.einsum("nk,nk->n", offset, frames[i, :, 2])
        tube = np.abs(u) < 1.0
        inner = labels[found]
        inner[tube & ((f / self.canal[0]) ** 2 + (r / self.canal[1]) ** 2 <= 1)] = CANAL_ID
        inner[tube & ((f / self.cord[0]) ** 2 + (r / self.cord[1]) ** 2 <= 1)] = CORD_ID
        labels[found] = inner
        labels = labels.reshape(shape)
        centerline = points - self.canal_behind * frames[:, :, 1]
        return labels, affine, components_of(labels, affine), centerline


def components_of(labels: np.ndarray, affine: np.ndarray, *, partial: tuple[str, ...] = ()) -> list[Component]:
    """Structures of a label map; those of the levels in ``partial`` touch the edge."""
    found = []
    for label in (label for label in anatomy.LABELS if (labels == label.id).any()):
        voxels = np.argwhere(labels == label.id)
        volume = len(voxels) * abs(float(np.linalg.det(affine[:3, :3])))
        x, y, z = (float(c) for c in affine[:3, :3] @ voxels.mean(axis=0) + affine[:3, 3])
        level = label.level or None
        found.append(Component(label.id, label.structure, level, 1.0, None, None, level in partial, volume, (x, y, z)))
    return found


def of_structure(rows, structure: Structure):
    return [row for row in rows if row.structure is structure]


def rotation(axis: str, degrees: float) -> np.ndarray:
    return np.asarray(Rotation.from_euler(axis, degrees, degrees=True).as_matrix())


def measure(labels, affine, components, line, *, image=None, padding=None) -> SpineMeasures:
    """Measure a label map with its components and centreline."""
    spine = LabelledSpine(labels, affine, components, SpineStatus.LABELLED, centerline_mm=line, padding=padding)
    return measure_spine(spine, image)


def rows_of(labels, affine, line=None, *, partial: tuple[str, ...] = (), **options):
    """Return the measures of each level of a label map; those of the levels in ``partial`` touch the edge."""
    line = np.zeros((0, 3)) if line is None else line
    measured = measure(labels, affine, components_of(labels, affine, partial=partial), line, **options)
    return {row.level: row for row in measured.levels if row.level}
