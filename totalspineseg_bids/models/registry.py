"""From what a user names to the models of each step."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import ModelError, OutputError
from totalspineseg_bids.inference import folders
from totalspineseg_bids.inference.options import InferenceMode
from totalspineseg_bids.models import archive, catalog, verify
from totalspineseg_bids.models.roles import LEVEL_PRIOR_KEY, Role, needed_roles, role_of

_UNPACKED = ".unpacked"


@dataclass(frozen=True, slots=True)
class ModelSet:
    """The models a run uses."""

    name: str
    """Name recorded in outputs."""
    step1: Path | None = None
    """Model folder of step 1; None if the set has none."""
    step2: Path | None = None
    """Model folder of step 2; None if the set has none."""
    single: Path | None = None
    """Folder of the single-step model; None if the set has none."""
    level_prior: Path | None = None
    """The single-step model again, if it provides the level prior of the two steps."""
    refine: Path | None = None
    """Model folder of the refining network; None if the set has none."""
    bundled: bool = False
    """True for the models in the package, which are trained on synthetic images only."""

    def get(self, role: Role | str) -> Path | None:
        """Return the model folder of a role."""
        folder: Path | None = getattr(self, Role(role).name.lower())
        return folder

    def roles(self, mode: InferenceMode) -> tuple[Role, ...]:
        """Return the models of the steps of a mode, with level prior and refinement where there are any."""
        roles = list(needed_roles(mode))
        if self.level_prior is not None and mode is not InferenceMode.SINGLE_STEP:
            roles.append(Role.LEVEL_PRIOR)
        if self.refine is not None and Role.STEP2 in roles:
            roles.append(Role.REFINE)
        return tuple(roles)

    def require(self, role: Role | str) -> Path:
        """Return the model folder of a role.

        Raises
        ------
        ModelError
            If the set has none.
        """
        folder = self.get(role)
        if folder is None:
            wanted = Role(role)
            msg = f"model {self.name} has no {wanted.value} model (dataset.json with {wanted.needs}); give one that has"
            raise ModelError(msg)
        return folder


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """An entry of the list of models."""

    name: str
    """For ``--model``."""
    kind: str
    """``bundled``, ``release`` or ``local``."""
    installed: bool
    """Whether it can be used now."""
    default: bool
    """Whether it is used where none is named."""
    roles: tuple[Role, ...] = ()
    """Steps it has, where it is installed."""


def resolve(spec: str = catalog.DEFAULT_MODEL, *, need: Sequence[Role | str] | None = None) -> ModelSet:
    """Find the models of a name, folder or zip.

    Parameters
    ----------
    spec
        ``bundled``, the name of an installed model, a model folder or a folder above some (models in zips directly
        inside count), or a zip.
    need
        Roles that must be there; by default step 1 and step 2, or a single-step model.

    Returns
    -------
    ModelSet
        Models by the role that their label names give.

    Raises
    ------
    ModelError
        If there is no such model, a role is missing, or an installed file changed.
    """
    path = Path(spec).expanduser()
    if spec == catalog.BUNDLED or _installed(spec):
        folder = verify.folder_of(spec)
        if verify.read_manifest(folder) is not None:
            verify.check(spec)
        found = _collect(spec, folder)
    elif spec in catalog.RELEASES:
        msg = (
            f"model {spec} is not installed in {catalog.cache_folder()}; "
            f"totalspineseg-tools models install {spec}, or --model {catalog.BUNDLED} to try things out"
        )
        raise ModelError(msg)
    elif path.exists():
        found = _collect(path.resolve().name, _unpacked(path))
    else:
        known = ", ".join(dict.fromkeys([catalog.BUNDLED, *catalog.RELEASES, *_installed_names()]))
        msg = f"model {spec} is neither a file, a folder nor a known name ({known})"
        raise ModelError(msg)
    _require_roles(found, spec, need)
    return found


def available() -> tuple[ModelInfo, ...]:
    """List the bundled models, the public releases from new to old, and what else is installed."""
    names = [catalog.BUNDLED, *reversed(catalog.RELEASES)]
    names += [name for name in _installed_names() if name not in names]
    return tuple(_info(name) for name in names)


def _info(name: str) -> ModelInfo:
    folder = verify.folder_of(name)
    kind = "bundled" if name == catalog.BUNDLED else "release" if name in catalog.RELEASES else "local"
    roles: set[Role | None] = set()
    models: list[Path] = []
    # A damaged model must not keep the others off the list; it is named when it is used.
    with contextlib.suppress(ModelError):
        models = folders.find_model_folders(folder) if folder.is_dir() else []
        roles = {role_of(folders.read_json(model / "dataset.json")) for model in models}
    present = tuple(role for role in Role if role in roles)
    return ModelInfo(name, kind, bool(models), name == catalog.DEFAULT_MODEL, present)


def _installed(name: str) -> bool:
    cache = catalog.find_cache_folder()
    if cache is None or Path(name).name != name or name.startswith("."):
        return False
    return (cache / name).is_dir() and bool(folders.find_model_folders(cache / name))


def _installed_names() -> list[str]:
    cache = catalog.find_cache_folder()
    if cache is None or not cache.is_dir():
        return []
    return sorted(child.name for child in cache.iterdir() if (child / verify.MANIFEST).is_file())


def _unpacked(path: Path) -> Path:
    """Return a folder of models for a folder or zip; what is zipped is unpacked once into the cache folder."""
    zips = archive.zips_with_models(path)
    if path.is_dir() and (not zips or folders.find_model_folders(path)):
        return path
    sources = zips or [path]
    for source in sources:
        archive.check_zip(source)
    digest = hashlib.sha256("".join(folders.sha256(source) for source in sources).encode()).hexdigest()[:16]
    target = catalog.cache_folder() / _UNPACKED / digest
    if not target.is_dir():
        _unpack(sources, target)
    return target


def _unpack(sources: Sequence[Path], target: Path) -> None:
    # Several runs may come here at once: each unpacks for itself, the first to finish gives its folder the name.
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as temporary:
            whole = Path(temporary) / target.name
            for source in sources:
                archive.copy_models(source, whole)
            whole.rename(target)
    except OSError as error:
        if target.is_dir():
            return
        msg = f"cannot unpack {sources[0]} to {target.parent}: {error}; unpack it and name the folder"
        raise OutputError(msg) from error


def _collect(name: str, folder: Path) -> ModelSet:
    by_role: dict[Role, list[Path]] = {}
    models = folders.find_model_folders(folder) if folder.is_dir() else []
    for model in models:
        if not folders.is_full_resolution_3d(model):
            continue
        role = role_of(folders.read_json(model / "dataset.json"))
        if role is not None:
            by_role.setdefault(role, []).append(model)
    for role, found in by_role.items():
        if len(found) > 1:
            names = ", ".join(str(item.relative_to(folder)) for item in found)
            msg = f"model {folder} holds {len(found)} {role.value} models ({names}); give a folder with one of each"
            raise ModelError(msg)
    paths = {role: found[0] for role, found in by_role.items()}
    single = paths.get(Role.SINGLE)
    if single is not None and folders.read_json(single / "dataset.json").get(LEVEL_PRIOR_KEY) is True:
        paths[Role.LEVEL_PRIOR] = single
    by_field: dict[str, Any] = {role.name.lower(): path for role, path in paths.items()}
    return ModelSet(name, **by_field, bundled=folder == catalog.BUNDLED_FOLDER)


def _require_roles(found: ModelSet, spec: str, need: Sequence[Role | str] | None) -> None:
    if need is None:
        need = () if found.single is not None else (Role.STEP1, Role.STEP2)
    missing = [Role(role) for role in need if found.get(role) is None]
    if missing:
        what = "; ".join(f"no {role.value} model (dataset.json with {role.needs})" for role in missing)
        msg = f"model {spec}: {what}; give a folder or zip that holds all of them"
        raise ModelError(msg)
