"""Many inputs through one model, results as files: what fails is listed and stops nothing, what is done is not done again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from intarsia.errors import DataError, PartialFailure, SaveError
from intarsia.images.video import is_video
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.inputs import find_images, unique_names
from intarsia.prediction.kinds import Frame
from intarsia.prediction.manifest import Manifest, Record
from intarsia.prediction.predictor import Predictor, load
from intarsia.prediction.worker import Task, Worker, failed
from intarsia.progress import Progress, Silent
from intarsia.progress import Task as Bar

PENDING = 2
"""Results that wait to be written while the network computes."""


@dataclass(frozen=True)
class Written:
    """What was written for one input."""

    image: Path
    outputs: tuple[Path, ...]
    size: tuple[int, int]
    shares: dict[str, float]
    frames: int = 1
    skipped: bool = False
    """Whether it was done before."""

    @property
    def classes(self) -> Path:
        """The class map, or the first of the results."""
        maps = [path for path in self.outputs if path.name.endswith((".nii.gz", ".tif", ".png", ".mkv"))]
        return min(maps or self.outputs, key=lambda path: len(path.name))

    def line(self) -> str:
        """One line for a person."""
        top = sorted(self.shares.items(), key=lambda item: -item[1])[:4]
        shares = " · ".join(f"{name} {100 * share:.1f} %" for name, share in top)
        frames = f"{self.frames} x " if self.frames > 1 else ""
        known = "   done before" if self.skipped else ""
        return f"{self.image} -> {self.classes}   {frames}{self.size[0]} x {self.size[1]}   {shares}{known}"


def predict(
    run: Any,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    done: Callable[[Written], None] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> list[Written]:
    """Predict images and write, for each, NAME.png (palette PNG of class numbers, the image's own size) and more.

    `manifest.jsonl` in the folder tells of each input what it was, what was written, and hashes of both. A second call with
    the same model and settings passes over what is done and unchanged; an image larger than memory is gone on with.

    Args:
        run: a run, a run folder, a model folder, several of these, or a loaded Predictor.
        images: files, folders, patterns, `@list.txt`, or `-` for names from standard input.
        out: folder of the results; made if need be.
        device: auto, cpu, cuda, cuda:N or mps.
        engine: local, or ray for a cluster.
        done: handed each result as it is written.
        progress: where large images show how far they are.
        settings: of `PredictConfig`, such as `crf="deeplab"`, `outputs=("classes", "areas")`.

    Raises:
        ConfigError: a setting is wrong, or there is nothing to predict.
        PartialFailure: some images could not be read; all others are done. It lists each with its reason.
    """
    folder = Path(out)
    paths = find_images([images] if isinstance(images, (str, Path)) else images, without=folder)
    _make(folder)
    work = list(zip(paths, unique_names(paths), strict=True))
    if engine == "ray":
        from intarsia.prediction.cluster.batch import predict_on_cluster

        config = PredictConfig().replace(settings)
        records: Iterable[tuple[Record, bool]] = predict_on_cluster(run, work, folder, config, device)
    else:
        predictor = run if isinstance(run, Predictor) else load(run, device=device, settings=settings)
        if isinstance(run, Predictor) and settings:
            predictor = run.with_settings(settings)
        records = _on_this_machine(predictor.for_many(len(work)), work, folder, progress or Silent())
    written, errors = [], []
    for record, skipped in records:
        if record["status"] != "done":
            errors.append(record["error"])
            continue
        written.append(_written(record, folder, skipped))
        if done:
            done(written[-1])
    if errors:
        lines = "\n".join(errors)
        raise PartialFailure(
            f"{len(errors)} of {len(paths)} images could not be predicted, the others are done:\n{lines}"
        )
    return written


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"--out {folder}: cannot be made ({error.strerror}).") from None


def _written(record: Record, folder: Path, skipped: bool) -> Written:
    total = sum(record["pixels"].values()) or 1
    return Written(
        Path(record["image"]),
        tuple(folder / name for name in record["outputs"]),
        (record["size"][0], record["size"][1]),
        {name: count / total for name, count in record["pixels"].items()},
        record.get("frames", 1),
        skipped,
    )


def _on_this_machine(
    predictor: Predictor, work: Sequence[tuple[Path, str]], folder: Path, progress: Progress
) -> Iterator[tuple[Record, bool]]:
    """Records in order: the next inputs are read, and the last ones written, while the network computes."""
    manifest = Manifest(folder)
    worker = Worker(predictor, folder)
    parallel = predictor.network.parallel
    turns = Turns(progress)
    with (
        ThreadPoolExecutor(parallel, "read") as reading,
        ThreadPoolExecutor(parallel, "network") as computing,
        ThreadPoolExecutor(parallel, "write") as writing,
    ):
        ahead = deque(reading.submit(_opened, worker, manifest, *each) for each in work[:parallel])
        waiting: deque[Future[Future[Record]]] = deque()
        for number in range(len(work)):
            found = ahead.popleft().result()
            if number + parallel < len(work):
                ahead.append(reading.submit(_opened, worker, manifest, *work[number + parallel]))
            if isinstance(found, dict):  # failed, or done before
                while waiting:
                    yield _kept(manifest, waiting.popleft().result().result())
                yield (found, True) if found["status"] == "done" else _kept(manifest, found)
                continue
            waiting.append(computing.submit(_filled, worker, found, writing, turns))
            while len(waiting) > parallel + PENDING or (waiting and _is_done(waiting[0])):
                yield _kept(manifest, waiting.popleft().result().result())
        for each in waiting:
            yield _kept(manifest, each.result().result())


def _is_done(waiting: Future[Future[Record]]) -> bool:
    return waiting.done() and waiting.result().done()


class Turns:
    """Images of several tiles come one after the other, with a bar each; those of one tile all at once, without."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self._lock = progress, Lock()

    @contextmanager
    def bar(self, *, large: bool) -> Iterator[Bar]:
        """Where an image shows how far it is, in its turn."""
        if not large:
            with Silent().task("predict", 1) as bar:
                yield bar
            return
        with self._lock, self.progress.task("predict", 1) as bar:
            yield bar


def _kept(manifest: Manifest, record: Record) -> tuple[Record, bool]:
    manifest.add(record)
    return record, False


@dataclass
class _Opened:
    task: Task
    first: Frame | None
    rest: Iterator[Frame]


def _opened(worker: Worker, manifest: Manifest, image: Path, name: str) -> _Opened | Record:
    """An input with its first frame read; the record of one that is done or cannot be read."""
    task = Task(image, name)
    try:
        task = worker.task(image, name)
        if manifest.is_done(image, task.key):
            return manifest.records[str(image)]
        frames = iter(()) if is_video(image) else worker.open(task)
        return _Opened(task, next(frames, None), frames)
    except DataError as error:
        return failed(task, error)


def _filled(worker: Worker, opened: _Opened, writing: ThreadPoolExecutor, turns: Turns) -> Future[Record]:
    """Predict each frame of an input; writing goes on beside it."""
    task, frame = opened.task, opened.first
    writes: list[Future[None]] = []
    try:
        if frame is None:
            with turns.bar(large=True) as bar:
                worker.film(task, _shown(bar, task.name, "frames"))
        while frame is not None:
            with turns.bar(large=worker.tiles(frame) > 1) as bar:
                filled = worker.fill(task, frame, _shown(bar, frame.name))
            while len(writes) > PENDING:
                writes.pop(0).result()
            writes.append(writing.submit(worker.write, task, filled))
            frame = next(opened.rest, None)
    except DataError as error:
        record = failed(task, error)
        return writing.submit(lambda: record)
    return writing.submit(_ended, worker, task, writes)


def _shown(bar: Bar, name: str, unit: str = "tiles") -> Callable[[int, int], None]:
    return lambda done, total: bar.update(done / total, f"{name}: {done} of {total} {unit}")


def _ended(worker: Worker, task: Task, writes: Sequence[Future[None]]) -> Record:
    try:
        for write in writes:
            write.result()
        return worker.finish(task)
    except DataError as error:
        return failed(task, error)
