"""Areas of canal and cord along the column over all images of a group."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import VERTEBRA_LEVELS
from totalspineseg_bids.bids.names import DerivativeNames, SourceImage
from totalspineseg_bids.columns import TableColumn, short_name
from totalspineseg_bids.measurement.levels import AREAS, LEVEL_PARTS, PROFILE_COLUMNS

logger = logging.getLogger(__name__)

#: ``group_profiles.tsv``
BAND_COLUMNS: Final = (
    TableColumn("level", PROFILE_COLUMNS["level"].description),
    TableColumn("position", f"Middle of one of {LEVEL_PARTS} parts of the level, from 0 (cranial) to 1", kind="number"),
    TableColumn(
        "measure",
        "What was measured; see Levels",
        levels={short_name(name): PROFILE_COLUMNS[name].description for name in AREAS},
    ),
    TableColumn(
        "images",
        "Number of images, of the reference group only if there is one (--reference)",
        kind="number",
        decimals=0,
    ),
    TableColumn("p5", "5th percentile of the images", unit="mm^2", kind="number", decimals=1),
    TableColumn("median", "Median of the images", unit="mm^2", kind="number", decimals=1),
    TableColumn("p95", "95th percentile of the images", unit="mm^2", kind="number", decimals=1),
)


def read_profiles(output: Path, images: pd.DataFrame) -> NDArray[np.float64]:
    """Read the areas along the column, averaged over parts of the levels.

    Parameters
    ----------
    output : Path
        Output folder.
    images : pd.DataFrame
        Table of the images, with the column ``source``.

    Returns
    -------
    ndarray of float
        Areas, mm², shape (measures, images, levels, parts): `AREAS`, rows of the table, `VERTEBRA_LEVELS`, and
        `LEVEL_PARTS` from cranial to caudal; NaN where there is none.
    """
    sums = np.zeros((len(AREAS), len(images), len(VERTEBRA_LEVELS), LEVEL_PARTS))
    counts = np.zeros_like(sums)
    for number, source in enumerate(images["source"]):
        path = output / DerivativeNames.of(SourceImage(source, Path(source))).profile(".tsv")
        try:
            table = pd.read_csv(path, sep="\t", na_values=["n/a"], usecols=["level", "position", *AREAS])
            level = pd.Index(VERTEBRA_LEVELS).get_indexer(pd.Index(table["level"]))
            part = np.minimum(table["position"].fillna(0.0) * LEVEL_PARTS, LEVEL_PARTS - 1).astype(int)
            for measure, name in enumerate(AREAS):
                used = (level >= 0) & table[name].notna()
                np.add.at(sums[measure, number], (level[used], part[used]), table[name][used])
                np.add.at(counts[measure, number], (level[used], part[used]), 1)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError):
            logger.warning("%s: has no table that can be read, left out", path.relative_to(output))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def summarise_profiles(areas: NDArray[np.float64], used: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return the 5th percentile, median and 95th percentile over images, shape (3, measures, levels, parts).

    Parameters
    ----------
    areas : ndarray of float
        Areas, see `read_profiles`.
    used : ndarray of bool, optional
        Images to use (default: all).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # places without any image
        band: NDArray[np.float64] = np.nanpercentile(
            areas if used is None else areas[:, used], (5, 50, 95), axis=1, overwrite_input=False
        )
    return band


def make_band_table(
    areas: NDArray[np.float64], band: NDArray[np.float64], used: NDArray[np.bool_] | None = None
) -> pd.DataFrame:
    """Arrange the band of a group with one row per measure, level and part, with `BAND_COLUMNS` as text."""
    counts = np.isfinite(areas if used is None else areas[:, used]).sum(axis=1)
    measure, level, part = np.nonzero(counts)
    low, median, high = band[:, measure, level, part]
    values = {
        "level": np.array(VERTEBRA_LEVELS)[level].tolist(),
        "position": ((part + 0.5) / LEVEL_PARTS).tolist(),
        "measure": [short_name(AREAS[number]) for number in measure],
        "images": counts[measure, level, part].tolist(),
        "p5": low.tolist(),
        "median": median.tolist(),
        "p95": high.tolist(),
    }
    return pd.DataFrame({c.name: [c.format(value) for value in values[c.name]] for c in BAND_COLUMNS}, dtype=object)
