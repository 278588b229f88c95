"""Image and labels in full resolution, for the niivue viewer of a participant's page.

A page opened from disk must not read other files, but it may run scripts. The data are therefore a script, which the
page loads when the viewer is opened: ``window.spineVolumes[name] = {image, labels, centres}``, where image and labels
are NIfTI files in base64 and ``centres`` maps each label id to a point in RAS mm.
"""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib import resources
from typing import Any, Final

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import BY_ID, Structure
from totalspineseg_bids.imaging.grid import to_canonical
from totalspineseg_bids.imaging.volume import Affine, Volume

#: Kind of the figure file that holds the data.
VOLUME: Final = "volume"
#: Script of the viewer in the output folder; ``.bidsignore`` covers every folder of this name.
SCRIPT: Final = "figures/niivue.umd.js"
_ASSETS: Final = "totalspineseg_bids.report.assets"
#: Percentiles of the image that become black and white; 256 greys keep files small.
_BLACK, _WHITE = 0.1, 99.9
_COMPRESSION = 5


@cache
def viewer_assets() -> dict[str, bytes]:
    """Return the viewer's script and its licence by path below the output folder; empty if not installed.

    Every image asks for them, so they are read once.
    """
    folder = resources.files(_ASSETS)
    names = {SCRIPT: "niivue.umd.js", "figures/niivue.LICENSE": "niivue.LICENSE"}
    if not folder.joinpath("niivue.umd.js").is_file():
        return {}
    return {path: folder.joinpath(name).read_bytes() for path, name in names.items()}


def volume_script(name: str, image: Volume, labels: NDArray[np.uint8], affine: Affine) -> bytes:
    """Return the script with an image and its labels.

    Parameters
    ----------
    name : str
        Key of the data in ``window.spineVolumes``.
    image : Volume
        Image of any orientation and voxel size; written on its own grid, reordered to RAS.
    labels : (X, Y, Z) uint8
        Canonical ids on any grid, possibly empty.
    affine : (4, 4) float
        Voxel index of ``labels`` to RAS, mm.

    Returns
    -------
    bytes
        JavaScript; equal arguments give equal bytes.
    """
    canonical = to_canonical(image)
    data = np.nan_to_num(np.asarray(canonical.data, np.float32))
    black, white = np.percentile(data, [_BLACK, _WHITE])
    grey = np.clip((data - black) / max(float(white - black), 1e-6), 0, 1) * 255
    inverse = np.linalg.inv(affine) @ canonical.affine
    ids = ndimage.affine_transform(
        labels, inverse[:3, :3], inverse[:3, 3], output_shape=canonical.data.shape, order=0, mode="constant", cval=0
    )
    content: dict[str, Any] = {
        "image": _encode(np.round(grey).astype(np.uint8), canonical.affine),
        "labels": _encode(ids.astype(np.uint8), canonical.affine),
        "centres": _centres(labels, affine),
    }
    text = json.dumps(content, separators=(",", ":"))
    return f"(window.spineVolumes ??= {{}})[{json.dumps(name)}] = {text};\n".encode()


def _encode(data: NDArray[np.uint8], affine: Affine) -> str:
    packed = gzip.compress(nib.Nifti1Image(data, affine).to_bytes(), _COMPRESSION, mtime=0)
    return base64.b64encode(packed).decode()


def _centres(labels: NDArray[np.uint8], affine: Affine) -> dict[str, list[float]]:
    """Return a labelled point (RAS, mm) near the centre of each label; for a vertebra, of its body."""
    centres = {}
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        voxels = np.argwhere(labels[box] == index) + [part.start for part in box]
        points = apply_affine(affine, voxels)
        if index in BY_ID and BY_ID[index].structure is Structure.VERTEBRA:
            # The centre of a vertebra lies close to the canal, and its body anterior to it.
            points = points[points[:, 1] >= points[:, 1].mean()]
        nearest = points[np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))]
        centres[str(index)] = [round(float(value), 1) for value in nearest]
    return centres
