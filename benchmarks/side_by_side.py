"""Measure several sides of one question in one run: each in a process of its own, in turn, round by round.

Only one side computes at a time; the others wait. A side is a function that sets up and returns another one to be timed.
Times are medians over rounds, ratios are medians of the ratio within a round, memory is the process's peak.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Setup = Callable[[], Callable[[], object]]


def serve(setup: Setup, pipe: Connection) -> None:
    """A side's process: set up, then time one call each time it is told to, then tell its peak memory."""
    call = setup()
    call()
    rest = peak()
    pipe.send("ready")
    while pipe.recv() == "go":
        start = time.perf_counter()
        call()
        pipe.send(time.perf_counter() - start)
    pipe.send((rest, peak()))


def peak() -> float:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(name: str, sides: dict[str, Setup], *, rounds: int, images: int, about: dict[str, Any]) -> dict[str, Any]:
    """Run the sides in turn, print a table, and write results/NAME-DATE.json; ratios are over the first side.

    Args:
        images: images that one call handles.
        about: what was measured, for the file.
    """
    context = multiprocessing.get_context("spawn")
    workers = {}
    for side, setup in sides.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(setup, theirs), daemon=True)
        process.start()
        theirs.close()
        assert ours.recv() == "ready"
        workers[side] = (process, ours)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (_, pipe) in workers.items():
            pipe.send("go")
            times[side].append(pipe.recv())
    base = next(iter(sides))
    rows = {}
    for side, (process, pipe) in workers.items():
        pipe.send("stop")
        _, memory = pipe.recv()
        process.join()
        seconds = statistics.median(times[side])
        ratios = [a / b for a, b in zip(times[base], times[side], strict=True)]
        rows[side] = {
            "seconds_median": round(seconds, 5),
            "seconds_min": round(min(times[side]), 5),
            "seconds_max": round(max(times[side]), 5),
            "images_per_second": round(images / seconds, 2),
            f"speed_over_{base}": round(statistics.median(ratios), 3),
            "peak_memory_mib": round(memory, 1),
        }
        print(
            f"{side:<16} {images / seconds:8.2f} images/s   {rows[side][f'speed_over_{base}']:.2f}x   {memory:7.0f} MiB"
        )
    return write(name, {"rounds": rounds, **about, "machine": machine(), "sides": rows})


def write(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """results/NAME-DATE.json: the benchmark, the date, what was found."""
    result = {"benchmark": name, "date": date.today().isoformat(), **found}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}-{result['date']}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written  {file}")
    return result


def machine() -> dict[str, Any]:
    """Processor, threads, versions, command."""
    from intarsia.devices import cores, cpu_flags, cpu_name

    packages = {}
    for package in ("torch", "torchvision", "timm", "segmentation-models-pytorch", "numpy", "pillow"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "-"
    flags = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & cpu_flags())
    words = [
        Path(word).name if Path(word).exists() else word for word in sys.argv[1:]
    ]  # a machine's folders say nothing
    command = subprocess.list2cmdline(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    return {
        "processor": cpu_name(),
        "cores": cores(),
        "features": flags,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": packages,
        "command": command,
    }
