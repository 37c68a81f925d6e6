"""The one file that knows CUDA from MPS from CPU: what there is, which precision it computes fast, how much memory."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from intarsia.errors import ConfigError

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Device:
    """Where tensors live and in which precision networks compute."""

    kind: str
    """cpu, cuda or mps"""
    index: int
    precision: str
    """fp32 or bf16 (weights stay fp32; convolutions and products compute in bf16)"""

    @property
    def torch_name(self) -> str:
        return f"{self.kind}:{self.index}" if self.kind == "cuda" else self.kind

    @property
    def is_cpu_in_bf16(self) -> bool:
        """Whether a processor computes in bf16, whose kernels are not fast for everything (ops/depthwise.py)."""
        return self.kind == "cpu" and self.precision == "bf16"

    def autocast(self) -> AbstractContextManager[object]:
        """Where networks compute in the device's precision."""
        import torch

        return torch.autocast(self.kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def describe(self) -> str:
        """ "CPU, 2 cores, bf16", as the first line of a command shows it."""
        if self.kind == "cuda":
            import torch

            return f"{torch.cuda.get_device_name(self.index)}, {self.precision}"
        name = "Apple GPU" if self.kind == "mps" else f"CPU, {cores()} cores"
        return f"{name}, {self.precision}"


def choose_device(name: str = "auto", precision: str = "auto") -> Device:
    """The device that a setting names.

    Args:
        name: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.
        precision: auto (bf16 where the hardware computes it fast, else fp32), fp32 or bf16.

    Raises:
        ConfigError: there is no such device here.
    """
    import torch

    if precision not in PRECISIONS:
        raise ConfigError(f"train.precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    kind, _, index = name.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    number = int(index) if index.isdecimal() else 0
    if kind == "cuda" and number >= torch.cuda.device_count():
        raise ConfigError(f"train.device: there is no {name} here ({torch.cuda.device_count()} CUDA devices). Try cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("train.device: there is no mps here. Try cpu.")
    if kind not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"train.device: must be auto, cpu, cuda, cuda:N or mps, got {name!r}.")
    if precision == "auto":
        fast = {"cuda": lambda: torch.cuda.is_bf16_supported(), "cpu": cpu_has_bf16}.get(kind, lambda: False)
        precision = "bf16" if fast() else "fp32"
    return Device(kind, number, precision)


@cache
def cpu_flags() -> frozenset[str]:
    """Feature flags of the processor, as Linux names them; empty where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 numbers natively (avx512_bf16, amx_bf16 or Arm's bf16)."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())


def describe_machine() -> dict[str, object]:
    """Processor, cores and what of the processor decides speed, for files of results."""
    return {
        "processor": cpu_name(),
        "cores": cores(),
        "features": sorted({"avx512_bf16", "amx_bf16"} & cpu_flags()),
    }


def cpu_name() -> str:
    """The processor's name, as well as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


THREADS = "INTARSIA_THREADS"
"""Environment variable: cores that engines and compiled code take at most."""


def cores() -> int:
    """Processor cores that this process may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get(THREADS, "")
    return min(there, max(1, int(limit))) if limit.isdecimal() else there


def available_memory(device: str = "cpu") -> int:
    """Bytes that are free for use: of a CUDA device, else of main memory; 4 GiB where the system does not tell."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30
