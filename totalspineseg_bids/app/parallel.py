"""Processes that work on several participants at the same time, each with its share of cores and memory."""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.imaging.memory import estimate_memory
from totalspineseg_bids.inference.resources import available_cpus

_PACKAGE = "totalspineseg_bids"
#: Cores of each process for ``--jobs auto``: two keep each other busy, further ones gain less than another image.
_CORES_PER_JOB = 2


def number_of_jobs(config: RunConfig, sources: Sequence[SourceImage], participants: int) -> int:
    """Return how many participants are processed at the same time.

    Parameters
    ----------
    config : RunConfig
        Settings of the run; ``auto`` depends on cores and memory, and is 1 on a GPU.
    sources : sequence of SourceImage
        Images, the largest of which has to fit into the memory of each process.
    participants : int
        Number of participants, more than which are never used.
    """
    if config.jobs != "auto":
        return min(config.jobs or 1, participants)
    from totalspineseg_bids.inference.engines import resolve_device  # noqa: PLC0415 - torch takes seconds to import

    if participants < 2 or resolve_device(config.device).type != "cpu":
        return 1
    needs = [1.0]
    for source in sources:
        with suppress(SpineAppError):  # which is reported when the image is processed
            needs.append(estimate_memory(source.path).likely)
    by_memory = config.memory_mb / max(needs)
    by_cores = (config.n_cpus or available_cpus()) // _CORES_PER_JOB
    return max(1, min(participants, by_cores, math.floor(min(by_memory, participants))))


def share_of_resources(config: RunConfig, jobs: int) -> RunConfig:
    """Return the settings of one of several processes."""
    threads = max(1, (config.n_cpus or available_cpus()) // jobs)
    memory = None if math.isinf(config.memory_mb) else max(1, int(config.memory_mb / jobs))
    return replace(config, omp_nthreads=min(threads, config.omp_nthreads or threads), mem_mb=memory)


@contextmanager
def worker_pool(jobs: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that log through this one and that an exception in the block ends.

    Parameters
    ----------
    jobs : int
        Number of processes.
    start : callable
        Called in each process before its first task; it and its arguments can be pickled.
    arguments : tuple
        Its arguments.
    """
    context = multiprocessing.get_context("spawn")
    package = logging.getLogger(_PACKAGE)
    records = context.Queue()
    listener = QueueListener(records, *package.handlers, respect_handler_level=True)
    listener.start()
    initial = (records, package.getEffectiveLevel(), start, arguments)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=initial)
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        listener.stop()


def _start(records: Any, level: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:  # noqa: ANN401
    # The terminal sends this signal to all processes; the first one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    package = logging.getLogger(_PACKAGE)
    package.addHandler(QueueHandler(records))
    package.setLevel(level)
    package.propagate = False
    start(*arguments)
