"""A Slurm cluster of one node on this machine, for tests: munge, slurmctld and slurmd with files in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
#: Configuration of the services and commands, as Debian builds them.
CONFIGURATION = Path("/etc/slurm/slurm.conf")
PACKAGES = ("slurm-wlm", "munge")
#: Ports that a cluster in use would not have.
_CONTROLLER_PORT, _NODE_PORT = 16817, 16818
#: Memory of the node that is left to the machine, MB.
_KEPT_MB = 1000
_TIMEOUT = 60.0

_CONFIGURATION = """\
ClusterName=onenode
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MinJobAge=600
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmUnavailableError(Exception):
    """Slurm cannot be installed or started here."""


def run(program: str, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program found on ``PATH`` and return its output and exit code."""
    command = [shutil.which(program) or program, *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", env=env)


def install() -> None:
    """Install Slurm with apt-get if it is missing.

    Raises
    ------
    SlurmUnavailableError
        If that is not possible.
    """
    if os.name != "posix" or os.geteuid() != 0:
        msg = "Slurm and munge are started as root"
        raise SlurmUnavailableError(msg)
    if CONFIGURATION.exists():
        msg = f"{CONFIGURATION} belongs to a cluster"
        raise SlurmUnavailableError(msg)
    if all(map(shutil.which, PROGRAMS)):
        return
    if shutil.which("apt-get") is None:
        msg = f"no apt-get to install {' and '.join(PACKAGES)} with"
        raise SlurmUnavailableError(msg)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *PACKAGES]):
        done = run("apt-get", "-o", "DPkg::Lock::Timeout=600", *command, env=environment)
        if done.returncode:
            msg = f"apt-get {command[0]} failed: {done.stderr.strip()[-200:]}"
            raise SlurmUnavailableError(msg)


class OneNodeSlurm:
    """Cluster of one node that runs while the object is entered.

    Parameters
    ----------
    folder : Path
        Folder for configuration, state and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> OneNodeSlurm:
        """Start the services and wait for the node."""
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 - _KEPT_MB
        text = _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            folder=self.folder,
            cpus=os.cpu_count(),
            memory=memory,
            controller_port=_CONTROLLER_PORT,
            node_port=_NODE_PORT,
        )
        # Not SLURM_CONF: the Slurm plugin of Snakemake removes such variables from its jobs.
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.write_text(text)
        munge = self.folder / "munge"
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge / name}" for option, name in files.items()]
        self._start("munged", "--foreground", "--force", *options)
        self._wait((munge / "socket").exists, "munged")
        self._start("slurmctld", "-D")
        self.start_node()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the jobs and stop the services."""
        run("scancel", "--user=root", "--full")
        for name in reversed(list(self.processes)):
            self._stop(name)
        CONFIGURATION.unlink()

    def start_node(self) -> None:
        """Start slurmd and wait until its node takes jobs."""
        self._start("slurmd", "-D")
        self._wait(self._is_up, "the node")

    def restart_node(self) -> None:
        """Stop slurmd and start it again; jobs go on meanwhile."""
        self._stop("slurmd")
        self.start_node()

    @staticmethod
    def _is_up() -> bool:
        states = {state.strip("*") for state in run("sinfo", "-h", "-o", "%T").stdout.split()}
        return bool(states) and states <= {"idle", "mixed", "allocated"}

    def _start(self, name: str, *options: str) -> None:
        program = shutil.which(name)
        if program is None:
            msg = f"{name} is not installed"
            raise SlurmUnavailableError(msg)
        with (self.folder / f"{name}.out").open("ab") as output:
            # A session of its own, so that Ctrl-C reaches the test first.
            self.processes[name] = subprocess.Popen(
                [program, *options], stdout=output, stderr=output, start_new_session=True
            )

    def _stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _TIMEOUT
        while not ready():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                logs = [(self.folder / f"{name}.out").read_text(errors="replace")[-300:] for name in self.processes]
                msg = f"{ended[0] if ended else what} did not start: {' '.join(logs).strip()}"
                raise SlurmUnavailableError(msg)
            time.sleep(0.3)
