"""Measures of one label, or of one place along the column; each field declares its column of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.columns import TableRow, column, columns_of

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


@dataclass(frozen=True, slots=True)
class LevelMeasures(TableRow):
    """Measures of one label; ``None`` where it has none.

    Heights at three depths follow quantitative vertebral morphometry (Genant et al., J Bone Miner Res 1993, 8:1137),
    the disc height index the usual ratio of disc to body height (Frobin et al., Clin Biomech 1997, 12 Suppl 1:S1), the
    slip Meyerding's (Surg Gynecol Obstet 1932, 54:371) in mm. Sources of the signal are in `signal`, those of the
    foramina in `foramen`.

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
    volume_mm3: float = column(
        "Volume", "Number of voxels of the label times the volume of a voxel", "mm^3", decimals=1
    )
    partial: bool = column(
        "Partially in view",
        "true where the field of view cuts the structure: its volume is that of the visible part and is left out of"
        " statistics; it has shape measures only if the middle of its body is in view at full height and depth",
        kind="flag",
        default=False,
    )
    height_mm: float | None = column(
        "Mean height",
        "Vertebral body or disc: mean distance between the upper and the lower surface along the axis of the level,"
        " over the inner 80 % (elliptic) of its footprint; a vertebral body is what lies in front of the canal",
        "mm",
    )
    height_anterior_mm: float | None = column(
        "Anterior height", f"Distance between both surfaces at 80-95 % of the depth from behind, {_BANDS}", "mm"
    )
    height_middle_mm: float | None = column(
        "Middle height", f"Distance between both surfaces at 42.5-57.5 % of the depth from behind, {_BANDS}", "mm"
    )
    height_posterior_mm: float | None = column(
        "Posterior height", f"Distance between both surfaces at 5-20 % of the depth from behind, {_BANDS}", "mm"
    )
    depth_mm: float | None = column("Depth", "Anteroposterior extent at mid-height in the mid-sagittal plane", "mm")
    width_mm: float | None = column("Width", "Left-right extent at mid-height and mid-depth", "mm")
    wedge_deg: float | None = column(
        "Wedge angle",
        "Angle between the planes fitted to the upper and lower surface, seen from the side; positive where the"
        " anterior height is larger (lordotic)",
        "degree",
        decimals=1,
    )
    height_index: float | None = column(
        "Disc height index",
        "Mean disc height divided by the mean height of the neighbouring vertebral bodies that are whole",
        decimals=3,
    )
    slip_mm: float | None = column(
        "Vertebral slip",
        "Disc: how far the posterior wall of the upper vertebra stands in front of that of the lower one (negative:"
        " behind), along the disc plane",
        "mm",
    )
    foramen_left_mm: float | None = column("Foramen height left", _FORAMEN, "mm")
    foramen_right_mm: float | None = column("Foramen height right", _FORAMEN, "mm")
    canal_area_mm2: float | None = column(
        "Canal area", f"Area of the spinal canal, cord included, {_SECTION}", "mm^2", decimals=1
    )
    canal_ap_mm: float | None = column(
        "Canal AP diameter", f"Anteroposterior chord through the centre of the canal, {_SECTION}", "mm"
    )
    canal_lr_mm: float | None = column(
        "Canal LR diameter", f"Left-right chord through the centre of the canal, {_SECTION}", "mm"
    )
    cord_area_mm2: float | None = column("Cord area", f"Area of the spinal cord, {_SECTION}", "mm^2", decimals=1)
    cord_ap_mm: float | None = column(
        "Cord AP diameter", f"Anteroposterior chord through the centre of the cord, {_SECTION}", "mm"
    )
    cord_lr_mm: float | None = column(
        "Cord LR diameter", f"Left-right chord through the centre of the cord, {_SECTION}", "mm"
    )
    cord_canal_ratio: float | None = column(
        "Cord to canal ratio", "Area of the cord divided by the area of the canal", decimals=3
    )
    disc_signal: float | None = column(
        "Disc signal",
        "Mean signal of the voxels of a whole disc; it compares within an image only",
        ARBITRARY,
        significant=6,
    )
    disc_csf_ratio: float | None = column(
        "Disc to CSF", f"Mean signal of the disc divided by that of the CSF, {_CSF}", decimals=3
    )
    disc_body_ratio: float | None = column(
        "Disc to bodies",
        f"Mean signal of the disc divided by the mean of {_INNER} of the neighbouring vertebral bodies that are whole",
        decimals=3,
    )
    nucleus_csf_ratio: float | None = column(
        "Nucleus to CSF",
        f"Nucleus brightness: mean signal of {_INNER} of the disc divided by that of the CSF, {_CSF}",
        decimals=3,
    )
    measure_note: str | None = column("Note on the measures", "Why measures of this level are missing", kind="text")


#: Columns of the measures in the label table, by name and in order.
COLUMNS: Final = columns_of(LevelMeasures)
#: Names of the columns that hold a number.
MEASURES: Final = tuple(name for name, entry in COLUMNS.items() if entry.kind == "number")

#: Names of the columns that depend on the contrast of the image.
SIGNALS: Final = tuple(name for name in MEASURES if name.startswith(("disc-", "nucleus-")))


@dataclass(frozen=True, slots=True)
class ProfilePoint(TableRow):
    """Areas at one place along the column; ``None`` where there is none.

    Examples
    --------
    >>> list(ProfilePoint(12.0, "C4", 0.25, 210.34, None).as_row().values())
    ['12', 'C4', '0.250', '210.3', 'n/a']
    """

    distance_mm: float = column("Distance", "Length of the centreline from its cranial end in view", "mm", decimals=0)
    level: str | None = column(
        "Vertebral level",
        "Vertebra, from the middle of the disc above to that of the disc below; a whole vertebra with one disc, such as"
        " C2, extends as far beyond its centre as the disc on its other side; n/a elsewhere",
        kind="text",
    )
    position: float | None = column(
        "Position in the level", "Place within the level, from 0 (cranial) to 1", decimals=3
    )
    canal_area_mm2: float | None = column(
        "Canal area", f"Area of the spinal canal, cord included, {_PLANES}", "mm^2", decimals=1
    )
    cord_area_mm2: float | None = column("Cord area", f"Area of the spinal cord, {_PLANES}", "mm^2", decimals=1)


#: Columns of the table of areas along the column, by name and in order.
PROFILE_COLUMNS: Final = columns_of(ProfilePoint)
#: Names of the columns that hold an area.
AREAS: Final = tuple(name for name in PROFILE_COLUMNS if name in MEASURES)
#: Parts of equal length into which a level is divided to compare persons.
LEVEL_PARTS: Final = 10
