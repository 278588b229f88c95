"""Settings of the BIDS App: declared, validated and stored here and nowhere else.

Each field of :class:`RunConfig` declares one setting. The command line, the environment variables, TOML files, the
Boutiques descriptor and the table in the user guide are generated from these declarations (:data:`SETTINGS`).
The TOML record that each run writes can be read back as a configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import DEFAULT_SCHEME, SCHEME_ALIASES, LabelScheme, recorded_scheme
from totalspineseg_bids.citation import PROGRAM as MAKER
from totalspineseg_bids.errors import (
    DatasetError,
    MissingInputError,
    OutputError,
    UnknownLevelError,
    UsageError,
)
from totalspineseg_bids.files import parse_file, refuse_other_dataset
from totalspineseg_bids.inference.options import EngineName, Precision, Quality, RoiMode
from totalspineseg_bids.inference.resources import memory_limit_mb
from totalspineseg_bids.models.catalog import DEFAULT_MODEL

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

AnalysisLevel = Literal["participant", "group"]
Resolution = Literal["native", "1mm", "both"]
Share = Literal["participant", "session", "image"]
Export = Literal["slicer", "itksnap", "sct", "parts", "dicom"]
ANALYSIS_LEVELS: tuple[AnalysisLevel, ...] = get_args(AnalysisLevel)

#: BIDS suffixes that are processed unless ``suffix`` is set.
DEFAULT_SUFFIXES: tuple[str, ...] = ("T1w", "T2w", "T2starw", "PDw", "MTw")
#: Pairs of settings of which only one can be used.
MUTUALLY_EXCLUSIVE = (
    ("dry_run", "reports_only"),
    ("single_step", "step1_only"),
    ("skip_bids_validation", "strict_validation"),
)

_LABEL = re.compile(r"^[0-9a-zA-Z+]+$")
_RECORD_TABLE = "record"


def _path(name: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not str(value):
        msg = f"{name} must be a path, not {value!r}"
        raise UsageError(msg)
    # absolute() and normpath, not resolve(): DataLad datasets are full of links that must keep their names.
    try:
        return Path(os.path.normpath(expand_user(value).absolute()))
    except FileNotFoundError as error:
        msg = f"{name} {value}: the current folder was removed; change to another one, or write the whole path"
        raise UsageError(msg) from error


def expand_user(value: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the home folder.

    Raises
    ------
    UsageError
        If the user has no home folder.
    """
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        msg = f"{value}: '~' cannot be used because there is no home folder; write the whole path"
        raise UsageError(msg) from error


def _labels(name: str, value: object, prefix: str) -> tuple[str, ...]:
    items: Iterable[object] = [value] if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
    labels: list[str] = []
    for item in items:
        if not isinstance(item, str | int) or isinstance(item, bool):
            msg = f"{name} must be a list of labels, not {item!r}"
            raise UsageError(msg)
        words = [word for word in re.split(r"[\s,]+", str(item)) if word]
        if not words:
            # Such as an empty variable of a script; without the option, all images would be selected.
            msg = f"{name} has an empty value; give a label, or leave it out"
            raise UsageError(msg)
        labels += [word.removeprefix(prefix) for word in words]
    bad = [label for label in labels if not _LABEL.match(label)]
    if bad:
        msg = f"{name} '{bad[0]}' is not a BIDS label (letters and digits only)"
        raise UsageError(msg)
    return tuple(dict.fromkeys(labels))


def _is(name: str, value: object, kind: type) -> object:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        msg = f"{name} must be {'true or false' if kind is bool else kind.__name__}, not {value!r}"
        raise UsageError(msg)
    return value


def _number(name: str, value: object, least: int = 1, word: str = "") -> int | str:
    """Return a whole number, which the command line and the environment give as text, or the word in its place."""
    if word and value == word:
        return word
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).isdigit() or int(value) < least:
        alternative = f"'{word}' or " if word else ""
        msg = f"{name} must be {alternative}a whole number from {least}, not {value!r}"
        raise UsageError(msg)
    return int(value)


def _pattern(name: str, value: object, pattern: str, alternatives: str) -> str:
    if not re.fullmatch(pattern, str(value)):
        msg = f"{name} '{value}' is not {alternatives}"
        raise UsageError(msg)
    return str(value)


_device = partial(_pattern, pattern=r"auto|cpu|mps|cuda(:\d+)?", alternatives="one of auto, cpu, cuda, cuda:N, mps")
_executor = partial(
    _pattern,
    pattern=r"[a-z0-9]+(-[a-z0-9]+)*",
    alternatives="the name of a Snakemake executor, such as local, slurm or kubernetes",
)


def _model(name: str, value: object) -> str:
    _is(name, value, str)
    if not value:
        msg = f"{name} is empty; give a name, a folder or a zip"
        raise UsageError(msg)
    return str(value)


def _localizer(name: str, value: object) -> object:
    localizer_terms(str(_is(name, value, str)))
    return value


def _export(name: str, value: object) -> tuple[str, ...]:
    chosen = _labels(name, value, "")
    unknown = [tool for tool in chosen if tool not in get_args(Export)]
    if unknown:
        msg = f"{name} '{unknown[0]}' is not one of {', '.join(get_args(Export))}"
        raise UsageError(msg)
    return tuple(tool for tool in get_args(Export) if tool in chosen)


def _reference(name: str, value: object) -> str:
    text = str(value).strip()
    if not all(part.strip() for part in (text.partition("=")[::2])):
        msg = f"{name} must be COLUMN=VALUE, such as group=control, not '{text}'"
        raise UsageError(msg)
    return text


def _container(name: str, value: object) -> str:
    if isinstance(value, str) and value.startswith("docker://"):
        return value
    path = _path(name, value)
    if not path.is_file():
        msg = f"{path}: no such image; give an Apptainer image or docker://NAME"
        raise MissingInputError(msg)
    return str(path)


def _choice(name: str, value: object, choices: tuple[str, ...], aliases: Mapping[str, str]) -> object:
    value = aliases.get(str(value), value)
    if value not in choices:
        msg = f"{name} '{value}' is not one of {', '.join(choices)}"
        raise UsageError(msg)
    return value


def _analysis_level(_: str, value: object) -> object:
    if value not in ANALYSIS_LEVELS:
        msg = f"unknown analysis level '{value}'; choose participant or group"
        raise UnknownLevelError(msg)
    return value


class SettingKind(Enum):
    """Type of a setting's value."""

    PATH = "path"
    LABELS = "list of labels"
    FLAG = "flag"
    CHOICE = "choice"
    COUNT = "whole number from 1"
    TEXT = "text"


class SettingGroup(Enum):
    """Heading in the command line's help."""

    REQUIRED = "required"
    IMAGES = "which images"
    METHOD = "method"
    OUTPUT = "output"
    RESOURCES = "resources"
    CLUSTER = "cluster"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Setting:
    """Declaration of one setting.

    Examples
    --------
    >>> SETTINGS["n_cpus"].flags
    ('--n-cpus', '--nprocs')
    >>> SETTINGS["engine"].choices
    ('auto', 'openvino', 'torch')
    """

    name: str
    """Field name, which is also the name in TOML files."""
    kind: SettingKind
    """Type of the value."""
    group: SettingGroup
    """Heading in the command line's help; required settings are positional arguments."""
    help: str
    """Purpose of the setting, without its default."""
    default: object = None
    """Default value."""
    choices: tuple[str, ...] = ()
    """Allowed values."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other spellings of allowed values."""
    flags: tuple[str, ...] = ()
    """Spellings on the command line with hyphens; underscores are accepted too."""
    metavar: str = ""
    """Placeholder of the value in the command line's help."""
    variable: str | None = None
    """Environment variable that sets the default."""
    former_name: str | None = None
    """Name in earlier TOML files, which is still read, and id in the Boutiques descriptor."""
    is_input: bool = False
    """The path is read and must exist."""
    changes_result: bool = False
    """The setting changes the output and is part of the configuration digest."""
    parse: Callable[[str, object], object] = lambda _, value: value
    """Check of a value, called with the name for messages and the value; returns the value as it is stored."""

    def validate(self, value: object, name: str = "") -> object:
        """Return a value as it is stored.

        Parameters
        ----------
        value : object
            Value from the command line, TOML, the environment or code.
        name : str
            Name for messages; the setting's own by default.

        Raises
        ------
        UsageError
            If the value is not allowed.
        UnknownLevelError
            If it is an unknown analysis level.
        """
        return None if value is None and self.default is None else self.parse(name or self.name, value)

    @property
    def required(self) -> bool:
        """The setting has no default and is a positional argument of the command line."""
        return self.group is SettingGroup.REQUIRED

    @property
    def default_text(self) -> str:
        """Default value as users write it; empty where there is none to name."""
        if isinstance(self.default, tuple):
            return " ".join(self.default)
        if isinstance(self.default, bool):
            return "yes" if self.default else ""
        return "" if self.default is None else str(self.default)

    @property
    def help_text(self) -> str:
        """Purpose of the setting, with its default."""
        return f"{self.help} (default: {self.default_text})" if self.default_text else self.help


def _declare(
    group: SettingGroup,
    text: str,
    *,
    environment: bool = False,
    hidden: bool = False,
    **details: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return the metadata of a field: the parts of its :class:`Setting` that its type and default do not give."""
    return {"group": group, "help": text, "environment": environment, "hidden": hidden, **details}


def _option(group: SettingGroup, default: object, text: str, **details: Any) -> Any:  # noqa: ANN401 - typed by the field
    """Return the field of a setting that has a default."""
    return field(default=default, metadata=_declare(group, text, **details))


_images = partial(_option, SettingGroup.IMAGES)
_method = partial(_option, SettingGroup.METHOD)
_output = partial(_option, SettingGroup.OUTPUT)
_resources = partial(_option, SettingGroup.RESOURCES)
_cluster = partial(_option, SettingGroup.CLUSTER)
_running = partial(_option, SettingGroup.RUNNING)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Settings of one run of the BIDS App.

    Raises
    ------
    UsageError
        If a value is not allowed.
    UnknownLevelError
        If the analysis level is unknown.
    MissingInputError
        If the dataset or an input file does not exist.
    DatasetError
        If the dataset has no description.
    """

    bids_dir: Path = field(metadata=_declare(SettingGroup.REQUIRED, "BIDS dataset", is_input=True))
    output_dir: Path = field(metadata=_declare(SettingGroup.REQUIRED, "output folder"))
    analysis_level: AnalysisLevel = field(
        metadata=_declare(
            SettingGroup.REQUIRED,
            "participant: segment images; group: collect the results",
            metavar="{participant,group}",
            former_name="level",
            parse=_analysis_level,
        )
    )

    participant_label: tuple[str, ...] = _images(
        (), "participants to process, with or without sub- (default: all)", metavar="LABEL", prefix="sub-"
    )
    exclude_participant_label: tuple[str, ...] = _images((), "participants to skip", metavar="LABEL", prefix="sub-")
    session_label: tuple[str, ...] = _images(
        (),
        "sessions to process, with or without ses- (default: all)",
        metavar="LABEL",
        prefix="ses-",
        flags=("--session-label", "--session-id"),
    )
    suffix: tuple[str, ...] = _images(DEFAULT_SUFFIXES, "BIDS suffixes to process", metavar="SUFFIX")
    volume: int | Literal["mean"] = _images(
        "mean",
        "volume of a 4D series to use: an index from 0, or the mean of all volumes",
        metavar="N|mean",
        parse=partial(_number, least=0, word="mean"),
        changes_result=True,
    )
    bids_filter_file: Path | None = _images(
        None,
        "JSON file of pyBIDS filters in fMRIPrep's format; null: entity absent, *: entity present",
        metavar="FILE",
        is_input=True,
    )
    bids_database_dir: Path | None = _images(None, "folder of the pyBIDS index, created if absent", metavar="DIR")
    datalad_get: bool = _images(False, "fetch images whose content is absent with DataLad, which must be installed")
    skip_bids_validation: bool = _images(
        False, "do not run the BIDS validator on the dataset", flags=("--skip-bids-validation", "--skip-bids-validator")
    )
    strict_validation: bool = _images(
        False, "refuse the dataset for any error of the BIDS validator, also in files that the run does not use"
    )

    model: str = _method(
        DEFAULT_MODEL,
        "installed model, folder or zip; 'bundled' is the small model included for trials",
        metavar="NAME|PATH|ZIP",
        parse=_model,
        environment=True,
    )
    device: str = _method("auto", "auto, cpu, cuda, cuda:N or mps", metavar="DEVICE", parse=_device, environment=True)
    engine: EngineName = _method("auto", "library that runs the networks", environment=True)
    precision: Precision = _method(
        "auto", "floating-point format of the networks; fp32 varies least between processors", environment=True
    )
    quality: Quality = _method(
        "standard",
        "passes and overlap of the bundled networks; best takes longest",
        changes_result=True,
        environment=True,
    )
    roi: RoiMode = _method(
        "auto",
        "auto runs the first network only where a coarse network sees the spine; off runs it on the whole image",
        changes_result=True,
    )
    single_step: bool = _method(
        False,
        "use the single-step model (Dataset103); the bundled one is a coarse level prior: levels, not shapes",
        changes_result=True,
    )
    step1_only: bool = _method(False, "stop after step 1", changes_result=True)
    localizer: str | None = _method(
        None,
        "image of the participant whose levels guide the other images, such as acq-loc or acq-wide_T2w",
        metavar="FILTER",
        parse=_localizer,
        changes_result=True,
    )
    joint_session: bool = _method(
        True, "determine the levels of overlapping images of a session together", changes_result=True
    )

    label_scheme: LabelScheme = _output(
        DEFAULT_SCHEME,
        "label ids: totalsegmri as in the original TotalSpineSeg README (alias: seed), totalspineseg as in "
        "later releases",
        aliases=SCHEME_ALIASES,
        changes_result=True,
        environment=True,
    )
    output_resolution: Resolution = _output(
        "native", "grid of the output: the image's own, 1 mm isotropic, or both", changes_result=True
    )
    export: tuple[str, ...] = _output(
        (),
        "files for other tools: slicer, itksnap, sct (Spinal Cord Toolbox), parts (vertebral bodies and posterior "
        "elements), dicom (DICOM segmentations)",
        metavar="TOOL",
        parse=_export,
    )
    dicom_dir: Path | None = _output(
        None,
        "folder of the DICOM series that the images were converted from, with a folder sub-X[/ses-Y] for each "
        "participant or all in one; for --export dicom",
        metavar="DIR",
        is_input=True,
    )
    corrections: Path | None = _output(
        None,
        "corrections of readers: a table, or a folder of tables and edited label maps; corrected results are made "
        "again without the networks",
        metavar="TSV|DIR",
        is_input=True,
    )
    qc_file: Path | None = _output(
        None,
        "group: ratings downloaded from the group page, to include in page and table",
        metavar="TSV",
        is_input=True,
    )
    norms: Path | None = _output(
        None,
        "group: reference values (measure, level, mean, sd; sex, age_min, age_max) for z-scores",
        metavar="TSV",
        is_input=True,
    )
    reference: str | None = _output(
        None,
        "group: participants whose range is drawn behind all others, such as group=control in participants.tsv",
        metavar="COLUMN=VALUE",
        parse=_reference,
    )
    self_contained: bool = _output(
        False,
        "embed the data of the full-resolution viewer (participant) or the thumbnails (group), so that each page is a "
        "single file",
    )
    full_viewer: bool = _output(True, "write the data of the full-resolution viewer beside the pages")

    n_cpus: int | None = _resources(
        None,
        "number of CPU cores to use (default: all that affinity and container allow)",
        metavar="N",
        flags=("--n-cpus", "--nprocs"),
        environment=True,
    )
    omp_nthreads: int | None = _resources(None, "number of threads per numerical operation", metavar="N")
    jobs: int | Literal["auto"] | None = _resources(
        None,
        "number of participants processed at the same time, which share cores and memory, or auto for as many as fit; "
        "with --executor: highest number of jobs (default: 1)",
        metavar="N|auto",
        parse=partial(_number, word="auto"),
        environment=True,
    )
    mem_mb: int | None = _resources(
        None,
        "memory to use; an image that needs more fails before it is read (default: all of machine or container; with "
        "--executor: estimated from the image headers)",
        metavar="MB",
    )
    work_dir: Path | None = _resources(
        None, "accepted for compatibility; no intermediate files are written", metavar="DIR", flags=("-w", "--work-dir")
    )

    executor: str | None = _cluster(
        None,
        "run the participants as jobs of a Snakemake executor: local, slurm, kubernetes, htcondor, lsf or another "
        "installed plugin",
        metavar="NAME",
        parse=_executor,
    )
    profile: Path | None = _cluster(
        None, "Snakemake profile of the site: partition, account, retries and others", metavar="FOLDER", is_input=True
    )
    per: Share = _cluster("participant", "smallest part of the dataset that is a job of its own")
    batch_size: int | None = _cluster(
        None,
        "number of such parts that a job processes one after the other (default: as many as take some minutes, if "
        "there are enough of them for --jobs)",
        metavar="N",
    )
    time: int | None = _cluster(
        None, "time limit of a job (default: estimated from the image headers)", metavar="MINUTES"
    )
    gpus: int | None = _cluster(None, "number of GPUs of a job (default: 1 with --device cuda, else none)", metavar="N")
    container: str | None = _cluster(
        None,
        "image in which the jobs run: a file, with Apptainer, or docker://NAME, with Apptainer or else Docker",
        metavar="IMAGE",
        parse=_container,
    )
    then_group: bool = _cluster(False, "run the group level after the participants, also if some of them failed")

    force: bool = _running(False, "process complete images again")
    dry_run: bool = _running(False, "list what would be done and exit")
    reports_only: bool = _running(False, "only rebuild the reports from existing results")
    stop_on_first_crash: bool = _running(False, "stop at the first image that fails")
    progress: bool | None = _running(None, "show progress bars (default: if standard error is a terminal)")
    verbose: int = _running(
        1, "console messages: 0 warnings, 1 information, 2 debug", parse=partial(_is, kind=int), hidden=True
    )

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            self._set(name, setting.validate(getattr(self, name)))
        self._set("suffix", self.suffix or DEFAULT_SUFFIXES)
        self._check_combinations()
        self._check_cluster()
        self._check_places()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_combinations(self) -> None:
        for names in MUTUALLY_EXCLUSIVE:
            if all(getattr(self, name) for name in names):
                first, second = (SETTINGS[name].flags[0] for name in names)
                msg = f"{first} and {second} exclude each other; choose one"
                raise UsageError(msg)

    def _check_cluster(self) -> None:
        group = (setting for setting in SETTINGS.values() if setting.group is SettingGroup.CLUSTER)
        given = [setting for setting in group if getattr(self, setting.name) != setting.default]
        if self.executor is None and given:
            msg = f"{given[0].flags[0]} needs --executor NAME, which runs the participants as jobs"
            raise UsageError(msg)
        if self.executor is not None and self.jobs == "auto":
            msg = "--jobs auto depends on the cores of this machine; with --executor give a number"
            raise UsageError(msg)
        if self.executor is not None and (self.analysis_level == "group" or self.reports_only):
            msg = "--executor runs the images of participants; leave it out for the group level and --reports-only"
            raise UsageError(msg)
        if self.localizer is not None and self.per != "participant":
            msg = "with --localizer, an image needs the result of another one of the participant; use --per participant"
            raise UsageError(msg)

    def _check_places(self) -> None:
        self._check_output()
        for name, setting in SETTINGS.items():
            path = getattr(self, name)
            if setting.is_input and not setting.required and path is not None and not path.exists():
                msg = f"{path}: no such file or folder; check {setting.flags[0]}"
                raise MissingInputError(msg)
        if self.analysis_level == "group":
            return
        if not self.bids_dir.exists():
            msg = f"{self.bids_dir}: no such dataset; give the folder that contains dataset_description.json"
            raise MissingInputError(msg)
        if not self.bids_dir.is_dir():
            msg = f"{self.bids_dir}: is a file; give the folder that contains dataset_description.json"
            raise MissingInputError(msg)
        if not os.access(self.bids_dir, os.R_OK | os.X_OK):
            msg = f"{self.bids_dir}: no permission to read the dataset; change its mode or run as another user"
            raise MissingInputError(msg)
        if not (self.bids_dir / "dataset_description.json").is_file() and not self.skip_bids_validation:
            msg = f"{self.bids_dir}: not a BIDS dataset (no dataset_description.json); add it or give another folder"
            raise DatasetError(msg)
        check_dicom_dir(self.export, self.dicom_dir)

    def _check_output(self) -> None:
        bids, out = self.bids_dir, self.output_dir
        if out == bids or out in bids.parents:
            msg = f"{out}: the output folder is the dataset or contains it; give a folder outside it"
            raise UsageError(msg)
        if bids in out.parents and out.relative_to(bids).parts[0] not in {"derivatives", "code", "sourcedata"}:
            msg = f"{out}: is inside the raw data; give a folder below {bids / 'derivatives'} or outside the dataset"
            raise UsageError(msg)
        if out.exists() and not out.is_dir():
            msg = f"{out}: is a file; give a folder for the output"
            raise OutputError(msg)
        refuse_other_dataset(out, "derivative", MAKER, "description")

    @property
    def threads(self) -> int | None:
        """Number of threads per numerical operation; ``None`` leaves it to the engine."""
        if self.omp_nthreads is not None and self.n_cpus is not None:
            return min(self.omp_nthreads, self.n_cpus)
        return self.omp_nthreads or self.n_cpus

    @property
    def job_limit(self) -> int | None:
        """Highest number of jobs of an executor; ``None`` leaves it to the profile."""
        return self.jobs if isinstance(self.jobs, int) else None

    @property
    def memory_mb(self) -> float:
        """Memory that the run may use, MB: ``mem_mb`` within the limits of machine and container."""
        return min(self.mem_mb or math.inf, memory_limit_mb())

    @property
    def resolutions(self) -> tuple[str | None, ...]:
        """``res-`` entity of each label image to write; ``None`` is the image's own grid.

        The sidecar of the last one marks the image as complete.
        """
        return {"native": (None,), "1mm": ("1mm",), "both": ("1mm", None)}[self.output_resolution]

    @property
    def digest(self) -> str:
        """SHA-256 digest of the program version and the settings that change the result."""
        settings = {name: getattr(self, name) for name, setting in SETTINGS.items() if setting.changes_result}
        settings["label_scheme"] = recorded_scheme(self.label_scheme)
        text = json.dumps({"version": __version__, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self, record: Mapping[str, str] | None = None) -> str:
        """Return the settings as TOML.

        Parameters
        ----------
        record : mapping of str to str, optional
            Properties of the run (version, start, command line), which are not read back.
        """
        values = ((name, getattr(self, name)) for name in SETTINGS)
        lines = [f"{name} = {_toml(value)}" for name, value in values if value is not None]
        if record:
            lines += ["", f"[{_RECORD_TABLE}]", *(f"{key} = {_toml(value)}" for key, value in record.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_mapping(cls, *settings: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> RunConfig:
        """Build a configuration from names and values, such as those of a TOML file or a command line.

        Parameters
        ----------
        *settings
            Values by field name; later mappings override earlier ones and ``None`` counts as absent.
        environment : mapping of str to str, optional
            Environment variables, some of which set defaults.

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
        names = {name: name for name in SETTINGS}
        names |= {setting.former_name: name for name, setting in SETTINGS.items() if setting.former_name}
        values = environment_settings(environment or {})
        for key, value in (item for mapping in settings for item in mapping.items()):
            name = key.replace("-", "_")
            if name not in names:
                near = difflib.get_close_matches(name, SETTINGS, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                msg = f"unknown setting '{key}'{hint}"
                raise UsageError(msg)
            if value is not None:
                values[names[name]] = value
        missing = [name for name, setting in SETTINGS.items() if setting.required and name not in values]
        if missing:
            msg = f"{', '.join(missing)} not given; usage: totalspineseg-bids BIDS_DIR OUTPUT_DIR {{participant,group}}"
            raise UsageError(msg)
        return cls(**values)


def check_dicom_dir(export: Iterable[str], folder: Path | None) -> None:
    """Reject ``--export dicom`` without a folder of DICOM series.

    Raises
    ------
    UsageError
        If no folder is given.
    MissingInputError
        If it does not exist.
    """
    if "dicom" in export and folder is None:
        msg = "--export dicom needs the DICOM series that the images were converted from; give them with --dicom-dir"
        raise UsageError(msg)
    if folder is not None and not folder.is_dir():
        msg = f"{folder}: no such folder of DICOM series"
        raise MissingInputError(msg)


def _kind(hint: object) -> SettingKind:
    if typing.get_origin(hint) is Literal:
        return SettingKind.CHOICE
    if typing.get_origin(hint) is tuple:
        return SettingKind.LABELS
    kinds = {Path: SettingKind.PATH, bool: SettingKind.FLAG, int: SettingKind.COUNT}
    types = [item for item in get_args(hint) if item is not type(None)] or [hint]
    return kinds.get(types[0], SettingKind.TEXT) if len(types) == 1 else SettingKind.TEXT


def _settings() -> Iterator[Setting]:
    hints = typing.get_type_hints(RunConfig)
    for declared in dataclasses.fields(RunConfig):
        details = dict(declared.metadata)
        environment, hidden = details.pop("environment"), details.pop("hidden")
        name, kind = declared.name, _kind(hints[declared.name])
        choices = get_args(hints[name]) if kind is SettingKind.CHOICE else ()
        checks = {
            SettingKind.PATH: _path,
            SettingKind.COUNT: _number,
            SettingKind.FLAG: partial(_is, kind=bool),
            SettingKind.LABELS: partial(_labels, prefix=details.pop("prefix", "")),
            SettingKind.CHOICE: partial(_choice, choices=choices, aliases=details.get("aliases", {})),
        }
        details.setdefault("parse", checks.get(kind))
        if not hidden and details["group"] is not SettingGroup.REQUIRED:
            details.setdefault("flags", (f"--{name.replace('_', '-')}",))
        yield Setting(
            name=name,
            kind=kind,
            default=None if declared.default is dataclasses.MISSING else declared.default,
            choices=choices,
            variable=f"TOTALSPINESEG_BIDS_{name.upper()}" if environment else None,
            **details,
        )


#: Every setting by name, in the order of the command line's help.
SETTINGS: Mapping[str, Setting] = MappingProxyType({setting.name: setting for setting in _settings()})


def environment_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the defaults that environment variables set, by setting name.

    Parameters
    ----------
    environment : mapping of str to str
        Environment variables; empty ones are ignored.

    Raises
    ------
    UsageError
        If a value is not allowed; the message names the variable.
    """
    found: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        text = environment.get(setting.variable) if setting.variable else None
        if text:
            found[name] = setting.validate(text, str(setting.variable))
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Read the settings of a TOML file (a configuration or the record of a run).

    Relative paths are relative to the folder of the file.

    Raises
    ------
    MissingInputError
        If the file is absent or cannot be read.
    UsageError
        If it is not TOML.
    """
    content = parse_file(path, tomllib.loads, "TOML")
    content.pop(_RECORD_TABLE, None)
    return _with_absolute_paths(content, path)


def read_run_record(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the settings and the software versions in the record of a run.

    Raises
    ------
    MissingInputError
        If the file is absent or cannot be read.
    UsageError
        If it is not the record of a run.
    """
    content = parse_file(path, tomllib.loads, "TOML")
    record = content.pop(_RECORD_TABLE, None)
    if not isinstance(record, dict) or not isinstance(record.get("software"), str):
        msg = f"{path}: not the record of a run; give a file such as OUTPUT/logs/run-*.toml"
        raise UsageError(msg)
    versions = (item.rpartition(" ") for item in record["software"].split(", "))
    return _with_absolute_paths(content, path), {name: version for name, _, version in versions}


def _with_absolute_paths(content: dict[str, Any], path: Path) -> dict[str, Any]:
    for key, value in content.items():
        setting = SETTINGS.get(key.replace("-", "_"))
        if setting is not None and setting.kind is SettingKind.PATH and isinstance(value, str):
            content[key] = str(path.resolve().parent / expand_user(value))
    return content


def localizer_terms(text: str) -> dict[str, str]:
    """Return the entities of a localizer filter.

    A filter resembles a file name: terms joined by commas or underscores, each an ``entity-value`` pair
    (``acq-loc``, also ``acq=loc``) or a suffix (``T1w``).

    >>> localizer_terms("acq-loc_T1w")
    {'acq': 'loc', 'suffix': 'T1w'}

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


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
