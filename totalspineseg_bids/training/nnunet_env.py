"""Environment in which nnU-Net runs in this process: folders, worker pools and output.

nnU-Net finds its folders through environment variables and starts pools of worker processes for small jobs; in
containers with little shared memory, and on machines with few cores, these die or cost more than they save. The
contexts here set the one and replace the other, and put everything back afterwards.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

#: Modules of nnU-Net that start pools through ``multiprocessing.get_context("spawn")``.
_POOL_USERS = (
    "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    "nnunetv2.evaluation.evaluate_predictions",
)


@contextmanager
def nnunet_environment(work_dir: Path, *, workers: int = 0) -> Iterator[None]:
    """Point nnU-Net to the folders below a work folder for the time of a ``with`` block.

    Parameters
    ----------
    work_dir : Path
        Folder of ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``; the two latter are made if absent.
    workers : int, default 0
        Processes for augmentation while training; 0 augments in the training process.
    """
    work_dir = Path(work_dir).resolve()
    settings = {name: str(work_dir / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for folder in settings.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    settings["nnUNet_n_proc_DA"] = str(workers)
    # torch.compile takes minutes to start and needs a compiler; those who want it set it themselves.
    settings["nnUNet_compile"] = os.environ.get("nnUNet_compile", "f")  # noqa: SIM112 - nnU-Net's spelling
    with mock.patch.dict(os.environ, settings):
        yield


@contextmanager
def inline_pools() -> Iterator[None]:
    """Run the jobs of nnU-Net's worker processes one after the other in a thread of this process.

    Only the name ``multiprocessing`` inside nnU-Net's own modules is replaced.
    """
    one_thread = SimpleNamespace(Pool=lambda _processes=None: ThreadPool(1))
    stand_in = SimpleNamespace(get_context=lambda _method=None: one_thread)
    with contextlib.ExitStack() as replaced:
        for name in _POOL_USERS:
            replaced.enter_context(mock.patch(f"{name}.multiprocessing", stand_in))
        yield


class _LogStream(io.TextIOBase):
    """Text stream that writes whole lines to a log."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                self._logger.debug("nnU-Net: %s", line.rstrip())
        return len(text)


@contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Redirect nnU-Net's output to a log, at debug level.

    Parameters
    ----------
    logger : logging.Logger
        Of the module that calls nnU-Net.
    """
    with contextlib.redirect_stdout(_LogStream(logger)):
        yield
