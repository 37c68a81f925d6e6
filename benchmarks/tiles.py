"""Tiled prediction of a large image: what it costs beside the network itself, against MONAI and nnU-Net, and its memory.

    pip install -c constraints.txt '.[bench]' && python benchmarks/tiles.py overhead
    python benchmarks/tiles.py network        # our share beside a real network at 8192 x 8192
    python benchmarks/tiles.py memory         # peak memory of `intarsia predict` from 2,000^2 to 40,000^2

`overhead`: 4096 x 4096 RGB, tiles of 512, overlap one half, 12 classes, a 1x1 convolution as network, one thread, to the
class map. Each side in a process of its own, in turn; overhead is the time less that of the network alone on the same tiles.
MONAI: `sliding_window_inference(mode="gaussian")` and `max(1)[1]`; nnU-Net: the loop of `nnUNetPredictor` itself (install
nnunetv2; left out if it is not there). The peers are given the normalised float image, ours the 8-bit one, which it
normalises tile by tile. `memory` writes a BigTIFF (uint8 RGB) and predicts it in a fresh process; the network is two
convolutions.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from side_by_side import machine, write
from torch import nn

TILE, CLASSES = 512, 12
Call = Callable[[], object]


def resident() -> float:
    """Resident memory of this process now, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def pointwise() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, CLASSES, 1).eval()


def mobile() -> nn.Module:
    """The default network, with random weights."""
    from intarsia.models import create_model

    torch.manual_seed(0)
    return create_model("encdec", num_classes=CLASSES, in_channels=3, pretrained="none").eval()


def pixels(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    return np.kron(small, np.ones((16, 16, 1), np.uint8))


def as_float(side: int) -> torch.Tensor:
    image = torch.empty(1, 3, side, side)
    image[0] = torch.from_numpy(pixels(side)).permute(2, 0, 1)
    return image.div_(255).sub_(0.5).div_(0.5)


def ours(side: int, overlap: float, net: Callable[[], nn.Module]) -> Call:
    from intarsia.devices import choose_device
    from intarsia.images.preprocess import Preprocess
    from intarsia.images.source import ArraySource
    from intarsia.models.base import ModelConfig, SegmentationModel
    from intarsia.prediction.canvas import canvas_in_memory
    from intarsia.prediction.config import PredictConfig
    from intarsia.prediction.networks.torch_network import Member, Network
    from intarsia.prediction.tiled import segment

    class Wrapped(SegmentationModel):
        def __init__(self) -> None:
            super().__init__(ModelConfig(num_classes=CLASSES, in_channels=3))
            self.net = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    settings = PredictConfig(tile=TILE, overlap=overlap)
    network = Network(
        [Member(Wrapped().eval(), Preprocess())], choose_device("cpu", "fp32"), settings, channels_last=False
    )
    image = pixels(side)

    def call() -> object:
        canvas = canvas_in_memory((side, side), CLASSES, (), "float16")
        segment(network, ArraySource(image), canvas, CLASSES)
        return canvas.classes

    return call


def bare(side: int, overlap: float, net: Callable[[], nn.Module]) -> Call:
    """The network on the same tiles, and nothing else."""
    from intarsia.prediction.config import PredictConfig

    plan = PredictConfig(tile=TILE, overlap=overlap).plan((side, side))
    network, image = net(), as_float(side)

    @torch.inference_mode()
    def call() -> None:
        for row, column in plan.part().tiles():
            (top, bottom), (left, right) = plan.rows.spans[row], plan.columns.spans[column]
            network(image[:, :, top:bottom, left:right].contiguous())

    return call


def monai(side: int, overlap: float, net: Callable[[], nn.Module]) -> Call:
    from monai.inferers import sliding_window_inference

    network, image = net(), as_float(side)

    @torch.inference_mode()
    def call() -> object:
        logits = sliding_window_inference(image, TILE, 1, network, overlap=overlap, mode="gaussian")
        return logits.max(1)[1].to(torch.uint8)

    return call


def nnunet(side: int, overlap: float, net: Callable[[], nn.Module]) -> Call:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(1 - overlap, True, False, False, torch.device("cpu"), False, False, False)
    predictor.network, image = net(), as_float(side)[0].unsqueeze(1)  # (C, 1, H, W): 2-D patches of a stack of one
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=CLASSES)
    predictor.configuration_manager = SimpleNamespace(patch_size=(TILE, TILE))

    @torch.inference_mode()
    def call() -> object:
        slicers = predictor._internal_get_sliding_window_slicers(image.shape[1:])
        logits = predictor._internal_predict_sliding_window_return_logits(image, slicers, False)
        return logits.max(0)[1].to(torch.uint8)

    return call


def serve(setup: Callable[[], Call], threads: int, pipe: Any) -> None:
    torch.set_num_threads(threads)
    call = setup()
    start = resident()
    pipe.send("ready")
    while pipe.recv() == "go":
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - start)


def race(sides: dict[str, Callable[[], Call]], rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """Wall and CPU seconds (medians) and memory over start of each side; rounds in turn, the first one not counted."""
    context, workers = multiprocessing.get_context("spawn"), {}
    for name, setup in sides.items():
        mine, theirs = context.Pipe()
        context.Process(target=serve, args=(setup, threads, theirs), daemon=True).start()
        assert mine.recv() == "ready"
        workers[name] = mine
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, pipe in workers.items():
            pipe.send("go")
            times[name].append(pipe.recv())
    found = {}
    for name, pipe in workers.items():
        pipe.send("stop")
        wall, cpu = (statistics.median(column) for column in zip(*times[name][1:], strict=True))
        found[name] = {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "memory_over_start_mib": round(pipe.recv(), 1)}
    return found


def overhead(rounds: int, side: int = 4096, overlap: float = 0.5) -> dict[str, Any]:
    sides = {"bare": bare, "ours": ours, "monai": monai}
    try:
        import nnunetv2  # noqa: F401

        sides["nnunet"] = nnunet
    except ImportError:
        print("nnunetv2 is not installed: left out")
    found = race({name: partial(make, side, overlap, pointwise) for name, make in sides.items()}, rounds, threads=1)
    tiles = 225 if (side, overlap) == (4096, 0.5) else None
    for name, row in found.items():
        if tiles:
            row["overhead_ms_a_tile_cpu"] = round(1000 * (row["cpu_s"] - found["bare"]["cpu_s"]) / tiles, 2)
        print(f"{name:<8} {row}")
    return {
        "image": side,
        "tile": TILE,
        "overlap": overlap,
        "classes": CLASSES,
        "threads": 1,
        "rounds": rounds,
        "sides": found,
    }


def network(rounds: int, side: int = 8192, overlap: float = 0.25) -> dict[str, Any]:
    threads, times = torch.get_num_threads(), {"bare": [], "ours": []}
    calls = {name: make(side, overlap, mobile) for name, make in (("bare", bare), ("ours", ours))}
    for number in range(rounds + 1):  # in one process: two differ by more than what is measured
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if number:
                times[name].append(time.perf_counter() - begun)
    found = {name: {"wall_s": round(statistics.median(each), 3)} for name, each in times.items()}
    share = found["ours"]["wall_s"] / found["bare"]["wall_s"] - 1
    print(f"{found}\noverhead over the bare network: {100 * share:.1f} %")
    return {
        "image": side,
        "tile": TILE,
        "overlap": overlap,
        "classes": CLASSES,
        "threads": threads,
        "rounds": rounds,
        "network": "encdec, float32",
        "overhead_share": round(share, 4),
        "sides": found,
    }


def memory(sizes: list[int]) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = write_small_model(home / "model")
        for side in sizes:
            image = sparse_tiff(home / f"scene_{side}.tif", side)
            words = [sys.executable, "-c", PREDICT, str(model), str(image), str(home / "out")]
            begun = time.perf_counter()
            ended = subprocess.run(words, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise SystemExit(ended.stderr)
            start, peak = (float(word) for word in ended.stdout.split()[-2:])
            rows.append(
                {
                    "side": side,
                    "seconds": round(time.perf_counter() - begun, 1),
                    "model_loaded_mib": round(start),
                    "peak_mib": round(peak),
                }
            )
            print(rows[-1], flush=True)
            image.unlink()
    return {"tile": TILE, "classes": CLASSES, "rows": rows}


PREDICT = """
import resource, sys, torch
from pathlib import Path
from intarsia.prediction.predictor import load
from intarsia.prediction.predict import predict
predictor = load(sys.argv[1], device="cpu", precision="fp32")
predictor.predict(__import__("numpy").zeros((512, 512, 3), "uint8"))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
predict(predictor, sys.argv[2], out=sys.argv[3], tile=512, outputs=("classes",))
print(start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_small_model(folder: Path) -> Path:
    """A model folder of two convolutions, untrained: what is measured is all the rest."""
    from intarsia.classes import ClassTable
    from intarsia.images.preprocess import Preprocess
    from intarsia.models import create_model
    from intarsia.runs import write_model

    torch.manual_seed(0)
    model = create_model("plain", num_classes=CLASSES, in_channels=3, width=4, depth=2)
    table = ClassTable(names=tuple(f"class {index}" for index in range(CLASSES)))
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    manifest = {"model": model.config.to_dict(), "classes": table.to_dict(), "preprocess": Preprocess().to_dict()}
    write_model(folder, weights, manifest)
    return folder


def sparse_tiff(path: Path, side: int) -> Path:
    """Tiled, uncompressed, one row of drawn tiles repeated."""
    import tifffile

    rng = np.random.default_rng(0)
    some = [
        np.kron(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8)) for _ in range(7)
    ]
    count = (-(-side // 512)) ** 2
    tiles = (some[index % 7] for index in range(count))
    tifffile.imwrite(
        path,
        tiles,
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="rgb",
        bigtiff=True,
        compression="zlib",
        compressionargs={"level": 1},
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "network", "memory"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, help="of the image; default: 4096 for overhead, 8192 for network")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 5000, 10000, 20000, 40000])
    given = parser.parse_args()
    found = (
        {"overhead": overhead, "network": network}[given.what](
            given.rounds, **({"side": given.side} if given.side else {})
        )
        if given.what != "memory"
        else memory(given.sizes)
    )
    write(f"tiles_{given.what}", {**found, "machine": machine()})


if __name__ == "__main__":
    main()
