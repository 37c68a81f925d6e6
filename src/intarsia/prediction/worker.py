"""One input from its file to its results: what the loop on one machine and the actors on many have in common."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable
from intarsia.errors import ConfigError, DataError, FileError, IntarsiaError, SaveError
from intarsia.images.source import Source
from intarsia.images.video import is_video
from intarsia.prediction.canvas import Canvas, canvas_in_memory, canvas_on_disk
from intarsia.prediction.kinds import Frame, Stack, frames_of
from intarsia.prediction.manifest import Record, content_sha256, digests, key_of
from intarsia.prediction.outputs import counts_of, write_outputs
from intarsia.prediction.predictor import Predictor
from intarsia.prediction.tiled import segment

LARGEST_IN_MEMORY = 1 << 28
"""Bytes of results that are held in memory; those of a larger image lie on disk while they are made."""


@dataclass
class Filled:
    """A frame whose canvas is full, ready to be written."""

    frame: Frame
    canvas: Canvas


@dataclass
class Task:
    """One input under way."""

    image: Path
    name: str
    content: str = ""
    key: str = ""
    begun: float = field(default_factory=time.perf_counter)
    outputs: list[Path] = field(default_factory=list)
    pixels: dict[str, int] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    frames: int = 0
    notes: list[str] = field(default_factory=list)
    stacks: list[Stack] = field(default_factory=list)
    kept: list[Canvas] = field(default_factory=list)
    """Those on disk whose classes are in a stack that is not written yet."""


class Worker:
    """A predictor that writes the results of inputs into a folder."""

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        self.predictor, self.folder = predictor, folder
        self.settings: dict[str, Any] = predictor.config.to_dict()

    @property
    def table(self) -> ClassTable:
        return self.predictor.table

    def task(self, image: Path, name: str) -> Task:
        """An input with what its results depend on.

        Raises:
            FileError: it is not there.
        """
        try:
            content = content_sha256(image)
        except OSError as error:
            code, said = (
                ("E_MISSING", "does not exist")
                if isinstance(error, FileNotFoundError)
                else ("E_CORRUPT", f"cannot be read ({error.strerror})")
            )
            raise FileError(image, code, said) from None
        return Task(image, name, content, key_of(content, self.predictor.digest, self.settings))

    def open(self, task: Task) -> Iterator[Frame]:
        """The frames of an input, one after the other."""
        slices = self.predictor.config.slices
        return frames_of(task.image, task.name, self.predictor.preprocess.bands, None if slices == "auto" else slices)

    def tiles(self, frame: Frame) -> int:
        """Into how many a frame is cut."""
        return self.predictor.network.plan(frame.source.size).count

    def fill(self, task: Task, frame: Frame, tick: Callable[[int, int], None] | None = None) -> Filled:
        """Predict a frame.

        Args:
            tick: told how many pieces of how many are done.
        """
        canvas = self._canvas(frame.source, task, frame)
        segment(self.predictor.network, frame.source, canvas, self.table.count, tick=tick)
        return Filled(frame, canvas)

    def _canvas(self, source: Source, task: Task, frame: Frame) -> Canvas:
        config, count = self.predictor.config, self.table.count
        wanted = set(config.outputs)
        width = np.dtype(config.numbers).itemsize
        planes = 1 + ("entropy" in wanted) + ("probabilities" in wanted) * width * count
        if source.is_in_memory and source.height * source.width * planes <= LARGEST_IN_MEMORY:
            return canvas_in_memory(source.size, count, wanted, config.numbers)
        work = self.folder / f".{frame.name}.work"
        return canvas_on_disk(work, source.size, count, wanted, config.numbers, task.key)

    def write(self, task: Task, filled: Filled) -> None:
        """Write what is asked for of a frame, each file whole under its name or not there."""
        frame, canvas = filled.frame, filled.canvas
        counts = counts_of(canvas.classes)
        with self._aside(task, frame.name) as aside:
            write_outputs(aside, frame, canvas, counts, self.predictor, task.key)
        self._count(task, counts)
        if frame.stack is not None and "classes" in self.predictor.config.outputs:
            frame.stack.slices.append(canvas.classes)
            if canvas.folder:
                task.kept.append(canvas)
            if not any(frame.stack is stack for stack in task.stacks):
                task.stacks.append(frame.stack)
        else:
            canvas.discard()
        task.size, task.frames = frame.source.size, task.frames + 1
        task.notes += [note for note in frame.source.notes if note not in task.notes]
        frame.source.close()

    def film(self, task: Task, tick: Callable[[int, int], None] | None = None) -> None:
        """Predict and write a film."""
        from intarsia.prediction.film import predict_film

        with self._aside(task, task.name) as aside:
            film, counts, task.frames = predict_film(self.predictor, task.image, aside, task.name, tick)
        self._count(task, counts)
        task.size = film.size
        task.notes += film.notes

    def finish(self, task: Task) -> Record:
        """Write what all frames make together; the manifest's line."""
        for stack in task.stacks:
            with self._aside(task, stack.name) as aside:
                try:
                    stack.write(aside, self.table)
                except DataError as error:  # the slices are written; what cannot be told of them together is said
                    task.notes.append(str(error).replace(f"{aside}/", ""))
        for canvas in task.kept:
            canvas.discard()
        return self.record(task)

    @contextmanager
    def _aside(self, task: Task, name: str) -> Iterator[Path]:
        """A folder whose files are given to the results when all are written."""
        aside = self.folder / f".{name}.tmp"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            yield aside
            for path in sorted(aside.iterdir()):
                target = self.folder / path.name
                if target.exists() and task.image.exists() and target.samefile(task.image):
                    raise ConfigError(
                        f"--out {self.folder}: holds the image {task.image.name} itself; choose another folder."
                    )
                if target.is_dir():
                    shutil.rmtree(target)
                path.replace(target)
                task.outputs.append(target)
        except OSError as error:
            raise SaveError(f"{self.folder / name}: cannot be written ({error.strerror or error}).") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _count(self, task: Task, counts: NDArray[np.int64]) -> None:
        for index, class_name in enumerate(self.table.names):
            if counts[index]:
                task.pixels[class_name] = task.pixels.get(class_name, 0) + int(counts[index])

    def record(self, task: Task) -> Record:
        """The manifest's line on an input that is done."""
        return {
            "image": str(task.image),
            "status": "done",
            "sha256": task.content,
            "key": task.key,
            "model": self.predictor.digest,
            "settings": self.settings,
            "size": list(task.size),
            **({"frames": task.frames} if task.frames > 1 else {}),
            "pixels": task.pixels,
            "outputs": digests(self.folder, task.outputs),
            **({"notes": task.notes} if task.notes else {}),
            "seconds": round(time.perf_counter() - task.begun, 3),
        }

    def run(self, image: Path, name: str) -> Record:
        """All of it for one input: the manifest's line, also on one that failed."""
        task = Task(image, name)
        try:
            task = self.task(image, name)
            if is_video(image):
                self.film(task)
            else:
                for frame in self.open(task):
                    self.write(task, self.fill(task, frame))
            return self.finish(task)
        except DataError as error:
            return failed(task, error)


def failed(task: Task, error: IntarsiaError) -> Record:
    """The manifest's line on an input that could not be predicted."""
    return {
        "image": str(task.image),
        "status": "failed",
        "sha256": task.content or None,
        "error": str(error),
        "code": getattr(error, "code", type(error).__name__),
        "seconds": round(time.perf_counter() - task.begun, 3),
    }
