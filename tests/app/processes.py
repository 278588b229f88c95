"""Runs of the BIDS App in processes of their own, to be killed or set side by side.

The processes are forked, so that fifty of them do not load the libraries fifty times; what they do is the real run.
"""

import ctypes
import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

from tiny_spine import TinySegmenter, contents, loaded, make_dataset, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.files import read_json

# The libraries that a run loads on its way, loaded once for all the processes forked from this one.
for _name in ("bids.layout", "totalspineseg_bids.app.group", "totalspineseg_bids.app.participant"):
    importlib.import_module(_name)
for _name in ("figures", "subject", "group"):
    importlib.import_module(f"totalspineseg_bids.report.{_name}")

#: Four images: two suffixes, two sessions, a second participant.
IMAGES = (
    "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
    "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_T2w.nii.gz",
    "sub-02/anat/sub-02_T2w.nii.gz",
)
MAIN_SIDECAR = "sub-*/**/*_seg-totalspineseg_desc-*_dseg.json"


def dataset(root: Path, names: Iterable[str] = IMAGES) -> Path:
    """Write a dataset of tiny images, no two alike."""
    return make_dataset(root, {name: tiny_image(seed=i) for i, name in enumerate(names)})


def config(raw: Path, out: Path, level: str = "participant", **settings: object) -> RunConfig:
    """Return the settings of a run without validation and progress bars."""
    fixed = {"bids_dir": raw, "output_dir": out, "level": level, "progress": False, "skip_bids_validation": True}
    return RunConfig.from_mapping({**fixed, "verbose": 0, **settings})


def give_up_override() -> None:
    """Let the permissions of files count for this process, also where it is root's; there is no way back."""
    if os.geteuid() != 0:
        return

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = Header(0x20080522, 0), (ctypes.c_uint32 * 6)()  # capabilities(7): version 3, two of each set
    assert libc.capget(ctypes.byref(header), sets) == 0
    for which in range(3):  # effective, permitted, inheritable
        sets[which] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(ctypes.byref(header), sets) == 0


def say_to(path: Path) -> None:
    """Write what this process says on standard error to a file."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(descriptor, 2)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)


def as_plain_user(settings: RunConfig, says: Path) -> int:
    """Run in a process for which permissions count, its standard error going to a file; return the exit code."""

    def plain() -> None:
        say_to(says)
        give_up_override()
        work(settings)

    process = multiprocessing.get_context("fork").Process(target=plain)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def work(settings: RunConfig, segmenter: TinySegmenter | None = None) -> None:
    """Run and end the process with the exit code of the run."""
    code = 70
    try:
        code = run(settings, factory=lambda _: loaded(segmenter))
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(settings: RunConfig, segmenter: TinySegmenter | None = None) -> BaseProcess:
    """Start a run in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=work, args=(settings, segmenter))
    process.start()
    return process


def finish(settings: RunConfig) -> float:
    """Run to the end in a process of its own, and return the seconds it took."""
    begin = time.monotonic()
    process = start(settings)
    process.join()
    assert process.exitcode == 0, process.exitcode
    return time.monotonic() - begin


def complete_files(out: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of change of every file of the images that are complete."""
    marks = {}
    for sidecar in sorted(out.glob(MAIN_SIDECAR)):
        content = read_json(sidecar) or {}
        names = [*content["Outputs"], *content["Figures"].values(), sidecar.relative_to(out).as_posix()]
        for name in names:
            status = (out / name).stat()
            marks[name] = status.st_ino, status.st_mtime_ns
    return marks


def kill_and_go_on(settings: RunConfig, wait: Callable[[], object], whole: dict[str, bytes]) -> int:
    """Kill a run at some moment and run it again; return how many images were complete at that moment.

    Parameters
    ----------
    settings
        Of both runs; the output folder does not exist yet.
    wait
        Returns at the moment.
    whole
        What a run that was not killed has written.

    Raises
    ------
    AssertionError
        If the second run leaves other bytes than an unbroken one, or writes again what was complete.
    """
    out = settings.output_dir
    process = start(settings)
    wait()
    process.kill()
    process.join()
    before = complete_files(out) if out.is_dir() else {}
    finish(settings)
    after = contents(out)
    assert after.keys() == whole.keys(), sorted(after.keys() ^ whole.keys())
    assert after == whole, [name for name in whole if after[name] != whole[name]]
    again = complete_files(out)
    redone = [name for name in before if again[name] != before[name]]
    assert not redone, redone
    return len({name for name in before if name.endswith("_dseg.json") and "seg-totalspineseg" in name})
