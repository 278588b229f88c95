"""Stop a run in time after a signal of a scheduler, a terminal or a person."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from totalspineseg_bids.errors import ExitCode

#: Seconds after which a run ends; schedulers send SIGKILL later than that after SIGTERM.
GRACE = 8.0
#: Signals that end a run: Slurm and SGE announce a time limit by USR1, USR2 or XCPU, a closed terminal sends HUP.
#: Windows has the first two only.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
MESSAGE = "stopped by {name}; what is complete is kept, run the same command again to go on"


class Interrupted(BaseException):
    """Exception that a signal raises in the main thread; ``except Exception`` does not catch it."""

    exit_code = ExitCode.TRY_AGAIN

    def __init__(self, name: str) -> None:
        super().__init__(MESSAGE.format(name=name))


def _give_up(name: str) -> None:
    """End the process while the main thread is blocked in a long native call."""
    sys.stderr.write(f"totalspineseg-bids: {MESSAGE.format(name=name)}\n")
    sys.stderr.flush()
    os._exit(int(ExitCode.TRY_AGAIN))


class _Watch:
    """Receiver of signals while the main thread runs native code, through the wake-up pipe of the interpreter."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.former = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="signal-watch")
        self.thread.start()

    def _run(self) -> None:
        number = os.read(self.reader, 1)
        if self.done.is_set() or not number or number[0] not in STOP_SIGNALS:
            return
        if not self.done.wait(self.grace):
            _give_up(signal.Signals(number[0]).name)

    def close(self) -> None:
        self.done.set()
        signal.set_wakeup_fd(self.former)
        os.write(self.writer, b"\0")
        self.thread.join()
        os.close(self.reader)
        os.close(self.writer)


def _is_under_nohup(number: int) -> bool:
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def stop_on_signal(grace: float = GRACE) -> Iterator[None]:
    """Turn the signals in `STOP_SIGNALS` into `Interrupted`; end the process if the main thread does not react.

    Parameters
    ----------
    grace : float
        Seconds after which the process is ended.

    Notes
    -----
    In a thread other than the main one, where Python cannot handle signals, it does nothing. SIGHUP stays ignored
    under ``nohup``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        # A second signal must not interrupt the cleanup after the first.
        for other in former:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    former = {number: signal.signal(number, handle) for number in STOP_SIGNALS if not _is_under_nohup(number)}
    watch = _Watch(grace)
    try:
        yield
    finally:
        watch.close()
        for number, handler in former.items():
            signal.signal(number, handler)
