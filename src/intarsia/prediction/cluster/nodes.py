"""What runs on the nodes of a cluster: a worker with its model, and what is held against the driver before it starts.

Ray pickles these by name, so that each node needs intarsia itself; nothing here imports Ray.
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import intarsia
from intarsia.devices import THREADS
from intarsia.engines.files import is_exported
from intarsia.errors import ConfigError, DataError, IntarsiaError, SaveError
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.manifest import NAME, Manifest, Record

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What each worker is told."""

    runs: tuple[str, ...]
    """Run folders, absolute; those of an ensemble too."""
    folder: str
    config: PredictConfig
    kind: str
    """cpu or cuda"""
    cores: int
    """Of a worker on a CPU."""
    token: str
    """A file of the driver in the folder, by which a worker knows it."""
    version: str
    beat: float
    """Seconds between a worker's signs of life."""


def node_problem(job: Job, image: bytes = b"") -> str:
    """What keeps the node that this is called on from working for a job; nothing, if all is well."""
    folder = Path(job.folder)
    if intarsia.__version__ != job.version:
        return f"runs intarsia {intarsia.__version__}, the driver {job.version}; install the same on all nodes"
    if not (folder / job.token).is_file():
        return f"does not see {folder} as the driver does; choose a folder that all nodes share"
    try:
        mine = folder / f"{job.token}-{uuid.uuid4().hex}"
        mine.touch()
        mine.unlink()
    except OSError as error:
        return f"cannot write into {folder} ({error.strerror})"
    for path in (*job.runs, *([os.fsdecode(image)] if image else [])):
        if not Path(path).exists():
            return f"does not see {path}, which the driver sees; put it where all nodes can read it"
    return ""


class Signs:
    """When a worker was last heard of; an actor beside the driver."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def beat(self) -> None:
        """A worker lives."""
        self.last = time.monotonic()

    def quiet(self) -> float:
        """Seconds without a sign."""
        return time.monotonic() - self.last


class Segmenter:
    """A worker: the model on one device; blocks of inputs to their outcomes, as JSON.

    {"record", "skipped"}: done or failed; {"again"}: an error that nobody foresaw; {"stop"}: nothing can be done.
    """

    def __init__(self, job: Job, signs: Any) -> None:
        threading.Thread(target=_beat, args=(signs, job.beat), daemon=True).start()
        self.job, self.folder = job, Path(job.folder)
        self.broken: Outcome | None = None
        try:
            if problem := node_problem(job):
                raise ConfigError(f"--engine ray: node {os.uname().nodename} {problem}.")
            self.worker = self._loaded()
        except Exception as error:
            self.broken = _stop(error)

    def _loaded(self) -> Any:
        from intarsia.prediction.predictor import load
        from intarsia.prediction.worker import Worker

        os.environ[THREADS] = str(self.job.cores)
        if self.job.kind == "cpu" and not all(is_exported(Path(run)) for run in self.job.runs):
            import torch

            torch.set_num_threads(self.job.cores)
        predictor = load(list(self.job.runs), device=self.job.kind, settings=self.job.config.replace({"ensemble": ()}))
        worker = Worker(predictor, self.folder)
        worker.settings = self.job.config.to_dict()  # with the ensemble as it was given, not as it was found
        return worker

    def __call__(self, batch: Any) -> dict[str, Any]:
        import numpy as np

        rows = batch.to_pylist()
        texts = [json.dumps(self.broken or self._outcome(row)) for row in rows]
        return {"number": np.array([row["number"] for row in rows], np.int64), "outcome": np.array(texts, object)}

    def _outcome(self, row: Mapping[str, Any]) -> Outcome:
        image, name = Path(os.fsdecode(row["image"])), os.fsdecode(row["name"])
        try:
            if row["known"] and self._is_done(image, name, json.loads(row["known"])):
                return {"skipped": True}
            return {"record": self._record(image, name), "skipped": False}
        except IntarsiaError as error:
            return _stop(error)
        except Exception as error:
            _leave_broken_device(self.job.kind)
            return {"again": last_line(error)}

    def _is_done(self, image: Path, name: str, known: Record) -> bool:
        try:
            return _OneLine(self.folder, image, known).is_done(image, self.worker.task(image, name).key)
        except DataError:
            return False

    def _record(self, image: Path, name: str) -> Record:
        for pause in (0.2, 1.0):
            with suppress(SaveError):  # a worker that was given up may still be writing the same input
                return dict(self.worker.run(image, name))
            time.sleep(pause)
        return dict(self.worker.run(image, name))


class _OneLine(Manifest):
    """The manifest as far as one input goes."""

    def __init__(self, folder: Path, image: Path, record: Record) -> None:
        self.folder, self.path, self.records = folder, folder / NAME, {str(image): record}


def _beat(signs: Any, seconds: float) -> None:
    while True:
        signs.beat.remote()
        time.sleep(seconds)


def _leave_broken_device(kind: str) -> None:
    """End this process if its GPU answers no more, as after a CUDA error that stays; Ray starts another one."""
    if kind == "cuda":
        import torch

        try:
            torch.zeros(1, device="cuda").add(1).cpu()
        except Exception:
            os._exit(1)


def last_line(error: BaseException) -> str:
    lines = [line.strip() for line in "".join(traceback.format_exception_only(error)).splitlines()]
    return next((line for line in reversed(lines) if line), type(error).__name__)


def _stop(error: Exception) -> Outcome:
    known = isinstance(error, IntarsiaError)
    said = (
        str(error) if known else f"--engine ray: a worker on {os.uname().nodename} could not start: {last_line(error)}"
    )
    return {"stop": [type(error).__name__ if known else "IntarsiaError", said]}
