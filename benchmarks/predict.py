"""An image file to a class-map file: our `predict` against the eager loop of segmentation_models.pytorch's users.

Both have the same network and weights, 120 drawn files of 360 x 480 (or those of --images) as PNG and as JPEG, and write a PNG
of class numbers of the image's own size. Milliseconds an image in the steady state: models are loaded, networks compiled.

- `smp`: its users' loop over the files in eager float32: decode, normalise, pad to a multiple of 32 (that network takes no
  other size), network, argmax, crop, write.
- `torch`: `predict` of RUN, as `intarsia predict RUN` runs it: hashes, manifest, reading ahead.
- `onnxruntime fp32`, `openvino bf16` and the like: the same of the exported file; `auto` is `backend=auto`, which measures
  once, before.

`bare` is the network alone in the same process and the same round, from a normalised array to logits: `single` one call after
the other on all cores, `streams` as many at once as `predict` has on several images. Turns, pauses, the uncounted first round
and RUN/export are as in engines.py; sides that cannot win take at most 20 of the files a turn. The second table is a larger
network with random weights, smp.Unet() with its own default encoder, PNG alone.

Start-up is a process: from its start until the first class map lies on disk, `intarsia predict FILE IMAGE` against a script
that imports smp, builds the network, loads weights and predicts the same image. Packages are in the page cache.

    pip install -c constraints.txt '.[bench,export]' && python benchmarks/predict.py runs/street-1
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from engine_job import AS_THE_COMMAND, EAGER, PEER, Job, about_machine, padded, peer_network, picture, prepare
from in_turn import QUIET, Maker, Processes, Side, apart, rounds_of, seconds
from PIL import Image
from side_by_side import write
from start_up import start_ups, started

KINDS = ("png", "jpg")
LARGER = "resnet34"
ENOUGH_AGREEMENT = 0.995
"""Share of validation pixels on which bf16 must agree with float32 to be taken for the same network."""
MOST_OVER_BARE = 1.15
LEAST_SPEED = {"bf16": 2.5, "fp32": 1.3}
FEW = 20
"""Files, at most, that a side is given in a turn that cannot win."""


class Pipeline(Side):
    """Files to class maps."""

    def __init__(self, job: Job, count: int) -> None:
        self.home, self.image = job.home, np.load(job.home / "input.npy")[None]
        self.files = {kind: sorted((job.home / kind).iterdir())[:count] for kind in KINDS if (job.home / kind).is_dir()}

    def run(self, files: list[Path], out: Path) -> None:
        """The class maps of files, into an empty folder."""
        raise NotImplementedError

    def predict(self, kind: str) -> float:
        """Seconds an image."""
        with tempfile.TemporaryDirectory(dir=self.home) as out:
            return seconds(lambda: self.run(self.files[kind], Path(out))) / len(self.files[kind])

    def streams(self) -> float | None:
        """Seconds a call of the bare network with several at once; None if it has no such form."""
        return None


class Smp(Pipeline):
    """The peer."""

    def __init__(self, job: Job, count: int) -> None:
        import torch

        from intarsia.devices import cores
        from intarsia.engines.files import read_card

        super().__init__(job, count)
        torch.set_num_threads(cores())
        preprocess = read_card(job.files["fp32"]).preprocess
        self.model, self.batch = peer_network(job), padded(torch.from_numpy(self.image))
        self.mean, self.std = (torch.tensor(each)[:, None, None] for each in (preprocess.mean, preprocess.std))

    def compute(self) -> object:
        import torch

        with torch.inference_mode():
            return self.model(self.batch)

    def run(self, files: list[Path], out: Path) -> None:
        import torch

        for file in files:
            pixels = np.array(Image.open(file).convert("RGB"))
            image = (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - self.mean) / self.std
            height, width = pixels.shape[:2]
            with torch.inference_mode():
                classes = self.model(padded(image[None])).argmax(1)[0, :height, :width]
            Image.fromarray(classes.to(torch.uint8).numpy()).save(out / f"{file.stem}.png")


class Ours(Pipeline):
    """`load` and `predict` of a run or an exported file."""

    def __init__(self, job: Job, count: int, path: Path, backend: str | None, precision: str) -> None:
        from intarsia.prediction.predictor import load

        super().__init__(job, count)
        settings = {"outputs": ("classes",), **({"backend": backend} if backend else {})}
        self.predictor = load(path, settings=settings, precision=precision)
        self.many = self.predictor.for_many(len(next(iter(self.files.values()))))

    def chosen(self) -> str:
        """On what it runs."""
        return str(self.predictor.words)

    def compute(self) -> object:
        return self._once(self.predictor)

    def _once(self, predictor: Any) -> object:
        engines = getattr(predictor.network, "engines", None)
        if engines:
            return engines[0](self.image)
        import torch

        from intarsia.prediction.networks.windows import Prepared

        return predictor.network([Prepared((torch.from_numpy(self.image[0]),), None)], self.image.shape[-2:])

    def run(self, files: list[Path], out: Path) -> None:
        from intarsia.prediction.predict import predict

        predict(self.many, files, out=out)

    def streams(self) -> float | None:
        parallel = self.many.network.parallel
        if parallel == 1:
            return None
        calls = len(next(iter(self.files.values())))
        with ThreadPoolExecutor(parallel) as threads:
            list(threads.map(lambda _: self._once(self.many), range(parallel)))
            return seconds(lambda: list(threads.map(lambda _: self._once(self.many), range(calls)))) / calls


def write_files(home: Path, count: int, size: tuple[int, int], folder: Path | None) -> tuple[int, tuple[int, int]]:
    """PNG and JPEG files of drawn images, or of those in a folder: how many, and (height, width) of the first."""
    from intarsia.images.files import IMAGE_SUFFIXES

    if folder:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[:count]
        if not found:
            raise SystemExit(f"--images {folder}: holds no images.")
        images = [Image.open(path).convert("RGB") for path in found]
    else:
        images = [Image.fromarray(picture(*size, seed=number)) for number in range(count)]
    for kind in KINDS:
        (home / kind).mkdir()
    for number, image in enumerate(images):
        image.save(home / "png" / f"{number:04}.png")
        image.save(home / "jpg" / f"{number:04}.jpg", quality=95)
    return len(images), (images[0].height, images[0].width)


def prepare_larger(job: Job, encoder: str) -> Job:
    """The same files for a larger network: a model folder with random weights, its export, the peer's settings."""
    import torch

    from intarsia.engines.files import read_card
    from intarsia.evaluation.exporting import export
    from intarsia.models import create_model
    from intarsia.progress import Silent
    from intarsia.runs import write_model

    card, folder = read_card(job.files["fp32"]), job.home / "larger"
    torch.manual_seed(0)
    counts = {"num_classes": card.classes.count, "in_channels": card.preprocess.channels}
    model = create_model("encdec", **counts, encoder=encoder, pretrained="none").eval()
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    parts = {"classes": card.classes.to_dict(), "preprocess": card.preprocess.to_dict(), "start": "", "trained": {}}
    write_model(folder / "model", weights, {"model": model.config.to_dict(), **parts})
    file = export(folder / "model", folder / "larger.onnx", progress=Silent()).path
    np.save(folder / "input.npy", np.load(job.home / "input.npy"))
    (folder / "png").symlink_to(job.home / "png")
    peer = {"encoder_name": encoder, "in_channels": card.preprocess.channels, "classes": card.classes.count}
    return Job(folder / "model", folder, {"fp32": file}, 0.0, peer, 0)


def makers_of(job: Job, count: int, *, larger: bool = False) -> dict[str, Maker]:
    """All pipelines that there can be here."""
    from intarsia.devices import cpu_has_bf16

    few = min(count, FEW)
    engine = ("intarsia.prediction.predict", "intarsia.prediction.networks.engine_network")

    def exported(file: str, backend: str, precision: str, files: int) -> Maker:
        make = functools.partial(Ours, job, files, job.files[file], backend, precision)
        return Maker(make, engine if backend == "auto" else (backend, *engine))

    makers = {
        **({"smp": Maker(functools.partial(Smp, job, few), PEER)} if job.peer else {}),
        "torch": Maker(functools.partial(Ours, job, few, job.run, None, "auto"), (*EAGER, *engine), AS_THE_COMMAND),
        "onnxruntime fp32": exported("fp32", "onnxruntime", "fp32", few),
        "openvino fp32": exported("fp32", "openvino", "fp32", few),
    }
    if cpu_has_bf16():
        makers["openvino bf16"] = exported("fp32", "openvino", "bf16", few if larger else count)
    if not larger:
        makers["auto"] = exported("fp32", "auto", "auto", count)
    if "int8" in job.files:
        makers["openvino int8"] = exported("int8", "openvino", "auto", count)
    return makers


@dataclass
class Times:
    """Milliseconds of each counted round."""

    kinds: dict[str, list[float]]
    single: list[float]
    streams: list[float]


def race(makers: dict[str, Maker], rounds: int, calls: int) -> tuple[dict[str, Times], str, float]:
    """Times of each side, what auto chose, and what others took of the cores."""
    processes = Processes(makers)
    found = {name: Times({}, [], []) for name in makers}
    chosen = processes.ask("auto", "chosen") if "auto" in makers else ""
    kinds = KINDS if "auto" in makers else KINDS[:1]

    def turn(name: str) -> None:
        times = found[name]
        for kind in kinds:
            times.kinds.setdefault(kind, []).append(1000 * processes.ask(name, "predict", kind))
        times.single.append(1000 * processes.ask(name, "time", calls))
        if (streams := processes.ask(name, "streams")) is not None:
            times.streams.append(1000 * streams)

    share = rounds_of(processes, rounds, turn)
    processes.end()
    counted = {
        name: Times({kind: each[1:] for kind, each in times.kinds.items()}, times.single[1:], times.streams[1:])
        for name, times in found.items()
    }
    return counted, chosen, share


def rows_of(found: dict[str, Times]) -> dict[str, dict[str, Any]]:
    """Medians of each side, and ratios within a round over the first side."""
    base, rows = next(iter(found)), {}
    for name, times in found.items():
        row: dict[str, Any] = {}
        for kind, each in times.kinds.items():
            row[f"{kind}_ms"] = round(statistics.median(each), 2)
            row[f"{kind}_ms_rounds"] = [round(one, 2) for one in each]
            row[f"{kind}_speed_over_{base}"] = round(ratio(found[base].kinds[kind], each), 3)
        row["bare_single_ms"] = round(statistics.median(times.single), 2)
        row["bare_streams_ms"] = round(statistics.median(times.streams), 2) if times.streams else None
        rows[name] = row
    return rows


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows for a person."""
    base = next(iter(rows))
    kinds = [kind for kind in KINDS if f"{kind}_ms" in rows[base]]
    titles = "".join(f"{kind + ' ms':>9}{'speed':>8}" for kind in kinds)
    lines = [f"{'':<18}{titles}{'bare, single':>14}{'streams':>9}"]
    for name, row in rows.items():
        cells = "".join(f"{row[f'{kind}_ms']:9.1f}{row[f'{kind}_speed_over_{base}']:7.2f}x" for kind in kinds)
        streams = "-" if row["bare_streams_ms"] is None else f"{row['bare_streams_ms']:.1f}"
        lines.append(f"{name:<18}{cells}{row['bare_single_ms']:14.1f}{streams:>9}")
    return "\n".join(lines)


def judged(found: dict[str, Times], chosen: str, agreement: float) -> dict[str, Any]:
    """`predict` with backend=auto against what it should reach."""
    precision = "bf16" if agreement >= ENOUGH_AGREEMENT and "openvino bf16" in found else "fp32"
    allowed = [name for name in found if name.endswith(("fp32", "bf16")[: 1 + (precision == "bf16")])]
    single = min(allowed, key=lambda name: statistics.median(found[name].single))
    streams = min(allowed, key=lambda name: statistics.median(found[name].streams or found[name].single))
    auto, target = found["auto"], {}
    for kind, times in auto.kinds.items():
        target[kind] = {
            "over_bare_single": round(ratio(times, found[single].single), 3),
            "over_bare_streams": round(ratio(times, found[streams].streams or found[streams].single), 3),
            "over_its_own_bare_streams": round(ratio(times, auto.streams or auto.single), 3),
            **({"speed_over_smp": round(ratio(found["smp"].kinds[kind], times), 3)} if "smp" in found else {}),
        }
    return {
        "auto_chose": chosen,
        "bf16_agreement": round(agreement, 5),
        "fastest_bare_single": single,
        "fastest_bare_streams": streams,
        "wanted": {"over_bare": MOST_OVER_BARE, "speed_over_smp": LEAST_SPEED[precision]},
        **target,
    }


def verdict(target: dict[str, Any], share: float) -> str:
    """What was reached, in words.

    Args:
        share: of the cores, that others took.
    """
    wanted = target["wanted"]
    lines = [
        f"auto chose {target['auto_chose']}; bf16 agrees on {100 * target['bf16_agreement']:.2f} % of validation pixels"
    ]
    for kind in KINDS:
        row = target[kind]
        for key, fastest in (
            ("over_bare_single", "fastest_bare_single"),
            ("over_bare_streams", "fastest_bare_streams"),
        ):
            met = "met" if row[key] <= wanted["over_bare"] else "MISSED"
            words = f"{kind}: {row[key]:.2f} of the bare time of {target[fastest]}, {key[10:]}"
            lines.append(f"{words} (at most {wanted['over_bare']}: {met})")
        if "speed_over_smp" in row:
            met = "met" if row["speed_over_smp"] >= wanted["speed_over_smp"] else "MISSED"
            lines.append(f"{kind}: {row['speed_over_smp']:.2f}x smp (at least {wanted['speed_over_smp']}: {met})")
    if share > QUIET:
        lines.append("None of this holds: the machine was not quiet.")
    return "\n".join(lines)


def main() -> None:
    """Prepare, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder or model folder")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="of images of any kind; default: drawn ones")
    parser.add_argument("--count", type=int, default=120, help="files")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--calls", type=int, default=10, help="of the bare network in each turn")
    parser.add_argument(
        "--larger", default=LARGER, metavar="ENCODER", help="of the second table; none: no second table"
    )
    parser.add_argument("--int8", action="store_true", help="also the network in int8, which is exported if need be")
    parser.add_argument("--again", action="store_true", help="export anew what lies in RUN/export")
    given = parser.parse_args()
    if min(given.rounds, given.calls, given.count) < 1:
        parser.error("--rounds, --calls and --count must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["INTARSIA_CACHE"] = str(home / "cache")  # so that auto measures here and now
        precisions = ("fp32", *["int8"] * given.int8)
        count, size = write_files(home, given.count, tuple(given.size), given.images)
        job = apart(prepare, given.run, home, size, 0, precisions, given.again)
        found, chosen, share = race(makers_of(job, count), given.rounds, given.calls)
        rows, target = rows_of(found), judged(found, chosen, job.bf16_agreement)
        print(f"{table(rows)}\n\n{verdict(target, share)}\n", flush=True)
        start_up = start_ups(job, given.rounds)
        print(f"{started(start_up)}\n", flush=True)
        larger = {}
        if given.larger != "none":
            other = apart(prepare_larger, job, given.larger)
            times, _, _ = race(makers_of(other, count, larger=True), given.rounds, given.calls)
            larger = rows_of(times)
            print(f"{given.larger}, random weights\n{table(larger)}")
    about = {
        "rounds": given.rounds,
        "size": list(size),
        "files": count,
        "others_took": round(share, 3),
        "drawn": given.images is None,
    }
    write(
        "predict",
        {
            **about,
            "peer": job.peer,
            "sides": rows,
            "target": target,
            "start_up": start_up,
            "larger": {"encoder": given.larger, "sides": larger},
            "machine": about_machine(),
        },
    )


if __name__ == "__main__":
    main()
