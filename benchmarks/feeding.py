"""Feeding a network: image and mask mirrored, deformed, cut, coloured, normalised, as batches of tensors.

Against torchvision v2, albumentations and kornia, on CamVid frames of 480 x 360 as PNG where ../shared/data/camvid is
(INTARSIA_TEST_DATA names another folder), else on drawn ones. A call is two batches of eight. `files`: each side decodes every
frame anew, with what its users decode with (cv2, torchvision.io, kornia_rs; ours libpng by imagecodecs). `cache`: the decoded
uint8 frames are in memory, of ours in the feeder's own store.

The same work: mirror left and right (p 0.5), elastic deformation, a window of 224 x 224, brightness, contrast and saturation,
normalisation, a stack of float32 images and masks. Not the same transforms: the peers deform by noise of every pixel, smoothed
(alpha 50, sigma 5: torchvision's defaults; a larger sigma costs them more); ours by random vectors on a coarse grid, of the
window alone, with the mirror in one step. Ours also draws a gamma, the peers do not; hue is left out on all sides. Of the peers
both orders are measured: the usual one, which deforms the frame and then cuts, and `_crop_first`, like for like with ours.

Each side is a process of its own with one thread; they compute in turn, round by round.

    pip install -c constraints.txt -e '.[bench]' && python benchmarks/feeding.py
    python benchmarks/feeding.py --profile     # where our time goes, and how long decoders take
    python benchmarks/feeding.py --waiting     # the share of a training run that waits for samples
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from feeding_sides import ALPHA, BATCH, CROP, FRAMES, SIDES, SIGMA, feeder, one_thread, paths, write_frames
from side_by_side import machine, serve, write

ROUNDS = 5


def measure(folder: Path, source: str, rounds: int) -> dict[str, dict[str, float]]:
    """The sides in turn; ratios are how often ours is as fast."""
    context = multiprocessing.get_context("spawn")
    workers, times = {}, {side: list[float]() for side in SIDES}
    for side, make in SIDES.items():
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(functools.partial(make, folder, source), theirs), daemon=True)
        process.start()
        theirs.close()
        workers[side] = (process, pipe)
    for _, pipe in workers.values():
        assert pipe.recv() == "ready"
    for _ in range(rounds):
        for side, (_, pipe) in workers.items():
            pipe.send("go")
            times[side].append(pipe.recv() / FRAMES)
    for process, pipe in workers.values():
        pipe.send("stop")
        pipe.recv()
        process.join()
    return {
        side: {
            "milliseconds_median": round(1e3 * statistics.median(taken), 3),
            "milliseconds_min": round(1e3 * min(taken), 3),
            "milliseconds_max": round(1e3 * max(taken), 3),
            "images_per_second": round(1 / statistics.median(taken), 1),
            "ours_over_it": round(statistics.median(a / b for a, b in zip(taken, times["ours"], strict=True)), 2),
        }
        for side, taken in times.items()
    }


STEPS = (
    ("intarsia.data.base", "read_image", "decode the image"),
    ("intarsia.data.base", "read_mask", "decode the mask"),
    ("intarsia.data.base", "MaskDecoder.__call__", "class numbers of the mask"),
    ("intarsia.data.decode", "to_channels", "to channels, contiguous"),
    ("intarsia.transforms.pipeline", "draw_window", "draw window and field"),
    ("intarsia.transforms.pipeline", "draw_bend", "draw window and field"),
    ("intarsia.transforms.pipeline", "cut_window", "cut"),
    ("intarsia.transforms.pipeline", "warp_all", "mirror, deform and cut, in one"),
    ("intarsia.transforms.pipeline", "coloured", "to the 0..1 scale, colour"),
    ("intarsia.transforms.pipeline", "damaged", "blur, noise, JPEG: none drawn"),
    ("intarsia.transforms.prepare", "normalise", "normalise, into the batch"),
)
"""Module, function in it, and what it is called; what a version does not have is passed over."""


class Watch:
    """Adds up the time of functions, without that of watched functions inside them."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.inside = [0.0]

    def watch(self, module: str, name: str, label: str) -> None:
        """From now on; a name that is not there is passed over."""
        *owners, name = name.split(".")
        owner: Any = importlib.import_module(module)
        for each in owners:
            owner = getattr(owner, each, None)
        function = getattr(owner, name, None)
        if function is None:
            return

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - start
                self.spent[label] += taken - self.inside.pop()
                self.inside[-1] += taken

        setattr(owner, name, watched)


def profile(folder: Path, source: str, epochs: int) -> dict[str, float]:
    """Milliseconds an image of each step of ours; the feeder's own share is `rest`."""
    batches = feeder(folder, source).batches(0)
    for _ in range(2 * FRAMES // BATCH):
        next(batches)
    watch = Watch()
    for each in STEPS:
        watch.watch(*each)
    start = time.perf_counter()
    for _ in range(epochs * FRAMES // BATCH):
        next(batches)
    total = time.perf_counter() - start
    spent = {**watch.spent, "rest": total - sum(watch.spent.values()), "all": total}
    return {label: round(1e3 * taken / (epochs * FRAMES), 3) for label, taken in spent.items()}


def in_a_process(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def decoders(folder: Path, rounds: int = 5) -> dict[str, float]:
    """Milliseconds to decode one frame, by Pillow, by ours (libpng with checks), and by the peers' decoders."""
    import cv2
    import kornia_rs
    import numpy as np
    from PIL import Image
    from torchvision.io import ImageReadMode, read_image

    from intarsia.images.files import read_image as our_read

    one_thread()
    cv2.setNumThreads(1)
    ways: dict[str, Callable[[Path], object]] = {
        "pillow": lambda path: np.asarray(Image.open(path)),
        "ours": our_read,
        "cv2": lambda path: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB),
        "torchvision": lambda path: read_image(str(path), ImageReadMode.RGB),
        "kornia_rs": lambda path: kornia_rs.read_image_png_u8(str(path), "rgb"),
    }
    files = [image for image, _ in paths(folder)]
    times: dict[str, list[float]] = defaultdict(list)
    for _, (name, way) in itertools.product(range(rounds + 1), ways.items()):
        start = time.perf_counter()
        for path in files:
            way(path)
        times[name].append(1e3 * (time.perf_counter() - start) / len(files))
    return {name: round(statistics.median(taken[1:]), 3) for name, taken in times.items()}


def waiting(folder: Path, settings: Sequence[str]) -> dict[str, Any]:
    """A run of the default recipe: seconds of its steps, and those in which it waits for samples. The first epoch decodes
    files, the others have the frames in memory."""
    from intarsia.progress import Silent
    from intarsia.recipes.recipe import Recipe, load_recipe
    from intarsia.training.feed import Feeder
    from intarsia.training.train import train_model

    images = len(paths(folder))
    recipe = load_recipe(Recipe().replace(data={"path": str(folder), "test_share": 0}), list(settings))
    recipe = recipe.replace(train={"epochs": 2, "validations": 1})
    began: list[float] = []
    waits: list[float] = []
    plain = Feeder.batches

    def timed(self: Feeder, first: int) -> Iterator[Any]:
        batches = plain(self, first)
        while True:
            began.append(time.perf_counter())
            batch = next(batches)
            waits.append(time.perf_counter() - began[-1])
            yield batch

    Feeder.batches = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as out:
        train_model(recipe, out=Path(out) / "run", progress=Silent())
    steps = [b - a for a, b in itertools.pairwise(began)]
    first = round(images * (1 - recipe.data.to_dict()["val_share"])) // recipe.train.batch

    def share(part: slice) -> dict[str, float]:
        return {
            "seconds_a_step": round(statistics.median(steps[part]), 4),
            "seconds_waiting": round(statistics.median(waits[: len(steps)][part]), 4),
            "share": round(sum(waits[: len(steps)][part]) / sum(steps[part]), 4),
        }

    about = {"model": recipe.model.name, "encoder": recipe.model.to_dict().get("encoder"), "batch": recipe.train.batch}
    return {
        **about,
        "steps": len(steps),
        "from_files": share(slice(1, first)),
        "from_memory": share(slice(first + 1, None)),
    }


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--profile", action="store_true", help="only the steps of ours, and decoders; no file is written"
    )
    parser.add_argument("--waiting", action="store_true", help="only the waiting of a training run; no file is written")
    parser.add_argument("settings", nargs="*", help="of the run of --waiting, such as model=unet_same")
    given = parser.parse_args()
    alone = given.profile or given.waiting
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder, large = Path(place) / "frames", Path(place) / "run"
        frames = write_frames(folder)
        for source in () if alone else ("files", "cache"):
            found[source] = measure(folder, source, given.rounds)
            for side, row in found[source].items():
                print(
                    f"{source:<6} {side:<26} {row['milliseconds_median']:8.2f} ms {row['images_per_second']:8.0f} images/s"
                    f"   ours {row['ours_over_it']:6.2f}x",
                    flush=True,
                )
        if given.profile or not alone:
            found["profile"] = {source: in_a_process(profile, folder, source, 12) for source in ("files", "cache")}
            found["decoders"] = in_a_process(decoders, folder)
            for source, rows in found["profile"].items():
                print(f"\nours from {source}, ms an image", *(f"  {v:7.3f}  {k}" for k, v in rows.items()), sep="\n")
            print("\ndecoders, ms a frame", *(f"  {v:7.3f}  {name}" for name, v in found["decoders"].items()), sep="\n")
        if given.waiting or not alone:
            write_frames(large, 40)
            os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets it
            found["waiting"] = in_a_process(waiting, large, given.settings)
            print(f"\nwaiting  {found['waiting']}")
    if alone:
        return
    about = {
        "frames": f"{FRAMES}, {frames}, 360 x 480, PNG",
        "crop": CROP,
        "batch": BATCH,
        "threads": 1,
        "rounds": given.rounds,
        "elastic": {"peers": {"alpha": ALPHA, "sigma": SIGMA}, "ours": "3 x 3 vectors of deviation 10"},
        "peers": {name: version(name) for name in ("albumentations", "kornia", "kornia_rs", "opencv-python-headless")},
    }
    write("feeding", {**about, "machine": machine(), "results": found})


if __name__ == "__main__":
    main()
