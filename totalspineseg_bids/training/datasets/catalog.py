"""Catalog of the public datasets (``catalog.json``).

Sources
-------
The list is that of the method's own documents (neuropoly/totalspineseg, README, "Datasets"); folder names are those of
its archive of labels, so that archive and datasets meet. Licences: ``dataset_description.json`` of the three git
repositories (CC0); the Zenodo record of SPIDER (CC BY 4.0). SHA-256 of SPIDER's archives: torch-em
(constantinpape/torch-em, ``torch_em/data/datasets/medical/spider.py``), which has checked downloads with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal

from totalspineseg_bids.errors import UsageError

#: Labels of the three git repositories and SPIDER on 1 mm grids, in the seed's ids, of May 2024: the archive that the
#: seed's document names. It holds ``bids/<dataset>/derivatives/labels_iso``.
LABELS_URL = "https://github.com/neuropoly/totalspineseg/releases/download/labels/labels_iso_bids_0524.zip"


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset that can be fetched."""

    name: str
    """Folder that it goes into, and its name on the command line."""
    aliases: Sequence[str]
    """Other names for the command line."""
    title: str
    """Content, one line."""
    kind: Literal["annex", "spider"]
    """``"annex"``: a git repository with git-annex content; ``"spider"``: two zip archives of .mha files."""
    url: str
    """Of the repository, or of the folder that the archives lie in."""
    licence: str
    citation: str
    page: str
    """`licence`, `citation`, `page`: for people."""
    size: str
    """About how much is fetched."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the archives by file name, where they are published."""
    one_person: bool = False
    """All subjects are one person, scanned at many sites."""


SOURCES: tuple[DatasetSource, ...] = tuple(
    DatasetSource(**entry) for entry in json.loads(files(__package__).joinpath("catalog.json").read_text("utf-8"))
)


def find_source(name: str) -> DatasetSource:
    """Return a dataset by its name or one of its aliases.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    for source in SOURCES:
        if name in (source.name, *source.aliases):
            return source
    msg = f"no dataset '{name}'; choose among {', '.join(source.name for source in SOURCES)}"
    raise UsageError(msg)
