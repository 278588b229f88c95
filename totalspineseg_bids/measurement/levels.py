"""Measures of one label, or of one place along the column, as a row of a table, and the columns of both tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.columns import TableColumn, index_columns

_BANDS = "in the mid-sagittal band (15 % of the width to either side of the middle)"
#: Unit of the signal of an image, which compares within the image only.
ARBITRARY: Final = "arbitrary"
_PLANES = "mean of five planes 1 mm apart, perpendicular to the canal centreline"
_SECTION = "perpendicular to the canal centreline at the middle of the level, mean of five planes 1 mm apart"

_CSF = "the median of the canal without cord, one voxel away from its borders, within 10 mm of the middle of the disc"
_FORAMEN = (
    "Disc: largest distance from the lower edge of the pedicle above to the upper edge of the pedicle below, along the"
    " axis of the disc, behind the bodies and in front of the middle of the canal; median over the sagittal planes in"
    " which both pedicles reach from body to arch"
)
_INNER = "the inner ellipsoid (half the width, depth and height)"


def _number(name: str, title: str, description: str, unit: str = "", decimals: int = 2) -> TableColumn:
    return TableColumn(name, description, title, unit, kind="number", decimals=decimals)


#: Columns of the measures in the label table, by name and in order.
COLUMNS: Final[dict[str, TableColumn]] = index_columns(
    _number("volume-mm3", "Volume", "Number of voxels of the label times the volume of a voxel", "mm^3", 1),
    TableColumn(
        "partial",
        "true where the field of view cuts the structure: its volume is that of the visible part and is left out of"
        " statistics; it has shape measures only if it is a vertebra whose body is whole",
        title="Partially in view",
        kind="flag",
    ),
    _number(
        "height-mm",
        "Mean height",
        "Vertebral body or disc: mean distance between the upper and the lower surface along the axis of the level,"
        " over the inner 80 % (elliptic) of its footprint; a vertebral body is what lies in front of the canal",
        "mm",
    ),
    _number(
        "height-anterior-mm",
        "Anterior height",
        f"Distance between both surfaces at 80-95 % of the depth from behind, {_BANDS}",
        "mm",
    ),
    _number(
        "height-middle-mm",
        "Middle height",
        f"Distance between both surfaces at 42.5-57.5 % of the depth from behind, {_BANDS}",
        "mm",
    ),
    _number(
        "height-posterior-mm",
        "Posterior height",
        f"Distance between both surfaces at 5-20 % of the depth from behind, {_BANDS}",
        "mm",
    ),
    _number("depth-mm", "Depth", "Anteroposterior extent at mid-height in the mid-sagittal plane", "mm"),
    _number("width-mm", "Width", "Left-right extent at mid-height and mid-depth", "mm"),
    _number(
        "wedge-deg",
        "Wedge angle",
        "Angle between the planes fitted to the upper and lower surface, seen from the side; positive where the"
        " anterior height is larger (lordotic)",
        "degree",
        1,
    ),
    _number(
        "height-index",
        "Disc height index",
        "Mean disc height divided by the mean height of the neighbouring vertebral bodies that are whole",
        decimals=3,
    ),
    _number(
        "slip-mm",
        "Vertebral slip",
        "Disc: how far the posterior wall of the upper vertebra stands in front of that of the lower one (negative:"
        " behind), along the disc plane",
        "mm",
    ),
    _number("foramen-left-mm", "Foramen height left", _FORAMEN, "mm"),
    _number("foramen-right-mm", "Foramen height right", _FORAMEN, "mm"),
    _number("canal-area-mm2", "Canal area", f"Area of the spinal canal, cord included, {_SECTION}", "mm^2", 1),
    _number(
        "canal-ap-mm", "Canal AP diameter", f"Anteroposterior chord through the centre of the canal, {_SECTION}", "mm"
    ),
    _number("canal-lr-mm", "Canal LR diameter", f"Left-right chord through the centre of the canal, {_SECTION}", "mm"),
    _number("cord-area-mm2", "Cord area", f"Area of the spinal cord, {_SECTION}", "mm^2", 1),
    _number(
        "cord-ap-mm", "Cord AP diameter", f"Anteroposterior chord through the centre of the cord, {_SECTION}", "mm"
    ),
    _number("cord-lr-mm", "Cord LR diameter", f"Left-right chord through the centre of the cord, {_SECTION}", "mm"),
    _number("cord-canal-ratio", "Cord to canal ratio", "Area of the cord divided by the area of the canal", decimals=3),
    TableColumn(
        "disc-signal",
        "Mean signal of the voxels of a whole disc; it compares within an image only",
        title="Disc signal",
        unit=ARBITRARY,
        kind="number",
        significant=6,
    ),
    _number("disc-csf-ratio", "Disc to CSF", f"Mean signal of the disc divided by that of the CSF, {_CSF}", decimals=3),
    _number(
        "disc-body-ratio",
        "Disc to bodies",
        f"Mean signal of the disc divided by the mean of {_INNER} of the neighbouring vertebral bodies that are whole",
        decimals=3,
    ),
    _number(
        "nucleus-csf-ratio",
        "Nucleus to CSF",
        f"Nucleus brightness: mean signal of {_INNER} of the disc divided by that of the CSF, {_CSF}",
        decimals=3,
    ),
    TableColumn("measure-note", "Why measures of this level are missing", title="Note on the measures"),
)
#: Names of the columns that hold a number.
MEASURES: Final = tuple(name for name, column in COLUMNS.items() if column.kind == "number")

#: Names of the columns that depend on the contrast of the image.
SIGNALS: Final = tuple(name for name in MEASURES if name.startswith(("disc-", "nucleus-")))


@dataclass(frozen=True, slots=True)
class LevelMeasures:
    """Measures of one label; ``None`` where it has none.

    The definitions, with units, are in `COLUMNS`: the attribute ``height_anterior_mm`` is the column
    ``height-anterior-mm``, and so on. Heights at three depths follow quantitative vertebral morphometry
    (Genant et al., J Bone Miner Res 1993, 8:1137), the disc height index the usual ratio of disc to body height
    (Frobin et al., Clin Biomech 1997, 12 Suppl 1:S1), the slip Meyerding's (Surg Gynecol Obstet 1932, 54:371) in mm.
    Sources of the signal are in `signal`, those of the foramina in `foramen`.

    Examples
    --------
    >>> LevelMeasures(20, Structure.VERTEBRA, "L3", 31250.0, partial=True).as_row()["volume-mm3"]
    '31250.0'
    """

    label_id: int
    """Canonical id."""
    structure: Structure
    """Structure."""
    level: str | None
    """Level; ``None`` if it is not determined."""
    volume_mm3: float
    """Volume, mm³."""
    partial: bool = False
    """True if the field of view cuts the structure."""
    height_mm: float | None = None
    height_anterior_mm: float | None = None
    height_middle_mm: float | None = None
    height_posterior_mm: float | None = None
    depth_mm: float | None = None
    width_mm: float | None = None
    wedge_deg: float | None = None
    height_index: float | None = None
    slip_mm: float | None = None
    foramen_left_mm: float | None = None
    foramen_right_mm: float | None = None
    canal_area_mm2: float | None = None
    canal_ap_mm: float | None = None
    canal_lr_mm: float | None = None
    cord_area_mm2: float | None = None
    cord_ap_mm: float | None = None
    cord_lr_mm: float | None = None
    cord_canal_ratio: float | None = None
    disc_signal: float | None = None
    disc_csf_ratio: float | None = None
    disc_body_ratio: float | None = None
    nucleus_csf_ratio: float | None = None
    measure_note: str | None = None
    """Reason of missing measures; ``None`` if none is missing."""

    def as_row(self) -> dict[str, str]:
        """Return the columns of `COLUMNS` as text, ``n/a`` where there is no value."""
        return {name: column.format(getattr(self, name.replace("-", "_"))) for name, column in COLUMNS.items()}


#: Columns of the table of areas along the column, by name and in order.
PROFILE_COLUMNS: Final[dict[str, TableColumn]] = index_columns(
    TableColumn(
        "distance-mm",
        "Length of the centreline from its cranial end in view",
        "Distance",
        "mm",
        kind="number",
        decimals=0,
    ),
    TableColumn(
        "level",
        "Vertebra, from the middle of the disc above to that of the disc below; a whole vertebra with one disc, such as"
        " C2, extends as far beyond its centre as the disc on its other side; n/a elsewhere",
        "Vertebral level",
    ),
    TableColumn(
        "position", "Place within the level, from 0 (cranial) to 1", "Position in the level", kind="number", decimals=3
    ),
    replace(COLUMNS["canal-area-mm2"], description=f"Area of the spinal canal, cord included, {_PLANES}"),
    replace(COLUMNS["cord-area-mm2"], description=f"Area of the spinal cord, {_PLANES}"),
)
#: Names of the columns that hold an area.
AREAS: Final = tuple(name for name in PROFILE_COLUMNS if name in MEASURES)
#: Parts of equal length into which a level is divided to compare persons.
LEVEL_PARTS: Final = 10


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """Areas at one place along the column; ``None`` where there is none. Columns are those of `PROFILE_COLUMNS`.

    Examples
    --------
    >>> list(ProfilePoint(12.0, "C4", 0.25, 210.34, None).as_row().values())
    ['12', 'C4', '0.250', '210.3', 'n/a']
    """

    distance_mm: float
    level: str | None
    position: float | None
    canal_area_mm2: float | None
    cord_area_mm2: float | None

    def as_row(self) -> dict[str, str]:
        """Return the columns of `PROFILE_COLUMNS` as text, ``n/a`` where there is no value."""
        return {name: column.format(getattr(self, name.replace("-", "_"))) for name, column in PROFILE_COLUMNS.items()}
