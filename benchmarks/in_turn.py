"""Sides of a question in processes of their own, asked in turn: for networks that are loaded once and called many ways.

Where a single call is the question, side_by_side.py is enough.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from side_by_side import peak

PAUSE = 0.05
"""Seconds between turns: OpenMP's threads wait awake for some milliseconds after their work."""
LOOK = 0.5
"""Seconds before each round in which nobody of us computes."""
QUIET = 0.05
"""Share of the cores that others may take without a word."""


class Side:
    """What a process measures."""

    def compute(self) -> object:
        """The network once."""
        raise NotImplementedError

    def time(self, calls: int) -> float:
        """Median seconds of so many calls, after one that does not count."""
        self.compute()
        return statistics.median(seconds(self.compute) for _ in range(calls))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def apart(function: Callable[..., Any], *given: Any) -> Any:
    """The result of a function that runs in a process of its own, so that this one stays idle and small."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *given).result()


@dataclass(frozen=True)
class Maker:
    """How a side is made, and the packages that are there before its memory is counted."""

    make: Callable[[], Side]
    packages: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def resident() -> float:
    """MiB of this process now, else its peak."""
    return status("VmRSS") or peak()


def status(field: str) -> float | None:
    """A line of /proc/self/status in MiB; unlike ru_maxrss it does not begin with what the parent had."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), None)


def serve(maker: Maker, pipe: Any) -> None:
    """A side's process: made, then its methods are called as the other end asks."""
    try:
        os.environ.update(maker.environment)
        for package in maker.packages:
            importlib.import_module(package)
        start, begun = resident(), time.perf_counter()
        side = maker.make()
        side.compute()
        pipe.send((time.perf_counter() - begun, ""))
        while asked := pipe.recv():
            method, given = asked
            if method == "memory":
                most = status("VmHWM") or peak()
                pipe.send(((most, most - start), ""))
            else:
                pipe.send((getattr(side, method)(*given), ""))
    except Exception:
        pipe.send((None, traceback.format_exc()))


class Processes:
    """Sides in processes of their own; one works while the others wait."""

    def __init__(self, makers: dict[str, Maker]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.loading, self._processes = {}, {}, []
        for name, maker in makers.items():
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(maker, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self.pipes[name] = mine
            self.loading[name] = float(self._answer(name))

    def ask(self, name: str, method: str, *given: Any) -> Any:
        """What a side's method returns."""
        time.sleep(PAUSE)
        self.pipes[name].send((method, given))
        return self._answer(name)

    def end(self) -> None:
        for pipe in self.pipes.values():
            pipe.send(None)
        for process in self._processes:
            process.join()

    def _answer(self, name: str) -> Any:
        try:
            found, error = self.pipes[name].recv()
        except EOFError:
            raise SystemExit(f"{name}: its process died (memory?)") from None
        if error:
            raise SystemExit(f"{name}:\n{error}")
        return found


def rounds_of(processes: Processes, rounds: int, turn: Callable[[str], None]) -> float:
    """Turns of all sides, every second round in reverse; the caller leaves the first round out.

    Returns:
        Share of the cores that others took in the meantime.
    """
    taken = []
    for number in range(rounds + 1):
        time.sleep(PAUSE)
        taken.append(others())
        for name in list(processes.pipes)[:: 1 if number % 2 else -1]:
            turn(name)
    share = statistics.mean(taken)
    if share > QUIET:
        print(
            f"\nNOT QUIET  others took {100 * share:.0f} % of the cores: neither times nor ratios are to be trusted\n"
        )
    return share


def others() -> float:
    """Share of the machine's cores that is busy while all sides sleep; 0 where the system does not tell."""
    try:
        before = cpu_ticks()
        time.sleep(LOOK)
        after = cpu_ticks()
    except OSError:
        return 0.0
    busy, whole = (b - a for a, b in zip(before, after, strict=True))
    return busy / max(1, whole)


def cpu_ticks() -> tuple[int, int]:
    """Busy and all ticks of all cores since the start of the machine."""
    user, nice, system, idle, iowait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + iowait
