"""Runs that are killed, stopped by a signal, or set side by side in one output folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import IMAGES, MAIN_SIDECAR, config, dataset, finish, kill_and_go_on, start  # type: ignore[import-not-found]
from tiny_spine import TinySegmenter, contents  # type: ignore[import-not-found]

from totalspineseg_bids.app import image
from totalspineseg_bids.app.interrupt import STOP_SIGNALS
from totalspineseg_bids.bids.names import DerivativeNames, report_name
from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.imaging import atomic

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")


@pytest.fixture
def raw(tmp_path):
    return dataset(tmp_path / "raw")


@pytest.fixture
def whole(tmp_path, raw):
    """Return what a run that nothing disturbs writes."""
    finish(config(raw, tmp_path / "whole"))
    return contents(tmp_path / "whole")


def appear(folder, pattern, number):
    """Wait until a number of files match a pattern."""
    while len(list(folder.glob(pattern))) < number:
        time.sleep(0.0005)


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        ("sub-01/ses-a/anat/.*.tmp", 1),
        (MAIN_SIDECAR, 1),
        ("sub-01/ses-b/anat/*probseg.json", 1),
        ("sub-01.html", 1),
    ],
)
def test_killed_and_run_again(tmp_path, raw, whole, pattern, number):
    out = tmp_path / "out"
    complete = kill_and_go_on(config(raw, out), lambda: appear(out, pattern, number), whole)
    assert complete >= (number if pattern == MAIN_SIDECAR else 0)


def test_what_a_killed_run_left_half_written_at_the_root_is_removed(tmp_path, raw, whole):
    out = tmp_path / "out"
    (out / "logs").mkdir(parents=True)
    for name in (report_name("01"), "group.html", "logs/crash-sub-01_T2w.json"):
        temporary = atomic.temporary_name(out / name)
        dead = temporary.with_name(temporary.name.replace(f"-{os.getpid()}.tmp", "-999999999.tmp"))
        dead.write_text("half")
    finish(config(raw, out))
    assert contents(out) == whole
    assert not list((out / "logs").glob(".*"))


def test_process_ids_of_another_container_are_not_taken_for_ours(tmp_path):
    if sys.platform != "linux":
        pytest.skip("process ids in namespaces are Linux'")
    namespace = Path("/proc/self/ns/pid").readlink().name.removeprefix("pid:[").removesuffix("]")
    assert atomic.process_space().endswith(namespace)
    own = atomic.temporary_name(tmp_path / "a.txt").name
    assert namespace in own
    other = tmp_path / own.replace(namespace, "1234").replace(f"-{os.getpid()}.", "-999999999.")
    other.write_text("of a process in another container, which cannot be seen from here")
    assert atomic.remove_stale(tmp_path, time.time()) == []


EIGHT = tuple(f"sub-{i:02d}/ses-{s}/anat/sub-{i:02d}_ses-{s}_T2w.nii.gz" for i in range(1, 5) for s in "ab")


@pytest.mark.parametrize("share", ["a session each", "all of it each"])
def test_eight_processes_write_what_one_writes(tmp_path, share):
    raw = dataset(tmp_path / "raw", EIGHT)
    one, many = tmp_path / "one", tmp_path / "many"
    finish(config(raw, one))
    settings: list[dict[str, object]] = [{}] * 8
    if share == "a session each":
        settings = [{"participant_label": [f"0{i}"], "session_label": [s]} for i in range(1, 5) for s in "ab"]
    processes = [start(config(raw, many, **chosen)) for chosen in settings]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    for out in (one, many):
        finish(config(raw, out, "group"))
    assert contents(many) == contents(one)
    assert len(list((many / "logs").glob("run-*.toml"))) == 9
    assert validate(many) == []


def test_the_mark_that_another_run_sets_meanwhile_stays(tmp_path, raw, whole, monkeypatch):
    taken_back = image.mark_incomplete

    def beaten(output: Path, names: DerivativeNames, **options: bool) -> list[str]:
        # Another run completes the image between the removal of the mark and the look at what else is there.
        return [*taken_back(output, names, **options), names.labels(".json", None)]

    monkeypatch.setattr(image, "mark_incomplete", beaten)
    finish(config(raw, tmp_path / "out"))
    assert contents(tmp_path / "out") == whole


class Slow(TinySegmenter):
    """Takes its time over every image."""

    def segment(self, *args, **rest):  # type: ignore[no-untyped-def]
        time.sleep(0.5)
        return super().segment(*args, **rest)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_keeps_what_is_complete(tmp_path, raw, whole, number, capfd):
    out = tmp_path / "out"
    # Under nohup SIGHUP is ignored, and a run leaves ignored signals alone.
    before = signal.signal(number, signal.SIG_DFL)
    process = start(config(raw, out), Slow())
    signal.signal(number, before)
    appear(out, MAIN_SIDECAR, 2)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 75
    assert f"stopped by {number.name}" in capfd.readouterr().err.splitlines()[-1]
    assert 2 <= len(list(out.glob(MAIN_SIDECAR))) < len(IMAGES)
    assert not list(out.rglob(".*.tmp"))
    finish(config(raw, out))
    assert contents(out) == whole


def test_a_signal_while_libraries_load_ends_the_same_way(tmp_path, raw):
    script = (
        "import builtins, os, signal, sys\n"
        "from totalspineseg_bids.cli.bids_app import main\n"
        "load = builtins.__import__\n"
        "def loading(name, *rest):\n"
        "    if name == 'totalspineseg_bids.app.run':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return load(name, *rest)\n"
        "builtins.__import__ = loading\n"
        f"sys.exit(main([{str(raw)!r}, {str(tmp_path / 'out')!r}, 'participant', '--skip-bids-validation']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert "stopped by SIGTERM" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_last_to_write_a_page_has_seen_every_image(tmp_path, raw, whole, monkeypatch):
    """Another run finishes the second session, page and all, while this one writes the page of the first."""
    from totalspineseg_bids.report import subject

    out = tmp_path / "out"
    write: Callable[..., None] = subject.write_subject_report
    seen: list[int] = []

    def overtaken(path: Path, title: str, images: list, **rest: object) -> None:
        seen.append(len(images))
        if len(seen) == 1:  # not in the process that overtakes, which has seen one by then
            finish(config(raw, out, session_label=["b"]))
        write(path, title, images, **rest)

    finish(config(raw, out, session_label=["a"]))
    (out / "sub-01.html").unlink()
    monkeypatch.setattr(subject, "write_subject_report", overtaken)
    from totalspineseg_bids.app.reports import write_participant_report

    write_participant_report(out, "01")
    assert seen == [2, 3]
    assert (out / "sub-01.html").read_bytes() == whole["sub-01.html"]
