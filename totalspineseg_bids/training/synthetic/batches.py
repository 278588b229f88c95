"""Batches of a stream of training images, drawn in separate processes or in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

Batch = tuple[torch.Tensor, torch.Tensor]
#: Batches that wait for the network, at most.
_AHEAD = 2


def drawn_in_processes(
    stream: IterableDataset[Any], batch_size: int = 1, workers: int = 1, *, pinned: bool = False
) -> Iterator[Batch]:
    """Draw batches in separate processes, a few ahead of the network, into pinned memory."""
    loader: DataLoader[Any] = DataLoader(
        stream,
        batch_size=batch_size,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="spawn",
        worker_init_fn=_one_thread,
        pin_memory=pinned,
    )
    return iter(loader)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def drawn_in_thread(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Draw batches in a thread, ahead of the network.

    What a GPU draws is there already: nothing is copied, no process has to start, and while the training waits for a
    step the thread asks for the next images.

    Parameters
    ----------
    batches : iterator of Batch
        Draws a batch when asked for one, on ``device``; on a GPU it is asked within a CUDA stream of its own.
    device : torch.device
        Where batches are.

    Yields
    ------
    tuple
        As ``batches`` does. What goes wrong there is raised here.
    """
    beside = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def draw() -> tuple[Batch, torch.cuda.Event | None]:
        with torch.cuda.stream(beside):
            return next(batches), None if beside is None else beside.record_event()

    with ThreadPoolExecutor(1, "drawing") as thread:
        waiting = deque(thread.submit(draw) for _ in range(_AHEAD))
        try:
            while True:
                batch, drawn = waiting.popleft().result()
                waiting.append(thread.submit(draw))
                if drawn is not None:
                    here = torch.cuda.current_stream(device)
                    here.wait_event(drawn)
                    for part in batch:
                        # Its memory is not to be drawn into again before the network is done with it.
                        part.record_stream(here)
                yield batch
        finally:
            for later in waiting:
                later.cancel()
