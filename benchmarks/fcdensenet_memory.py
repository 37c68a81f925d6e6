"""A training step of FC-DenseNet in the memory-saving form against the naive one: time and memory, in one run.

A step is forward, loss (cross-entropy), backward, AdamW, at the paper's crop of 224 x 224. Each side is a process of its own;
sides take turns, round by round, the first step left out. Ratios are medians of the ratio within a round. Seconds are given on
the wall and of the processor (all threads); on a machine that does something else, the latter and the minima are to be trusted.
With several threads the processor's seconds count waiting threads too, which spin.

Memory: `rest` is what the process holds before its first step (interpreter, PyTorch, weights); `step` is the peak over that, in
the first two steps: maps kept for the gradient, gradients, AdamW's two states, and what the convolutions need for a moment.
`activations` is the step less gradients and states (12 bytes a weight), that both sides have. Freed memory is given back to the
system at once (a small mmap threshold), or the peak would be that of the heap's holes; time is measured in other processes,
that keep the default.

    python benchmarks/fcdensenet_memory.py                  # both, 1 and 2 threads, float32 and bf16: 10 minutes
    python benchmarks/fcdensenet_memory.py --model fcdensenet56 --threads 1 --precision fp32
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from side_by_side import machine, write

CLASSES = 11
SIDES = ("naive", "saving")


def step_of(model: str, side: str, precision: str, threads: int, shape: tuple[int, int, int]) -> Callable[[], float]:
    """A call that trains for one step and returns the loss."""
    import torch
    from torch.nn import functional as F

    from intarsia.models import create_model

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    count, height, width = shape
    net = create_model(model, num_classes=CLASSES, memory=side).train()
    image = torch.randn(count, 3, height, width)
    if precision.endswith("_last"):
        net, image = net.to(memory_format=torch.channels_last), image.contiguous(memory_format=torch.channels_last)
    mask = torch.randint(0, CLASSES, (count, height // 16, width // 16))
    mask = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        bf16 = precision.startswith("bf16")
        with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
            logits = net(image)
        loss = F.cross_entropy(logits.float(), mask)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def resident(field: str) -> float:
    """A line of this process's status, MiB: VmRSS (now) or VmHWM (peak)."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))


def processor_seconds() -> float:
    """Of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_of(pipe: Connection, setup: Callable[[], Callable[[], float]]) -> None:
    """A fresh process: memory at rest and the peak of two steps over it, MiB."""
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
    step = setup()
    rest = resident("VmRSS")
    losses = [step(), step()]
    pipe.send((rest, resident("VmHWM") - rest, losses))


def serve(pipe: Connection, setup: Callable[[], Callable[[], float]]) -> None:
    """A side's process: time a step each time it is told to."""
    step = setup()
    step()
    pipe.send("ready")
    while pipe.recv() == "go":
        wall, used = time.perf_counter(), processor_seconds()
        step()
        pipe.send((time.perf_counter() - wall, processor_seconds() - used))


def measure(setups: dict[str, Callable[[], Callable[[], float]]], rounds: int, shared_mib: float) -> dict[str, Any]:
    """Memory, then time in turn; a row a side, ratios over the first."""
    context = multiprocessing.get_context("spawn")
    rows: dict[str, Any] = {}
    for side, setup in setups.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=memory_of, args=(theirs, setup))
        process.start()
        rest, peak, losses = ours.recv()
        process.join()
        rows[side] = {"rest_mib": rest, "step_mib": peak, "activations_mib": peak - shared_mib, "losses": losses}
    workers = {}
    for side, setup in setups.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, setup), daemon=True)
        process.start()
        assert ours.recv() == "ready"
        workers[side] = (process, ours)
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in setups}
    for turn in range(rounds):
        for side, (_, pipe) in list(workers.items())[:: 1 if turn % 2 else -1]:
            pipe.send("go")
            times[side].append(pipe.recv())
    for process, pipe in workers.values():
        pipe.send("stop")
        process.join()
    base = next(iter(setups))
    for side, row in rows.items():
        for index, name in enumerate(("wall", "processor")):
            mine, theirs_s = ([each[index] for each in times[of]] for of in (side, base))
            row[f"{name}_s_median"], row[f"{name}_s_min"] = statistics.median(mine), min(mine)
            row[f"{name}_speed_over_{base}"] = statistics.median(b / a for a, b in zip(mine, theirs_s, strict=True))
            row[f"{name}_speed_over_{base}_of_minima"] = min(theirs_s) / min(mine)
        for name in ("step_mib", "activations_mib"):
            row[f"{name}_less"] = rows[base][name] / row[name]
        for key, value in row.items():
            row[key] = [round(each, 6) for each in value] if isinstance(value, list) else round(value, 4)
    return rows


def main() -> None:
    """Measure, print, write."""
    from intarsia.models import MODELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["fcdensenet103", "fcdensenet56"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--precision", nargs="+", default=["fp32", "bf16_last"], help="fp32 or bf16, with _last: layout"
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dry", action="store_true", help="write no file")
    given = parser.parse_args()
    shape, cases = (given.batch, *given.size), []
    for model in given.model:
        weights = MODELS[model].replace({"num_classes": CLASSES, "in_channels": 3}).build().count_parameters()
        for precision in given.precision:
            for threads in given.threads:
                setups = {side: functools.partial(step_of, model, side, precision, threads, shape) for side in SIDES}
                rows = measure(setups, given.rounds, 12 * weights / 2**20)
                cases.append({"model": model, "precision": precision, "threads": threads, "sides": rows})
                for side, row in rows.items():
                    print(
                        f"{model} {precision:<9} {threads} thr  {side:<7} {row['wall_s_median']:6.2f} s "
                        f"({row['wall_speed_over_naive']:.2f}x)  processor {row['processor_s_median']:6.2f} s "
                        f"({row['processor_speed_over_naive']:.2f}x, minima "
                        f"{row['processor_speed_over_naive_of_minima']:.2f}x)  step {row['step_mib']:5.0f} MiB "
                        f"({row['step_mib_less']:.2f}x)  activations {row['activations_mib']:5.0f} MiB "
                        f"({row['activations_mib_less']:.2f}x less)",
                        flush=True,
                    )
    if given.dry:
        return
    found = {
        "rounds": given.rounds,
        "batch": given.batch,
        "size": list(given.size),
        "load_before_and_after": [LOAD[0], round(os.getloadavg()[0], 2)],
        "machine": machine(),
        "cases": cases,
    }
    write("fcdensenet_memory", found)


LOAD = [round(os.getloadavg()[0], 2)]

if __name__ == "__main__":
    main()
