"""Losses, forward and backward, against the peers: logits (8, 12, 360, 480) in float32 and masks as they come from files.

All sides get the same uint8 masks and turn them into what they take inside the timed call: int64 for PyTorch and for
segmentation_models.pytorch (smp), int64 with a channel for MONAI, nothing for ours. The gradient is asked for by
`torch.autograd.grad`, so that no side adds it to an older one. Focal is not the same loss on both sides: smp's is one
sigmoid a class, ours is the softmax of the paper.

Each side is a process of its own with two threads; they compute in turn, round by round. `extra_memory_mib` is how far one
call raises the process's resident memory above what it was with the inputs in place, the gradient (63 MiB) included: the
first call at full size after one on a small input, the freed heap given back (malloc_trim) and the kernel's high-water mark
(VmHWM) reset through /proc/self/clear_refs before it.

    pip install -c constraints.txt -e '.[bench]' && python benchmarks/losses.py
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from side_by_side import machine, write

SHAPE = (8, 12, 360, 480)
SMALL = (1, 12, 32, 32)
THREADS = 2
Loss = Callable[..., Any]


def ours(name: str, *, kernel: bool = False) -> Loss:
    """One of our losses, with or without the compiled kernel; Lovász does not use it."""
    os.environ["INTARSIA_KERNEL"] = "1" if kernel else "0"
    from intarsia.losses import LOSSES
    from intarsia.losses.kernel import KERNEL

    if kernel and KERNEL.load() is None:
        sys.exit(f"there is no kernel to measure: {KERNEL.state()}")
    return LOSSES[name]


def torch_cross_entropy() -> Loss:
    """Cross-entropy alone, as PyTorch has it."""
    from torch.nn import functional as F

    return lambda logits, mask: F.cross_entropy(logits, mask.long())


def smp_ce_dice() -> Loss:
    """What smp's users write."""
    import segmentation_models_pytorch as smp
    from torch.nn import functional as F

    dice = smp.losses.DiceLoss("multiclass")

    def loss(logits: Any, mask: Any) -> Any:
        truth = mask.long()
        return F.cross_entropy(logits, truth) + dice(logits, truth)

    return loss


def smp_loss(name: str) -> Loss:
    """A loss of smp by the name of its class."""
    import segmentation_models_pytorch as smp

    loss = getattr(smp.losses, name)("multiclass")
    return lambda logits, mask: loss(logits, mask.long())


def monai_ce_dice() -> Loss:
    """MONAI's loss of the same name."""
    from monai.losses import DiceCELoss

    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    return lambda logits, mask: loss(logits, mask.unsqueeze(1).long())


GROUPS: dict[str, tuple[int, dict[str, Callable[[], Loss]]]] = {
    "ce_dice": (
        21,
        {
            "smp": smp_ce_dice,
            "monai": monai_ce_dice,
            "ours_plain": functools.partial(ours, "ce_dice"),
            "ours_kernel": functools.partial(ours, "ce_dice", kernel=True),
            "torch_ce_alone": torch_cross_entropy,
        },
    ),
    "focal": (
        15,
        {
            "smp": functools.partial(smp_loss, "FocalLoss"),
            "ours_plain": functools.partial(ours, "focal"),
            "ours_kernel": functools.partial(ours, "focal", kernel=True),
        },
    ),
    "lovasz_softmax": (
        5,
        {
            "smp": functools.partial(smp_loss, "LovaszLoss"),
            "ours": functools.partial(ours, "lovasz_softmax"),
        },
    ),
}
"""Rounds and sides of each question; ratios are over the first side."""


def call(loss: Loss, shape: tuple[int, int, int, int]) -> Callable[[], Any]:
    """Forward and backward on drawn logits and blocky masks, the same for every side."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images, classes, height, width = shape
    logits = torch.randn(shape, generator=generator).requires_grad_()
    coarse = torch.randint(0, classes, (images, 1, height // 8, width // 8), generator=generator)
    mask = torch.nn.functional.interpolate(coarse.float(), (height, width), mode="nearest")[:, 0].to(torch.uint8)
    return lambda: torch.autograd.grad(loss(logits, mask), logits)


def status(field: str) -> float:
    """A line of /proc/self/status, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def extra_memory(full: Callable[[], Any]) -> float | None:
    """What one call adds to the resident memory, MiB; None where the system is not Linux."""
    if not sys.platform.startswith("linux"):
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    full()
    return status("VmHWM") - before


def serve(make: Callable[[], Loss], pipe: Connection) -> None:
    """A side's process: tell the memory of one call, then time one each time it is told to."""
    import torch

    torch.set_num_threads(THREADS)
    loss = make()
    call(loss, SMALL)()
    full = call(loss, SHAPE)
    pipe.send(extra_memory(full))
    while pipe.recv() == "go":
        start = time.perf_counter()
        full()
        pipe.send(time.perf_counter() - start)


def measure(rounds: int, sides: dict[str, Callable[[], Loss]]) -> dict[str, dict[str, float | None]]:
    """The sides of one question in turn."""
    context = multiprocessing.get_context("spawn")
    workers, memory = {}, {}
    for side, make in sides.items():
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(make, theirs), daemon=True)
        process.start()
        theirs.close()
        memory[side], workers[side] = pipe.recv(), (process, pipe)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (_, pipe) in workers.items():
            pipe.send("go")
            times[side].append(pipe.recv())
    for process, pipe in workers.values():
        pipe.send("stop")
        process.join()
    first = times[next(iter(sides))]
    rows: dict[str, dict[str, float | None]] = {}
    for side, taken in times.items():
        extra = memory[side]
        rows[side] = {
            "milliseconds_median": round(1e3 * statistics.median(taken), 2),
            "milliseconds_min": round(1e3 * min(taken), 2),
            "milliseconds_max": round(1e3 * max(taken), 2),
            "speed_over_smp": round(statistics.median(a / b for a, b in zip(first, taken, strict=True)), 2),
            "extra_memory_mib": None if extra is None else round(extra, 1),
        }
    return rows


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(GROUPS)}; all, and a file, by default")
    chosen = parser.parse_args().groups
    found: dict[str, Any] = {}
    for group in chosen or GROUPS:
        rounds, sides = GROUPS[group]
        found[group] = {"rounds": rounds, "sides": measure(rounds, sides)}
        for side, row in found[group]["sides"].items():
            print(
                f"{group:<15} {side:<15} {row['milliseconds_median']:9.1f} ms   {row['speed_over_smp']:6.2f}x smp   "
                f"{row['extra_memory_mib']} MiB"
            )
    if chosen:
        return
    packages = {"monai": version("monai")}
    about = {"logits": list(SHAPE), "dtype": "float32", "threads": THREADS, "peers": packages}
    write("losses", {**about, "machine": machine(), "questions": found})


if __name__ == "__main__":
    main()
