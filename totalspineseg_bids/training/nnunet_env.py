"""Environment in which nnU-Net runs in this process: folders, worker pools and output.

nnU-Net finds its folders through environment variables and starts pools of worker processes for small jobs; in
containers with little shared memory, and on machines with few cores, these die or cost more than they save. The
contexts here set the one and replace the other, and put everything back afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

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
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Done:
    """Result of a job that ran at once."""

    def __init__(self, value: Any) -> None:  # noqa: ANN401
        self._value = value

    def ready(self) -> bool:
        return True

    def get(self, timeout: float | None = None) -> Any:  # noqa: ANN401, ARG002
        return self._value


class InlinePool:
    """The part of ``multiprocessing.Pool`` that nnU-Net uses, run in the calling process.

    nnU-Net counts a pool's workers to see how many jobs may wait; a job here has ended when its call returns, so any
    number is right.
    """

    def __init__(self, processes: int | None = None, *_: Any, **__: Any) -> None:  # noqa: ANN401
        self._pool = [SimpleNamespace(is_alive=lambda: True) for _ in range(processes or 1)]

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def starmap(self, function: Callable[..., Any], arguments: Iterable[Iterable[Any]]) -> list[Any]:
        """Call a function with each tuple of arguments and return the results."""
        return [function(*args) for args in arguments]

    def starmap_async(self, function: Callable[..., Any], arguments: Iterable[Iterable[Any]]) -> _Done:
        """Like `starmap`, wrapped in a result that is ready."""
        return _Done(self.starmap(function, arguments))


@contextmanager
def inline_pools() -> Iterator[None]:
    """Run the jobs of nnU-Net's worker processes in this process.

    Only the name ``multiprocessing`` inside nnU-Net's own modules is replaced.
    """
    stand_in = SimpleNamespace(
        **{name: getattr(multiprocessing, name) for name in dir(multiprocessing) if not name.startswith("_")}
    )
    stand_in.get_context = lambda _method=None: SimpleNamespace(Pool=InlinePool)
    stand_in.Pool = InlinePool
    modules = [importlib.import_module(name) for name in _POOL_USERS]
    before = [module.multiprocessing for module in modules]
    for module in modules:
        module.multiprocessing = stand_in  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, original in zip(modules, before, strict=True):
            module.multiprocessing = original  # type: ignore[attr-defined]


class _Chatter:
    """Text stream that writes whole lines to a log."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                self._logger.debug("nnU-Net: %s", line.rstrip())
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


@contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Redirect nnU-Net's output to a log, at debug level.

    Parameters
    ----------
    logger : logging.Logger
        Of the module that calls nnU-Net.
    """
    stream: TextIO = _Chatter(logger)  # type: ignore[assignment]
    with contextlib.redirect_stdout(stream):
        yield
