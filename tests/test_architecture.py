"""The direction of dependency that docs/architecture.md promises."""

import ast
from pathlib import Path

import pytest

import totalspineseg_bids

PACKAGE = Path(totalspineseg_bids.__file__).parent
# From the bottom to the top; a room may import only from rooms of a lower rank, and from itself.
RANK = {
    "errors": 0,
    "anatomy": 0,
    "files": 0,
    "imaging": 1,
    "synthesis": 2,
    "inference": 2,
    "models": 3,
    "segmentation": 4,
    "measurement": 5,
    "bids": 6,
    "report": 6,
    "training": 7,
    "config": 7,
    "app": 8,
    "cli": 9,
}


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "totalspineseg_bids" else None


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module if room(node.module) else "")
            if node.module == "totalspineseg_bids":
                names.update(f"totalspineseg_bids.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if room(name) in RANK}


@pytest.mark.parametrize("name", sorted(RANK))
def test_nothing_imports_what_stands_above_it(name):
    files = [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").exists() else sorted((PACKAGE / name).rglob("*.py"))
    assert files
    for file in files:
        for module in imports(file):
            other = room(module)
            allowed = other == name or RANK[other] < RANK[name]
            assert allowed, f"{file.relative_to(PACKAGE)} imports {module}"


def test_every_room_has_a_rank_and_says_what_lives_there():
    for folder in PACKAGE.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert folder.name in RANK
            docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
            assert docstring, folder.name
            assert len(docstring) > 40, folder.name
