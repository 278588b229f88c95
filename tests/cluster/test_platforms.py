"""A Slurm array, Nipoppy and BABS run the app as in ``docs/platforms``; ``make platform-test`` installs the two."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))

from tiny_spine import make_dataset, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids import __version__
from totalspineseg_bids.bids.tables import read_table

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ROOT / "docs" / "platforms"
STUB = Path(__file__).with_name("stub_tools.py")
IMAGES = [f"{folder}/anat/{folder.replace('/', '_')}_T2w.nii.gz" for folder in ("sub-01/ses-a", "sub-02/ses-a")]

pytestmark = pytest.mark.slow


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not on PATH")


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """Let settings and identity of git be those of nobody."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Nobody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "nobody@example.org")


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path / "raw", {name: tiny_image(seed=i) for i, name in enumerate(IMAGES)})


def call(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_task_of_the_slurm_array_runs_its_participant(raw, tmp_path, program, monkeypatch):
    program("totalspineseg-bids", f'exec {sys.executable} {STUB} "$@"')
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    call("bash", PLATFORMS / "slurm-array.sh", raw, tmp_path / "out", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "out").glob("sub-*.html")] == ["sub-02.html"]


def test_the_configurations_name_the_version():
    assert json.loads((PLATFORMS / "nipoppy/config.json").read_text())["VERSION"] == __version__
    assert f'totalspineseg: "{__version__.replace(".", "-")}"' in (PLATFORMS / "babs.yaml").read_text()


@needs("nipoppy")
def test_nipoppy_runs_sessions_and_tracks_them(raw, tmp_path, program):
    program("totalspineseg-bids", f'exec {sys.executable} {STUB} "$@"')
    program("sbatch", "echo Submitted batch job 7")
    program("squeue", "true")
    bundle, study = tmp_path / "bundle", tmp_path / "study"
    shutil.copytree(PLATFORMS / "nipoppy", bundle)
    shutil.copy(ROOT / "boutiques.json", bundle / "descriptor.json")
    study.mkdir()
    call("nipoppy", "init", "--study", ".", "--bids-source", raw, cwd=study)
    settings = study / "global_config.json"
    settings.write_text(settings.read_text().replace('"COMMAND": "apptainer"', '"COMMAND": null'))
    call("nipoppy", "pipeline", "validate", bundle, cwd=study)
    call("nipoppy", "pipeline", "install", "--assume-yes", bundle, cwd=study)
    (study / f"containers/totalspineseg-bids_{__version__}.sif").touch()
    pipeline = ("--pipeline", "totalspineseg-bids", "--pipeline-version", __version__)
    call("nipoppy", "track-curation", cwd=study)
    call("nipoppy", "process", *pipeline, "--participant-id", "02", cwd=study)
    call("nipoppy", "track-processing", *pipeline, cwd=study)
    rows = read_table(study / "derivatives/processing_status.tsv")
    assert {row["participant_id"]: row["status"] for row in rows} == {"01": "FAIL", "02": "SUCCESS"}
    call("nipoppy", "process", *pipeline, "--hpc", "slurm", "--keep-workdir", cwd=study)
    (script,) = study.rglob("run_queue.sh")
    call("bash", "-n", script, cwd=study)
    assert "#SBATCH --mem=8G" in script.read_text()
    assert "--participant-id 01" in script.read_text()


@needs("babs", "datalad", "git-annex")
def test_babs_makes_scripts_that_run_participants(raw, tmp_path, program):
    name = f"totalspineseg-bids-{__version__.replace('.', '-')}"
    program("singularity", f'until [ "${{1##*/}}" = image ]; do shift; done; shift; exec {sys.executable} {STUB} "$@"')
    program("7z", f'cp -r "$3" {tmp_path}/zipped && touch "$2"')
    (tmp_path / "image.sif").touch()
    call("datalad", "create", "--force", raw, cwd=tmp_path)
    call("datalad", "save", "-d", raw, cwd=tmp_path)
    call("datalad", "create", "containers", cwd=tmp_path)
    call("datalad", "containers-add", "-d", "containers", "--url", tmp_path / "image.sif", name, cwd=tmp_path)
    (tmp_path / "babs.yaml").write_text((PLATFORMS / "babs.yaml").read_text().replace("/path/to/bids", str(raw)))
    options = ["--container-config", "babs.yaml", "--processing-level", "subject", "--queue", "slurm"]
    call("babs", "init", "project", "--container-ds", "containers", "--container-name", name, *options, cwd=tmp_path)
    analysis = tmp_path / "project/analysis"
    call("bash", "-n", "code/participant_job.sh", cwd=analysis)
    assert "#SBATCH --mem=8G" in (analysis / "code/participant_job.sh").read_text()
    call("datalad", "get", "-r", "inputs/data/BIDS", cwd=analysis)
    call("bash", f"code/{name}_zip.sh", "sub-02", cwd=analysis)
    assert [path.name for path in (tmp_path / "zipped").glob("sub-*.html")] == ["sub-02.html"]
