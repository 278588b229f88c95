"""One frozen record of a run: every setting of the BIDS App, validated here and nowhere else.

It is built from the command line, from a TOML file, or in code; all three take the same names, the field names
below (in TOML a hyphen does as well as an underscore). A record of each run can be read back as a configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import LABEL_SCHEMES, LabelScheme
from totalspineseg_bids.errors import (
    DatasetError,
    MissingInputError,
    OutputError,
    UnknownLevelError,
    UsageError,
)
from totalspineseg_bids.models.catalog import DEFAULT_MODEL

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

Level = Literal["participant", "group"]
Engine = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Resolution = Literal["native", "1mm", "both"]
LEVELS: tuple[Level, ...] = get_args(Level)
ENGINES: tuple[Engine, ...] = get_args(Engine)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RESOLUTIONS: tuple[Resolution, ...] = get_args(Resolution)

#: Anatomical contrasts looked for unless ``suffix`` says otherwise.
DEFAULT_SUFFIXES: tuple[str, ...] = ("T1w", "T2w", "T2starw", "PDw", "MTw")


#: Environment variables that set a default, below command line and TOML file.
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "model": "TOTALSPINESEG_BIDS_MODEL",
        "device": "TOTALSPINESEG_BIDS_DEVICE",
        "engine": "TOTALSPINESEG_BIDS_ENGINE",
        "precision": "TOTALSPINESEG_BIDS_PRECISION",
        "n_cpus": "TOTALSPINESEG_BIDS_N_CPUS",
        "label_scheme": "TOTALSPINESEG_BIDS_LABEL_SCHEME",
    }
)
#: Settings that change what is computed; they make the configuration digest, the others do not.
_RESULT_FIELDS = (
    "label_scheme", "output_resolution", "single_step", "step1_only", "localizer", "joint_session", "volume"
)  # fmt: skip
_DEVICE = re.compile(r"^(auto|cpu|mps|cuda(:\d+)?)$")
_LABEL = re.compile(r"^[0-9a-zA-Z+]+$")
_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"engine": ENGINES, "precision": PRECISIONS, "label_scheme": LABEL_SCHEMES, "output_resolution": RESOLUTIONS}
)
_RECORD_TABLE = "record"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Settings of one run of the BIDS App.

    Attributes
    ----------
    bids_dir, output_dir
        Input dataset and output folder (absolute).
    level
        ``"participant"`` or ``"group"``.
    participant_label, session_label, exclude_participant_label
        Labels without ``sub-``/``ses-``; empty means all (or none excluded).
    suffix
        BIDS suffixes of the images to work on.
    bids_filter_file
        JSON file of pyBIDS filters a suffix, as fMRIPrep takes it.
    bids_database_dir
        Folder of a pyBIDS index to use (made where absent).
    skip_bids_validation
        Do not run the validator on the input.
    model
        Name of an installed model set, a folder, or a zip.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    engine
        ``auto``, ``openvino`` or ``torch``.
    precision
        Arithmetic of the networks: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
    label_scheme
        Ids in the output: ``seed`` or ``totalspineseg``.
    output_resolution
        Grid of the output: that of the image (``native``), ``1mm`` isotropic, or ``both``.
    single_step
        Use the single-step model (Dataset103).
    step1_only
        Stop after the first step.
    localizer
        Filter that names the image of a participant whose labels help to label the others.
    joint_session
        Find the levels of a session's images together, where they show the same part of the person.
    volume
        Volume of a 4D series: a number from 0, or ``"mean"``.
    n_cpus, omp_nthreads
        Cores to use, and threads for one numeric step; ``None`` leaves it to the machine.
    mem_mb, work_dir
        Accepted for the sake of other tools' scripts; nothing is written outside the output folder.
    force
        Redo what is complete.
    dry_run
        List what would be done.
    reports_only
        Rebuild the reports from the derivatives.
    qc_file
        Group level: table of ratings, as downloaded from an earlier group page.
    norms
        Group level: table of reference values by level (and age and sex), for z-scores.
    self_contained
        Group level: put the thumbnails into the page, so that it can be sent alone.
    stop_on_first_crash
        End at the first image that fails.
    progress
        Show progress bars; ``None`` where standard error is a terminal.
    verbose
        0 warnings, 1 information, 2 debugging (the log file has at least information).
    """

    bids_dir: Path
    output_dir: Path
    level: Level
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    exclude_participant_label: tuple[str, ...] = ()
    suffix: tuple[str, ...] = DEFAULT_SUFFIXES
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    model: str = DEFAULT_MODEL
    device: str = "auto"
    engine: Engine = "auto"
    precision: Precision = "auto"
    label_scheme: LabelScheme = "seed"
    output_resolution: Resolution = "native"
    single_step: bool = False
    step1_only: bool = False
    localizer: str | None = None
    joint_session: bool = True
    volume: int | Literal["mean"] = "mean"
    n_cpus: int | None = None
    omp_nthreads: int | None = None
    mem_mb: int | None = None
    work_dir: Path | None = None
    force: bool = False
    dry_run: bool = False
    reports_only: bool = False
    qc_file: Path | None = None
    norms: Path | None = None
    self_contained: bool = False
    stop_on_first_crash: bool = False
    progress: bool | None = None
    verbose: int = 1

    def __post_init__(self) -> None:
        for name in _PATHS:
            value = getattr(self, name)
            if value is not None:
                self._set(name, _path(name, value))
        for name, prefix in (
            ("participant_label", "sub-"),
            ("exclude_participant_label", "sub-"),
            ("session_label", "ses-"),
        ):
            self._set(name, _labels(name, getattr(self, name), prefix))
        self._set("suffix", _words("suffix", self.suffix) or DEFAULT_SUFFIXES)
        for name in _FLAGS:
            _is(name, getattr(self, name), bool)
        if self.progress is not None:
            _is("progress", self.progress, bool)
        for name in ("n_cpus", "omp_nthreads", "mem_mb"):
            _positive(name, getattr(self, name))
        self._set("volume", _volume(self.volume))
        self._check_choices()
        self._check_places()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_choices(self) -> None:
        if self.level not in LEVELS:
            msg = f"unknown analysis level '{self.level}'; choose participant or group"
            raise UnknownLevelError(msg)
        for name, choices in _CHOICES.items():
            _one_of(name, getattr(self, name), choices)
        _is("model", self.model, str)
        _is("verbose", self.verbose, int)
        if not self.model:
            msg = "model is empty; give a name, a folder or a zip"
            raise UsageError(msg)
        _check_device("device", self.device)
        if self.single_step and self.step1_only:
            msg = "--single-step and --step1-only exclude each other; choose one"
            raise UsageError(msg)
        if self.dry_run and self.reports_only:
            msg = "--dry-run and --reports-only exclude each other; choose one"
            raise UsageError(msg)
        if self.localizer is not None:
            localizer_terms(self.localizer)

    def _check_places(self) -> None:
        self._check_output()
        for name, path in (("ratings", self.qc_file), ("reference values", self.norms)):
            if path is not None and not path.is_file():
                msg = f"{path}: no such file of {name}; give a tab-separated table"
                raise MissingInputError(msg)
        if self.level == "group":
            return
        if not self.bids_dir.exists():
            msg = f"{self.bids_dir}: no such dataset; give the folder that holds dataset_description.json"
            raise MissingInputError(msg)
        if not self.bids_dir.is_dir():
            msg = f"{self.bids_dir}: is a file; give the folder that holds dataset_description.json"
            raise MissingInputError(msg)
        if not os.access(self.bids_dir, os.R_OK | os.X_OK):
            msg = f"{self.bids_dir}: no permission to read the dataset; change its mode or run as a user who may"
            raise MissingInputError(msg)
        if not (self.bids_dir / "dataset_description.json").is_file() and not self.skip_bids_validation:
            msg = f"{self.bids_dir}: not a BIDS dataset (no dataset_description.json); add it or give another folder"
            raise DatasetError(msg)
        if self.bids_filter_file is not None and not self.bids_filter_file.is_file():
            msg = f"{self.bids_filter_file}: no such filter file"
            raise MissingInputError(msg)

    def _check_output(self) -> None:
        bids, out = self.bids_dir, self.output_dir
        if out == bids or out in bids.parents:
            msg = f"{out}: the output folder is the dataset or holds it; give a folder of its own"
            raise UsageError(msg)
        if bids in out.parents and out.relative_to(bids).parts[0] not in {"derivatives", "code", "sourcedata"}:
            msg = f"{out}: lies among the raw data; give a folder below {bids / 'derivatives'} or outside the dataset"
            raise UsageError(msg)
        if out.exists() and not out.is_dir():
            msg = f"{out}: is a file; give a folder for the output"
            raise OutputError(msg)

    @property
    def threads(self) -> int | None:
        """Threads for one numeric step; ``None`` leaves it to the engine."""
        if self.omp_nthreads is not None and self.n_cpus is not None:
            return min(self.omp_nthreads, self.n_cpus)
        return self.omp_nthreads or self.n_cpus

    @property
    def resolutions(self) -> tuple[str | None, ...]:
        """``res-`` entity of each label image to write; ``None`` is the image's own grid and comes last.

        The last is the one whose sidecar marks the image as complete.
        """
        return {"native": (None,), "1mm": ("1mm",), "both": ("1mm", None)}[self.output_resolution]

    @property
    def digest(self) -> str:
        """SHA-256 of what changes the result: the settings concerned and the version of the program."""
        settings = {name: getattr(self, name) for name in _RESULT_FIELDS}
        text = json.dumps({"version": __version__, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self, record: Mapping[str, str] | None = None) -> str:
        """Return the settings as TOML.

        Parameters
        ----------
        record
            Facts of the run (version, start, command line), written to a table that is not read back.
        """
        lines = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                lines.append(f"{field.name} = {_toml(value)}")
        if record:
            lines += ["", f"[{_RECORD_TABLE}]", *(f"{key} = {_toml(value)}" for key, value in record.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], *, environment: Mapping[str, str] | None = None) -> RunConfig:
        """Build a configuration from names and values, as of a TOML file or the command line.

        Parameters
        ----------
        settings
            Values by field name; ``None`` counts as absent.
        environment
            Environment variables for the defaults of :data:`ENVIRONMENT`.

        Raises
        ------
        UsageError
            If a name is unknown, a value is not allowed, or a required one is missing.
        UnknownLevelError
            If the analysis level is unknown.
        MissingInputError
            If the dataset or a named file does not exist.
        DatasetError
            If the dataset has no description.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = environment_settings(environment or {})
        for key, value in settings.items():
            name = key.replace("-", "_")
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                msg = f"unknown setting '{key}'{hint}"
                raise UsageError(msg)
            if value is not None:
                values[name] = value
        missing = [name for name in ("bids_dir", "output_dir", "level") if name not in values]
        if missing:
            msg = f"{', '.join(missing)} not given; usage: totalspineseg-bids BIDS_DIR OUTPUT_DIR {{participant,group}}"
            raise UsageError(msg)
        return cls(**values)


_PATHS = ("bids_dir", "output_dir", "bids_filter_file", "bids_database_dir", "work_dir", "qc_file", "norms")
_FLAGS = tuple(field.name for field in dataclasses.fields(RunConfig) if field.type == "bool")


def environment_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the defaults that environment variables set, by field name.

    Parameters
    ----------
    environment
        Environment variables; those of :data:`ENVIRONMENT` count where they are not empty.

    Raises
    ------
    UsageError
        If a value is not allowed; the message names the variable.
    """
    found: dict[str, Any] = {}
    for key, variable in ENVIRONMENT.items():
        text = environment.get(variable)
        if not text:
            continue
        if key in _CHOICES:
            _one_of(variable, text, _CHOICES[key])
        if key == "device":
            _check_device(variable, text)
        found[key] = _number(variable, text) if key == "n_cpus" else text
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Read the settings of a TOML file (a configuration or the record of a run).

    Relative paths in it are taken from its own folder.

    Raises
    ------
    MissingInputError
        If the file is absent or cannot be read.
    UsageError
        If it is not TOML.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise MissingInputError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: not valid TOML ({error})"
        raise UsageError(msg) from error
    content.pop(_RECORD_TABLE, None)
    for name in _PATHS:
        for key in (name, name.replace("_", "-")):
            if isinstance(content.get(key), str):
                content[key] = str(path.resolve().parent / Path(content[key]).expanduser())
    return content


def localizer_terms(text: str) -> dict[str, str]:
    """Return the entities that a localizer filter asks for.

    The filter is written like the part of a file name: terms joined by commas or underscores, each an
    ``entity-value`` pair (``acq-loc``, also ``acq=loc``) or a suffix (``T1w``).

    Returns
    -------
    dict
        Value by short entity name, the suffix under ``"suffix"``.

    Raises
    ------
    UsageError
        If a term cannot be read.
    """
    terms: dict[str, str] = {}
    for term in re.split(r"[,_]", text):
        match = re.fullmatch(r"(?:([a-zA-Z]+)[-=])?([0-9a-zA-Z+]+)", term.strip())
        if match is None:
            msg = f"localizer filter '{text}': cannot read '{term}'; write it like acq-loc_T1w"
            raise UsageError(msg)
        terms[match[1] or "suffix"] = match[2]
    return terms


def _path(name: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not str(value):
        msg = f"{name} must be a path, not {value!r}"
        raise UsageError(msg)
    # absolute() and normpath, not resolve(): DataLad datasets are full of links that must keep their names.
    return Path(os.path.normpath(Path(value).expanduser().absolute()))


def _words(name: str, value: object) -> tuple[str, ...]:
    items: Iterable[object] = [value] if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
    words: list[str] = []
    for item in items:
        if not isinstance(item, str | int) or isinstance(item, bool):
            msg = f"{name} must be a list of labels, not {item!r}"
            raise UsageError(msg)
        words += [word for word in re.split(r"[\s,]+", str(item)) if word]
    bad = [word for word in words if not _LABEL.match(word.removeprefix("sub-").removeprefix("ses-"))]
    if bad:
        msg = f"{name} '{bad[0]}' is not a BIDS label (letters and digits only)"
        raise UsageError(msg)
    return tuple(dict.fromkeys(words))


def _labels(name: str, value: object, prefix: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.removeprefix(prefix) for word in _words(name, value)))


def _is(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        msg = f"{name} must be {'true or false' if kind is bool else kind.__name__}, not {value!r}"
        raise UsageError(msg)


def _positive(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        msg = f"{name} must be a whole number from 1, not {value!r}"
        raise UsageError(msg)


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = f"{name} must be a whole number, not '{text}'"
        raise UsageError(msg) from error


def _volume(value: object) -> int | Literal["mean"]:
    if value == "mean":
        return "mean"
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).isdigit():
        msg = f"volume must be 'mean' or a number from 0, not {value!r}"
        raise UsageError(msg)
    return int(value)


def _check_device(name: str, value: object) -> None:
    if not _DEVICE.match(str(value)):
        msg = f"{name} '{value}' is not one of auto, cpu, cuda, cuda:N, mps"
        raise UsageError(msg)


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"{name} '{value}' is not one of {', '.join(choices)}"
        raise UsageError(msg)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
