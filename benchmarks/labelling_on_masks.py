"""Score what the labelling changes in perfect maps: ``python benchmarks/labelling_on_masks.py LABEL_MAP...``.

Each label map is turned into the semantic map of perfect networks, of step 2 (which names the parity of each vertebra)
and of step 1 (where only geometry separates neighbouring vertebrae), and labelled. Prints Dice with the label map by
structure, and the least Dice of a level. Manual masks, such as those of SPIDER, show whether the labelling's rules for
discs, bodies, arches and processes agree with them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from held_out_anatomy import COLUMNS, dice, score
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.synthesis.rasterize import FIRST_SPINE_LABEL
from totalspineseg_bids.synthesis.surroundings import read_label_map
from totalspineseg_bids.training.class_maps import DatasetId
from totalspineseg_bids.training.semantic_targets import semantic_map

_STEPS: dict[str, DatasetId] = {"r20240601-step2": 102, "r20240601-step1": 101}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Score what the labelling changes in perfect semantic maps.")
    parser.add_argument("label_maps", type=Path, nargs="+", help="label maps with canonical ids (NIfTI)")
    print("map", "classes", *COLUMNS, "least level", sep="\t")
    for path in parser.parse_args().label_maps:
        volume = read_label_map(path)
        truth = np.where(volume.data >= FIRST_SPINE_LABEL, volume.data, 0).astype(np.uint8)
        box = tuple(
            slice(max(0, s.start - 5), s.stop + 5) for s in ndimage.find_objects((truth > 0).astype(np.uint8))[0]
        )
        truth = np.ascontiguousarray(truth[box])
        for classes, dataset in _STEPS.items():
            found = label_map(semantic_map(truth, dataset), volume.affine, ClassMap.named(classes)).labels
            result = score(found, truth, volume.affine)
            levels = {label.name: truth == label.id for label in anatomy.LABELS if label.level}
            each = {name: dice(found == anatomy.BY_ID[int(truth[own][0])].id, own) for name, own in levels.items()
                    if np.count_nonzero(own) > 200}  # fmt: skip
            worst = min(each, key=lambda name: each[name])
            figures = (f"{result[column]:.3f}" if column in result else "n/a" for column in COLUMNS)
            print(path.name.split(".")[0], classes, *figures, f"{each[worst]:.3f} {worst}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
