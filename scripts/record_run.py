"""What a run reached, as JSON: scores of each split, recipe, budget used, machine; no weights, no paths of the machine."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

from intarsia.config import read_yaml
from intarsia.devices import describe_machine
from intarsia.training.history import read_history


def record(run: Path, command: str) -> dict[str, Any]:
    """The facts of a run that was evaluated."""
    recipe = read_yaml(run / "recipe.yaml")
    recipe["data"]["path"] = Path(recipe["data"]["path"]).name
    if recipe["model"].get("pretrained"):
        recipe["model"]["pretrained"] = Path(recipe["model"]["pretrained"]).name
    rows = read_history(run / "metrics.csv")
    reports = sorted((run / "report").glob("*.json"))
    scores = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in reports}
    return {
        "date": date.today().isoformat(),
        "command": command,
        "scores": {
            split: {"images": len(found["images"]), "classes": found["classes"], **found["scores"]}
            for split, found in scores.items()
        },
        "steps": rows[-1]["step"] if rows else None,
        "training_seconds": rows[-1]["seconds"] if rows else None,
        "machine": describe_machine(),
        "environment": json.loads((run / "environment.json").read_text(encoding="utf-8"))["packages"],
        "recipe": recipe,
    }


if __name__ == "__main__":
    folder, name, words = sys.argv[1:4]
    target = Path(__file__).resolve().parents[1] / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record(Path(folder), words), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(target.name)
