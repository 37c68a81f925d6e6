"""The dense CRF against pydensecrf: frames of CamVid (360 x 480), 10 iterations, 2, 12 and 21 classes.

The network's logits are those of a network that is unsure at borders: the one-hot mask, blurred over 17 pixels, and noise of
8 pixels. Without ../shared/data/camvid (INTARSIA_TEST_DATA names another folder) frames are drawn. Each side is a process of
its own; they compute in turn, round by round. The timed call starts from logits (ours) or -log p (pydensecrf) and an RGB image
and gives Q, with all kernels built anew. `extra_memory_mib` is how far one call raises the process's resident memory above what
it was with the inputs in place, the result included: the first call at full size after one on a small input, the freed heap
given back (malloc_trim) and the kernel's high-water mark reset through /proc/self/clear_refs before it.

Agreement is the share of pixels with the same class, and the differences of Q, over six frames. `against_exact` holds each side
against the sum over all pairs of pixels on 60 x 80 windows of the frames.

pydensecrf is measured where it can be imported. It needs Cython below 3 to build, so build it apart:

    python -m venv peer && peer/bin/pip install 'cython<3' numpy setuptools wheel
    peer/bin/pip download --no-binary :all: --no-build-isolation --no-deps pydensecrf==1.0rc3 && tar xf pydensecrf-1.0rc3.tar.gz
    rm pydensecrf-1.0rc3/pydensecrf/{eigen,densecrf}.cpp               # generated for an older Python; Cython makes them anew
    peer/bin/pip install --no-build-isolation ./pydensecrf-1.0rc3
    PYTHONPATH=peer/lib/python3.11/site-packages python benchmarks/crf.py
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib.util
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from side_by_side import machine, write

SHARED = Path(os.environ.get("INTARSIA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared"))
CLASSES = (2, 12, 21)
PRESETS = ("deeplab", "krahenbuhl_demo")
ITERATIONS = 10
FRAMES = 6
WINDOW = (60, 80)
SLOW_ROUNDS = 3
"""Rounds of the plain form."""
Refine = Callable[[Any, Any, Any], Any]


def frames(count: int) -> list[tuple[Any, Any]]:
    """Images (3, H, W) uint8 and masks (H, W), of CamVid's test set or drawn."""
    import numpy as np
    import torch
    from PIL import Image

    files = sorted((SHARED / "data" / "camvid" / "test" / "images").glob("*"))
    if files:
        chosen = files[:: max(1, len(files) // count)][:count]
        masks = [file.parents[1] / "masks" / f"{file.stem}.png" for file in chosen]
        read = [(np.array(Image.open(a)), np.array(Image.open(b))) for a, b in zip(chosen, masks, strict=True)]
        return [(torch.from_numpy(a).permute(2, 0, 1).contiguous(), torch.from_numpy(b).long()) for a, b in read]
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(count):
        coarse = torch.randn(1, 12, 9, 12, generator=generator)
        mask = torch.nn.functional.interpolate(coarse, (360, 480), mode="bicubic")[0].argmax(0)
        image = 255 * torch.rand(12, 3, generator=generator)[mask].permute(2, 0, 1)
        image = image + 12 * torch.randn(image.shape, generator=generator)
        drawn.append((image.clamp(0, 255).to(torch.uint8), mask))
    return drawn


def scores(mask_HW: Any, num_classes: int) -> Any:
    """Logits (K, H, W) as of a network that is unsure at borders."""
    import torch
    from torch.nn import functional as F

    truth = F.one_hot(mask_HW % num_classes, num_classes).permute(2, 0, 1)[None].float()
    blurred = F.avg_pool2d(truth, 17, 1, 8, count_include_pad=False)[0]
    noise = torch.randn(
        1, num_classes, *(-(-n // 8) for n in mask_HW.shape), generator=torch.Generator().manual_seed(0)
    )
    return (blurred + 0.02).log() + 0.6 * F.interpolate(noise, mask_HW.shape, mode="bilinear")[0]


def ours(*, kernel: bool, threads: int) -> Refine:
    """`dense_crf`, compiled or plain."""
    os.environ["INTARSIA_KERNEL"] = "1" if kernel else "0"
    import torch

    from intarsia.ops.crf import dense_crf
    from intarsia.ops.crf.compiled_field import FIELD

    torch.set_num_threads(threads)
    if kernel and FIELD.load() is None:
        sys.exit(f"there is no compiled form to measure: {FIELD.state()}")
    return lambda logits, image, config: dense_crf(logits[None], image[None], config)[0]


def pydensecrf() -> Refine:
    """What pydensecrf's README says; it computes on one thread."""
    import numpy as np
    import pydensecrf.densecrf as peer

    def refine(unary: Any, image: Any, config: Any) -> Any:
        crf = peer.DenseCRF2D(image.shape[1], image.shape[0], len(unary))
        crf.setUnaryEnergy(unary)
        crf.addPairwiseGaussian(sxy=config.smoothness_std, compat=config.smoothness_weight)
        stds = {"sxy": config.position_std, "srgb": config.colour_std}
        crf.addPairwiseBilateral(**stds, rgbim=image, compat=config.bilateral_weight)
        return np.array(crf.inference(config.iterations), copy=False)

    return refine


SIDES: dict[str, Callable[[], Refine]] = {
    "pydensecrf": pydensecrf,
    "ours_1_thread": functools.partial(ours, kernel=True, threads=1),
    "ours_2_threads": functools.partial(ours, kernel=True, threads=2),
    "ours_plain": functools.partial(ours, kernel=False, threads=2),
}


def given(side: str, logits: Any, image: Any) -> tuple[Any, Any]:
    """Logits and image as a side takes them, made outside the timed call."""
    import numpy as np

    if side != "pydensecrf":
        return logits, image
    unary = -logits.log_softmax(0).clamp(min=np.log(1e-5)).flatten(1)
    return np.ascontiguousarray(unary.numpy()), np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def probabilities(side: str, found: Any, shape: tuple[int, ...]) -> Any:
    """Q (K, H, W) as NumPy."""
    return found.reshape(shape).copy() if side == "pydensecrf" else found.exp().numpy()


def status(field: str) -> float:
    """A line of /proc/self/status, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def extra_memory(call: Callable[[], Any]) -> float | None:
    """What one call adds to the resident memory, MiB; None where the system is not Linux."""
    if not sys.platform.startswith("linux"):
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def serve(side: str, num_classes: int, preset: str, pipe: Connection) -> None:
    """A side's process: the memory of one call, times when told to, then Q of frames and of windows."""
    from intarsia.ops.crf import CRFS

    refine, config = SIDES[side](), CRFS[preset].replace(iterations=ITERATIONS)
    pictures = [(image, scores(mask, num_classes)) for image, mask in frames(FRAMES)]
    image, logits = pictures[0]
    window = slice(0, WINDOW[0]), slice(0, WINDOW[1])
    refine(*given(side, logits[:, *window].contiguous(), image[:, *window].contiguous()), config)
    inputs = given(side, logits, image)
    pipe.send(extra_memory(lambda: refine(*inputs, config)))
    while pipe.recv() == "go":
        start = time.perf_counter()
        refine(*inputs, config)
        pipe.send(time.perf_counter() - start)
    for image, logits in pictures:
        pipe.send(probabilities(side, refine(*given(side, logits, image), config), tuple(logits.shape)))
    for image, logits in pictures:
        image, logits = image[:, 150:210, 200:280].contiguous(), logits[:, 150:210, 200:280].contiguous()
        pipe.send(probabilities(side, refine(*given(side, logits, image), config), tuple(logits.shape)))


def exact(num_classes: int, preset: str) -> list[Any]:
    """Q of the windows by the sum over all pairs."""
    import numpy as np

    from intarsia.ops.crf import CRFS, exact_dense_crf

    config, found = CRFS[preset].replace(iterations=ITERATIONS), []
    for image, mask in frames(FRAMES):
        logits = scores(mask, num_classes)[:, 150:210, 200:280]
        found.append(np.exp(exact_dense_crf(logits.numpy(), image[:, 150:210, 200:280].numpy(), config)))
    return found


def likeness(found: list[Any], other: list[Any]) -> dict[str, float]:
    """Share of pixels with the same class, and the differences of Q."""
    import numpy as np

    pairs = list(zip(found, other, strict=True))
    return {
        "same_class_percent": round(100 * float(np.mean([(a.argmax(0) == b.argmax(0)).mean() for a, b in pairs])), 3),
        "mean_difference": float(f"{np.mean([np.abs(a - b).mean() for a, b in pairs]):.2g}"),
        "largest_difference": round(float(max(np.abs(a - b).max() for a, b in pairs)), 4),
    }


def measure(num_classes: int, preset: str, rounds: int, sides: list[str]) -> dict[str, Any]:
    """The sides of one question in turn."""
    context = multiprocessing.get_context("spawn")
    workers, memory = {}, {}
    for side in sides:
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(side, num_classes, preset, theirs), daemon=True)
        process.start()
        theirs.close()
        memory[side], workers[side] = pipe.recv(), (process, pipe)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side, (_, pipe) in workers.items():
            if side == "ours_plain" and number >= SLOW_ROUNDS:
                continue
            pipe.send("go")
            times[side].append(pipe.recv())
    whole, windows = {}, {}
    for side, (process, pipe) in workers.items():
        pipe.send("stop")
        found = [pipe.recv() for _ in range(2 * FRAMES)]
        whole[side], windows[side] = found[:FRAMES], found[FRAMES:]
        process.join()
    base = sides[0]
    truth = exact(num_classes, preset)
    rows: dict[str, Any] = {}
    for side, taken in times.items():
        extra = memory[side]
        rows[side] = {
            "milliseconds_median": round(1e3 * statistics.median(taken), 1),
            "milliseconds_min": round(1e3 * min(taken), 1),
            "milliseconds_max": round(1e3 * max(taken), 1),
            f"speed_over_{base}": round(statistics.median(a / b for a, b in zip(times[base], taken, strict=False)), 2),
            "extra_memory_mib": None if extra is None else round(extra, 1),
            f"against_{base}": likeness(whole[side], whole[base]),
            "against_exact": likeness(windows[side], truth),
        }
    return rows


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--classes", type=int, nargs="*", default=CLASSES, help="no file is written for others than these"
    )
    parser.add_argument(
        "--sides", nargs="*", default=list(SIDES), choices=list(SIDES), help="ratios are over the first"
    )
    arguments = parser.parse_args()
    sides = list(arguments.sides)
    if "pydensecrf" in sides and importlib.util.find_spec("pydensecrf") is None:
        print("pydensecrf   left out: not installed here (the docstring says how to build it)")
        sides.remove("pydensecrf")
    found: dict[str, Any] = {}
    for preset in PRESETS:
        for num_classes in arguments.classes:
            rows = found[f"{preset}, {num_classes} classes"] = measure(num_classes, preset, arguments.rounds, sides)
            for side, row in rows.items():
                like = row[f"against_{sides[0]}"]["same_class_percent"], row["against_exact"]["mean_difference"]
                print(
                    f"{preset:<16} {num_classes:>3} {side:<15} {row['milliseconds_median']:7.1f} ms (least "
                    f"{row['milliseconds_min']:.1f})  {row[f'speed_over_{sides[0]}']:5.2f}x  {row['extra_memory_mib']} MiB  "
                    f"{like[0]} % as {sides[0]}, {like[1]} from exact",
                    flush=True,
                )
    if tuple(arguments.classes) != CLASSES:
        return
    about = {"size": [360, 480], "iterations": ITERATIONS, "frames": FRAMES, "rounds": arguments.rounds}
    peers = {"pydensecrf": "1.0rc3"} if "pydensecrf" in sides else {}
    write("crf", {**about, "peers": peers, "machine": machine(), "questions": found})


if __name__ == "__main__":
    main()
