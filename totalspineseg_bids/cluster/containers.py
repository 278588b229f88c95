"""Commands that run a job in Apptainer or Docker, with the dataset read-only and all paths as they are outside."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from totalspineseg_bids.config import SETTINGS, RunConfig, SettingGroup

#: Command that runs the tools in a job without a container, with the Python of this process.
TOOLS_COMMAND: tuple[str, ...] = (sys.executable, "-m", "totalspineseg_bids.cli.tools")
_TOOLS = "totalspineseg-tools"
_DOCKER = "docker://"


def uses_apptainer(config: RunConfig) -> bool:
    """Return whether jobs run in Apptainer: for a file, and for an image of a registry where it is installed."""
    if config.container is None:
        return False
    installed = any(map(shutil.which, ("apptainer", "singularity")))
    return installed or not config.container.startswith(_DOCKER)


def program_in(config: RunConfig) -> str:
    """Return the command that runs ``totalspineseg-tools`` in a job, quoted for the shell.

    Snakemake starts Apptainer itself; Docker is part of the command.
    """
    if config.container is None:
        return shlex.join(TOOLS_COMMAND)
    if uses_apptainer(config):
        return _TOOLS
    # The job is in the folder of the submission; files belong to the user who submits.
    command = ["docker", "run", "--rm", *(["--gpus", "all"] if _has_gpu(config) else [])]
    command += [word for bind in _binds(config) for word in ("--volume", bind)]
    fixed = f'{shlex.join(command)} --user "$(id -u):$(id -g)" --workdir "$PWD"'
    return f"{fixed} --entrypoint {_TOOLS} {shlex.quote(config.container.removeprefix(_DOCKER))}"


def apptainer_options(config: RunConfig) -> str:
    """Return the options with which Snakemake starts Apptainer, quoted for the shell."""
    binds = [word for bind in _binds(config) for word in ("--bind", bind)]
    return shlex.join([*binds, *(["--nv"] if _has_gpu(config) else [])])


def _has_gpu(config: RunConfig) -> bool:
    return bool(config.gpus) or config.device.startswith("cuda")


def _binds(config: RunConfig) -> Iterator[str]:
    yield f"{config.bids_dir}:{config.bids_dir}:ro"
    model = Path(config.model).expanduser().absolute()
    if model.exists():
        yield f"{model}:{model}:ro"
    for name, setting in SETTINGS.items():
        path = getattr(config, name)
        if setting.is_input and path is not None and setting.group not in (SettingGroup.REQUIRED, SettingGroup.CLUSTER):
            yield f"{path}:{path}:ro"
    # After the dataset, because the output may be below it.
    yield f"{config.output_dir}:{config.output_dir}"
