"""Measure posterior elements relative to the vertebral body: ``python benchmarks/posterior_slope.py MAPS``.

For every label map of a folder (tissue label maps of real anatomy, 1 mm) and region of the column, prints how far below
the middle of its body the bone of a vertebra lies on average, by how far it is in front of the canal's middle (mm). The
last lines, from which ``segmentation/labelling/instances/parameters.py`` has its profiles, are those of neck (below
C2), chest and loins, each the mean of the maps that show it, and the mean of the three.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.centerline import Centerline

#: Borders of the bins, mm in front of the middle of the canal.
BORDERS_MM = (-45.0, -30.0, -20.0, -15.0, -10.0, -5.0, 0.0, 4.0, 8.0)
#: What lies further in front than this is the body, mm.
BODY_MM = 8.0
STEP = 2
FEWEST_CELLS = 5
FEWEST_OF_BODY = 80


def region(level: str) -> str:
    """Return the region of the column under which a level is listed."""
    return level if level in ("C1", "C2") else level[0]


def profile(points: NDArray[np.float64], line: Centerline) -> list[float] | None:
    """Return how far below its body bone of a vertebra lies in each bin, mm; None where the body is out of view."""
    place = line.project(points)
    body = place.anterior > BODY_MM
    if np.count_nonzero(body) < FEWEST_OF_BODY:
        return None
    below = place.s - place.s[body].mean()
    bins = np.digitize(place.anterior, BORDERS_MM)
    means = []
    for number in range(1, len(BORDERS_MM)):
        here = bins == number
        means.append(float(below[here].mean()) if np.count_nonzero(here) > FEWEST_CELLS else float("nan"))
    return means


def profiles(file: Path) -> dict[str, list[list[float]]]:
    """Return the profiles of the vertebrae of one label map, by region."""
    labels = np.asanyarray(nib.as_closest_canonical(nib.load(file)).dataobj).astype(np.uint8)[::STEP, ::STEP, ::STEP]
    canal = np.argwhere(np.isin(labels, (anatomy.CANAL_ID, anatomy.CORD_ID))) * np.float64(STEP)
    line = Centerline.from_canal(canal, float(STEP**3))
    found: dict[str, list[list[float]]] = defaultdict(list)
    if line is None:
        return found
    for label in anatomy.LABELS:
        if label.structure is not Structure.VERTEBRA or not label.level:
            continue
        row = profile(np.argwhere(labels == label.id) * np.float64(STEP), line)
        if row is not None:
            found[region(label.level)].append(row)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description="Measure how posterior elements slope in label maps.")
    parser.add_argument("maps", type=Path, help="folder of *.nii.gz label maps, 1 mm")
    options = parser.parse_args(argv)
    files = sorted(options.maps.glob("*.nii.gz"))
    if not files:
        sys.stderr.write(f"posterior_slope: {options.maps} holds no *.nii.gz label map\n")
        return 1
    print("map\tregion\tvertebrae\t" + "\t".join(f"{a:g} to {b:g}" for a, b in itertools.pairwise(BORDERS_MM)))
    of_region: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for file in files:
        for name, rows in profiles(file).items():
            means = np.nanmean(rows, axis=0)
            print(f"{file.name}\t{name}\t{len(rows)}\t" + "\t".join(f"{value:.1f}" for value in means))
            of_region[name].append(means)
    below_axis = {name: np.nanmean(rows, axis=0) for name, rows in of_region.items() if name not in ("C1", "C2")}
    for name, means in below_axis.items():
        print(f"all\t{name}\t\t" + "\t".join(f"{value:.1f}" for value in means))
    if below_axis:
        print("all\tbelow C2\t\t" + "\t".join(f"{value:.1f}" for value in np.mean(list(below_axis.values()), axis=0)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
