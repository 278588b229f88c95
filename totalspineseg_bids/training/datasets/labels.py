"""An archive of labels merged into the datasets that it belongs to.

The method publishes its labels apart from the images: ``bids/<dataset>/derivatives/labels_iso/sub-…/anat/…``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from totalspineseg_bids.errors import ImageError
from totalspineseg_bids.imaging.atomic import atomic_writer

_MAX_MEMBER = 1 << 30  # bytes; a label image has a few hundred kB


def _place(name: str, datasets: Sequence[str]) -> PurePosixPath | None:
    """Return the target of a member, relative to the folder of all datasets; None if it has none."""
    parts = PurePosixPath(name).parts
    for number, part in enumerate(parts[:-1]):
        if part in datasets and parts[number + 1] == "derivatives":
            place = PurePosixPath(*parts[number:])
            return None if ".." in place.parts or "\\" in name else place
    return None


def _same(path: Path, info: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    return zlib.crc32(path.read_bytes()) == info.CRC


def merge_labels(archive: Path, root: Path, datasets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Copy the label files of an archive into datasets; identical files are kept.

    Parameters
    ----------
    archive : Path
        Zip with ``<anything>/<dataset>/derivatives/…``.
    root : Path
        Folder of the datasets.
    datasets : sequence of str
        Their folder names; those that are not there get nothing.

    Returns
    -------
    dict
        For each dataset, how many label files it has from the archive, and how many were written now.

    Raises
    ------
    ImageError
        If the archive is damaged or holds something that is no label file.
    """
    present = [name for name in datasets if (root / name).is_dir()]
    counts = dict.fromkeys(present, (0, 0))
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                place = _place(info.filename, present)
                if place is None or info.is_dir():
                    continue
                if info.file_size > _MAX_MEMBER:
                    msg = f"{archive}: {info.filename} unpacks to {info.file_size / 2**30:.1f} GiB; not a label file"
                    raise ImageError(msg)
                path = root / place
                fresh = not _same(path, info)
                if fresh:
                    # A link into git-annex's read-only content must not be written through.
                    path.unlink(missing_ok=True)
                    with atomic_writer(path) as stream:
                        stream.write(opened.read(info))
                found, written = counts[place.parts[0]]
                counts[place.parts[0]] = found + 1, written + fresh
    except (zipfile.BadZipFile, zlib.error) as error:
        msg = f"{archive}: not a readable zip ({error}); delete it and run the command again"
        raise ImageError(msg) from error
    return counts
