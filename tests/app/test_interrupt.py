"""Signals, also where the main thread cannot hear them."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from totalspineseg_bids.app.interrupt import Interrupted, stop_on_signal


def test_a_signal_becomes_an_exception_that_no_handler_of_errors_swallows():
    former = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:  # noqa: BLE001
            pytest.fail("swallowed")

    with pytest.raises(Interrupted) as caught, stop_on_signal():
        work()
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGTERM) is former
    assert not [thread for thread in threading.enumerate() if thread.name == "signal-watch"]


def test_other_threads_are_left_alone():
    entered = []

    def work() -> None:
        with stop_on_signal():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


def test_a_deaf_main_thread_does_not_outlive_the_grace():
    script = (
        "import ctypes, os, signal, threading\n"
        "import totalspineseg_bids.app.interrupt as interrupt\n"
        "with interrupt.stop_on_signal(grace=0.3):\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    ctypes.CDLL(None).sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 75, done.stderr
    assert "stopped by SIGTERM" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="SIGHUP is POSIX")
def test_a_run_under_nohup_outlives_its_terminal():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, former)
