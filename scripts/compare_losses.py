"""The same network, data, seeds and steps with different losses: what each gives, in results/.

python scripts/compare_losses.py nuclei DATA       cross-entropy, with U-Net's border map, soft Dice; objects as well
python scripts/compare_losses.py classes DATA      unweighted against median-frequency cross-entropy; IoU of each class
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.devices import describe_machine
from intarsia.progress import Silent
from intarsia.recipes.recipe import recipe_of_run
from intarsia.runs import environment

ROOT = Path(__file__).resolve().parents[1] / "results"
SEEDS = (0, 1, 2)
COMMON = {
    "nuclei": (
        *("model=unet_same", "model.width=16", "data.size=128", "transforms.mirror=both", "transforms.turn=true"),
        *("train.steps=800", "train.batch=8", "train.lr=1e-3", "train.validations=4", "transforms.zoom=[0.6,1.6]"),
        "evaluate.metrics=[objects]",
    ),
    "classes": ("model=encdec", "data.scale=0.5", "train.steps=300", "train.batch=8", "train.validations=3"),
}
ARMS = {
    "nuclei": {
        "cross-entropy": ("loss=ce",),
        "cross-entropy, border map": ("loss=ce", "loss.border_w0=10", "loss.border_sigma=5"),
        "soft Dice": ("loss=dice",),
    },
    "classes": {
        "cross-entropy": ("loss=ce",),
        "cross-entropy, median frequency": ("loss=ce", "loss.class_weights=median_frequency"),
    },
}


def trained(kind: str, data: Path, arm: str, seed: int, out: Path) -> dict[str, Any]:
    """Scores of one run on the test images."""
    words = [str(data), *COMMON[kind], *ARMS[kind][arm], f"train.seed={seed}", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "intarsia", "train", *words], check=True, capture_output=True)
    stored = json.loads((out / "report" / "test.json").read_text(encoding="utf-8"))
    found = {key: stored["scores"][key] for key in ("mean_iou", "mean_accuracy", "pixel_accuracy", "iou", "dice")}
    if objects := stored.get("objects"):
        found |= {"object_ap": objects["mean_average_precision"], "panoptic_quality": objects["mean_panoptic_quality"]}
    return {"arm": arm, "seed": seed, **found}


def table(kind: str, found: dict[str, Any], names: tuple[str, ...]) -> str:
    """Mean and spread over seeds of each arm."""
    columns = [("mean IoU", "mean_iou"), ("mean accuracy", "mean_accuracy")]
    columns += [("object AP", "object_ap"), ("PQ", "panoptic_quality")] if kind == "nuclei" else []
    head = [*(name for name, _ in columns), *(f"{'Dice' if kind == 'nuclei' else 'IoU'} {name}" for name in names)]
    lines = [f"# {found['title']}\n", "Mean over seeds (smallest to largest).\n"]
    lines += ["| loss | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for arm in ARMS[kind]:
        rows = [row for row in found["runs"] if row["arm"] == arm]
        values = [[row[key] for row in rows] for _, key in columns]
        per_class = "dice" if kind == "nuclei" else "iou"
        values += [[row[per_class][index] for row in rows] for index in range(len(names))]
        cells = [f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in values]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    machine = found["machine"]
    lines.append(f"\n{machine['processor']}, {machine['cores']} cores, {found['date']}. Command: `{found['command']}`")
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in found["runs"]}))
    lines.append(f"\nEvery run: `{found['each']}`; seeds {seeds}.")
    return "\n".join(lines) + "\n"


def main(kind: str, data: Path) -> None:
    """Run every arm with every seed, arms in turn, and write after each run."""
    titles = {"nuclei": "Border map and soft Dice against cross-entropy", "classes": "Median-frequency weights"}
    found: dict[str, Any] = {
        "title": f"{titles[kind]}, {data.name}",
        "date": date.today().isoformat(),
        "command": f"python scripts/compare_losses.py {kind} {data.name}",
        "each": f"intarsia train {data.name} {' '.join(COMMON[kind])} LOSS train.seed=SEED",
        "arms": {arm: list(words) for arm, words in ARMS[kind].items()},
        "machine": describe_machine(),
        "environment": environment()["packages"],
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            for number, arm in enumerate(ARMS[kind]):
                out = Path(folder) / f"{number}-{seed}"
                found["runs"].append(trained(kind, data, arm, seed, out))
                print(found["runs"][-1], flush=True)
                names = recipe_of_run(out).data.open(Silent()).table.names
                text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
                (ROOT / f"{data.name}_losses.json").write_text(text, encoding="utf-8")
                if len(found["runs"]) >= len(ARMS[kind]):
                    (ROOT / f"{data.name}_losses.md").write_text(table(kind, found, names), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
