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
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from totalspineseg_bids.bids.names import SourceImage, is_source_name
from totalspineseg_bids.errors import DatasetError, MissingInputError, NothingSelectedError, UsageError
from totalspineseg_bids.home import home_folder

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

logger = logging.getLogger(__name__)

EXTENSIONS = (".nii", ".nii.gz")
#: Parts of a complex image that show no anatomy; used only if a filter specifies ``part``.
_UNUSABLE_PARTS = frozenset({"phase", "real", "imag"})
#: Query names of other programs that a shared filter file may contain.
_FOREIGN_QUERIES = frozenset({"bold", "sbref", "fmap", "dwi", "asl", "pet", "flair", "roi", "t1w", "t2w", "megre"})
_ANAT = "anat"
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
    """BIDS suffixes."""
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise MissingInputError(msg) from error
    except ValueError as error:
        msg = f"{path}: not valid JSON ({error})"
        raise UsageError(msg) from error
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


def _queries(selection: Selection) -> list[dict[str, Any]]:
    """Return the filters of the queries: one query per suffix, modified and extended by the filter file."""
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
    return list(queries.values())


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
    with home_folder():  # pyBIDS reads settings from there while it is imported
        return importlib.import_module("bids.layout")


def _layout(root: Path, ignore: list[re.Pattern[str]], database: Path | None) -> BIDSLayout:
    pybids = _import_pybids()
    indexer = pybids.BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    # Checked here, because the check of pyBIDS creates the folder.
    if database is not None and not (database / _INDEX).is_file() and not _writable(database):
        logger.warning("%s: cannot be written; the index is kept in memory", database)
        database = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layout: BIDSLayout = pybids.BIDSLayout(root, validate=False, indexer=indexer, database_path=database)
    if Path(str(layout.root)) != root and Path(str(layout.root)).resolve() != root.resolve():
        msg = f"{database}: is the index of {layout.root}, not of {root}; give another folder"
        raise UsageError(msg)
    return layout


def _writable(folder: Path) -> bool:
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return os.access(nearest, os.W_OK)


def _translate(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Replace ``null`` and ``"*"`` in filters by the markers of pyBIDS."""
    query = _import_pybids().Query
    markers = {None: query.NONE, "*": query.ANY, "Query.NONE": query.NONE, "Query.ANY": query.ANY}
    markers["Query.OPTIONAL"] = query.OPTIONAL

    def one(value: object) -> object:
        return markers.get(value, value) if value is None or isinstance(value, str) else value

    return {key: [one(v) for v in value] if isinstance(value, list) else one(value) for key, value in filters.items()}


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
    queries = _queries(selection)
    _check_participants(root, selection)
    scope = Selection() if database is not None else selection
    layout = _read_layout(root, _ignore_patterns(scope, None if database else _datatypes(queries)), database)
    found: dict[str, SourceImage] = {}
    for query in queries:
        # Participants are filtered again here, because an existing index contains all of them.
        labels = {"subject": list(selection.participants)} if selection.participants else {}
        filters = _translate({"extension": list(EXTENSIONS), **labels, **query})
        for path in _get(layout, filters):
            relative = Path(os.path.relpath(path, layout.root)).as_posix()
            if not is_source_name(relative):
                logger.warning("%s: not a BIDS image name, left out", relative)
                continue
            source = SourceImage(relative, root / relative)
            if _selected(source, selection, query):
                found[relative] = source
    for source in _folders_named_like_images(root, selection, queries):
        found.setdefault(source.relative, source)
    if not found:
        raise NothingSelectedError(_nothing(root, selection))
    return sorted(found.values())


def _folders_named_like_images(
    root: Path, selection: Selection, queries: Sequence[Mapping[str, Any]]
) -> list[SourceImage]:
    """Return folders whose names match selected images; pyBIDS ignores them silently, but each must fail as an image.

    With a filter file, which may not select them, they are reported but not treated as images.
    """
    suffixes = {query["suffix"] for query in queries if isinstance(query.get("suffix"), str)}
    found = []
    for relative in _anatomical_folders(root, selection):
        source = SourceImage(relative, root / relative) if is_source_name(relative) else None
        if source is None or source.suffix not in suffixes or not _selected(source, selection, {}):
            continue
        if selection.filters:
            logger.warning("%s: is a folder, not an image", relative)
        else:
            found.append(source)
    return found


def _anatomical_folders(root: Path, selection: Selection) -> Iterator[str]:
    """Yield the folders named ``.nii`` or ``.nii.gz`` below ``anat`` of the selected participants."""
    participants = selection.participants or [
        entry.name.removeprefix("sub-") for entry in os.scandir(root) if entry.name.startswith("sub-")
    ]
    for label in participants:
        for parent in (root / f"sub-{label}" / _ANAT, *_sessions(root / f"sub-{label}")):
            with suppress(OSError), os.scandir(parent) as entries:
                for entry in entries:
                    if entry.name.endswith(EXTENSIONS) and entry.is_dir(follow_symlinks=False):
                        yield (parent / entry.name).relative_to(root).as_posix()


def _sessions(participant: Path) -> list[Path]:
    with suppress(OSError), os.scandir(participant) as entries:
        return [participant / entry.name / _ANAT for entry in entries if entry.name.startswith("ses-")]
    return []


def _read_layout(root: Path, ignore: list[re.Pattern[str]], database: Path | None) -> BIDSLayout:
    try:
        return _layout(root, ignore, database)
    except (ValueError, TypeError, OSError) as error:
        msg = f"{root}: pyBIDS cannot read the dataset ({str(error).splitlines()[0] if str(error) else error!r})"
        raise DatasetError(msg) from error
    except Exception as error:
        # The errors of pyBIDS and of its database have no common base class.
        if type(error).__module__.split(".")[0] not in {"bids", "sqlalchemy", "sqlite3", "json"}:
            raise
        msg = f"{root}: pyBIDS cannot read the dataset ({str(error).splitlines()[0]})"
        raise DatasetError(msg) from error


def _get(layout: BIDSLayout, filters: Mapping[str, Any]) -> list[str]:
    try:
        return [str(path) for path in layout.get(return_type="filename", invalid_filters="error", **filters)]
    except ValueError as error:
        msg = f"a filter is not understood: {str(error).splitlines()[0]}"
        raise UsageError(msg) from error


def _selected(source: SourceImage, selection: Selection, query: Mapping[str, Any]) -> bool:
    """Return whether an image matches participants and sessions and shows anatomy; an existing index is unfiltered."""
    if selection.participants and source.participant not in selection.participants:
        return False
    if source.participant in selection.excluded:
        return False
    if selection.sessions and source.session not in selection.sessions:
        return False
    if source.entities.get("part") in _UNUSABLE_PARTS and "part" not in query:
        logger.info("%s: shows no anatomy (part-%s), left out", source.relative, source.entities["part"])
        return False
    return True


def _check_participants(root: Path, selection: Selection) -> None:
    absent = [label for label in selection.participants if not (root / f"sub-{label}").is_dir()]
    if absent and len(absent) == len(selection.participants):
        msg = f"{root}: has no participant {', '.join(absent)}; check --participant-label"
        raise NothingSelectedError(msg)
    for label in absent:
        logger.warning("%s: has no participant %s", root, label)


def _nothing(root: Path, selection: Selection) -> str:
    criteria = [f"suffix {' '.join(selection.suffixes)}"]
    for name, labels in (("participant", selection.participants), ("session", selection.sessions)):
        if labels:
            criteria.append(f"{name} {' '.join(labels)}")
    if selection.filters:
        criteria.append("the filter file")
    return f"{root}: no image matches {', '.join(criteria)}; check the labels, or name other contrasts with --suffix"
