"""All measures of a labelled spine."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import VERTEBRA_LEVELS, Structure
from totalspineseg_bids.imaging.centerline import Centerline, Vector, orthogonal, unit
from totalspineseg_bids.imaging.field_of_view import AcquiredRegion, Cut, cut_kinds
from totalspineseg_bids.imaging.grid import foreground_box
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.measurement.body_shape import BodyShape, fit_body_shape
from totalspineseg_bids.measurement.foramen import measure_foramina
from totalspineseg_bids.measurement.levels import LevelMeasures, ProfilePoint
from totalspineseg_bids.measurement.posture import Posture, measure_posture
from totalspineseg_bids.measurement.profile import measure_profile
from totalspineseg_bids.measurement.sampling import LocalAxes, Mask
from totalspineseg_bids.measurement.section import CanalMasks, Section
from totalspineseg_bids.measurement.signal import SpineSignal, ratio
from totalspineseg_bids.segmentation.result import Component, LabelledSpine

_ANTERIOR = np.array([0.0, 1.0, 0.0])
#: Measures of images with voxels up to this size are always given, mm.
_FINE_MM = 1.5
#: A measure must span this many voxels of the source image along its direction.
_MIN_VOXELS = 3.0
#: Unless voxels are small, an area must span this many voxels of the source image in both directions: the area of a
#: round region of fewer columns depends by more than 5 % on their position.
_MIN_VOXELS_OF_AREA = 4.5
#: The ends of a chord through a round region fall between voxels, so that a diameter across coarse voxels must be
#: long to be accurate.
_MIN_VOXELS_OF_DIAMETER = 8.0
#: Half the anteroposterior diameter of the canal for vertebrae without a segmented canal, mm.
_CANAL_RADIUS_MM = 7.0
#: Voxels further than this beside the body belong to a process, mm.
_BESIDE_MM = 2.0
#: A body with cut sides is measured only if its middle is this close to that of the canal (share of its width in view).
_MIDDLE_SHARE = 0.15
_CUT = "cut by the field of view"
#: Levels without a regular body: the atlas has none, the axis carries the dens.
_NO_BODY = {"C1": "C1 has no body", "C2": "the body of C2 goes over into the dens"}


@dataclass(frozen=True, slots=True)
class SpineMeasures:
    """All measures of one image.

    Examples
    --------
    >>> SpineMeasures([], Posture(), []).posture.lumbar_lordosis_deg is None
    True
    """

    levels: list[LevelMeasures]
    """One entry per component, in the order of the components."""
    posture: Posture
    """Angles of the whole spine."""
    profile: list[ProfilePoint]
    """Areas of canal and cord along the column."""


def measure_spine(spine: LabelledSpine, image: Volume | None = None) -> SpineMeasures:
    """Measure a labelled spine.

    Parameters
    ----------
    spine : LabelledSpine
        Canonical ids on any grid. If it has no centreline, this is computed from canal and cord of the label map.
    image : Volume, optional
        Image that was segmented, on any grid, for the signal of discs; without it, they have none. A measure that spans
        fewer than three of its voxels along its direction is not given, unless they are smaller than 1.5 mm. Without
        it, the voxels are those of the label map.

    Returns
    -------
    SpineMeasures
        Definitions and units are those of `levels.COLUMNS` and `posture.POSTURE_COLUMNS`.

    Notes
    -----
    The order is: volume of each label; body of each whole vertebra (what lies in front of the canal) and each whole
    disc, each in its own axes (`body_shape.fit_body_shape`); cross-sections of canal and cord at the middle of each
    level; relations of neighbours (disc height index, slip, signal); angles of the column.

    Examples
    --------
    >>> from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, vertebra
    >>> from totalspineseg_bids.segmentation.result import Component, SpineStatus
    >>> labels = np.zeros((20, 40, 30), np.uint8)
    >>> labels[4:16, 4:14], labels[8:12, 7:11] = CANAL_ID, CORD_ID
    >>> labels[2:18, 16:36, 5:25] = vertebra("L3").id
    >>> body = Component(vertebra("L3").id, Structure.VERTEBRA, "L3", 1.0, None, None, False, 6400.0, (9.5, 25.5, 14.5))
    >>> row = measure_spine(LabelledSpine(labels, np.eye(4), (body,), SpineStatus.LABELLED)).levels[0]
    >>> row.volume_mm3, row.height_mm
    (6400.0, 20.0)
    """
    return _Measurement(spine, image).run()


def find_body_fronts(spine: LabelledSpine) -> dict[int, tuple[LocalAxes, float]]:
    """Return where the body of each vertebra begins, in front of the canal, by label.

    Parameters
    ----------
    spine : LabelledSpine
        Canonical ids on any grid.

    Returns
    -------
    dict of int to (LocalAxes, float)
        Axes of each vertebra, and the anterior coordinate (mm) in them from which on voxels belong to its body. A
        vertebra without a canal in view is left out, and so is C1, which has no body.

    Examples
    --------
    >>> from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, vertebra
    >>> from totalspineseg_bids.segmentation.result import Component, SpineStatus
    >>> labels = np.zeros((20, 40, 30), np.uint8)
    >>> labels[4:16, 4:14], labels[8:12, 7:11] = CANAL_ID, CORD_ID
    >>> labels[2:18, 16:36, 5:25] = vertebra("L3").id
    >>> body = Component(vertebra("L3").id, Structure.VERTEBRA, "L3", 1.0, None, None, False, 6400.0, (9.5, 25.5, 14.5))
    >>> [*find_body_fronts(LabelledSpine(labels, np.eye(4), (body,), SpineStatus.LABELLED))] == [body.label_id]
    True
    """
    measurement = _Measurement(spine)
    line, fronts = measurement.centerline, measurement.disc_fronts()
    if line is None:
        return {}
    return {
        component.label_id: measurement.first_frame(line, mask, component, fronts)
        for component in spine.components
        if component.structure is Structure.VERTEBRA and component.level != "C1"
        if (mask := measurement.mask_of(component)) is not None
    }


class _Measurement:
    """State of the measurement of one image."""

    def __init__(self, spine: LabelledSpine, image: Volume | None = None) -> None:
        whole = Volume(spine.labels, np.asarray(spine.affine, np.float64))
        box = foreground_box(spine.labels > 0) or (slice(0, 1),) * 3
        self.labels, self.affine = spine.labels[box], whole.affine.copy()
        self.affine[:3, 3] += whole.affine[:3, :3] @ [part.start for part in box]
        self.components = spine.components
        self.source = np.asarray((image or whole).affine, np.float64)[:3, :3]
        self.field_of_view = AcquiredRegion(whole.geometry, spine.padding)
        self.voxel_mm3 = self.field_of_view.geometry.voxel_volume
        self.centerline = Centerline.from_polyline(spine.centerline_mm) or Centerline.from_labels(
            self.labels, self.affine
        )
        self.canal = CanalMasks.from_labels(self.labels, self.affine, self.field_of_view)
        self.signal = SpineSignal.from_labels(image, self.labels, self.affine) if image is not None else None
        self.boxes: Sequence[tuple[slice, ...] | None] = ndimage.find_objects(self.labels)

    def run(self) -> SpineMeasures:
        fronts = self.disc_fronts()
        slabs: dict[int, BodyShape] = {}
        levels = []
        for component in self.components:
            row, slab = self._measure_one(component, fronts)
            levels.append(row)
            if slab is not None:
                slabs[component.label_id] = slab
        vertebrae = {
            c.level: (mask, slabs[c.label_id])
            for c in self.components
            if c.structure is Structure.VERTEBRA and c.level is not None and c.label_id in slabs
            if (mask := self.mask_of(c)) is not None
        }
        discs = {c.label_id: self.mask_of(c) for c in self.components if c.structure is Structure.DISC}
        levels = [
            self._with_neighbours(row, mask, slabs[row.label_id], vertebrae)
            if row.label_id in slabs and (mask := discs.get(row.label_id)) is not None
            else row
            for row in levels
        ]
        return SpineMeasures(levels, measure_posture({k: body for k, (_, body) in vertebrae.items()}), self._profile())

    def _profile(self) -> list[ProfilePoint]:
        if self.centerline is None:
            return []

        def is_fine(area: float, frame: LocalAxes) -> bool:
            size = math.sqrt(4 * area / math.pi)
            return all(self._supported(size, d, _MIN_VOXELS_OF_AREA) is not None for d in (frame.front, frame.right))

        return measure_profile(self.centerline, self.canal, self._spans(self.centerline), is_fine)

    def _spans(self, line: Centerline) -> dict[str, tuple[float, float]]:
        """Return where each vertebral level begins and ends on the centreline, mm."""
        named = {c.level: c for c in self.components if c.level is not None}
        places = dict(zip(named, line.project(np.array([c.centroid_mm for c in named.values()])).s, strict=True))
        discs = [level for level, c in named.items() if c.structure is Structure.DISC]
        above = {_neighbours(disc, named)[1]: places[disc] for disc in discs}
        below = {_neighbours(disc, named)[0]: places[disc] for disc in discs}
        spans = {}
        for level, component in named.items():
            start, end = above.get(level), below.get(level)
            if component.structure is Structure.VERTEBRA and not self._is_shortened(component):
                start = 2 * places[level] - end if start is None and end is not None else start
                end = 2 * places[level] - start if end is None and start is not None else end
            if component.structure is Structure.VERTEBRA and start is not None and end is not None and start < end:
                spans[level] = (float(start), float(end))
        return spans

    def _is_shortened(self, component: Component) -> bool:
        """Return whether the field of view cuts a component from above or below."""
        mask = self.mask_of(component) if component.touches_edge else None
        if mask is None or self.centerline is None:
            return component.touches_edge
        index = self._voxels(mask.points())
        return self.field_of_view.cut_of(index, self.centerline, np.asarray(component.centroid_mm)) is Cut.ALONG

    def _voxels(self, points: Vector) -> NDArray[np.int64]:
        return np.rint(self.field_of_view.geometry.index_of(points)).astype(np.int64)

    def disc_fronts(self) -> list[tuple[Vector, Vector]]:
        """Return centre and anterior direction (from the canal) of all discs."""
        if self.centerline is None:
            return []
        found = []
        for component in self.components:
            if component.structure is not Structure.DISC or component.touches_edge:
                continue
            centre = np.asarray(component.centroid_mm, np.float64)
            index = self.centerline.nearest(centre)
            away = centre - self.centerline.points[index]
            if np.linalg.norm(away) > 4.0:
                found.append((centre, orthogonal(away, self.centerline.direction(index))))
        return found

    def mask_of(self, component: Component) -> Mask | None:
        """Return the voxels of a component; ``None`` if it has none."""
        label = component.label_id
        box = self.boxes[label - 1] if label <= len(self.boxes) else None
        return None if box is None else Mask.cut(self.labels[box] == label, box, self.affine)

    def _front_at(self, point: Vector, up: Vector, fronts: list[tuple[Vector, Vector]]) -> Vector:
        near = sorted(fronts, key=lambda item: float(((item[0] - point) ** 2).sum()))[:2]
        direction = np.sum([front for _, front in near], axis=0) if near else _ANTERIOR
        return orthogonal(direction, up)

    def _measure_one(
        self, component: Component, fronts: list[tuple[Vector, Vector]]
    ) -> tuple[LevelMeasures, BodyShape | None]:
        mask = self.mask_of(component)
        row = LevelMeasures(
            label_id=component.label_id,
            structure=component.structure,
            level=component.level,
            volume_mm3=float(np.count_nonzero(mask.data)) * self.voxel_mm3 if mask is not None else 0.0,
            partial=component.touches_edge,
        )
        if component.structure in (Structure.CORD, Structure.CANAL, Structure.SACRUM) or mask is None:
            return row, None
        cut = component.touches_edge
        if cut and (self.centerline is None or component.level in _NO_BODY):
            return replace(row, measure_note=_CUT), None
        if self.centerline is None:
            return replace(row, measure_note="no canal in view"), None
        frame, back = self.first_frame(self.centerline, mask, component, fronts)
        note = _NO_BODY.get(component.level or "")
        slab = fit_body_shape(mask, frame, back) if note is None else None
        if slab is None and note is None:
            note = "too little in front of the canal"
        if cut:
            slab = None if slab is None else self._shape_in_view(mask, slab, frame, back, fronts)
            if slab is None:
                return replace(row, measure_note=_CUT), None
        if slab is not None:
            row, note = self._with_shape(row, slab)
        if cut and slab is not None:
            part = "sides" if math.isnan(slab.width) else "arch"
            note = _join(note, f"{part} cut by the field of view, the volume is that of the visible part")
        return self._with_canal(self.centerline, row, slab.frame if slab is not None else frame, note), slab

    def _shape_in_view(
        self, mask: Mask, slab: BodyShape, frame: LocalAxes, back: float, fronts: list[tuple[Vector, Vector]]
    ) -> BodyShape | None:
        """Return the shape of a body of which the field of view cuts the arch or the sides, ``None`` if more.

        Where the sides are cut, there is no width, and the middle must be in view: beside it, heights differ.
        """
        points = mask.points()
        rows, normals = self.field_of_view.edges(self._voxels(points))
        if not len(rows):
            return None  # flagged by a reader or a caller: the extent of the missing part is unknown
        beside = np.abs(slab.frame.coordinates(points)[:, 0]) <= slab.width / 2 + _BESIDE_MM
        in_front = frame.coordinates(points)[:, 1] >= back
        of_body = (beside & in_front)[rows]
        if not of_body.any():
            return slab
        sides_only = (cut_kinds(normals[of_body], slab.frame.up, slab.frame.front) == Cut.SIDES).all()
        # The frame of a vertebra turns with the part of it that is in view.
        canal = LocalAxes.build(frame.origin, self._front_at(frame.origin, frame.up, fronts), frame.up)
        aside = abs(float(canal.coordinates(slab.frame.origin)[0]))
        return replace(slab, width=math.nan) if sides_only and aside <= _MIDDLE_SHARE * slab.width else None

    def first_frame(
        self, line: Centerline, mask: Mask, component: Component, fronts: list[tuple[Vector, Vector]]
    ) -> tuple[LocalAxes, float]:
        """Place a frame on the centreline at the middle of the part in front of the canal."""
        points = mask.points()
        centre = points.mean(axis=0)
        back = 0.0
        for _ in range(3):
            index = line.nearest(centre)
            up = line.direction(index)
            frame = LocalAxes.build(line.points[index], self._front_at(centre, up, fronts), up)
            if component.structure is Structure.DISC:
                # No part of a disc lies behind the canal, and a bulge into the canal belongs to the disc.
                return frame, -_CANAL_RADIUS_MM
            wall = self.canal.front_wall(frame)
            back = (wall if wall is not None else _CANAL_RADIUS_MM) - 1.0
            front = points[frame.coordinates(points)[:, 1] >= back]
            if len(front) == 0:
                break
            centre = front.mean(axis=0)
        # If the vertebra is rotated about its axis, the anterior direction is that of its own body.
        away = orthogonal(centre - frame.origin, frame.up)
        if float(unit(away) @ frame.front) > math.cos(math.radians(40)):
            frame = LocalAxes.build(frame.origin, away, frame.up)
        return frame, back

    def _with_shape(self, row: LevelMeasures, slab: BodyShape) -> tuple[LevelMeasures, str | None]:
        up, front, right = slab.frame.up, slab.frame.front, slab.frame.right
        heights = (slab.height, slab.anterior, slab.middle, slab.posterior)
        mean, anterior, middle, posterior = (self._supported(height, up) for height in heights)
        depth, width = self._supported(slab.depth, front), self._supported(slab.width, right)
        row = replace(
            row,
            height_mm=mean,
            height_anterior_mm=anterior,
            height_middle_mm=middle,
            height_posterior_mm=posterior,
            depth_mm=depth,
            width_mm=width,
            wedge_deg=slab.wedge_deg if anterior is not None and posterior is not None else None,
        )
        named = {"height": (slab.height, mean), "depth": (slab.depth, depth), "width": (slab.width, width)}
        coarse = [name for name, (found, kept) in named.items() if kept is None and math.isfinite(found)]
        return row, f"voxels too coarse for {', '.join(coarse)}" if coarse else None

    def _supported(self, value: float, direction: Vector, least: float = _MIN_VOXELS) -> float | None:
        if not math.isfinite(value):
            return None
        voxel = float(np.abs(direction @ self.source).max())
        return value if voxel <= _FINE_MM or value >= least * voxel else None

    def _with_canal(self, line: Centerline, row: LevelMeasures, at: LocalAxes, note: str | None) -> LevelMeasures:
        index = line.nearest(at.origin)
        up = line.direction(index)
        frame = LocalAxes.build(line.points[index], at.front, up)
        canal, cord, cut = self.canal.cuts(frame)
        if cut:
            return replace(row, measure_note=_join(note, "canal cut by the field of view"))
        if canal is None:
            return replace(row, measure_note=_join(note, "no canal at this level"))
        canal_values, canal_fine = self._section_values(canal, frame)
        row = replace(row, canal_area_mm2=canal_values[0], canal_ap_mm=canal_values[1], canal_lr_mm=canal_values[2])
        if cord is not None:
            values, fine = self._section_values(cord, frame)
            canal_fine = canal_fine and fine
            row = replace(row, cord_area_mm2=values[0], cord_ap_mm=values[1], cord_lr_mm=values[2])
            if values[0] is not None and canal_values[0] is not None:
                row = replace(row, cord_canal_ratio=values[0] / canal_values[0])
        return replace(
            row, measure_note=note if canal_fine else _join(note, "voxels too coarse for some sizes of canal or cord")
        )

    def _section_values(
        self, section: Section, frame: LocalAxes
    ) -> tuple[tuple[float | None, float | None, float | None], bool]:
        sizes = ((section.ap, frame.front), (section.lr, frame.right))
        ap, lr = (self._supported(size, direction, _MIN_VOXELS_OF_DIAMETER) for size, direction in sizes)
        wide = (self._supported(size, direction, _MIN_VOXELS_OF_AREA) is not None for size, direction in sizes)
        area = section.area if all(wide) else None
        return (area, ap, lr), None not in (area, ap, lr)

    def _with_neighbours(
        self, row: LevelMeasures, mask: Mask, disc: BodyShape, vertebrae: Mapping[str, tuple[Mask, BodyShape]]
    ) -> LevelMeasures:
        """Add the measures of a disc that depend on the adjacent vertebrae, the canal or the image."""
        upper, lower = _neighbours(row.level or "-", vertebrae)
        near = [vertebrae[level] for level in (upper, lower) if level in vertebrae]
        heights = [body.height for _, body in near]
        if heights and row.height_mm is not None and all(math.isfinite(h) for h in heights):
            row = replace(row, height_index=row.height_mm / float(np.mean(heights)))
        if len(near) == 2 and _adjacent(upper, lower):
            step = float((near[0][1].back_bottom - near[1][1].back_top) @ disc.frame.front)
            voxel = float(np.abs(disc.frame.front @ self.source).max())
            if math.isfinite(step) and voxel <= _MIN_VOXELS:
                row = replace(row, slip_mm=step)
            row = self._with_foramina(row, disc, *near)
        if self.signal is not None and row.height_mm is not None and not row.partial:
            row = self._with_signal(self.signal, row, mask, disc, near)
        return row

    def _with_foramina(
        self, row: LevelMeasures, disc: BodyShape, upper: tuple[Mask, BodyShape], lower: tuple[Mask, BodyShape]
    ) -> LevelMeasures:
        """Add the heights of the foramina beside a disc."""
        if self.centerline is None:
            return row
        canal = self.centerline.points[self.centerline.nearest(disc.frame.origin)]
        heights = measure_foramina(upper, lower, disc, canal)
        left, right = (None if h is None else self._supported(h, disc.frame.up) for h in heights)
        note = row.measure_note if None not in heights else _join(row.measure_note, "no clear pedicles beside the disc")
        return replace(row, foramen_left_mm=left, foramen_right_mm=right, measure_note=note)

    @staticmethod
    def _with_signal(
        signal: SpineSignal, row: LevelMeasures, mask: Mask, shape: BodyShape, near: Sequence[tuple[Mask, BodyShape]]
    ) -> LevelMeasures:
        """Add the signal of a disc, of its nucleus and relative to CSF and bodies."""
        disc, csf = signal.mean(mask), signal.csf_beside(shape)
        bodies = [value for body in near if (value := signal.mean(*body)) is not None]
        return replace(
            row,
            disc_signal=disc,
            disc_csf_ratio=ratio(disc, csf),
            disc_body_ratio=ratio(disc, float(np.mean(bodies)) if bodies else None),
            nucleus_csf_ratio=ratio(signal.mean(mask, shape), csf),
            measure_note=row.measure_note if csf is not None else _join(row.measure_note, "no CSF beside the disc"),
        )


def _neighbours(disc: str, vertebrae: Collection[str]) -> tuple[str, str]:
    """Return the vertebrae above and below a disc, supernumerary ones included."""
    upper, lower = disc.split("-", maxsplit=1)
    if upper == "T12" and "T13" in vertebrae:
        upper = "T13"
    if lower == "S" and "L6" in vertebrae:
        upper = "L6"
    return upper, lower


def _adjacent(upper: str, lower: str) -> bool:
    """Return whether two levels are adjacent, ignoring a supernumerary one between them."""
    return 0 < VERTEBRA_LEVELS.index(lower) - VERTEBRA_LEVELS.index(upper) <= 2


def _join(first: str | None, second: str) -> str:
    return f"{first}; {second}" if first else second
