import json

import numpy as np
import pytest

from tests.images import save
from totalspineseg_bids import anatomy

LEVELS = ("C2", "C3", "C4", "C5")
DISCS = ("C2-C3", "C3-C4", "C4-C5")


def box_spine(shape: tuple[int, int, int] = (24, 36, 56)) -> np.ndarray:
    """A spine of boxes in RAS: vertebrae of 10 mm, discs of 4 mm, canal with cord behind."""
    labels = np.zeros(shape, np.uint8)
    for position, level in enumerate(LEVELS):
        high = shape[2] - 2 - 14 * position
        labels[6:18, 16:28, max(high - 10, 0) : high] = anatomy.vertebra(level).id
        if position < len(DISCS):
            labels[6:18, 16:28, max(high - 14, 0) : max(high - 10, 0)] = anatomy.disc(DISCS[position]).id
    labels[8:16, 6:14] = anatomy.CANAL_ID
    labels[10:14, 8:12] = anatomy.CORD_ID
    return labels


def without(labels: np.ndarray, *ids: int) -> np.ndarray:
    """Return labels without some structures."""
    return np.where(np.isin(labels, ids), 0, labels).astype(np.uint8)


def turned(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return data and affine of the same image with its axes in another order."""
    affine = np.array([[0, 0, -1, labels.shape[0] - 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)
    return np.ascontiguousarray(labels[::-1].transpose(1, 2, 0)), affine


def image_of(labels: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = rng.uniform(20, 200, 256)
    return (means[labels] + rng.normal(0, 5, labels.shape)).astype(np.float32)


@pytest.fixture(scope="session")
def bids(tmp_path_factory):
    """Four subjects with T2w, one of them with T1w too; labels named as this app names them."""
    root = tmp_path_factory.mktemp("data") / "tiny"
    labels = box_spine()
    (root / "derivatives" / "labels").mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "tiny", "BIDSVersion": "1.9.0"}))
    for number in range(4):
        subject = f"sub-{number:02d}"
        for contrast in ("T2w", "T1w") if number == 3 else ("T2w",):
            save(root / subject / "anat" / f"{subject}_{contrast}.nii.gz", image_of(labels, number))
            name = f"{subject}_seg-totalspineseg_desc-{contrast}_dseg.nii.gz"
            save(root / "derivatives" / "labels" / subject / "anat" / name, labels)
    return root
