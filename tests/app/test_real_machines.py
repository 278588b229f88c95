"""Machines and files as people have them: no home folder, limits of containers, label maps of other tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_spine import make_dataset, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.inference.resources import available_cpus, memory_limit_mb

IMAGE = "sub-01/anat/sub-01_T2w.nii.gz"

NO_HOME = """
import os, pwd, sys
os.environ.pop("HOME", None)
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = unknown
"""


def without_home(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as a user id that has no entry in /etc/passwd, without ``HOME``."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "TOTALSPINESEG"))}
    script = [sys.executable, "-c", NO_HOME + code, *arguments]
    return subprocess.run(script, capture_output=True, text=True, check=False, env=variables)


APP = "from totalspineseg_bids.cli.bids_app import main; sys.exit(main(sys.argv[1:]))"
TOOLS = "from totalspineseg_bids.cli.tools import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.skipif(sys.platform == "win32", reason="user ids are those of POSIX")
@pytest.mark.parametrize(
    ("code", "arguments", "exit_code", "message"),
    [
        (APP, ["--version"], 0, "totalspineseg-bids 0"),
        (APP, ["RAW", "OUT", "participant", "--model", "bundled", "--dry-run"], 0, f"to do\t{IMAGE}"),
        (APP, ["RAW", "OUT", "participant"], 66, "set TOTALSPINESEG_BIDS_MODELS to a folder, or use --model bundled"),
        (APP, ["RAW", "~/out", "participant"], 64, "~/out: '~' cannot be used because there is no home folder"),
        (TOOLS, ["models", "--help"], 0, "models"),
    ],
)
def test_no_home_folder(tmp_path: Path, code: str, arguments: list[str], exit_code: int, message: str) -> None:
    raw = make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    places = {"RAW": str(raw), "OUT": str(tmp_path / "out")}
    done = without_home(code, *(places.get(word, word) for word in arguments))
    assert done.returncode == exit_code, done.stderr
    assert message in (done.stdout if exit_code == 0 else done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="control groups exist on Linux only")
@pytest.mark.parametrize(
    ("own", "files", "cpus", "megabytes"),
    [
        ("0::/job\n", {"job/cpu.max": "150000 100000", "job/memory.max": "2147483648"}, 1, 2048),
        ("0::/job/step\n", {"job/cpu.max": "100000 100000", "job/step/cpu.max": "max 100000"}, 1, None),
        ("0::/\n", {"cpu.max": "100000 100000", "memory.max": "1048576"}, 1, 1),
        ("0::/elsewhere\n", {"cpu.max": "50000 100000"}, 1, None),
        (
            "4:memory:/job\n2:cpu,cpuacct:/job\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "memory/job/memory.limit_in_bytes": "1073741824",
            },
            1,
            1024,
        ),
        (
            "2:cpu:/\n4:memory:/\n",
            {
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            None,
            None,
        ),
        ("nonsense\n", {"cpu.max": "many"}, None, None),
    ],
)
def test_limits_of_containers(
    tmp_path: Path, own: str, files: dict[str, str], cpus: int | None, megabytes: float | None
) -> None:
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (tmp_path / "own").write_text(own)
    places = tmp_path / "groups", tmp_path / "own"
    nothing = tmp_path / "nothing", tmp_path / "nothing"
    assert available_cpus(*places) == (cpus or len(os.sched_getaffinity(0)))
    assert memory_limit_mb(*places) == (megabytes or memory_limit_mb(*nothing))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity can be set on Linux only")
def test_affinity_limits_the_default_number_of_threads() -> None:
    code = (
        "import os; from totalspineseg_bids.inference.options import InferenceOptions; "
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "print(InferenceOptions().thread_count, InferenceOptions(threads=3).thread_count)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None" if os.cpu_count() == 1 else "1", "3"]
