"""What a cluster of Ray has, and whether its nodes can do a job. Ray is handed over; only batch.py imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from intarsia.errors import ConfigError
from intarsia.prediction.cluster.nodes import Job, last_line, node_problem


def alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def node_ids(ray: Any) -> set[str]:
    return {node["NodeID"] for node in alive(ray)}


def what_it_has(ray: Any) -> str:
    nodes = alive(ray)
    cpus, gpus = (sum(node["Resources"].get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"the cluster has {len(nodes)} node{'s' * (len(nodes) != 1)} with {cpus:g} cores and {gpus:g} GPUs"


def what_a_worker_needs(job: Job) -> str:
    return "1 GPU" if job.kind == "cuda" else f"{job.cores} core{'s' * (job.cores > 1)}"


def kind_of_device(ray: Any, device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"--device: must be auto, cpu or cuda on a cluster, where Ray deals out the GPUs; got {device!r}."
        )
    has_gpus = any(node["Resources"].get("GPU", 0) >= 1 for node in alive(ray))
    if device == "cuda" and not has_gpus:
        raise ConfigError(f"--device cuda: {what_it_has(ray)}. Try --device cpu.")
    return "cuda" if has_gpus and device != "cpu" else "cpu"


def room(node: Mapping[str, Any], job: Job) -> int:
    """Workers that a node can hold."""
    resources = node["Resources"]
    return int(resources.get("GPU", 0)) if job.kind == "cuda" else int(resources.get("CPU", 0) // job.cores)


def capacity(ray: Any, job: Job) -> int:
    return sum(room(node, job) for node in alive(ray))


def check_nodes(ray: Any, job: Job, work: Sequence[tuple[Path, str]], patience: float) -> None:
    """Hold each node that can be given work against this one.

    Raises:
        ConfigError: one sees other files, runs another version, or does not answer.
    """
    here = next((path.absolute() for path, _ in work if path.exists()), None)
    image = os.fsencode(here) if here else b""
    asked = {}
    for node in alive(ray):
        if room(node, job):
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy}
            asked[ray.remote(node_problem).options(**options).remote(job, image)] = node
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=patience)
    problems = {}
    for reference in ready:
        try:
            problems[reference] = ray.get(reference)
        except ray.exceptions.RayError as error:
            problems[reference] = f"cannot run intarsia ({last_line(error)})"
    problems.update(dict.fromkeys(late, f"did not answer for {patience:g} s"))
    still = node_ids(ray)
    for reference, problem in problems.items():
        node = asked[reference]
        if problem and node["NodeID"] in still:  # one that was lost meanwhile is no error
            raise ConfigError(
                f"--engine ray: node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) {problem}."
            )
