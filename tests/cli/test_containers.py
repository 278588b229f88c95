"""Both container recipes follow the same steps and set the same environment."""

from __future__ import annotations

import re
from pathlib import Path

from totalspineseg_bids import __version__

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["system", "dependencies", "program", "models", "runtime"]


def dockerfile() -> str:
    return re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())


def sections() -> dict[str, str]:
    """Sections of Singularity.def by name."""
    parts = re.split(r"^%(\w+)\n", (ROOT / "Singularity.def").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_same_steps_in_the_same_order() -> None:
    docker = re.findall(r"^RUN \S*install\.sh (\w+)", dockerfile(), re.MULTILINE)
    singularity = re.findall(r"install\.sh (\w+)", sections()["post"])
    assert docker == singularity == STEPS
    script = (ROOT / "containers" / "install.sh").read_text()
    assert re.findall(r"^  (\w+)\)$", script, re.MULTILINE) == [
        "system",
        "runtime",
        "dependencies",
        "program",
        "models",
    ]


def test_same_environment() -> None:
    line = re.findall(r"^ENV (PATH=.*)$", dockerfile(), re.MULTILINE)
    docker = dict(re.findall(r"(\w+)=(\S+)", line[0]))
    singularity = dict(
        re.findall(r"export (\w+)=(\S+)", sections()["environment"].replace("{{ version }}", "${VERSION}"))
    )
    assert docker.pop("TOTALSPINESEG_BIDS_CONTAINER_TYPE") == "docker"
    assert singularity.pop("TOTALSPINESEG_BIDS_CONTAINER_TYPE") == "singularity"
    assert docker.pop("HOME") == "/tmp"  # noqa: S108 - Apptainer brings the user's own
    assert docker == singularity
    assert docker["PYTHONNOUSERSITE"] == "1"


def test_same_base_arguments_and_labels() -> None:
    text, parts = dockerfile(), sections()
    defaults = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))
    arguments = dict(re.findall(r"(\w+)=(.*)", parts["arguments"]))
    assert {key.upper(): value for key, value in arguments.items()}.items() <= defaults.items()
    assert defaults["VERSION"] == __version__
    labels = set(re.findall(r"([\w.-]+)=\"", re.findall(r"^LABEL (.*)$", text, re.MULTILINE)[0]))
    assert {line.split()[0] for line in parts["labels"].strip().splitlines()} == labels - {
        "org.opencontainers.image.revision",
        "org.opencontainers.image.created",
    }


def test_dependencies_are_installed_before_the_source_is_copied() -> None:
    text = dockerfile()
    assert text.index("install.sh dependencies") < text.index("COPY totalspineseg_bids")
    assert 'ENTRYPOINT ["totalspineseg-bids"]' in text
    assert 'exec totalspineseg-bids "$@"' in sections()["runscript"]


def test_all_that_is_copied_exists_and_passes_dockerignore() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()[:-1]}
    files = {line.split()[0] for line in sections()["files"].strip().splitlines()}
    assert sources == files == set(kept)
    assert all((ROOT / source).exists() for source in sources - {"LICENSE"})
