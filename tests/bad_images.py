"""Kinds of input files that cannot be used, or only in part, shared by the tests of reading and of whole runs."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.app.tiny_spine import save, tiny_image

Maker = Callable[[Path], object]


def write(content: bytes) -> Maker:
    return lambda path: path.write_bytes(content)


def image(data: np.ndarray, affine: np.ndarray | None = None) -> Maker:
    return lambda path: save(path, data) if affine is None else nib.save(nib.Nifti1Image(data, affine), path)


def changed(change: Callable[[nib.Nifti1Header], None]) -> Maker:
    """Return a maker of compressed images in which bytes of the header were changed."""

    def make(path: Path) -> None:
        content = gzip.decompress(save(path, tiny_image()).read_bytes())
        header = nib.Nifti1Header(content[:348], check=False)
        change(header)
        path.write_bytes(gzip.compress(header.binaryblock + content[348:]))

    return make


def cut(keep: float) -> Maker:
    """Return a maker of images that end early."""

    def make(path: Path) -> None:
        content = save(path, tiny_image()).read_bytes()
        path.write_bytes(content[: int(keep * len(content))])

    return make


def without_checksum(path: Path) -> None:
    path.write_bytes(save(path, tiny_image()).read_bytes()[:-8])


def flipped(path: Path) -> None:
    content = bytearray(save(path, tiny_image()).read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def with_values(*values: float) -> Maker:
    """Return a maker of images in which the first voxels have other values."""
    data = tiny_image().astype(np.float32)
    data[0, 0, : len(values)] = values
    return image(data)


def colours(path: Path) -> None:
    data = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


def whole_numbers_of_64_bits(path: Path) -> None:
    affine = np.diag([1.0, 1, 1, 1])
    nib.save(nib.Nifti1Image(tiny_image().astype(np.int64), affine, dtype=np.int64), path)


def no_header_affine(header: nib.Nifti1Header) -> None:
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row] = 0
    header["sform_code"], header["qform_code"] = 1, 0


def huge_promise(header: nib.Nifti1Header) -> None:
    header["dim"][1:4] = (2200, 2200, 2200)


def other_qform(path: Path) -> None:
    moved = nib.Nifti1Image(tiny_image(), np.eye(4))
    moved.set_sform(np.eye(4), 1)
    moved.set_qform(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 25, 1)
    nib.save(moved, path)


def no_codes(path: Path) -> None:
    plain = nib.Nifti1Image(tiny_image(), None)
    plain.header["pixdim"][1:4] = 1
    plain.header["sform_code"] = plain.header["qform_code"] = 0
    nib.save(plain, path)


def bad_sidecar(path: Path) -> None:
    save(path, tiny_image())
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text('{"EchoTime": ')


def unreadable(path: Path) -> None:
    save(path, tiny_image()).chmod(0)


def sheared() -> np.ndarray:
    affine = np.eye(4)
    affine[0, 2] = 0.12
    return affine


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to make it, and the exit code and message to expect.

    Where the code is 0 the image is done, and ``says`` is the note on its sidecar (nothing is noted if empty).
    """

    make: Maker
    code: int
    says: str


KINDS = {
    "truncated": Kind(cut(0.5), 65, "truncated or damaged; copy or convert it again"),
    "barelybegun": Kind(write(b"\x1f\x8b\x08"), 65, "truncated or damaged"),
    "nochecksum": Kind(without_checksum, 65, "truncated or damaged"),
    "flippedbit": Kind(flipped, 65, "truncated or damaged"),
    "notgzip": Kind(write(b"this is text, not an image"), 65, "named .gz but not gzip"),
    "plainnifti": Kind(lambda p: write(gzip.decompress(save(p, tiny_image()).read_bytes()))(p), 65, "not gzip"),
    "gzippedtext": Kind(write(gzip.compress(b"text " * 200)), 65, "not a valid NIfTI header"),
    "empty": Kind(write(b""), 65, "the file is empty"),
    "twod": Kind(image(tiny_image()[:, :, 0]), 65, "is 2D"),
    "oneslice": Kind(image(tiny_image()[:, :, :1]), 65, "is 2D"),
    "onevoxel": Kind(image(tiny_image()[:1, :1, :1]), 65, "is 2D (1 x 1 x 1)"),
    "fived": Kind(image(np.stack([np.stack([tiny_image()] * 2, 3)] * 2, 4)), 65, "5 dimensions"),
    "allzero": Kind(image(np.zeros((8, 8, 8), np.int16)), 65, "every voxel is zero"),
    "constant": Kind(image(np.full((8, 8, 8), 7, np.int16)), 65, "every voxel is the same value (7)"),
    "allnan": Kind(image(np.full((8, 8, 8), np.nan, np.float32)), 65, "NaN"),
    "complex": Kind(image(tiny_image().astype(np.complex64)), 65, "holds complex values"),
    "colours": Kind(colours, 65, "colour (RGB)"),
    "hugevoxels": Kind(image(tiny_image(), np.diag([900.0, 900, 900, 1])), 65, "not plausible"),
    "tinyvoxels": Kind(image(tiny_image(), np.diag([1e-4, 1e-4, 1e-4, 1])), 65, "not plausible"),
    "zeroaffine": Kind(changed(no_header_affine), 65, "the affine is zero"),
    "flataffine": Kind(image(tiny_image(), np.eye(4) + np.eye(4, k=1) * [0, 99, 0, 0]), 65, "degenerate"),
    "hugepromise": Kind(changed(huge_promise), 65, "2200 x 2200 x 2200"),
    "negativesize": Kind(changed(lambda h: h["dim"].__setitem__(2, -5)), 65, "dimensions"),
    "folder": Kind(lambda p: p.mkdir(), 65, "is a folder, not an image"),
    "brokenlink": Kind(lambda p: p.symlink_to("../../.git/annex/objects/x"), 66, "content not fetched"),
    "annexpointer": Kind(write(b"/annex/objects/MD5E-s123--abc.nii.gz\n"), 66, "content not fetched"),
    "unreadable": Kind(unreadable, 66, "no permission to read it"),
    "fourd": Kind(image(np.stack([tiny_image()] * 3, axis=3)), 0, "volume:mean-of-3"),
    "somenan": Kind(with_values(np.nan, np.nan), 0, "non-finite-voxels:2"),
    "someinf": Kind(with_values(np.inf, -np.inf, np.inf), 0, "non-finite-voxels:3"),
    "negative": Kind(with_values(-300.0, -1.0), 0, ""),
    "int64": Kind(whole_numbers_of_64_bits, 0, ""),
    "sheared": Kind(image(tiny_image(), sheared()), 0, "sheared-affine"),
    "otherqform": Kind(other_qform, 0, "qform-sform-differ"),
    "nocodes": Kind(no_codes, 0, "no-orientation-in-header"),
    "badsidecar": Kind(bad_sidecar, 0, ""),
}
