"""Batch prediction on many machines with Ray Data, `predict(..., engine="ray")`; the only file that imports Ray.

    driver   names inputs in small blocks, appends the manifest's lines as results come
    workers  one model each (a GPU, or a group of cores), hash, predict, write into the folder that all nodes share

Ray restarts a worker that died, where there is room for it, but computes none of its blocks again: a block would wait for
that worker, for ever if its node is gone. What is missing after a round is given to another round, one input at a time, so
that an input which ends its worker costs no other; after `ATTEMPTS` rounds it is a failure like any other.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import intarsia
from intarsia import errors
from intarsia.devices import cores
from intarsia.engines.files import is_exported
from intarsia.errors import ConfigError, DataError, IntarsiaError, Interrupted, SaveError
from intarsia.optional import need, require
from intarsia.prediction.cluster.capacity import (
    capacity,
    check_nodes,
    kind_of_device,
    node_ids,
    what_a_worker_needs,
    what_it_has,
)
from intarsia.prediction.cluster.nodes import Job, Outcome, Segmenter, Signs, last_line
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.manifest import Manifest, Record
from intarsia.progress import default_progress

ATTEMPTS = 3
"""Rounds in which an input may be lost, or rounds in a row that may end with nothing, before it is a failure."""
LARGEST_BLOCK = 8
"""Inputs a block, at most: what a worker computes before it tells."""
BLOCKS = 16
"""Blocks a worker, if there are as many inputs: the last ones end at about the same time."""
TOKEN = ".intarsia-ray-"
STORE = 200 << 20
"""Bytes that a cluster of this machine alone has for blocks: names and records, no pixels."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # reports to nobody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leaves CUDA_VISIBLE_DEVICES alone where no GPU is asked for
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # what Ray says of a lost node would go to standard output
}
"""How Ray is told to be quiet, unless the user has set these otherwise."""


def predict_on_cluster(
    run: Any, work: Sequence[tuple[Path, str]], folder: Path, config: PredictConfig, device: str
) -> Iterator[tuple[Record, bool]]:
    """Records of inputs in the order in which they are done, each once, and whether it was done before.

    The cluster is that of RAY_ADDRESS, or this machine alone; Ray that runs in this process already is used as it is.

    Args:
        run: a run, a run folder, a model folder, or several of these.
        work: inputs, and the names of their results.
        folder: of the results, seen by all nodes under this name.
        device: auto (GPUs if the cluster has any), cpu or cuda.

    Raises:
        MissingExtra: Ray is not installed.
        ConfigError: the cluster has not what is asked for, or a node sees other files or runs another version.
        Interrupted: no worker could run for INTARSIA_RAY_PATIENCE seconds; what is done is listed in the manifest.
    """
    for package in ("ray", "pyarrow", "pandas"):
        require(package, extra="ray")
    folder, patience = folder.absolute(), _number("INTARSIA_RAY_PATIENCE", 60.0)
    runs = _folders(run, config)
    manifest = Manifest(folder)
    with _connected() as (ray, place), _token(folder) as token:
        exported = all(is_exported(Path(run)) for run in runs)  # those run on processors
        kind = kind_of_device(ray, "cpu" if exported and device == "auto" else device)
        share = max(1, int(_number("INTARSIA_RAY_CPUS", 1)))
        job = Job(runs, str(folder), config, kind, share, token, intarsia.__version__, min(5.0, patience / 4))
        workers = capacity(ray, job)
        if not workers:
            raise ConfigError(f"--engine ray: {what_it_has(ray)}; a worker needs {what_a_worker_needs(job)}.")
        check_nodes(ray, job, work, patience)
        default_progress().note(f"Ray: {place}: {what_it_has(ray)}; {workers} workers of {what_a_worker_needs(job)}")
        yield from _rounds(ray, job, work, manifest, patience)


def _number(variable: str, usual: float) -> float:
    text = os.environ.get(variable, "")
    try:
        value = float(text or usual)
    except ValueError:
        value = 0
    if not value > 0:
        raise ConfigError(f"{variable}: must be a number above 0, got {text!r}.")
    return value


def _folders(run: Any, config: PredictConfig) -> tuple[str, ...]:
    given = [*(run if isinstance(run, (list, tuple)) else [run]), *config.ensemble]
    paths = [getattr(each, "path", each) for each in given]
    if not all(isinstance(path, (str, Path)) for path in paths):
        raise ConfigError(
            "--engine ray: takes run folders, since each worker loads the model itself; got a loaded model."
        )
    return tuple(str(Path(path).absolute()) for path in paths)


@contextmanager
def _connected() -> Iterator[tuple[Any, str]]:
    """Ray, and where it runs in words; let go of at the end, if it was not there before."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    ray = need("ray", extra="ray")
    if ray.is_initialized():
        yield ray, "the cluster that this process is connected to"
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise ConfigError(
            f"RAY_ADDRESS: {address} is Ray's client; run this on a node, with RAY_ADDRESS=auto or HOST:6379."
        )
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    alone = {"address": "local", "num_cpus": cores(), "include_dashboard": False, "object_store_memory": STORE}
    try:
        _reach(address)
        with _mute():
            ray.init(**({"address": address} if address not in ("", "local") else alone), **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        where = f"RAY_ADDRESS={address}: no cluster can be reached there" if address else "Ray cannot be started here"
        raise ConfigError(f"{where} ({last_line(error)}).") from None
    try:
        yield ray, f"the cluster at {address}" if address else "this machine alone (RAY_ADDRESS is not set)"
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Knock: Ray itself tries for minutes where nobody answers."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _mute() -> Iterator[None]:
    """Nothing of what Ray's C++ part says as it starts; errors come as exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _token(folder: Path) -> Iterator[str]:
    path = folder / f"{TOKEN}{uuid.uuid4().hex}"
    try:
        path.touch()
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written ({error.strerror}).") from None
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def _rounds(
    ray: Any, job: Job, work: Sequence[tuple[Path, str]], manifest: Manifest, patience: float
) -> Iterator[tuple[Record, bool]]:
    """Rounds over what is left, until nothing is."""
    left, lost, reasons = dict(enumerate(work)), Counter[int](), dict[int, str]()
    fruitless, careful = 0, False
    while left:
        before, broken, nodes = len(left), "", node_ids(ray)
        rows = [_row(number, image, name, manifest) for number, (image, name) in left.items()]
        try:
            for number, outcome in _outcomes(ray, job, rows, patience, careful=careful):
                if "stop" in outcome:
                    raise _error(*outcome["stop"])
                if "again" in outcome:
                    reasons[number] = outcome["again"]
                elif number in left:  # what was computed twice counts once
                    image, _ = left.pop(number)
                    yield _listed(manifest, image, outcome)
        except _RoundEnded as error:
            broken = str(error)
        fruitless = fruitless + 1 if broken and len(left) == before else 0
        if fruitless >= ATTEMPTS:
            raise Interrupted(_so_far(f"Ray gave up {fruitless} times: {broken}", manifest))
        gone = bool(nodes - node_ids(ray))  # what a lost node was given was not its fault
        for number in [] if broken else list(left):
            lost[number] += number in reasons or not gone
            if lost[number] >= ATTEMPTS:
                image, _ = left.pop(number)
                yield _listed(manifest, image, _failure(image, reasons.get(number)))
        careful = not broken
        if left:
            why = broken or "workers were lost, or failed at them"
            default_progress().note(f"Ray: {len(left)} inputs are given out once more: {why}")


def _row(number: int, image: Path, name: str, manifest: Manifest) -> dict[str, Any]:
    record = manifest.records.get(str(image), {})
    known = {key: record[key] for key in ("status", "key", "outputs")} if record.get("status") == "done" else None
    path = os.fsencode(image.absolute())
    return {"number": number, "image": path, "name": os.fsencode(name), "known": json.dumps(known) if known else ""}


def _listed(manifest: Manifest, image: Path, outcome: Outcome) -> tuple[Record, bool]:
    if outcome["skipped"]:
        return manifest.records[str(image)], True
    record = {**outcome["record"], "image": str(image)}
    manifest.add(record)
    return record, False


def _failure(image: Path, reason: str | None) -> Outcome:
    said = reason or "its worker ended without a word, as one does that needs more memory than there is"
    record = {
        "image": str(image),
        "status": "failed",
        "sha256": None,
        "error": f"{image}: {said} ({ATTEMPTS} attempts)",
    }
    return {"record": {**record, "code": "E_WORKER", "seconds": 0.0}, "skipped": False}


def _error(name: str, message: str) -> IntarsiaError:
    kind = getattr(errors, name, IntarsiaError)
    return DataError(message) if kind is errors.FileError else kind(message)


def _so_far(said: str, manifest: Manifest) -> str:
    done = sum(record["status"] == "done" for record in manifest.records.values())
    return (
        f"--engine ray: {said}. {done} inputs are done and listed in {manifest.path}; the same command does the rest."
    )


class _RoundEnded(Exception):
    """Ray ended a round before its end."""


def _outcomes(
    ray: Any, job: Job, rows: Sequence[dict[str, Any]], patience: float, *, careful: bool
) -> Iterator[tuple[int, Outcome]]:
    """One round of Ray Data: outcomes as they come; of inputs whose worker died, none.

    Args:
        careful: an input a block, and no block waits at a worker, so that what is lost is what was being computed.

    Raises:
        _RoundEnded: an error of Ray.
        Interrupted: no outcome, and no sign of a worker, for `patience` seconds.
    """
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    here = {"num_cpus": 0, "scheduling_strategy": strategy(ray.get_runtime_context().get_node_id(), soft=False)}
    signs = ray.remote(Signs).options(**here).remote()
    made = ray.remote(Round).options(**here).remote()
    workers = max(1, capacity(ray, job))
    told = made.outcomes.options(num_returns="streaming").remote(job, rows, signs, Segmenter, workers, careful)
    try:
        yield from _watched(ray, told, signs, patience, job)
    finally:
        for actor in (made, signs):
            ray.kill(actor)


class Round:
    """A run of Ray Data, in a process of its own beside the driver: it can be ended at any moment, with all its workers."""

    def outcomes(
        self, job: Job, rows: Sequence[dict[str, Any]], signs: Any, worker: type, workers: int, careful: bool
    ) -> Iterator[list[tuple[int, str]]]:
        """Numbers of inputs and their outcomes as JSON, block by block."""
        data = need("ray.data", extra="ray")
        _configure(data.DataContext.get_current())
        size = 1 if careful else max(1, min(LARGEST_BLOCK, len(rows) // (workers * BLOCKS)))
        count = -(-len(rows) // size)
        resources = {"num_cpus": 0, "num_gpus": 1} if job.kind == "cuda" else {"num_cpus": job.cores}
        dataset = data.from_items(list(rows), override_num_blocks=count).map_batches(
            worker,
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(
                min_size=min(workers, count), max_tasks_in_flight_per_actor=1 if careful else 2
            ),
            fn_constructor_args=(job, signs),
            max_restarts=-1,
            max_task_retries=0,
            **resources,
        )
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield [(row["number"], row["outcome"]) for row in batch.to_pylist()]


def _configure(context: Any) -> None:
    """Ray Data as a job wants it, as far as this Ray knows it: silent, lost blocks let go, slow inputs no reason to give up."""
    wanted = {
        "enable_progress_bars": False,
        "max_errored_blocks": -1,
        "max_consecutive_actor_init_deaths": 10,
        "execution_no_progress_timeout_s": -1,
    }
    for name, value in wanted.items():
        if hasattr(context, name):
            setattr(context, name, value)


def _watched(ray: Any, told: Any, signs: Any, patience: float, job: Job) -> Iterator[tuple[int, Outcome]]:
    last = time.monotonic()
    while True:
        try:
            ready, _ = ray.wait([told], timeout=min(1.0, patience / 4))
            block = ray.get(next(told)) if ready else []
        except StopIteration:
            return
        except ray.exceptions.RayError as error:
            raise _RoundEnded(last_line(error)) from None
        if ready:
            last = time.monotonic()
        elif time.monotonic() - last > patience and _quiet(ray, signs) > patience:
            said = f"no worker could run for {patience:g} s: {_state(ray, job)}"
            raise Interrupted(_so_far(said, Manifest(Path(job.folder))))
        yield from ((number, json.loads(outcome)) for number, outcome in block)


def _state(ray: Any, job: Job) -> str:
    try:
        free = ray.available_resources().get("GPU" if job.kind == "cuda" else "CPU", 0)
        return f"{what_it_has(ray)}, {free:g} of them free; a worker needs {what_a_worker_needs(job)}"
    except Exception:
        return "the cluster does not answer"


def _quiet(ray: Any, signs: Any) -> float:
    try:
        return float(ray.get(signs.quiet.remote(), timeout=10))
    except ray.exceptions.RayError:
        return float("inf")
