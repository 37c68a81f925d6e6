"""Prediction on a cluster of two nodes on this machine, one of them killed midway, held against prediction without Ray.

python scripts/ray_acceptance.py RUN IMAGES          RUN is a run folder, IMAGES a folder of image files

Prints what was met as JSON; exit code 1 unless every file is in the manifest once, with results of the same hashes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from intarsia.devices import describe_machine
from intarsia.prediction.cluster.batch import ENVIRONMENT
from intarsia.prediction.inputs import find_images
from intarsia.prediction.manifest import NAME
from intarsia.prediction.predict import Written, predict

KILLED_AFTER = 0.4
"""Share of the files that is done when the node is killed."""
STORE = 100 << 20


def main(run: Path, images: Path) -> int:
    """Both runs, and what differs."""
    paths = [str(path) for path in find_images([images])]
    with tempfile.TemporaryDirectory() as folder:
        alone, many = Path(folder) / "alone", Path(folder) / "many"
        begun = time.monotonic()
        predict(run, paths, out=alone, device="cpu")
        seconds = {"without_ray": time.monotonic() - begun}
        killed_at, started, seconds["with_ray"] = _with_loss(run, paths, many)
        seconds["start_of_two_nodes"] = started
        here, there = _lines(alone), _lines(many)
    counts = Counter(line["image"] for line in there)
    outputs = [
        {line["image"]: line["outputs"] for line in lines if line["status"] == "done"} for lines in (here, there)
    ]
    found = {
        "files": len(paths),
        "done_when_a_node_was_killed": killed_at,
        "lines": len(there),
        "files_with_one_line": sum(count == 1 for count in counts.values()),
        "files_done": len(outputs[1]),
        "files_with_equal_hashes": sum(outputs[0].get(path) == outputs[1].get(path) is not None for path in paths),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "machine": describe_machine(),
    }
    print(json.dumps(found, indent=1))
    names = ("lines", "files_with_one_line", "files_done", "files_with_equal_hashes")
    return int(any(found[name] != len(paths) for name in names))


def _with_loss(run: Path, paths: list[str], out: Path) -> tuple[int, float, float]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.cluster_utils import Cluster

    begun = time.monotonic()
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = cluster.add_node(**node)
    os.environ["RAY_ADDRESS"] = cluster.address
    started, seen = time.monotonic(), []

    def done(written: Written) -> None:
        seen.append(written.image)
        if len(seen) == int(KILLED_AFTER * len(paths)):
            cluster.remove_node(second, allow_graceful=False)

    try:
        predict(run, paths, out=out, device="cpu", engine="ray", done=done)
        return int(KILLED_AFTER * len(paths)), started - begun, time.monotonic() - started
    finally:
        cluster.shutdown()


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / NAME).read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
