"""Options of inference: device, engine, precision and mode. Imports neither torch nor OpenVINO."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.inference.resources import thread_limit

EngineName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Quality = Literal["fast", "standard", "best"]
RoiMode = Literal["auto", "off"]
ENGINE_NAMES: tuple[EngineName, ...] = ("auto", "openvino", "torch")
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16", "fp16")
QUALITIES: tuple[Quality, ...] = ("fast", "standard", "best")
ROI_MODES: tuple[RoiMode, ...] = ("auto", "off")


class InferenceMode(str, Enum):
    """Selection of the models that run on an image."""

    TWO_STEP = "two-step"
    """Step 1, then step 2 within the region of the spine."""
    SINGLE_STEP = "single-step"
    """One model whose classes are the levels."""
    STEP1 = "step1"
    """Step 1 alone; discs separate the vertebrae."""


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """Device, engine, arithmetic and mode of a run.

    Raises
    ------
    UsageError
        If engine, precision, quality or roi do not exist, or the number of threads is not positive.

    Examples
    --------
    >>> options = InferenceOptions(device="cpu", threads=2)
    >>> options.engine, options.mode.value
    ('auto', 'two-step')
    """

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    engine: EngineName = "auto"
    """``auto`` takes OpenVINO on CPU (torch with a warning where it does not work), torch elsewhere."""
    precision: Precision = "auto"
    """``auto`` is 32-bit, except fp16 on CUDA and bf16 on CPUs and models that support it."""
    threads: int | None = None
    """Maximum number of CPU threads; all cores that the process may use if None."""
    mode: InferenceMode = InferenceMode.TWO_STEP
    """Which models run."""
    quality: Quality = "standard"
    """Passes and overlap of patches: ``best`` runs all that the models were planned with."""
    roi: RoiMode = "auto"
    """``auto`` runs the first network only where a coarse network sees the spine, ``off`` on the whole image."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINE_NAMES or self.precision not in PRECISIONS:
            msg = f"engine must be one of {', '.join(ENGINE_NAMES)} and precision one of {', '.join(PRECISIONS)}"
            raise UsageError(msg)
        if self.quality not in QUALITIES or self.roi not in ROI_MODES:
            msg = f"quality must be one of {', '.join(QUALITIES)} and roi one of {', '.join(ROI_MODES)}"
            raise UsageError(msg)
        if self.threads is not None and self.threads < 1:
            msg = f"the number of threads must be at least 1, not {self.threads}"
            raise UsageError(msg)

    @property
    def thread_count(self) -> int | None:
        """Maximum number of CPU threads within the limits of the process; None if it may use the whole machine."""
        return self.threads if self.threads is not None else thread_limit()

    @classmethod
    def from_flags(
        cls,
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
        single_step: bool = False,
        step1_only: bool = False,
        quality: Quality = "standard",
        roi: RoiMode = "auto",
    ) -> InferenceOptions:
        """Build options from the command line's flags, which give the mode as two booleans.

        Raises
        ------
        UsageError
            If both modes are given, or another option is not valid.

        Examples
        --------
        >>> InferenceOptions.from_flags(step1_only=True).mode.value
        'step1'
        """
        if single_step and step1_only:
            msg = "single-step and step-1-only exclude each other; choose one"
            raise UsageError(msg)
        two_step = InferenceMode.STEP1 if step1_only else InferenceMode.TWO_STEP
        mode = InferenceMode.SINGLE_STEP if single_step else two_step
        return cls(device, engine, precision, threads, mode, quality, roi)
