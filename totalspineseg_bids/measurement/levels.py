"""The measures of one label as a row of a table, and the dictionary that explains the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from totalspineseg_bids.anatomy import Structure

MISSING: Final = "n/a"


def _column(long_name: str, description: str, units: str | None = None) -> dict[str, str]:
    entry = {"LongName": long_name, "Description": description}
    if units is not None:
        entry["Units"] = units
    return entry


_BANDS = "in the mid-sagittal band (15 % of the width to either side of the middle)"
_SECTION = "perpendicular to the canal centreline at the middle of the level, mean of five planes 1 mm apart"

#: Column of the table -> its entry in a BIDS sidecar, in the order of the table.
COLUMNS: Final[dict[str, dict[str, str]]] = {
    "volume-mm3": _column("Volume", "Number of voxels of the label times the volume of a voxel", "mm^3"),
    "partial": _column(
        "Partially in view",
        "true where the field of view cuts the structure: its volume is that of the visible part and is left out of"
        " statistics; it has shape measures only if it is a vertebra whose body is whole",
    ),
    "height-mm": _column(
        "Mean height",
        "Vertebral body or disc: mean distance between the upper and the lower surface along the axis of the level,"
        " over the inner 80 % (elliptic) of its footprint; a vertebral body is what lies in front of the canal",
        "mm",
    ),
    "height-anterior-mm": _column(
        "Anterior height", f"Distance between both surfaces at 80-95 % of the depth from behind, {_BANDS}", "mm"
    ),
    "height-middle-mm": _column(
        "Middle height", f"Distance between both surfaces at 42.5-57.5 % of the depth from behind, {_BANDS}", "mm"
    ),
    "height-posterior-mm": _column(
        "Posterior height", f"Distance between both surfaces at 5-20 % of the depth from behind, {_BANDS}", "mm"
    ),
    "depth-mm": _column("Depth", "Anteroposterior extent at mid-height in the mid-sagittal plane", "mm"),
    "width-mm": _column("Width", "Left-right extent at mid-height and mid-depth", "mm"),
    "wedge-deg": _column(
        "Wedge angle",
        "Angle between the planes fitted to the upper and lower surface, seen from the side; positive where the"
        " anterior height is larger (lordotic)",
        "degree",
    ),
    "height-index": _column(
        "Disc height index",
        "Mean disc height divided by the mean height of the neighbouring vertebral bodies that are whole",
    ),
    "slip-mm": _column(
        "Vertebral slip",
        "Disc: how far the posterior wall of the upper vertebra stands in front of that of the lower one (negative:"
        " behind), along the disc plane",
        "mm",
    ),
    "canal-area-mm2": _column("Canal area", f"Area of the spinal canal, cord included, {_SECTION}", "mm^2"),
    "canal-ap-mm": _column(
        "Canal AP diameter", f"Anteroposterior chord through the centre of the canal, {_SECTION}", "mm"
    ),
    "canal-lr-mm": _column("Canal LR diameter", f"Left-right chord through the centre of the canal, {_SECTION}", "mm"),
    "cord-area-mm2": _column("Cord area", f"Area of the spinal cord, {_SECTION}", "mm^2"),
    "cord-ap-mm": _column(
        "Cord AP diameter", f"Anteroposterior chord through the centre of the cord, {_SECTION}", "mm"
    ),
    "cord-lr-mm": _column("Cord LR diameter", f"Left-right chord through the centre of the cord, {_SECTION}", "mm"),
    "cord-canal-ratio": _column("Cord to canal ratio", "Area of the cord divided by the area of the canal"),
    "measure-note": _column("Note on the measures", "Why measures of this level are missing"),
}

_DECIMALS: Final = {
    "volume-mm3": 1,
    "wedge-deg": 1,
    "height-index": 3,
    "cord-canal-ratio": 3,
    "canal-area-mm2": 1,
    "cord-area-mm2": 1,
}


@dataclass(frozen=True, slots=True)
class LevelMeasures:
    """Measures of one label; ``None`` where it has none.

    The definitions, with units, are in `COLUMNS`: the attribute ``height_anterior_mm`` is the column
    ``height-anterior-mm``, and so on. Heights at three depths follow quantitative vertebral morphometry
    (Genant et al., J Bone Miner Res 1993, 8:1137), the disc height index the usual ratio of disc to body height
    (Frobin et al., Clin Biomech 1997, 12 Suppl 1:S1), the slip Meyerding's (Surg Gynecol Obstet 1932, 54:371) in mm.

    Attributes
    ----------
    label_id
        Canonical id.
    structure
        What it is.
    level
        Its level, ``None`` where it has no name.
    volume_mm3
        Volume, mm³.
    partial
        Whether the field of view cuts it.
    measure_note
        Why measures are missing, ``None`` where none is.
    """

    label_id: int
    structure: Structure
    level: str | None
    volume_mm3: float
    partial: bool = False
    height_mm: float | None = None
    height_anterior_mm: float | None = None
    height_middle_mm: float | None = None
    height_posterior_mm: float | None = None
    depth_mm: float | None = None
    width_mm: float | None = None
    wedge_deg: float | None = None
    height_index: float | None = None
    slip_mm: float | None = None
    canal_area_mm2: float | None = None
    canal_ap_mm: float | None = None
    canal_lr_mm: float | None = None
    cord_area_mm2: float | None = None
    cord_ap_mm: float | None = None
    cord_lr_mm: float | None = None
    cord_canal_ratio: float | None = None
    measure_note: str | None = None

    def as_row(self) -> dict[str, str]:
        """Return the columns of `COLUMNS` as text, ``n/a`` where there is no value."""
        row = {}
        for column in COLUMNS:
            value = getattr(self, column.replace("-", "_"))
            row[column] = _text(value, _DECIMALS.get(column, 2))
        return row


def _text(value: float | bool | str | None, decimals: int) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return f"{value + 0.0:.{decimals}f}"
