"""Query of the images of a dataset that a run processes.

pyBIDS indexes only folders that can contain selected images. Folders of other participants, sessions and data types are
not opened, so that the query of one participant of a large dataset is fast.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pathspec import GitIgnoreSpec

from totalspineseg_bids.bids.names import SourceImage, is_source_name, label_number
from totalspineseg_bids.errors import DatasetError, NothingSelectedError, UsageError
from totalspineseg_bids.files import parse_file, read_text
from totalspineseg_bids.home import home_folder
from totalspineseg_bids.importing import modules_stay

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

logger = logging.getLogger(__name__)

EXTENSIONS = (".nii", ".nii.gz")
#: Parts of a complex image that show no anatomy; used only if a filter specifies ``part``.
_UNUSABLE_PARTS = frozenset({"phase", "real", "imag"})
#: Query names of other programs that a shared filter file may contain.
_FOREIGN_QUERIES = frozenset({"bold", "sbref", "fmap", "dwi", "asl", "pet", "flair", "roi", "t1w", "t2w", "megre"})
_ANAT = "anat"
#: Folder names that are meant as BIDS names but have another case or no hyphen, by depth.
_MISSPELT = (
    re.compile(r"(?!(?-i:sub-))sub[-_]?[0-9a-z]", re.IGNORECASE),
    re.compile(r"(?!(?-i:ses-|anat$))(ses[-_]?[0-9a-z]|anat$)", re.IGNORECASE),
)
#: Number of names in a message about several files.
_NAMED = 3
#: Name that pyBIDS gives its index file.
_INDEX = "layout_index.sqlite"


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of images of a dataset."""

    participants: tuple[str, ...] = ()
    """Participant labels without ``sub-``; empty means all."""
    sessions: tuple[str, ...] = ()
    """Session labels without ``ses-``; empty means all."""
    excluded: tuple[str, ...] = ()
    """Labels of excluded participants, without ``sub-``."""
    suffixes: tuple[str, ...] = ("T1w", "T2w", "T2starw", "PDw", "MTw")
    """BIDS suffixes; empty means all, which only `make_filter` accepts."""
    filters: Mapping[str, Mapping[str, Any]] | None = None
    """pyBIDS filters by query name, as read by `read_filters`."""


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a filter file: a JSON object of pyBIDS filters by query name.

    Query names are suffixes in any case (``t2w``), ``anat`` for all of them, or any name with a ``suffix`` in its
    filters. A value of ``null`` requires that the entity is absent, ``"*"`` that it is present.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    UsageError
        If the content is not such an object.
    """
    content = parse_file(path, json.loads, "JSON")
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        msg = f'{path}: must hold an object of filters by query, such as {{"t2w": {{"acquisition": "sag"}}}}'
        raise UsageError(msg)
    for query, entities in content.items():
        for entity, value in entities.items():
            items = value if isinstance(value, list) else [value]
            if not all(item is None or isinstance(item, str | int | float | bool) for item in items):
                msg = f"{path}: the filter '{entity}' of '{query}' must be text, a number, null or a list of these"
                raise UsageError(msg)
    return content


def _queries(selection: Selection) -> dict[str, dict[str, Any]]:
    """Return the filters of the queries by name: one query per suffix, modified and extended by the filter file."""
    queries: dict[str, dict[str, Any]] = {
        suffix.lower(): {"datatype": _ANAT, "suffix": suffix} for suffix in selection.suffixes
    }
    own = set(queries)
    for name, entities in (selection.filters or {}).items():
        key = name.lower()
        if key == _ANAT:
            for query in own:
                queries[query].update(entities)
        elif key in own:
            queries[key].update(entities)
        elif key in _FOREIGN_QUERIES:
            logger.info("filter '%s' concerns no suffix of this run and is not used", name)
        elif "suffix" in entities:
            queries[key] = {"datatype": _ANAT, **entities}
        else:
            msg = f"filter '{name}' names none of the suffixes {', '.join(selection.suffixes)} and has no 'suffix'"
            raise UsageError(msg)
    if selection.filters:
        known = _import_pybids().Config.load("bids").entities
        if unknown := sorted({name for query in queries.values() for name in query if name not in known}):
            msg = f"a filter is not understood: there is no entity {', '.join(unknown)}"
            raise UsageError(msg)
    return queries


def _any_of(labels: Iterable[str]) -> str:
    return "|".join(re.escape(label) for label in labels)


def _ignore_patterns(selection: Selection, datatypes: Sequence[str] | None) -> list[re.Pattern[str]]:
    """Return patterns of paths that are not indexed; paths are relative to the dataset and start with ``/``."""
    patterns = [r"^/(?!sub-)"]
    if selection.participants:
        patterns.append(rf"^/sub-(?!(?:{_any_of(selection.participants)})(?:/|$))")
    if selection.excluded:
        patterns.append(rf"^/sub-(?:{_any_of(selection.excluded)})(?:/|$)")
    if selection.sessions:
        patterns.append(rf"^/sub-[^/]+/ses-(?!(?:{_any_of(selection.sessions)})(?:/|$))")
    if datatypes is not None:
        folders = rf"(?:{_any_of(datatypes)})(?:/|$)"
        patterns.append(rf"^/sub-[^/]+/(?!ses-|{folders})")
        patterns.append(rf"^/sub-[^/]+/ses-[^/]+/(?!{folders})")
    patterns.append(r"\.(?:json|tsv|tsv\.gz|bval|bvec|md|txt|html)$")
    # The database of pyBIDS cannot store a name that the locale does not decode; no BIDS name has such characters.
    patterns.append(r"[\udc80-\udcff]")
    return [re.compile(pattern) for pattern in patterns]


def _datatypes(queries: Iterable[Mapping[str, Any]]) -> list[str] | None:
    """Return the data types that the queries specify, or ``None`` if a query does not restrict them."""
    names: set[str] = set()
    for query in queries:
        value = query.get("datatype")
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str) or not item.isalnum():
                return None
            names.add(item)
    return sorted(names)


def _import_pybids() -> ModuleType:
    # Imported at its first use, because this takes a second that --help would wait for.
    with modules_stay(), home_folder():  # pyBIDS reads settings from there while it is imported
        return importlib.import_module("bids.layout")


def _writable(folder: Path) -> bool:
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return os.access(nearest, os.W_OK)


def find_images(root: Path, selection: Selection, *, database: Path | None = None) -> list[SourceImage]:
    """Find the selected images of a dataset.

    Parameters
    ----------
    root : Path
        The dataset. Its derivatives are ignored.
    selection : Selection
        Selection of images.
    database : Path, optional
        Folder of a pyBIDS index of the whole dataset; created if absent and writable.

    Returns
    -------
    list of SourceImage
        Images sorted by path, without duplicates.

    Raises
    ------
    NothingSelectedError
        If no image matches.
    DatasetError
        If pyBIDS cannot read the dataset.
    UsageError
        If a filter is wrong or the index belongs to another dataset.
    """
    named = _queries(selection)
    queries = list(named.values())
    _check_participants(root, selection)
    ignored = _read_bidsignore(root)
    found: list[SourceImage] = []
    left_out: dict[str, list[str]] = {".bidsignore": [], "part": []}
    listing = _list_folders(root, selection)
    # pyBIDS ignores folders named like images silently, but each must fail as an image.
    folders = (relative for relative, entry in listing.anatomical if entry.is_dir(follow_symlinks=False))
    for relative in sorted({*_index(root, selection, queries, database), *folders}):
        source = SourceImage(relative, root / relative)
        matching = _matching(source, queries) if is_source_name(relative) else []
        if not matching or not _selected(source, selection):
            continue
        if ignored.match_file(relative):
            left_out[".bidsignore"].append(relative)
        elif source.entities.get("part") in _UNUSABLE_PARTS and not any("part" in query for query in matching):
            left_out["part"].append(relative)
        else:
            found.append(source)
    if left_out[".bidsignore"]:
        logger.info("%s left out by .bidsignore: %s", *_count(left_out[".bidsignore"], "image"))
    if left_out["part"]:
        logger.info("%s left out, show no anatomy (part-phase, -real, -imag): %s", *_count(left_out["part"], "image"))
    filtered = {name.lower() for name in selection.filters or ()} & named.keys()
    _report_unmatched_filters({name: named[name] for name in filtered}, found, listing)
    _report_passed_over(root, listing, queries, (source.relative for source in found), ignored)
    if not found:
        raise NothingSelectedError(_nothing(root, selection, len(left_out[".bidsignore"])))
    return found


def _index(root: Path, selection: Selection, queries: Sequence[Mapping[str, Any]], database: Path | None) -> list[str]:
    """Return the images that pyBIDS finds in the folders that may contain selected ones, or in an existing index."""
    scope = Selection() if database is not None else selection
    labels = {"subject": list(selection.participants)} if selection.participants else {}
    with _opened(root, _ignore_patterns(scope, None if database else _datatypes(queries)), database) as layout:
        paths = layout.get(return_type="filename", extension=list(EXTENSIONS), **labels)
        return [Path(os.path.relpath(path, layout.root)).as_posix() for path in paths]


@dataclass(frozen=True, slots=True)
class _Listing:
    """Names in the folders of a dataset that may contain images, each of which is read once."""

    participants: tuple[str, ...]
    """Labels of the selected participants that have a folder, sorted."""
    anatomical: tuple[tuple[str, os.DirEntry[str]], ...]
    """Path and entry of everything in their folders ``anat``."""
    misspelt: tuple[str, ...]
    """Folders with misspelt BIDS names, sorted."""


def _list_folders(root: Path, selection: Selection) -> _Listing:
    top = {entry.name: entry for entry in _entries(root)}
    labels = selection.participants or [name.removeprefix("sub-") for name in top if name.startswith("sub-")]
    names = sorted(f"sub-{label}" for label in labels if label not in selection.excluded)
    present = [name for name in names if name in top and top[name].is_dir()]
    misspelt = [entry.name for entry in top.values() if _is_misspelt(entry, 0)]
    anatomical: list[tuple[str, os.DirEntry[str]]] = []
    for name in present:
        folders = []
        for entry in _entries(root / name):
            session = entry.name.removeprefix("ses-")
            if session != entry.name and (not selection.sessions or session in selection.sessions):
                folders.append(f"{name}/{entry.name}/{_ANAT}")
            if entry.name == _ANAT:
                folders.append(f"{name}/{_ANAT}")
            if _is_misspelt(entry, 1):
                misspelt.append(f"{name}/{entry.name}")
        for folder in folders:
            anatomical += ((f"{folder}/{entry.name}", entry) for entry in _entries(root / folder))
    return _Listing(tuple(name.removeprefix("sub-") for name in present), tuple(anatomical), tuple(sorted(misspelt)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _is_misspelt(entry: os.DirEntry[str], depth: int) -> bool:
    return bool(_MISSPELT[depth].match(entry.name)) and entry.is_dir()


def _read_bidsignore(root: Path) -> GitIgnoreSpec:
    """Read ``.bidsignore``, whose lines are patterns as in ``.gitignore`` (BIDS specification 1.10)."""
    try:
        lines = read_text(root / ".bidsignore").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, ValueError) as error:
        logger.warning("%s: cannot be read, not applied (%s)", root / ".bidsignore", error)
        lines = []
    return GitIgnoreSpec.from_lines(lines)


def _count(names: Sequence[str], noun: str) -> tuple[str, str]:
    """Return number with noun, and the first names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}", ", ".join(sorted(names)[:_NAMED]) + more


def _report_passed_over(
    root: Path,
    listing: _Listing,
    queries: Sequence[Mapping[str, Any]],
    found: Iterable[str],
    ignored: GitIgnoreSpec,
) -> None:
    """Log one line for each kind of file and folder that may be meant for processing but is not selected."""
    hidden, unnamed = [], []
    suffixes: Counter[str] = Counter()
    for relative, entry in listing.anatomical:
        if not entry.name.lower().endswith(EXTENSIONS) or ignored.match_file(relative):
            continue
        if entry.name.startswith("."):
            hidden.append(relative)
        elif not is_source_name(relative):
            unnamed.append(relative)
        else:
            suffixes[SourceImage(relative, root / relative).suffix] += 1
    others = [f"{suffixes[name]} {name}" for name in sorted(suffixes) if all(name != q.get("suffix") for q in queries)]
    processed = {relative.split("/", 1)[0] for relative in found}
    empty = [f"sub-{label}" for label in listing.participants if f"sub-{label}" not in processed]
    if listing.misspelt:
        logger.warning(
            "%s not read, because names start with lower-case sub-, ses- or anat: %s",
            *_count(listing.misspelt, "folder"),
        )
    if unnamed:
        logger.warning("%s left out, because the name is not a BIDS name: %s", *_count(unnamed, "file"))
    if hidden:
        logger.info("%s ignored: %s", *_count(hidden, "hidden file"))
    if others:
        logger.info("images of other suffixes are not processed (%s); --suffix selects them", ", ".join(others))
    if empty and processed:
        logger.warning("%s without a selected image: %s", *_count(empty, "participant"))


def _report_unmatched_filters(
    queries: Mapping[str, Mapping[str, Any]], found: Sequence[SourceImage], listing: _Listing
) -> None:
    """Warn of filters that match no image, although there are images of their suffix, which are thus left out."""
    names = [relative for relative, _ in listing.anatomical if is_source_name(relative)]
    present = {SourceImage(relative, Path(relative)).suffix for relative in names}
    unmatched = {name for name, query in queries.items() if not any(_matching(image, [query]) for image in found)}
    if useless := sorted(n for n in unmatched if any(_has(suffix, queries[n]["suffix"]) for suffix in present)):
        logger.warning(
            "no image matches the filters of %s; values are written without the key, such as 01, not sub-01",
            ", ".join(useless),
        )


@contextmanager
def _opened(root: Path, ignore: list[re.Pattern[str]], database: Path | None) -> Iterator[BIDSLayout]:
    """Read a dataset; if pyBIDS cannot store its path, because the locale does not decode it, through a link."""
    try:
        str(root).encode("utf-8")
    except UnicodeEncodeError:
        if database is not None:
            logger.warning("%s: the path is not UTF-8; the index is kept in memory", root)
    else:
        yield _read_layout(root, ignore, database)
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="totalspineseg-bids-")
    except OSError as error:
        msg = (
            f"{root}: the path is not UTF-8, and there is no folder for a link to it ({error}); set TMPDIR or rename it"
        )
        raise DatasetError(msg) from error
    with folder as name:
        link = Path(name) / "dataset"
        link.symlink_to(root, target_is_directory=True)
        yield _read_layout(link, ignore, None)


def _read_layout(root: Path, ignore: list[re.Pattern[str]], database: Path | None) -> BIDSLayout:
    pybids = _import_pybids()
    # Checked here, because the check of pyBIDS creates the folder.
    if database is not None and not (database / _INDEX).is_file() and not _writable(database):
        logger.warning("%s: cannot be written; the index is kept in memory", database)
        database = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            indexer = pybids.BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
            layout: BIDSLayout = pybids.BIDSLayout(root, validate=False, indexer=indexer, database_path=database)
    except Exception as error:
        # The errors of pyBIDS and of its database have no common base class.
        foreign = type(error).__module__.split(".")[0] in {"bids", "sqlalchemy", "sqlite3", "json"}
        if not foreign and not isinstance(error, ValueError | TypeError | OSError):
            raise
        msg = f"{root}: pyBIDS cannot read the dataset ({str(error).splitlines()[0] if str(error) else error!r})"
        raise DatasetError(msg) from error
    if Path(str(layout.root)) != root and Path(str(layout.root)).resolve() != root.resolve():
        msg = f"{database}: is the index of {layout.root}, not of {root}; give another folder"
        raise UsageError(msg)
    return layout


def make_filter(selection: Selection) -> Callable[[SourceImage], bool]:
    """Return a function that says whether an image matches a selection, from its name alone.

    Parameters
    ----------
    selection : Selection
        Selection of images, whose files may be absent.

    Raises
    ------
    UsageError
        If a filter is wrong.

    Examples
    --------
    >>> image = SourceImage("sub-01/anat/sub-01_run-01_T2w.nii.gz", Path("image.nii.gz"))
    >>> make_filter(Selection(filters={"t2w": {"run": 1, "acquisition": None}}))(image)
    True
    """
    queries = list(_queries(selection).values())

    def matches(source: SourceImage) -> bool:
        return _selected(source, selection) and (not queries or bool(_matching(source, queries)))

    return matches


def _matching(source: SourceImage, queries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the queries that an image matches."""
    return [query for query in queries if all(_has(source.value_of(name), value) for name, value in query.items())]


def _has(value: str | None, wanted: object) -> bool:
    """Return whether the value of an entity is one of those that a filter allows."""
    for item in wanted if isinstance(wanted, list) else [wanted]:
        text = str(item)
        if item is None or text == "Query.NONE":
            found = value is None
        elif text in {"*", "Query.ANY"}:
            found = value is not None
        else:
            # Numbers with and without leading zeros are equal in pyBIDS.
            both = value is not None and value.isdigit() and text.isdigit()
            found = text in {value, "Query.OPTIONAL"} or (both and int(value or 0) == int(text))
        if found:
            return True
    return False


def _selected(source: SourceImage, selection: Selection) -> bool:
    """Return whether an image matches participants and sessions; an existing index is unfiltered."""
    if selection.participants and source.participant not in selection.participants:
        return False
    if source.participant in selection.excluded:
        return False
    return not selection.sessions or source.session in selection.sessions


def _check_participants(root: Path, selection: Selection) -> None:
    absent = [label for label in selection.participants if not (root / f"sub-{label}").is_dir()]
    if absent and len(absent) == len(selection.participants):
        named = ", ".join(label + _similar(root, label) for label in absent)
        msg = f"{root}: has no participant {named}; check --participant-label"
        raise NothingSelectedError(msg)
    for label in absent:
        logger.warning("%s: has no participant %s%s", root, label, _similar(root, label))


def _similar(root: Path, label: str) -> str:
    """Return a hint at a label that differs in leading zeros or case only; empty without one."""
    number = label_number(label)
    names = sorted(entry.name for entry in _entries(root) if entry.name.startswith("sub-"))
    for other in (name.removeprefix("sub-") for name in names):
        if other.lower() == label.lower() or (number is not None and label_number(other) == number):
            return f" (did you mean {other}?)"
    return ""


def _nothing(root: Path, selection: Selection, ignored: int) -> str:
    criteria = [f"suffix {' '.join(selection.suffixes)}"]
    for name, labels in (("participant", selection.participants), ("session", selection.sessions)):
        if labels:
            criteria.append(f"{name} {' '.join(labels)}")
    if selection.filters:
        criteria.append("the filter file")
    note = f" ({ignored} left out by .bidsignore)" if ignored else ""
    advice = "check the labels, or name other contrasts with --suffix"
    return f"{root}: no image matches {', '.join(criteria)}{note}; {advice}"
