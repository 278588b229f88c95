"""Names of the source images and of their derivatives.

Source: BIDS specification 1.11, file-name rules of raw and derived anatomical data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Value of the ``seg-`` entity of the main label image.
SEGMENTATION = "totalspineseg"
POINTS = "levels"
#: Values of ``label-`` of the probability maps.
PROBABILITIES = ("SC", "canal")
#: Possible values of ``res-``; ``None`` is the grid of the image.
RESOLUTIONS: tuple[str | None, ...] = (None, "1mm")
FIGURES = "figures"
LOGS = "logs"
#: Entities whose key in file names differs from their name in filters and reports (pyBIDS, BIDS specification 1.10).
ENTITY_NAMES = {
    "sub": "subject",
    "ses": "session",
    "acq": "acquisition",
    "ce": "ceagent",
    "rec": "reconstruction",
    "dir": "direction",
    "mod": "modality",
    "stain": "staining",
    "trc": "tracer",
}
_OF_ONE_ACQUISITION = ("rec", "run", "echo", "part", "inv")
_ENTITY_KEYS = {name: key for key, name in ENTITY_NAMES.items()}
#: Values of ``seg-`` of the label maps for other tools.
EXPORTED_MAPS = ("cordlevels", "centerline", "vertebralparts")
#: Ends of the names of other files for other tools.
EXPORTED_FILES = ("discs.mrk.json", "vertebrae.mrk.json", "dseg.dcm")
#: End of the names of the table of areas along the column and of its data dictionary, without the extension.
PROFILE = "profile"
#: Name of the table of these areas over a group, without the extension.
GROUP_PROFILES = "group_profiles"
#: End of the name of the file that holds a result before corrections.
UNCORRECTED = "uncorrected.npz"

_NAME = re.compile(
    r"^(?P<entities>sub-[0-9a-zA-Z+]+(?:_[a-zA-Z]+-[0-9a-zA-Z+]+)*)_(?P<suffix>[0-9a-zA-Z]+)(?P<extension>\.nii(?:\.gz)?)$"
)
_FOLDER = re.compile(r"^(?P<sub>sub-[0-9a-zA-Z+]+)(?:/(?P<ses>ses-[0-9a-zA-Z+]+))?/(?P<datatype>[a-z]+)$")


@dataclass(frozen=True, slots=True, order=True)
class SourceImage:
    """One raw image of a dataset.

    Examples
    --------
    >>> image = SourceImage("sub-01/ses-2/anat/sub-01_ses-2_acq-sag_T2w.nii.gz", Path("image.nii.gz"))
    >>> image.participant, image.session, image.suffix
    ('01', '2', 'T2w')
    """

    relative: str
    """Path below the dataset, with ``/``; images are sorted by it."""
    path: Path
    """Path of the file."""

    @property
    def entities(self) -> dict[str, str]:
        """Entities of the file name in their order (short names, such as ``sub``, ``acq``), without the suffix."""
        pairs = (part.partition("-") for part in self.stem.split("_"))
        return {key: value for key, _, value in pairs}

    def value_of(self, name: str) -> str | None:
        """Return the value of an entity by its name or key, or suffix, datatype or extension; ``None`` if absent.

        Examples
        --------
        >>> image = SourceImage("sub-01/anat/sub-01_acq-sag_T2w.nii.gz", Path("image.nii.gz"))
        >>> image.value_of("acquisition"), image.value_of("suffix"), image.value_of("run")
        ('sag', 'T2w', None)
        """
        parts = {"suffix": self.suffix, "extension": self._match["extension"], "datatype": self.folder.split("/")[-1]}
        return {**self.entities, **parts}.get(_ENTITY_KEYS.get(name, name))

    @property
    def participant(self) -> str:
        """Label without ``sub-``."""
        return self.entities["sub"]

    @property
    def session(self) -> str:
        """Label without ``ses-``; empty if there is none."""
        return self.entities.get("ses", "")

    @property
    def acquisition(self) -> str:
        """Name without the entities in which the reconstructions, echoes and repetitions of an acquisition differ.

        Examples
        --------
        >>> SourceImage("sub-01/anat/sub-01_acq-sag_rec-norm_run-2_T2w.nii.gz", Path("image.nii.gz")).acquisition
        'sub-01_acq-sag_T2w'
        """
        kept = (f"{key}-{value}" for key, value in self.entities.items() if key not in _OF_ONE_ACQUISITION)
        return "_".join((*kept, self.suffix))

    @property
    def suffix(self) -> str:
        """BIDS suffix, such as ``T2w``."""
        return self._match["suffix"]

    @property
    def stem(self) -> str:
        """File name up to the suffix, such as ``sub-01_acq-sag``."""
        return self._match["entities"]

    @property
    def name(self) -> str:
        """File name without extension; identifies the image in tables and messages."""
        return f"{self.stem}_{self.suffix}"

    @property
    def folder(self) -> str:
        """Folder below the dataset, such as ``sub-01/ses-2/anat``."""
        return PurePosixPath(self.relative).parent.as_posix()

    @property
    def uri(self) -> str:
        """BIDS URI of the image, relative to the derivatives."""
        return f"bids:raw:{self.relative}"

    @property
    def _match(self) -> re.Match[str]:
        match = _NAME.match(PurePosixPath(self.relative).name)
        if match is None:
            msg = f"not a BIDS image name: {self.relative}"
            raise ValueError(msg)
        return match


def is_source_name(relative: str) -> bool:
    """Return whether a path is a valid BIDS image name that agrees with its folders.

    Parameters
    ----------
    relative : str
        Path below the dataset with ``/``, such as ``sub-01/anat/sub-01_T2w.nii.gz``.

    Examples
    --------
    >>> is_source_name("sub-01/anat/sub-01_T2w.nii.gz"), is_source_name("sub-02/anat/sub-01_T2w.nii.gz")
    (True, False)
    """
    path = PurePosixPath(relative)
    name, folder = _NAME.match(path.name), _FOLDER.match(path.parent.as_posix())
    if name is None or folder is None:
        return False
    parts = name["entities"].split("_")
    keys = [part.split("-", 1)[0] for part in parts]
    sessions = [part for part in parts if part.startswith("ses-")]
    return parts[0] == folder["sub"] and sessions == [s for s in (folder["ses"],) if s] and len(set(keys)) == len(keys)


def label_number(label: str) -> int | None:
    """Return the number that a label is, with or without leading zeros; ``None`` if it is no number.

    Examples
    --------
    >>> label_number("007"), label_number("7.0"), label_number("A7")
    (7, 7, None)
    """
    match = re.fullmatch(r"(\d+)(?:\.0+)?", label)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class DerivativeNames:
    """Paths of the derivatives of one image, below the output folder.

    Examples
    --------
    >>> DerivativeNames("sub-01/anat", "sub-01", "T2w").labels(".nii.gz")
    'sub-01/anat/sub-01_seg-totalspineseg_desc-T2w_dseg.nii.gz'
    """

    folder: str
    """Folder, such as ``sub-01/ses-2/anat``."""
    stem: str
    """Entities of the source, such as ``sub-01_ses-2_acq-sag``."""
    suffix: str
    """Suffix of the source; it becomes ``desc-``, so that two contrasts with the same entities do not collide."""

    @classmethod
    def of(cls, source: SourceImage) -> DerivativeNames:
        """Return the names for a source image."""
        return cls(source.folder, source.stem, source.suffix)

    def _name(self, *entities: str, suffix: str) -> str:
        return f"{self.folder}/{'_'.join((self.stem, *entities, f'desc-{self.suffix}', suffix))}"

    def labels(self, extension: str, resolution: str | None = None) -> str:
        """Return the path of the label image, its table or its sidecar (``.nii.gz``, ``.tsv``, ``.json``)."""
        return self._name(f"seg-{SEGMENTATION}", *_res(resolution), suffix="dseg") + extension

    def points(self, extension: str, resolution: str | None = None) -> str:
        """Return the path of the image with one voxel per disc level on the centreline of the canal."""
        return self._name(f"seg-{POINTS}", *_res(resolution), suffix="dseg") + extension

    def probability(self, label: str, extension: str, resolution: str | None = None) -> str:
        """Return the path of the probability map of a structure (``SC`` or ``canal``)."""
        return self._name(*_res(resolution), f"label-{label}", suffix="probseg") + extension

    def exported_map(self, kind: str, extension: str) -> str:
        """Return the path of a label map for another tool, its table or its sidecar."""
        return self._name(f"seg-{kind}", suffix="dseg") + extension

    def exported_file(self, kind: str) -> str:
        """Return the path of another file for another tool; the kind includes the extension."""
        return f"{self.folder}/{self.figure_stem}_{kind}"

    def all(self) -> list[str]:
        """Return all names that files of the image may have with any settings, without figures."""
        names = []
        for resolution in RESOLUTIONS:
            names += [self.labels(extension, resolution) for extension in (".nii.gz", ".tsv", ".json")]
            for extension in (".nii.gz", ".json"):
                names.append(self.points(extension, resolution))
                names += [self.probability(label, extension, resolution) for label in PROBABILITIES]
        names += [self.exported_map(k, ext) for k in EXPORTED_MAPS for ext in (".nii.gz", ".tsv", ".json")]
        return [
            *names,
            *map(self.exported_file, EXPORTED_FILES),
            *map(self.profile, (".tsv", ".json")),
            self.uncorrected,
        ]

    def profile(self, extension: str) -> str:
        """Return the path of the table of areas along the column or of its data dictionary."""
        return f"{self.folder}/{self.figure_stem}_{PROFILE}{extension}"

    @property
    def uncorrected(self) -> str:
        """Path of the result before corrections, from which a corrected one is made without the networks."""
        return f"{self.folder}/{self.figure_stem}_{UNCORRECTED}"

    @property
    def figure_stem(self) -> str:
        """Start of the file names of the figures."""
        return f"{self.stem}_desc-{self.suffix}"

    @property
    def figures(self) -> str:
        """Folder of the figures."""
        return f"{self.stem.split('_', 1)[0]}/{FIGURES}"

    @property
    def crash(self) -> str:
        """Path of the record of a failure of this image."""
        return f"{LOGS}/crash-{self.stem}_{self.suffix}.json"

    @property
    def mark(self) -> str:
        """Path of the mark that this image is being processed."""
        return f"{LOGS}/running-{self.stem}_{self.suffix}.json"


def _res(resolution: str | None) -> tuple[str, ...]:
    return () if resolution is None else (f"res-{resolution}",)


def report_name(participant: str) -> str:
    """Return the file name of the report of a participant."""
    return f"sub-{participant}.html"
