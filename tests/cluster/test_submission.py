"""Participants as jobs of Snakemake on this machine, with a segmenter of tiny images."""

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))

from processes import IMAGES, complete_files, config  # type: ignore[import-not-found]
from tiny_spine import contents, loaded, make_dataset, one_dot, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.cli.bids_app import main
from totalspineseg_bids.cli.tools import main as tools
from totalspineseg_bids.cluster import containers
from totalspineseg_bids.cluster.job import run_job
from totalspineseg_bids.cluster.plan import JobPlan
from totalspineseg_bids.cluster.planning import make_plan
from totalspineseg_bids.cluster.submit import submit
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import ExitCode, ImageError

needs_snakemake = pytest.mark.skipif(importlib.util.find_spec("snakemake") is None, reason="needs the extra 'cluster'")
STUB = Path(__file__).with_name("stub_tools.py")


def load_stub(_: RunConfig) -> LoadedSegmenter:
    return loaded()


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Make a dataset of four tiny images, and let jobs segment them by thresholds."""
    monkeypatch.setattr(containers, "TOOLS_COMMAND", (sys.executable, str(STUB)))
    monkeypatch.setattr("totalspineseg_bids.report.figures.write_figures", one_dot)
    return make_dataset(tmp_path / "raw", {name: tiny_image(seed=i) for i, name in enumerate(IMAGES)})


@pytest.fixture
def configure(raw, tmp_path):
    return lambda out="out", **settings: config(raw, tmp_path / out, model="bundled", **settings)


def correct(path: Path, *rows: tuple[str, str, str]) -> Path:
    """Write a table of corrections: image, label, correction."""
    columns = ("image", "label", "correction")
    path.write_text(format_table(columns, [dict(zip(columns, row, strict=True)) for row in rows]))
    return path


@needs_snakemake
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "victim"),
    [
        pytest.param({"batch_size": 2}, "sub-01_and-1-more", id="two participants a job"),
        pytest.param({"per": "session"}, "sub-01_ses-a", id="a session a job"),
        pytest.param({"per": "image"}, "sub-02_T2w", id="an image a job"),
    ],
)
def test_jobs_write_what_one_process_writes_although_one_is_killed(configure, tmp_path, monkeypatch, settings, victim):
    monkeypatch.setenv("KILLED_ONCE", f"{victim}={tmp_path}")
    cluster = configure(executor="local", jobs=2, then_group=True, verbose=1, **settings)
    assert submit(cluster, factory=load_stub) == 0
    assert (tmp_path / victim).exists()
    for level in ("participant", "group"):
        assert run(configure("one", level=level), factory=load_stub) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    # The attempt that was killed has completed all images but its last; none was processed twice.
    (log,) = (tmp_path / "out").glob(f"logs/run-*/{victim}.log")
    done = re.findall(r"^INFO (\S+): (?:labelled|abstained)", log.read_text(), re.MULTILINE)
    assert len(done) == len(set(done)) == len(JobPlan.read(log.parent).jobs[victim].images)
    before = complete_files(tmp_path / "out")
    assert submit(cluster, factory=load_stub) == 0
    assert complete_files(tmp_path / "out") == before


@needs_snakemake
@pytest.mark.slow
def test_a_participant_that_fails_is_named_and_costs_no_other(configure, raw, tmp_path, capfd):
    (raw / IMAGES[-1]).write_bytes(b"no image")
    code = submit(configure(executor="local", then_group=True), factory=load_stub)
    assert code == ExitCode.BAD_DATA
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "1 of 2 participants failed (sub-02)" in last
    log = next(tmp_path.glob("out/logs/run-*/sub-02.log"))
    assert str(log.parent) in last
    # Three attempts.
    assert log.read_text().count("1 of 1 images failed") == 3
    assert len(complete_files(tmp_path / "out")) > 0
    assert "sub-02" in (tmp_path / "out/group_images.tsv").read_text()


@needs_snakemake
@pytest.mark.slow
def test_the_snakefile_works_without_the_app(raw, tmp_path, capsys):
    assert tools(["snakefile"]) == 0
    command = [sys.executable, "-m", "snakemake", "-s", capsys.readouterr().out.strip(), "-d", str(tmp_path / "work")]
    settings = [f"bids_dir={raw}", f"output_dir={tmp_path / 'out'}", "model=bundled", "skip_bids_validation=True"]
    done = subprocess.run([*command, "--dry-run", "--config", *settings], capture_output=True, text=True, check=True)
    assert "participant        2" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_test_on_slurm_says_why_it_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # neither Slurm nor apt-get
    program = Path(__file__).parents[2] / "benchmarks" / "run_on_slurm.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"cluster-test: skipped, .*(root|apt-get|cluster).*", done.stdout.splitlines()[-1])


def test_without_snakemake_the_app_says_what_to_install(configure, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert submit(configure(executor="local"), factory=load_stub) == ExitCode.NO_INPUT
    assert "pip install 'totalspineseg-bids[cluster]'" in capsys.readouterr().err


def test_a_dry_run_lists_jobs_and_resources_and_writes_nothing(configure, tmp_path, capsys):
    settings = {"executor": "slurm", "jobs": 5, "per": "session", "dry_run": True, "mem_mb": 3000, "gpus": 1}
    assert submit(configure(batch_size=1, **settings), factory=load_stub) == 0
    header, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == ["job", "images", "mem_mb", "minutes", "cores", "gpus"]
    assert [row[:2] for row in rows] == [["sub-01_ses-a", "2"], ["sub-01_ses-b", "1"], ["sub-02", "1"]]
    assert {(row[2], row[5]) for row in rows} == {("3000", "1")}
    assert not (tmp_path / "out").exists()
    # A GPU is kept busy with several images, where the number is not given.
    assert submit(configure(**settings), factory=load_stub) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("sub-01_ses-a_and-2-more\t4\t")


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"executor": "local"}, [3, 3, 3, 3]),
        ({"executor": "slurm", "jobs": 2}, [1] * 12),
        ({"executor": "slurm", "jobs": 1, "time": 3}, [1] * 12),
        ({"executor": "slurm"}, [1] * 12),
        ({"executor": "slurm", "jobs": 1, "batch_size": 5}, [5, 5, 2]),
        ({"executor": "slurm", "jobs": 4, "gpus": 1}, [12]),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_participants_share_a_job_where_there_are_many_for_each_job_at_a_time(tmp_path, configure, settings, sizes):
    raw = make_dataset(tmp_path / "many", {f"sub-{i:02d}/anat/sub-{i:02d}_T2w.nii.gz": tiny_image() for i in range(12)})
    config = configure(bids_dir=raw, **settings)
    jobs = make_plan(config, load_stub).jobs
    assert [len(job.images) for job in jobs.values()] == sizes


RUNTIME = """
[ "$1" = --version ] && echo "apptainer version 1.3.0" && exit
echo "$@" >> {calls}
for last; do :; done
{run}
"""


@needs_snakemake
@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ("docker", "docker://spine:1", 'shift $(($# - 6)); shift; exec {stub} "$@"', "--volume {raw}:{raw}:ro"),
        ("singularity", "spine.sif", 'exec bash -c "$last"', "--bind {raw}:{raw}:ro"),
    ],
)
def test_jobs_run_in_a_container_with_read_only_input(configure, tmp_path, monkeypatch, program, case):
    runtime, image, run, binds = case
    stub = f"{sys.executable} {STUB}"
    (tmp_path / "spine.sif").touch()
    program(runtime, RUNTIME.format(calls=tmp_path / "calls", run=run.format(stub=stub)))
    program("totalspineseg-tools", f'exec {stub} "$@"')
    monkeypatch.chdir(tmp_path)
    table = correct(tmp_path / "corrections.tsv", ("sub-02_T2w", "column", "down"))
    assert submit(configure(executor="local", container=image, corrections=table), factory=load_stub) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    mounts = (binds.format(raw=tmp_path / "raw"), f"{tmp_path / 'out'}:{tmp_path / 'out'}", f"{table}:{table}:ro")
    for call in calls:
        assert all(part in call for part in (*mounts, image.removeprefix("docker://")))


#: What happens after a run, other settings of the next run, and the participants that are processed again.
CHANGES = {
    "complete": (lambda raw: None, {}, []),
    "force": (lambda raw: None, {"force": True}, ["sub-01", "sub-02"]),
    "other settings": (lambda raw: None, {"output_resolution": "both"}, ["sub-01", "sub-02"]),
    "new image": (lambda raw: (raw / IMAGES[-1]).write_bytes((raw / IMAGES[-1]).read_bytes()), {}, ["sub-02"]),
    "missing table": (lambda raw: next(raw.parent.glob("out/sub-02/anat/*.tsv")).unlink(), {}, ["sub-02"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_is_not_complete_becomes_a_job(configure, raw, change):
    happens, settings, jobs = CHANGES[change]
    assert run(configure(), factory=load_stub) == 0
    happens(raw)
    assert list(make_plan(configure(executor="local", **settings), load_stub).jobs) == jobs


def test_corrections_and_exports_reach_the_images_they_change(configure, tmp_path):
    assert run(configure(), factory=load_stub) == 0
    table = correct(tmp_path / "corrections.tsv", ("sub-02_T2w", "column", "down"))

    def jobs_of(**settings: Any) -> list[str]:
        config = configure(executor="local", **settings)
        return list(make_plan(config, load_stub).jobs)

    assert jobs_of(export=["sct"]) == ["sub-01", "sub-02"]
    assert jobs_of(corrections=table) == ["sub-02"]
    assert run(configure(corrections=table), factory=load_stub) == 0
    assert jobs_of(corrections=table) == jobs_of() == []
    assert jobs_of(corrections=correct(table)) == ["sub-02"]
    with pytest.raises(ImageError, match="there is no image sub-09_T2w"):
        jobs_of(corrections=correct(table, ("sub-09_T2w", "column", "down")))


@needs_snakemake
@pytest.mark.slow
def test_jobs_apply_corrections_and_write_exports(configure, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    correct(tmp_path / "corrections.tsv", ("sub-02_T2w", "column", "down"))
    settings = {"corrections": "corrections.tsv", "export": ["sct", "slicer"], "full_viewer": False}
    assert submit(configure(executor="local", **settings), factory=load_stub) == 0
    assert run(configure("one", **settings), factory=load_stub) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    (sidecar,) = (tmp_path / "out/sub-02").rglob("*_seg-totalspineseg_desc-T2w_dseg.json")
    assert '"Corrections"' in sidecar.read_text()
    assert list((tmp_path / "out").rglob("*_seg-cordlevels_*.nii.gz"))


def record_listings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list to which every folder is added that is listed from now on."""
    listed: list[Path] = []
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr("os.scandir", lambda path=".": (listed.append(Path(path)), scandir(path))[1])
    monkeypatch.setattr("os.listdir", lambda path=".": (listed.append(Path(path)), listdir(path))[1])
    return listed


def test_planning_lists_each_folder_once_in_pybids_and_at_most_once_more(configure, raw, monkeypatch):
    config = configure(executor="local")
    assert run(configure(participant_label=["02"]), factory=load_stub) == 0
    listed = record_listings(monkeypatch)
    assert set(make_plan(config, load_stub).jobs) == {"sub-01"}
    times = Counter(path for path in listed if path.is_relative_to(raw.parent))
    assert times.keys() == {raw, *(path for path in raw.rglob("*") if path.is_dir())}
    assert max(times.values()) == 2


def test_a_job_searches_neither_the_dataset_nor_the_output(configure, tmp_path, monkeypatch):
    config = configure(executor="local", per="image")
    config.output_dir.mkdir()
    make_plan(config, load_stub).write(tmp_path)
    listed = record_listings(monkeypatch)
    assert run_job(tmp_path, "sub-02_T2w", factory=load_stub) == 0
    assert listed
    assert not {tmp_path / "raw", tmp_path / "out", tmp_path / "raw/sub-01"} & set(listed)
    assert [path.name for path in (tmp_path / "out").glob("sub-*.html")] == ["sub-02.html"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "slurm"], "needs --jobs N"),
        (["--executor", "no/name"], "not the name of a Snakemake executor"),
        (["--executor", "local", "--profile", "absent"], "no such file or folder"),
        (["--executor", "local", "--per", "image", "--localizer", "acq-loc"], "use --per participant"),
        (["--executor", "local", "--reports-only"], "leave it out"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_options_that_do_not_go_together_are_refused(raw, tmp_path, capsys, options, message):
    arguments = [str(raw), str(tmp_path / "out"), "participant", "--model", "bundled", *options]
    assert main(arguments) in {ExitCode.USAGE, ExitCode.NO_INPUT}
    assert message in capsys.readouterr().err.splitlines()[-1]
