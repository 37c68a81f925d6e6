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
import importlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from side_by_side import RESULTS, machine, peak

PAUSE = 0.05
"""Seconds between turns: OpenMP's threads wait awake for some milliseconds after their work."""
LOOK = 0.5
"""Seconds before each round in which nobody of us computes."""
QUIET = 0.05
"""Share of the cores that others may take without a word."""
LOSS = 0.5
"""Points of mean IoU that int8 may cost."""
BASE = "torch fp32"
AS_THE_COMMAND = (("GOMP_SPINCOUNT", "20000"),)
"""What `intarsia` sets, unless somebody else has: PyTorch's threads that wait fall asleep soon (benchmarks/busy_machine.py)."""
EAGER = ("torch", "timm", "intarsia.prediction.saved_models")
PEER = ("torch", "segmentation_models_pytorch")
Classes = NDArray[np.uint8]


@dataclass(frozen=True)
class Job:
    """What all sides are given."""

    run: Path
    home: Path
    """Holds input.npy (C, H, W), images/N.npy (H, W, 3), masks/N.npy, peer.pt."""
    files: dict[str, Path]
    """Exported files by precision."""
    bf16_agreement: float
    """Share of validation pixels on which bf16 agrees with float32, as the exported file says it."""
    peer: dict[str, Any] | None
    """Settings of smp's U-Net that is our network; None if it has none."""
    images: int


class Side:
    """What a process measures."""

    def compute(self) -> object:
        """The network once."""
        raise NotImplementedError

    def classes(self, pixels: NDArray[np.uint8]) -> Classes:
        """(H, W) classes of (H, W, 3)."""
        raise NotImplementedError

    def time(self, calls: int) -> float:
        """Median seconds of so many calls, after one that does not count."""
        self.compute()
        return statistics.median(seconds(self.compute) for _ in range(calls))

    def write_classes(self, home: Path, name: str, images: int) -> None:
        """The class maps of the test images."""
        folder = home / "classes" / name
        folder.mkdir(parents=True)
        for number in range(images):
            np.save(folder / f"{number}.npy", self.classes(np.load(home / "images" / f"{number}.npy")))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Torch(Side):
    """A run in PyTorch."""

    def __init__(self, job: Job, precision: str, channels_last: bool) -> None:
        import torch

        from intarsia.devices import cores
        from intarsia.prediction.network import Member, Network
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
        from intarsia.prediction.windows import Prepared

        height, width = self.image.shape[-2:]
        return self.predictor.network([Prepared((self.image,), None)], (height, width))

    def classes(self, pixels: NDArray[np.uint8]) -> Classes:
        return self.predictor.predict(pixels).classes


class Exported(Side):
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


class Smp(Side):
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


def padded(image: Any) -> Any:
    """(N, C, H, W) of multiples of 32, the last row and column repeated."""
    import torch

    height, width = image.shape[-2:]
    return torch.nn.functional.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")


def peer_network(job: Job) -> Any:
    """smp's network, ready."""
    import segmentation_models_pytorch as smp  # type: ignore[import-untyped]
    import torch

    torch.manual_seed(0)
    model = smp.Unet(encoder_weights=None, **(job.peer or {}))
    if (job.home / "peer.pt").is_file():
        model.load_state_dict(torch.load(job.home / "peer.pt", weights_only=True))
    return model.eval()


# Made before anything is measured.


def apart(function: Callable[..., Any], *given: Any) -> Any:
    """The result of a function that runs in a process of its own, so that this one stays idle and small."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *given).result()


def prepare(
    run: Path, home: Path, size: tuple[int, int], images: int | None, precisions: tuple[str, ...], again: bool
) -> Job:
    """Test images as arrays, the input, the peer's weights and exported files."""
    from intarsia.prediction.predictor import load

    predictor = load(run, device="cpu", precision="fp32")
    count = write_images(run, home, images) if images != 0 else 0
    np.save(home / "input.npy", predictor.preprocess(picture(*size)))
    files = {each: exported(run, predictor.digest, each, again=again) for each in precisions}
    from intarsia.engines.files import read_card

    agreement = read_card(files["fp32"]).agreement.get("bf16", 0.0)
    return Job(run, home, files, agreement, peer_of(predictor.model, home), count)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) waves, blocks and grain, whose PNG and JPEG are decoded in the time of a photograph's."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    phase = rng.uniform(0, 6, 3)
    waves = np.stack([50 * np.sin(rows / (29 + k) + columns / (37 - k) + phase[k]) for k in range(3)], -1)
    blocks = rng.integers(40, 216, (-(-height // 60), -(-width // 60), 3)).repeat(60, 0).repeat(60, 1)
    drawn = blocks[:height, :width] + waves + rng.normal(0, 3, (height, width, 1))
    found: NDArray[np.uint8] = np.clip(drawn, 0, 255).astype(np.uint8)
    return found


def write_images(run: Path, home: Path, most: int | None) -> int:
    """Images and masks of the test split, or of validation if there is none, evenly spread if not all."""
    from intarsia.evaluation.evaluate import opened_for
    from intarsia.progress import Silent

    _, _, dataset = opened_for(run, None, "cpu", None, Silent())
    items = dataset.items("test" if dataset.splits.get("test") else "val")
    places = np.linspace(0, len(items) - 1, min(most or len(items), len(items))).round().astype(int)
    for what in ("images", "masks"):
        (home / what).mkdir()
    for number, place in enumerate(places):
        np.save(home / "images" / f"{number}.npy", dataset.read_image(items[place]))
        np.save(home / "masks" / f"{number}.npy", dataset.read_mask(items[place]))
    return len(places)


def exported(run: Path, digest: str, precision: str, *, again: bool = False) -> Path:
    """An exported file of these weights, made if there is none."""
    from intarsia.engines.files import read_card
    from intarsia.errors import IntarsiaError
    from intarsia.evaluation.exporting import export
    from intarsia.progress import Silent

    for file in [] if again else sorted((run / "export").glob("*.onnx")):
        try:
            card = read_card(file)
        except IntarsiaError:
            continue
        if (card.weights, card.precision, card.input, card.output) == (digest, precision, "normalised", "logits"):
            return file
    print(f"export   {precision} ...", flush=True)
    return export(run, format="onnx", precision=precision, progress=Silent()).path  # type: ignore[arg-type]


def peer_of(model: Any, home: Path) -> dict[str, Any] | None:
    """Settings of smp's U-Net with a model's encoder and widths, its weights as peer.pt; None if the model is another."""
    import torch

    config = model.config
    if getattr(config, "decoder", "") != "unet" or config.attention != "none" or len(config.widths) != 5:
        return None
    import segmentation_models_pytorch as smp

    settings = {
        "encoder_name": f"tu-{config.encoder}",
        "decoder_channels": config.widths,
        "in_channels": config.channels,
        "classes": config.classes,
    }
    theirs, blocks = smp.Unet(encoder_weights=None, **settings), list(model.decoder.children())
    pairs = [(theirs.encoder.model, model.encoder.net), (theirs.segmentation_head, model.head)]
    for their, our in zip(theirs.decoder.blocks, blocks, strict=True):
        pairs += [(their.conv1, our.first), (their.conv2, our.second)]
    for their, our in pairs:
        source, target = our.state_dict(), their.state_dict()
        shapes = [[tuple(value.shape) for value in state.values()] for state in (source, target)]
        if shapes[0] != shapes[1]:
            print("smp      takes other weights than the run's: it computes with random ones")
            return settings
        their.load_state_dict(dict(zip(target, source.values(), strict=True)))
    torch.save(theirs.state_dict(), home / "peer.pt")
    return settings


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


# A process a side.


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


def makers_of(job: Job) -> dict[str, Maker]:
    """All sides that there can be here."""
    from intarsia.devices import cpu_has_bf16

    def engine(backend: str, file: str, precision: str) -> Maker:
        make = functools.partial(Exported, job, file, backend, precision)
        return Maker(make, (backend, "intarsia.prediction.predictor", "intarsia.prediction.engine_network"))

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


def write(name: str, found: dict[str, Any]) -> None:
    """results/NAME-DATE.json, with the machine."""
    about = machine()
    about["packages"] |= {each: version(each) for each in ("onnxruntime", "openvino", "onnx")}
    result = {"benchmark": name, "date": date.today().isoformat(), **found, "machine": about}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}-{result['date']}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written  {file}")


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
    write("engines", {**about, "model": card.model, "weights": card.weights, "peer": peer, **found})


if __name__ == "__main__":
    main()
