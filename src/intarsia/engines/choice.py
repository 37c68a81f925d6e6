"""Which engine is the fastest for a network on this machine: measured once, then remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from intarsia.devices import cores, cpu_name
from intarsia.downloads import cache_folder
from intarsia.errors import SaveError
from intarsia.progress import default_progress
from intarsia.runs import write_json

ROUNDS = 5
"""Images that each engine computes, in turn with the others, after one that does not count."""
PATIENCE = 10.0
"""Seconds after which no new round is begun."""
PACKAGES = ("torch", "onnxruntime", "openvino")


def choice_file() -> Path:
    """Where choices are remembered; deleting it has them measured again."""
    return cache_folder() / "engines.json"


def machine_key(network: str) -> str:
    """What a choice depends on: network, processor, cores, versions of the engines."""
    versions = []
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return " | ".join([network, cpu_name(), f"{cores()} cores", *versions])


def remembered(key: str) -> str | None:
    """The engine that was the fastest, if it was measured; a damaged file counts as none."""
    try:
        found = json.loads(choice_file().read_text(encoding="utf-8"))[key]["fastest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def measure(candidates: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median milliseconds of each candidate's calls, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for compute in candidates.values():
        compute()
    begun = time.perf_counter()
    for number in range(ROUNDS):
        if number and time.perf_counter() - begun > PATIENCE:
            break
        for name, compute in candidates.items():
            start = time.perf_counter()
            compute()
            taken[name].append(time.perf_counter() - start)
    return {name: 1000 * median(seconds) for name, seconds in taken.items()}


def remember(key: str, milliseconds: Mapping[str, float]) -> str:
    """The fastest, written down and told; a cache that cannot be written only means that it is measured again."""
    ranked = sorted(milliseconds, key=lambda name: milliseconds[name])
    default_progress().note("engines  " + " · ".join(f"{name} {milliseconds[name]:.0f} ms" for name in ranked))
    fastest = ranked[0]
    try:
        known = json.loads(choice_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    entry = {"fastest": fastest, "milliseconds": {name: round(value, 2) for name, value in milliseconds.items()}}
    with suppress(SaveError, OSError):
        choice_file().parent.mkdir(parents=True, exist_ok=True)
        write_json(choice_file(), {**(known if isinstance(known, dict) else {}), key: entry})
    return fastest
