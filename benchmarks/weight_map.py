"""U-Net's border weights: one distance transform an object, stacked and sorted, against windows with two running minima.

`naive` is the form that implementations of the paper print: a whole-image distance transform for each object, a stack of all,
sorted. `ours` is `intarsia.losses.border.border_weight_map`. Memory is what the process takes above one that only imports.
Objects are drawn (discs; cells of a membrane with lines of two pixels), and real nuclei if the folder of --data is there.

python benchmarks/weight_map.py
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from side_by_side import machine, serve, write

Instances = NDArray[np.uint16]
DRAWN = (
    ("discs", 4, 256, 256),
    ("discs", 16, 256, 256),
    ("discs", 64, 256, 320),
    ("discs", 126, 520, 696),
    ("membrane", 136, 512, 512),
    ("discs", 375, 603, 1272),
)
REAL = (4, 16, 64, 126, 375)
"""Of the real images, those whose number of objects is nearest to these."""
SLOW = 100_000_000
"""Pixels times objects from which three rounds must do."""


def discs(count: int, height: int, width: int) -> Instances:
    """Discs that hide each other and cover about an eighth of the image, as the nuclei of DSB2018 do (11.6 %)."""
    rng = np.random.default_rng(count)
    rows, columns = np.ogrid[:height, :width]
    radius = np.sqrt(0.125 * height * width / count / np.pi)
    instances = np.zeros((height, width), np.uint16)
    while (number := int(instances.max()) + 1) <= count:
        row, column, r = rng.uniform(0, height), rng.uniform(0, width), radius * rng.uniform(0.7, 1.3)
        instances[((rows - row) ** 2 + (columns - column) ** 2 < r * r) & (instances == 0)] = number
    return instances


def membrane(count: int, height: int, width: int) -> Instances:
    """The nearest of `count` random points, with lines of about two pixels between."""
    rng = np.random.default_rng(count)
    seeds = np.ones((height, width), bool)
    places = rng.choice(height * width, count, replace=False)
    seeds.ravel()[places] = False
    row, column = ndimage.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    numbers = np.zeros((height, width), np.uint16)
    numbers.ravel()[places] = np.arange(1, count + 1)
    cells = numbers[row, column]
    return np.where(ndimage.maximum_filter(cells, 3) == ndimage.minimum_filter(cells, 3), cells, 0).astype(np.uint16)


def cases(data: Path) -> Iterator[tuple[str, Instances]]:
    """Name and objects of each case."""
    for kind, *size in DRAWN:
        yield kind, {"discs": discs, "membrane": membrane}[kind](*size)
    real = []
    for path in sorted((data / "instances").glob("*.png")):
        with Image.open(path) as picture:
            real.append((path.stem, np.asarray(picture).astype(np.uint16)))
    for count in REAL if real else ():
        yield min(real, key=lambda named: abs(number_of(named[1]) - count))


def number_of(instances: Instances) -> int:
    """How many objects there are."""
    return int(np.count_nonzero(np.bincount(instances.ravel())[1:]))


def naive(instances: Instances) -> NDArray[Any]:
    """A distance transform for each object, stacked and sorted."""
    numbers = [number for number in np.unique(instances) if number]
    distances = np.stack([ndimage.distance_transform_edt(instances != number) for number in numbers])
    distances = np.sort(distances, axis=0)
    return 10.0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * 5.0**2))


def side(name: str, instances: Instances) -> Callable[[], object]:
    """What is timed; `none` only imports."""
    from intarsia.losses.border import border_weight_map

    makers = {"naive": naive, "ours": border_weight_map, "none": len}
    return functools.partial(makers[name], instances)


def measured(instances: Instances, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each round and peak MiB above `none`, of each side."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for name in ("naive", "ours", "none"):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(functools.partial(side, name, instances), theirs), daemon=True)
        process.start()
        assert ours.recv() == "ready"
        workers[name] = (process, ours)
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, (_, pipe) in workers.items():
            pipe.send("go")
            times[name].append(pipe.recv())
    memory = {}
    for name, (process, pipe) in workers.items():
        pipe.send("stop")
        memory[name] = pipe.recv()[1]
        process.join()
    return times, {name: peak - memory["none"] for name, peak in memory.items()}


def difference(instances: Instances) -> float:
    """The largest difference of the two maps."""
    from intarsia.losses.border import border_weight_map

    return float(np.abs(naive(instances) - border_weight_map(instances)).max())


def apart(instances: Instances) -> float:
    """`difference` in a process of its own: a process inherits the peak memory of the one that starts it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(difference, (instances,))


def row_of(name: str, instances: Instances, rounds: int) -> dict[str, Any]:
    """One case, printed and returned."""
    height, width = instances.shape
    count = number_of(instances)
    slow = instances.size * count > SLOW
    times, memory = measured(instances, min(3, rounds) if slow else rounds)
    ratios = [theirs / ours for theirs, ours in zip(times["naive"], times["ours"], strict=True)]
    row: dict[str, Any] = {
        "case": name,
        "objects": count,
        "size": [height, width],
        "rounds": len(ratios),
        "naive_ms": round(1000 * statistics.median(times["naive"]), 2),
        "ours_ms": round(1000 * statistics.median(times["ours"]), 2),
        "speed_over_naive": round(statistics.median(ratios), 1),
        "naive_memory_mib": round(memory["naive"], 1),
        "ours_memory_mib": round(memory["ours"], 1),
        "largest_difference": None if slow else apart(instances),
    }
    print(
        f"{name:<22} {count:4} objects  {height:4} x {width:<4}  naive {row['naive_ms']:9.1f} ms {memory['naive']:6.0f} MiB"
        f"   ours {row['ours_ms']:6.2f} ms {memory['ours']:4.0f} MiB   {row['speed_over_naive']:7.1f}x",
        flush=True,
    )
    return row


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "dsb2018")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    rows = [row_of(name, instances, given.rounds) for name, instances in cases(given.data)]
    write("weight_map", {"w0": 10, "sigma": 5, "machine": machine(), "cases": rows})


if __name__ == "__main__":
    main()
