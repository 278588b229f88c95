"""The page of a group, written from the tables of the group level."""

from __future__ import annotations

import base64
import io
import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from totalspineseg_bids.anatomy import REGULAR_DISCS, VERTEBRA_LEVELS
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.measurement.levels import AREAS, COLUMNS
from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS
from totalspineseg_bids.models.catalog import BUNDLED
from totalspineseg_bids.report.environment import asset, environment, json_block, levels_range, unit_symbol
from totalspineseg_bids.report.group_data import DECIMALS, GroupPageData, clean_cells, local_link, split_list
from totalspineseg_bids.report.outliers import MIN_COUNT, THRESHOLD, find_outliers

_STATUSES: Final = ("labelled", "abstained", "no-spine", "failed")
_SHOWN_OUTLIERS: Final = 200
_SCORE_DECIMALS: Final = dict.fromkeys(COLUMNS, 2)
_PARTICIPANT_COLUMNS: Final = 24


#: Size of all thumbnails of a page together, bytes; base64 adds a third. Assumed.
_BUDGET_BYTES: Final = 12_000_000
#: Longest side (pixels), WebP quality and upper bound of the file size (bytes), from best to smallest.
_SIZES: Final = ((220, 80, 16_000), (180, 70, 9_000), (140, 60, 5_000), (110, 50, 3_000))


def inline_thumbnails(folder: Path, names: Sequence[str]) -> list[str]:
    """Encode thumbnails as ``data:`` URLs.

    Parameters
    ----------
    folder : Path
        Folder of the page.
    names : sequence of str
        Paths relative to it; empty where an image has no thumbnail.

    Returns
    -------
    list of str
        WebP pictures, smaller the more there are; empty where the file is missing or damaged.

    Examples
    --------
    >>> inline_thumbnails(Path("no-such-folder"), ["", "missing.png"])
    ['', '']
    """
    count = max(1, sum(bool(name) for name in names))
    side, quality, _ = next((size for size in _SIZES if size[2] * count <= _BUDGET_BYTES), _SIZES[-1])
    return [_inline(folder / name, side, quality) if name else "" for name in names]


def _inline(path: Path, side: int, quality: int) -> str:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # Pillow raises SyntaxError for a damaged PNG
        return ""
    picture.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_group_report(
    path: Path,
    images: pd.DataFrame,
    volumes: pd.DataFrame,
    *,
    dataset_name: str,
    participants: pd.DataFrame | None = None,
    areas: NDArray[np.float64] | None = None,
    band: NDArray[np.float64] | None = None,
    reference: tuple[str, Collection[str]] | None = None,
    self_contained: bool = False,
) -> None:
    """Write the page of a group.

    Parameters
    ----------
    path : Path
        Destination; written atomically.
    images : pd.DataFrame
        One row per image, as text: ``participant``, ``session``, ``image``, ``status``, ``reason``, ``levels`` and
        ``flags`` (comma separated), ``corrections`` (their number), ``model``, ``report`` and ``thumbnail``
        (paths relative to the page), columns of ``measurement.quality.QUALITY_COLUMNS`` and of
        ``measurement.POSTURE_COLUMNS``, these without the unit in their name; ``rating`` and ``rating-note`` of an
        earlier page.
    volumes : pd.DataFrame
        One row per structure and image: ``participant``, ``session``, ``image``, ``structure``, ``level``,
        ``confidence`` and the columns of ``measurement.COLUMNS``; ``z:<column>`` for z-scores.
    dataset_name : str
        Title of the page.
    participants : pd.DataFrame, optional
        ``participants.tsv``, to compare by.
    areas : ndarray of float, optional
        Areas of canal and cord along the column, mm², shape (measures, images, levels, parts): `AREAS`, the rows of
        ``images``, `VERTEBRA_LEVELS`, and parts from cranial to caudal; NaN where there is none.
    band : ndarray of float, optional
        5th percentile, median and 95th percentile of these areas, shape (3, measures, levels, parts).
    reference : (str, collection of str), optional
        Name of the reference group and the names of its images.
    self_contained : bool
        Embed the thumbnails instead of linking to them; the more there are, the smaller they become.

    Notes
    -----
    Every column and cell may be missing; a cell may be empty or ``n/a``. Values of levels cut off by the field of view
    are counted, but excluded from statistics, plots and outliers.

    Raises
    ------
    OSError
        If the page cannot be written.
    """
    table = GroupPageData(images, volumes)
    rows = table.images
    counts = Counter(row["status"] or "unknown" for row in rows)
    data = {
        "dataset": dataset_name,
        "images": table.image_columns(),
        "vertebrae": table.vertebrae,
        "discs": table.discs,
        "alignment": list(table.angles),
        "seen": table.seen(),
        "measures": table.measure_list(),
        "values": {**table.series(table.values, DECIMALS), "angle": table.angles},
        "scores": table.series(table.scores, _SCORE_DECIMALS),
        "participants": _participant_columns(participants, table.participant_names()),
        "ratings": {
            row["image"]: {"rating": row["rating"], "note": row["rating-note"]}
            for row in rows
            if row["rating"] or row["rating-note"]
        },
        "profiles": None if areas is None or band is None else _profiles(areas, band),
        "reference": None
        if reference is None
        else {"name": reference[0], "images": [int(row["image"] in reference[1]) for row in rows]},
    }
    pictures: Sequence[str] = [local_link(row["thumbnail"]) for row in rows]
    if self_contained:
        pictures = inline_thumbnails(path.parent, pictures)
    outliers = find_outliers(pd.concat([table.values, table.quality])).to_dict("records")
    marked = {(o["image"], o["measure"]): table.explain(o)["reason"] for o in outliers if not o["level"]}
    text = (
        environment()
        .get_template("group.html.j2")
        .render(
            title=f"{dataset_name}: spine report",
            dataset_name=dataset_name,
            bundled=any(row["model"] == BUNDLED for row in rows),
            models=sorted({row["model"] for row in rows} - {""}),
            tiles=_tiles(counts, table),
            images=[_image_row(index, row, pictures[index], marked) for index, row in enumerate(rows)],
            statuses=sorted(counts, key=lambda s: (_STATUSES.index(s) if s in _STATUSES else len(_STATUSES), s)),
            outliers=[table.explain(outlier) for outlier in outliers[:_SHOWN_OUTLIERS]],
            outlier_count=len(outliers),
            threshold=THRESHOLD,
            min_count=MIN_COUNT,
            statistics=table.statistics(),
            left_out=table.left_out(),
            dictionary=[
                (name, {"Units": "", **column.describe()})
                for name, column in (COLUMNS | QUALITY_COLUMNS).items()
                if column.kind == "number"
            ],
            has_thumbnails=any(pictures),
            data=json_block(data),
            script=asset("group.js"),
        )
    )
    write_bytes(path, text.encode())


def _profiles(areas: NDArray[np.float64], band: NDArray[np.float64]) -> dict[str, Any] | None:
    """Arrange the areas along the column by measure and image; ``None`` if there is none."""
    seen = np.flatnonzero(np.isfinite(areas).any(axis=(0, 1, 3)))
    if len(seen) == 0:
        return None
    # A gap between levels is drawn, but not the place of a supernumerary vertebra that nobody has.
    regular = set(itertools.chain(*(level.split("-") for level in REGULAR_DISCS)))
    span = [k for k in range(seen[0], seen[-1] + 1) if k in seen or VERTEBRA_LEVELS[k] in regular]
    columns = [{"key": name, "name": COLUMNS[name].title, "unit": unit_symbol(COLUMNS[name].unit)} for name in AREAS]
    return {
        "levels": [VERTEBRA_LEVELS[k] for k in span],
        "parts": areas.shape[3],
        "measures": columns,
        "values": [[_series(image[span]) for image in measure] for measure in areas],
        "band": [[_series(measure[span]) for measure in edge] for edge in band],
    }


def _series(values: NDArray[np.float64]) -> str:
    """Write areas separated by commas; empty where there is none at all."""
    if not np.isfinite(values).any():
        return ""
    return ",".join(f"{value:.0f}" if np.isfinite(value) else "" for value in values.ravel())


def _tiles(counts: Counter[str], table: GroupPageData) -> list[dict[str, Any]]:
    shown = [status for status in (*_STATUSES, *sorted(set(counts) - set(_STATUSES))) if counts[status]]
    numbers = [
        (len(table.participant_names()), "participants", ""),
        (len(table.images), "images", ""),
        *((counts[status], status, status) for status in shown),
        (sum(bool(split_list(row["flags"])) for row in table.images), "with flags", ""),
    ]
    if corrected := sum(bool(row["corrections"]) for row in table.images):
        numbers.append((corrected, "corrected", ""))
    return [{"value": value, "name": name, "status": status} for value, name, status in numbers]


def _image_row(index: int, row: Mapping[str, str], picture: str, marked: Mapping[Any, str]) -> dict[str, Any]:
    levels = split_list(row["levels"])
    return {
        **{name: row[name] for name in ("participant", "session", "image", "reason")},
        "index": index,
        "status": row["status"] or "unknown",
        "levels": levels_range(levels) or ", ".join(levels[:3]),
        "count": len(levels),
        "flags": split_list(row["flags"]),
        "report": local_link(row["report"]),
        "thumbnail": picture,
        "quality": [
            {"name": name, "value": row[column], "outlier": marked.get((index, column))}
            for column, name in (("snr", "SNR"), ("cord-csf-contrast", "contrast"))
            if row[column]
        ],
    }


def _participant_columns(participants: pd.DataFrame | None, names: set[str]) -> dict[str, Any]:
    """Arrange participants.tsv as name -> values, for the columns that can be compared by."""
    if participants is None or participants.empty:
        return {"columns": [], "rows": {}}
    cells = clean_cells(participants).set_index("participant_id")
    kept = [str(name) for name in cells if len(set(cells[name]) - {""}) > 1][:_PARTICIPANT_COLUMNS]
    found = cells.loc[sorted(names & set(cells.index)), kept]
    return {"columns": kept, "rows": dict(zip(found.index, found.to_numpy().tolist(), strict=True))}
