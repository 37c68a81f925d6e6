"""A trained model in every engine and precision, and as eager segmentation_models.pytorch with the same weights.

Of each side, in a process of its own and in turn with the others: milliseconds of the network for one image (batch 1, all
cores that the process may use, from the normalised array to float32 logits), memory, seconds to load, and on test images the
mean IoU and the share of pixels whose class is that of PyTorch in float32.

`torch fp32` computes on contiguous maps, `torch fp32 cl` on channels_last; `torch bf16` is what `intarsia predict RUN`
computes on a processor that has bf16. `smp` is eager float32 as its users run it; that network takes only multiples of 32, so
its image is padded as ours is inside. Peak memory is that of the process without scoring; `over start` leaves out Python and
the imported packages. `load` ends with the first image, for which OpenVINO compiles. Exported files are made in RUN/export
(minutes, once), or taken from there if they are of the same weights and --again is not given.

A turn is one call that does not count and then --calls that do; the first round of turns does not count either, and between
turns the threads of the last side have 50 ms to fall asleep. Before each round, while all sides sleep, the share of the
cores that something else takes is looked at, and told. taskset sets other cores.

    pip install -c constraints.txt '.[bench,export]' && python benchmarks/engines.py runs/street-1
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from engine_job import AS_THE_COMMAND, EAGER, PEER, Job, about_machine, padded, peer_network, prepare
from in_turn import Maker, Processes, Side, apart, rounds_of
from numpy.typing import NDArray
from side_by_side import write

LOSS = 0.5
"""Points of mean IoU that int8 may cost."""
BASE = "torch fp32"
Classes = NDArray[np.uint8]


class Scored(Side):
    """A side that segments images too."""

    def classes(self, pixels: NDArray[np.uint8]) -> Classes:
        """(H, W) classes of (H, W, 3)."""
        raise NotImplementedError

    def write_classes(self, home: Path, name: str, images: int) -> None:
        """The class maps of the test images."""
        folder = home / "classes" / name
        folder.mkdir(parents=True)
        for number in range(images):
            np.save(folder / f"{number}.npy", self.classes(np.load(home / "images" / f"{number}.npy")))


class Torch(Scored):
    """A run in PyTorch."""

    def __init__(self, job: Job, precision: str, channels_last: bool) -> None:
        import torch

        from intarsia.devices import cores
        from intarsia.prediction.networks.torch_network import Member, Network
        from intarsia.prediction.predictor import Predictor, load

        torch.set_num_threads(cores())
        loaded = load(job.run, device="cpu", precision=precision)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        member = Member(loaded.model.to(memory_format=layout), loaded.preprocess)
        assert isinstance(loaded.network, Network)
        network = Network([member], loaded.network.device, channels_last=channels_last)
        self.predictor = Predictor(network, loaded.table, loaded.folder)
        self.image = torch.from_numpy(np.load(job.home / "input.npy"))

    def compute(self) -> object:
        from intarsia.prediction.networks.windows import Prepared

        height, width = self.image.shape[-2:]
        return self.predictor.network([Prepared((self.image,), None)], (height, width))

    def classes(self, pixels: NDArray[np.uint8]) -> Classes:
        return self.predictor.predict(pixels).classes


class Exported(Scored):
    """An exported file in an engine."""

    def __init__(self, job: Job, file: str, backend: str, precision: str) -> None:
        from intarsia.prediction.predictor import load

        self.predictor = load(job.files[file], settings={"backend": backend}, precision=precision)
        self.engine = self.predictor.network.engines[0]  # type: ignore[attr-defined]
        self.image = np.load(job.home / "input.npy")[None]

    def compute(self) -> object:
        return self.engine(self.image)

    def classes(self, pixels: NDArray[np.uint8]) -> Classes:
        return self.predictor.predict(pixels).classes


class Smp(Scored):
    """The peer, with the run's weights if they could be given to it."""

    def __init__(self, job: Job) -> None:
        import torch

        from intarsia.devices import cores
        from intarsia.engines.files import read_card

        torch.set_num_threads(cores())
        self.model, self.preprocess = peer_network(job), read_card(job.files["fp32"]).preprocess
        self.image = torch.from_numpy(np.load(job.home / "input.npy"))[None]
        self.image = padded(self.image)

    def compute(self) -> object:
        import torch

        with torch.inference_mode():
            return self.model(self.image)

    def classes(self, pixels: NDArray[np.uint8]) -> Classes:
        import torch

        height, width = pixels.shape[:2]
        with torch.inference_mode():
            logits = self.model(padded(torch.from_numpy(self.preprocess(pixels))[None]))
        found: Classes = logits.argmax(1)[0, :height, :width].to(torch.uint8).numpy()
        return found


def score(home: Path, names: Iterable[str], images: int, count: int) -> dict[str, tuple[float, float]]:
    """Mean IoU of each side and the share of its pixels that are as PyTorch in float32 has them."""
    import torch

    from intarsia.metrics.confusion import confusion
    from intarsia.metrics.overlap import overlap_scores

    found = {}
    for name in names:
        counts, equal, pixels = torch.zeros(count, count, dtype=torch.int64), 0, 0
        for number in range(images):
            mask, first, second = (
                np.load(home / place / f"{number}.npy") for place in ("masks", f"classes/{BASE}", f"classes/{name}")
            )
            counts += confusion(torch.from_numpy(second), torch.from_numpy(mask), count)
            equal, pixels = equal + int((first == second).sum()), pixels + first.size
        found[name] = float(overlap_scores(counts.numpy()).mean_iou), equal / pixels
    return found


def makers_of(job: Job) -> dict[str, Maker]:
    """All sides that there can be here."""
    from intarsia.devices import cpu_has_bf16

    def engine(backend: str, file: str, precision: str) -> Maker:
        make = functools.partial(Exported, job, file, backend, precision)
        return Maker(make, (backend, "intarsia.prediction.predictor", "intarsia.prediction.networks.engine_network"))

    def eager(precision: str, channels_last: bool, environment: Any = ()) -> Maker:
        return Maker(functools.partial(Torch, job, precision, channels_last), EAGER, environment)

    bf16 = cpu_has_bf16()
    return {
        **({"smp": Maker(functools.partial(Smp, job), PEER)} if job.peer else {}),
        BASE: eager("fp32", channels_last=False),
        "torch fp32 cl": eager("fp32", channels_last=True),
        **({"torch bf16": eager("bf16", channels_last=True, environment=AS_THE_COMMAND)} if bf16 else {}),
        "onnxruntime fp32": engine("onnxruntime", "fp32", "fp32"),
        "onnxruntime int8": engine("onnxruntime", "int8", "auto"),
        "openvino fp32": engine("openvino", "fp32", "fp32"),
        **({"openvino bf16": engine("openvino", "fp32", "bf16")} if bf16 else {}),
        "openvino int8": engine("openvino", "int8", "auto"),
    }


def measure(job: Job, makers: dict[str, Maker], rounds: int, calls: int, classes: int) -> dict[str, Any]:
    """A row of each side, and what others took of the cores."""
    processes = Processes(makers)
    times: dict[str, list[float]] = {name: [] for name in makers}
    share = rounds_of(processes, rounds, lambda name: times[name].append(processes.ask(name, "time", calls)))
    memory = {name: processes.ask(name, "memory") for name in makers}
    for name in makers:
        processes.ask(name, "write_classes", job.home, name, job.images)
    processes.end()
    scores = apart(score, job.home, list(makers), job.images, classes)
    base, rows = next(iter(makers)), {}
    for name in makers:
        milliseconds = [1000 * each for each in times[name][1:]]
        ratios = [a / b for a, b in zip(times[base][1:], times[name][1:], strict=True)]
        iou, agreement = scores[name]
        told = name != "smp" or (job.home / "peer.pt").is_file()
        rows[name] = {
            "milliseconds_median": round(statistics.median(milliseconds), 2),
            "milliseconds_min": round(min(milliseconds), 2),
            "milliseconds_max": round(max(milliseconds), 2),
            f"speed_over_{base}": round(statistics.median(ratios), 3),
            "peak_memory_mib": round(memory[name][0], 1),
            "memory_over_start_mib": round(memory[name][1], 1),
            "load_seconds": round(processes.loading[name], 2),
            "mean_iou": round(iou, 5) if told else None,
            "points_lost": round(100 * (scores[BASE][0] - iou), 3) if told else None,
            "agreement": round(agreement, 6) if told else None,
        }
    return {"others_took": round(share, 3), "sides": rows}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows for a person."""
    base = next(iter(rows))
    lines = [
        f"{'':<18}{'ms':>8}{'speed':>8}{'peak MiB':>10}{'over start':>12}{'load s':>8}{'mIoU':>8}{'lost':>7}{'alike %':>9}"
    ]
    for name, row in rows.items():
        scored = (
            f"{'-':>8}{'-':>7}{'-':>9}"
            if row["mean_iou"] is None
            else f"{100 * row['mean_iou']:8.2f}{row['points_lost']:7.2f}{100 * row['agreement']:9.3f}"
        )
        lines.append(
            f"{name:<18}{row['milliseconds_median']:8.1f}{row[f'speed_over_{base}']:7.2f}x{row['peak_memory_mib']:10.0f}"
            f"{row['memory_over_start_mib']:12.0f}{row['load_seconds']:8.2f}{scored}"
        )
    return "\n".join(lines)


def on_int8(rows: dict[str, dict[str, Any]]) -> list[str]:
    """What int8 costs, and whether that is more than it should."""
    return [
        f"{name}: {row['points_lost']:.2f} points of mean IoU lost, "
        + (f"at most {LOSS}" if row["points_lost"] <= LOSS else f"MORE than {LOSS}")
        for name, row in rows.items()
        if name.endswith("int8")
    ]


def main() -> None:
    """Prepare, compare, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder whose data is there")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--calls", type=int, default=5, help="of the network in each turn")
    parser.add_argument("--images", type=int, metavar="N", help="test images that are scored; default: all")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument(
        "--only", nargs="+", metavar="SIDE", help=f"sides by name, such as 'openvino bf16'; {BASE} is always one"
    )
    parser.add_argument("--again", action="store_true", help="export anew what lies in RUN/export")
    given = parser.parse_args()
    if given.rounds < 1 or given.calls < 1 or (given.images is not None and given.images < 1):
        parser.error("--rounds, --calls and --images must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        job = apart(prepare, given.run, Path(folder), tuple(given.size), given.images, ("fp32", "int8"), given.again)
        makers = makers_of(job)
        if unknown := set(given.only or ()) - set(makers):
            parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
        makers = {name: maker for name, maker in makers.items() if name in {*(given.only or makers), BASE}}
        from intarsia.engines.files import read_card

        card = read_card(job.files["fp32"])
        found = measure(job, makers, given.rounds, given.calls, card.classes.count)
    rows = found["sides"]
    print(table(rows))
    for line in on_int8(rows):
        print(line)
    about = {"rounds": given.rounds, "calls": given.calls, "size": list(given.size), "scored_images": job.images}
    peer = None if job.peer is None else {key: value for key, value in job.peer.items() if key != "classes"}
    write(
        "engines",
        {**about, "model": card.model, "weights": card.weights, "peer": peer, **found, "machine": about_machine()},
    )


if __name__ == "__main__":
    main()
