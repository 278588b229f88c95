"""The dependencies and names that docs/architecture.md promises.

Packages depend on each other in one direction (`RANK`), no module is part of an import cycle, and a public type has one
definition.
"""

import ast
import importlib
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import totalspineseg_bids

TYPE_NAME = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
PACKAGE = Path(totalspineseg_bids.__file__).parent
# From the bottom to the top: a package imports only from packages of a lower rank, and from itself.
RANK = {
    "errors": -1,
    "citation": 0,
    "anatomy": 0,
    "columns": 0,
    "files": 0,
    "imaging": 1,
    "synthesis": 2,
    "inference": 2,
    "models": 3,
    "segmentation": 4,
    "measurement": 5,
    "bids": 6,
    "report": 7,
    "exports": 6,
    "training": 8,
    "evaluation": 9,
    "config": 7,
    "app": 8,
    "cluster": 9,
    "cli": 10,
}


MODULES = {
    ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in MODULES else node.module)
    return found & MODULES.keys()


@pytest.mark.parametrize("name", sorted(RANK))
def test_a_package_imports_only_packages_below_it(name):
    files = {module: path for module, path in MODULES.items() if module.split(".")[1:2] == [name]}
    assert files
    for module, path in files.items():
        for other in imported_modules(path) - {PACKAGE.name}:
            package = other.split(".")[1]
            assert package not in RANK or package == name or RANK[package] < RANK[name], f"{module} imports {other}"


def test_every_package_has_a_rank_and_a_docstring():
    for folder in PACKAGE.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert folder.name in RANK
            docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
            assert docstring, folder.name
            assert len(docstring) > 40, folder.name


@pytest.mark.parametrize(
    "path", [path for path in sorted(PACKAGE.rglob("__init__.py")) if "__all__ = " in path.read_text()]
)
def test_a_package_with_an_api_is_in_its_reference_and_has_examples(path):
    name = ".".join((PACKAGE.name, *path.parent.relative_to(PACKAGE).parts))
    page = (PACKAGE.parent / "docs/api.md").read_text(encoding="utf-8").splitlines()
    assert f"::: {name}" in page, f"add '::: {name}' to docs/api.md"
    module = importlib.import_module(name)
    exported = {attribute: getattr(module, attribute) for attribute in module.__all__}
    of_package = {
        key: item for key, item in exported.items() if getattr(item, "__module__", "").startswith(PACKAGE.name)
    }
    assert [key for key, item in of_package.items() if callable(item) and ">>>" not in (item.__doc__ or "")] == []


def public_types(path: Path) -> set[str]:
    """Names of the public classes and type aliases that a file defines at module level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if TYPE_NAME.fullmatch(name)}


def test_no_module_is_part_of_an_import_cycle():
    # Raises an error that names the modules of a cycle.
    TopologicalSorter({name: imported_modules(path) for name, path in MODULES.items()}).prepare()


def test_no_public_type_name_is_defined_in_two_modules():
    definitions = defaultdict(list)
    for module, path in MODULES.items():
        for name in public_types(path):
            definitions[name].append(module)
    twice = {name: modules for name, modules in definitions.items() if len(modules) > 1}
    assert not twice, f"defined more than once: {twice}"


def test_the_stages_of_the_labelling_do_not_import_each_other():
    prefix = "totalspineseg_bids.segmentation.labelling"
    stages = {f"{prefix}.{name}" for name in ("components", "column", "instances")}
    shared = {f"{prefix}.records", f"{prefix}.parameters", f"{prefix}.disc_planes"}
    for module, path in MODULES.items():
        stage = next((s for s in stages if module == s or module.startswith(f"{s}.")), None)
        if stage is None and module not in shared:
            continue
        inside = {name for name in imported_modules(path) if name.startswith(f"{prefix}.")}
        allowed = {name for name in inside if name in shared or (stage and name.startswith(f"{stage}."))}
        assert inside == allowed, f"{module} imports {sorted(inside - allowed)}"
