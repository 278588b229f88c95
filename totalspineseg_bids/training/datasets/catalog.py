"""Catalog of the public datasets.

Sources
-------
The list is that of the method's own documents (neuropoly/totalspineseg, README, "Datasets"); folder names are those of
its archive of labels, so that archive and datasets meet. Licences: ``dataset_description.json`` of the three git
repositories (CC0); the Zenodo record of SPIDER (CC BY 4.0). SHA-256 of SPIDER's archives: torch-em
(constantinpape/torch-em, ``torch_em/data/datasets/medical/spider.py``), which has checked downloads with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from totalspineseg_bids.errors import UsageError

#: Labels of the three git repositories and SPIDER on 1 mm grids, in the seed's ids, of May 2024: the archive that the
#: seed's document names. It holds ``bids/<dataset>/derivatives/labels_iso``.
LABELS_URL = "https://github.com/neuropoly/totalspineseg/releases/download/labels/labels_iso_bids_0524.zip"

_SPINE_GENERIC = (
    "Cohen-Adad J et al. Open-access quantitative MRI data of the spinal cord and reproducibility across participants, "
    "sites and manufacturers. Scientific Data 8, 219 (2021)"
)


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset that can be fetched."""

    name: str
    """Folder that it goes into, and its name on the command line."""
    aliases: tuple[str, ...]
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
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """SHA-256 of the archives by file name, where they are published."""
    one_person: bool = False
    """All subjects are one person, scanned at many sites."""


SOURCES: tuple[DatasetSource, ...] = (
    DatasetSource(
        name="whole-spine",
        aliases=("ds005616",),
        title="whole spines in T1w and T2w (OpenNeuro ds005616)",
        kind="annex",
        url="https://github.com/OpenNeuroDatasets/ds005616.git",
        licence="CC0",
        citation="Molinier N, Bédard S, Boudreau M, Cohen-Adad J. whole-spine. doi:10.18112/openneuro.ds005616.v1.0.0",
        page="https://openneuro.org/datasets/ds005616",
        size="several GB",
    ),
    DatasetSource(
        name="data-multi-subject",
        aliases=("spine-generic-multi", "spine-generic-multi-subject"),
        title="spine-generic: cervical cord, many persons, sites and contrasts",
        kind="annex",
        url="https://github.com/spine-generic/data-multi-subject.git",
        licence="CC0",
        citation=_SPINE_GENERIC,
        page="https://github.com/spine-generic/data-multi-subject",
        size="about 10 GB with everything",
    ),
    DatasetSource(
        name="data-single-subject",
        aliases=("spine-generic-single", "spine-generic-single-subject"),
        title="spine-generic: one person scanned at 19 sites",
        kind="annex",
        url="https://github.com/spine-generic/data-single-subject.git",
        licence="CC0",
        citation=_SPINE_GENERIC,
        page="https://github.com/spine-generic/data-single-subject",
        size="about 1 GB with everything",
        one_person=True,
    ),
    DatasetSource(
        name="spider-challenge-2023",
        aliases=("spider",),
        title="SPIDER: lumbar spines in T1w, T2w and T2w SPACE, 218 persons, vertebrae, discs and canal labelled",
        kind="spider",
        url="https://zenodo.org/records/10159290/files",
        licence="CC BY 4.0",
        citation="van der Graaf JW et al. Lumbar spine segmentation in MR images: a dataset and a public benchmark. "
        "Scientific Data 11, 264 (2024). doi:10.1038/s41597-024-03090-w",
        page="https://doi.org/10.5281/zenodo.10159290",
        size="3.8 GB of archives",
        digests=MappingProxyType(
            {
                "images.zip": "a54cba2905284ff6cc9999f1dd0e4d871c8487187db7cd4b068484eac2f50f17",
                "masks.zip": "13a6e25a8c0d74f507e16ebb2edafc277ceeaf2598474f1fed24fdf59cb7f18f",
            }
        ),
    ),
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
