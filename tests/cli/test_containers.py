"""Both container recipes follow the same steps and set the same environment."""

import re
from pathlib import Path

import pytest

from totalspineseg_bids import __version__

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["system", "dependencies", "program", "models", "finish", "runtime"]


def dockerfile() -> str:
    return re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())


def sections() -> dict[str, str]:
    """Sections of Singularity.def by name."""
    parts = re.split(r"^%(\w+)\n", (ROOT / "Singularity.def").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_same_steps_in_the_same_order():
    docker = re.findall(r"^RUN \S*install\.sh (\w+)", dockerfile(), re.MULTILINE)
    singularity = re.findall(r"install\.sh (\w+)", sections()["post"])
    assert docker == singularity == STEPS
    script = (ROOT / "containers" / "install.sh").read_text()
    assert sorted(re.findall(r"^  (\w+)\)$", script, re.MULTILINE)) == sorted(STEPS)


def test_same_environment():
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


def test_same_base_arguments_and_labels():
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


def test_dependencies_are_installed_before_the_source_is_copied():
    text = dockerfile()
    assert text.index("install.sh dependencies") < text.index("COPY totalspineseg_bids")
    assert 'ENTRYPOINT ["totalspineseg-bids"]' in text
    assert 'exec totalspineseg-bids "$@"' in sections()["runscript"]


def test_all_that_is_copied_exists_and_passes_dockerignore():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()[:-1]}
    files = {line.split()[0] for line in sections()["files"].strip().splitlines()}
    assert sources == files == set(kept)
    assert all((ROOT / source).exists() for source in sources - {"LICENSE"})


def test_apptainers_recipe_as_another_parser_reads_it():
    """Sections that spython reads from Singularity.def agree with the Dockerfile."""
    parser = pytest.importorskip("spython.main.parse.parsers.singularity")
    recipe = parser.SingularityParser(str(ROOT / "Singularity.def")).recipe["spython-base"]
    assert recipe.fromHeader == "{{ base_image }}"
    assert {line.split()[0] for line in recipe.files} == {
        line.split()[0] for line in sections()["files"].strip().splitlines()
    }
    assert [line.split()[1] for line in recipe.install if line.startswith("containers/install.sh")] == STEPS
    assert {line.split("=", 1)[0] for line in recipe.environ} == set(
        re.findall(r"export (\w+)=", sections()["environment"])
    )
    exported = " ".join(line for line in recipe.install if line.startswith("export "))
    arguments = re.findall(r"^ARG (VARIANT|PIP_OPTIONS|MODELS|MODEL_SHA256)\b", dockerfile(), re.MULTILINE)
    assert all(f'{name}="{{{{ {name.lower()} }}}}"' in exported for name in arguments)
    assert recipe.cmd == 'exec totalspineseg-bids "$@"'
    assert recipe.test
    labels = {line.split()[0] for line in recipe.labels}
    assert {"org.opencontainers.image.version", "org.bids.app", "totalspineseg-bids.models"} <= labels
    assert sections()["help"].strip()
