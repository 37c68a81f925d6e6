"""Counting: class map and confusion matrix from logits (8, 12, 360, 480) in float32, and confusion from labels.

Labels are uint8 on every side, as they come from files, and what a peer takes is made of them inside the timed call: int64
for segmentation_models.pytorch (smp) and torchmetrics, one-hot for MONAI. They are blocky; the prediction is the truth moved
by a few pixels with some blocks changed. No pixel is ignored, since MONAI cannot leave pixels out and plain torch would have
to look for them; ours looks for them all the same, and for numbers that are no class. smp and MONAI give true and false
positives and negatives of each image and class, torch, torchmetrics and ours one confusion matrix of all.

Each side is a process of its own with two threads; they compute in turn, round by round. Ratios are medians of the ratio
within a round. `from_labels` is the mean of ten calls in a row, `from_labels_once` one call of a process that has waited:
nothing is in a cache then, as after a network. torchmetrics is left out where it is not installed.

    pip install -c constraints.txt -e '.[bench]' && python benchmarks/metrics.py
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from side_by_side import machine, serve, write

SHAPE = (8, 12, 360, 480)
CLASSES = SHAPE[1]
THREADS = 2
Count = Callable[[Any, Any], Any]
"""Of logits or predicted labels, and true labels."""


def pairs(prediction: Any, mask: Any) -> Any:
    """The least that torch can be asked for."""
    import torch

    return torch.bincount(mask.flatten().long() * CLASSES + prediction.flatten(), minlength=CLASSES**2)


def torch_argmax() -> Count:
    """What is mostly written."""
    return lambda logits, mask: pairs(logits.argmax(1), mask)


def torch_max() -> Count:
    """The same with the quicker of torch's two."""
    return lambda logits, mask: pairs(logits.max(1)[1], mask)


def ours(*, compiled: bool, labels: bool = False) -> Count:
    """Ours, with or without compiled C."""
    os.environ["INTARSIA_KERNEL"] = "1" if compiled else "0"
    from intarsia.metrics.confusion import LIBRARY as COUNTS
    from intarsia.metrics.confusion import confusion
    from intarsia.ops.class_map import LIBRARY, class_map

    for library in (COUNTS, LIBRARY) if compiled else ():
        if library.load() is None:
            sys.exit(f"there is no compiled form to measure: {library.state()}")
    if labels:
        return lambda prediction, mask: confusion(prediction, mask, CLASSES)
    return lambda logits, mask: confusion(class_map(logits), mask, CLASSES)


def torch_bincount() -> Count:
    """Labels as `pairs` takes them."""
    return pairs


def smp() -> Count:
    """True and false positives and negatives of each image and class."""
    from segmentation_models_pytorch.metrics import get_stats

    return lambda prediction, mask: get_stats(prediction.long(), mask.long(), mode="multiclass", num_classes=CLASSES)


def monai() -> Count:
    """The same, from one-hot tensors."""
    from monai.metrics import get_confusion_matrix
    from monai.networks import one_hot

    def count(prediction: Any, mask: Any) -> Any:
        return get_confusion_matrix(*(one_hot(labels.unsqueeze(1), CLASSES) for labels in (prediction, mask)))

    return count


def torchmetrics() -> Count:
    """An update, its checks on as they are by default."""
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(CLASSES)
    return lambda prediction, mask: metric.update(prediction.long(), mask.long())


FROM_LOGITS: dict[str, Callable[[], Count]] = {
    "torch_argmax": torch_argmax,
    "torch_max": torch_max,
    "ours_plain": functools.partial(ours, compiled=False),
    "ours_compiled": functools.partial(ours, compiled=True),
}
FROM_LABELS: dict[str, Callable[[], Count]] = {
    "smp": smp,
    "monai": monai,
    **({"torchmetrics": torchmetrics} if find_spec("torchmetrics") else {}),
    "torch_bincount": torch_bincount,
    "ours_plain": functools.partial(ours, compiled=False, labels=True),
    "ours_compiled": functools.partial(ours, compiled=True, labels=True),
}
QUESTIONS: dict[str, tuple[int, int, tuple[str, ...], dict[str, Callable[[], Count]]]] = {
    "from_logits": (21, 1, ("torch_argmax",), FROM_LOGITS),
    "from_labels": (15, 10, ("smp", "monai", "torch_bincount"), FROM_LABELS),
    "from_labels_once": (15, 1, ("smp", "monai", "torch_bincount"), FROM_LABELS),
}
"""Rounds, calls that are timed together, the sides that ratios are over, and the sides of each question."""


def labels() -> tuple[Any, Any]:
    """Truth in blocks of 8 to 24 pixels; the prediction, moved by (2, 3) pixels and with a tenth of the blocks drawn anew."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images, classes, height, width = SHAPE

    def drawn(high: int, block: int) -> Any:
        coarse = torch.randint(0, high, (images, 1, height // block, width // block), generator=generator)
        return torch.nn.functional.interpolate(coarse.float(), (height, width))[:, 0].to(torch.uint8)

    truth = torch.where(drawn(2, 40) == 1, drawn(classes, 8), drawn(classes, 24))
    return torch.where(drawn(10, 24) == 0, drawn(classes, 24), truth).roll((2, 3), (1, 2)).contiguous(), truth


def side(make: Callable[[], Count], question: str) -> Callable[[], Any]:
    """What is timed."""
    import torch

    torch.set_num_threads(THREADS)
    count, (prediction, truth) = make(), labels()
    if question == "from_logits":
        prediction = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return functools.partial(repeated, count, prediction, truth, QUESTIONS[question][1])


def repeated(count: Count, prediction: Any, truth: Any, calls: int) -> None:
    """Calls in a row."""
    for _ in range(calls):
        count(prediction, truth)


def measure(question: str) -> dict[str, dict[str, float]]:
    """The sides of one question in turn."""
    rounds, calls, bases, sides = QUESTIONS[question]
    context = multiprocessing.get_context("spawn")
    workers = {}
    for name, make in sides.items():
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(functools.partial(side, make, question), theirs), daemon=True)
        process.start()
        theirs.close()
        assert pipe.recv() == "ready"
        workers[name] = (process, pipe)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (_, pipe) in workers.items():
            pipe.send("go")
            times[name].append(pipe.recv() / calls)
    for process, pipe in workers.values():
        pipe.send("stop")
        pipe.recv()
        process.join()
    return {
        name: {
            "milliseconds_median": round(1e3 * statistics.median(taken), 3),
            "milliseconds_min": round(1e3 * min(taken), 3),
            "milliseconds_max": round(1e3 * max(taken), 3),
            **{f"speed_over_{base}": round(ratio(times[base], taken), 2) for base in bases},
        }
        for name, taken in times.items()
    }


def ratio(base: list[float], taken: list[float]) -> float:
    """Median over rounds."""
    return statistics.median(a / b for a, b in zip(base, taken, strict=True))


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", help=f"some of {', '.join(QUESTIONS)}; all, and a file, by default")
    chosen = parser.parse_args().questions
    found: dict[str, Any] = {}
    for question in chosen or QUESTIONS:
        rounds, calls, bases, _ = QUESTIONS[question]
        found[question] = {"rounds": rounds, "calls": calls, "sides": measure(question)}
        for name, row in found[question]["sides"].items():
            speeds = "   ".join(f"{row[f'speed_over_{base}']:7.2f}x {base}" for base in bases)
            print(f"{question:<16} {name:<15} {row['milliseconds_median']:9.2f} ms   {speeds}", flush=True)
    if chosen:
        return
    peers = {package: installed(package) for package in ("monai", "torchmetrics")}
    about = {"logits": list(SHAPE), "dtype": "float32", "labels": "uint8", "threads": THREADS, "peers": peers}
    write("metrics", {**about, "machine": machine(), "questions": found})


def installed(package: str) -> str:
    """Its version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed: left out"


if __name__ == "__main__":
    main()
