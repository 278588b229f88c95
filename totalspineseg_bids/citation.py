"""Publications to cite (``publications.json``), and the text for a methods section."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from totalspineseg_bids import __version__

PROGRAM: Final = "totalspineseg_bids"
CODE_URL: Final = "https://github.com/neuropoly/totalspineseg"


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication."""

    key: str
    """Key in BibTeX, such as ``isensee2021``."""
    kind: str
    """Type in BibTeX."""
    authors: list[str]
    """Authors as family name and initials."""
    title: str
    """Title."""
    year: int
    """Year."""
    source: str
    """Where it was published, as in a list of references."""
    link: str
    """DOI or address."""
    bibtex: dict[str, str]
    """Further fields in BibTeX."""

    @property
    def reference(self) -> str:
        """The reference as one line, without its link."""
        return f"{', '.join(self.authors)}. {self.title}. {self.source}."

    def to_bibtex(self) -> str:
        """Return the entry of a BibTeX file."""
        names = " and ".join(
            f"{family}, {initials}" for family, _, initials in (a.rpartition(" ") for a in self.authors)
        )
        fields = {"author": names, "title": f"{{{self.title}}}", "year": str(self.year), **self.bibtex}
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{self.kind}{{{self.key},\n{lines}\n}}\n"


PUBLICATIONS: Final = tuple(
    Publication(**entry) for entry in json.loads(Path(__file__).with_name("publications.json").read_text("utf-8"))
)


def describe_method(model: str) -> str:
    """Return the text for a methods section.

    Parameters
    ----------
    model : str
        Name of the model set.
    """
    return (
        f"Vertebrae, intervertebral discs, spinal cord and spinal canal were segmented and labelled with"
        f" {PROGRAM} {__version__} (model {model}), which follows TotalSpineSeg (Warszawer et al., 2024) and"
        " uses nnU-Net (Isensee et al., 2021): a first network segments the structures and the landmark discs, a second"
        " one separates neighbouring vertebrae, and the levels are inferred from all landmarks together; if the"
        " evidence is not sufficient, no levels are assigned. Body and disc heights, wedge angles and slip were"
        " measured in the frame of each level; areas and diameters of canal and cord perpendicular to the centreline of"
        " the canal. Levels cut off by the field of view were excluded."
    )


def make_citation(model: str) -> str:
    """Return methods text and references as Markdown."""
    references = "".join(f"- {publication.reference} {publication.link}\n" for publication in PUBLICATIONS)
    return f"# Methods\n\n{describe_method(model)}\n\n# References\n\n{references}"


def make_bibliography() -> str:
    """Return the references as BibTeX."""
    return "\n".join(publication.to_bibtex() for publication in PUBLICATIONS)
