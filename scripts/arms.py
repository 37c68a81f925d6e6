"""The same training with one thing changed, over seeds: what `compare_losses.py` and `compare_augmentation.py` share."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.devices import describe_machine
from intarsia.runs import environment

ROOT = Path(__file__).resolve().parents[1] / "results"
SEEDS = (0, 1, 2)
Report = Mapping[str, Any]
"""report/test.json of a run."""


@dataclass(frozen=True)
class Comparison:
    """Arms of one experiment."""

    title: str
    file: str
    """Name of the two files in results/, without ending."""
    command: str
    """What makes them, in words."""
    data: Path
    common: Sequence[str]
    """Settings of every run."""
    arms: Mapping[str, Sequence[str]]
    """What else each arm sets."""
    column: str
    """Head of the arms' column."""
    scores: Callable[[Report], Mapping[str, float]]
    """Scores of a run by the heads of their columns."""
    words: str = ""
    """What a reader should know."""

    def run(self) -> None:
        """Every arm with every seed, arms in turn; both files are written after each run."""
        facts = {
            "title": self.title,
            "date": date.today().isoformat(),
            "command": self.command,
            "each": f"intarsia train {self.data.name} {' '.join(_without_places(self.common))} ARM train.seed=SEED",
            "arms": {arm: list(words) for arm, words in self.arms.items()},
            "machine": describe_machine(),
            "environment": environment()["packages"],
            "words": self.words,
        }
        runs = self._stored(facts)
        for seed in SEEDS:
            for arm in self.arms:
                if any((row["arm"], row["seed"]) == (arm, seed) for row in runs):
                    continue
                runs.append({"arm": arm, "seed": seed, **self._trained(arm, seed)})
                print(runs[-1], flush=True)
                text = json.dumps({**facts, "runs": runs}, indent=1, ensure_ascii=False) + "\n"
                (ROOT / f"{self.file}.json").write_text(text, encoding="utf-8")
                if len(runs) >= len(self.arms):
                    (ROOT / f"{self.file}.md").write_text(self._page(facts, runs), encoding="utf-8")

    def _stored(self, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """Runs of the same comparison that was broken off."""
        file = ROOT / f"{self.file}.json"
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        same = all(stored.get(key) == facts[key] for key in ("each", "arms", "machine", "environment"))
        return list(stored["runs"]) if same and len(stored["runs"]) < len(SEEDS) * len(self.arms) else []

    def _trained(self, arm: str, seed: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            words = [str(self.data), *self.common, *self.arms[arm], f"train.seed={seed}", "--out", str(out)]
            subprocess.run([sys.executable, "-m", "intarsia", "train", *words], check=True, capture_output=True)
            stored = json.loads((out / "report" / "test.json").read_text(encoding="utf-8"))
        found = dict(self.scores(stored))
        return {"scores": found, "intervals": _intervals(stored)}

    def _page(self, facts: dict[str, Any], runs: list[dict[str, Any]]) -> str:
        heads = list(runs[0]["scores"])
        lines = [f"# {self.title}\n", "Mean over seeds (smallest to largest).\n"]
        lines += [f"| {self.column} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        for arm in self.arms:
            rows = [row["scores"] for row in runs if row["arm"] == arm]
            values = [[row[head] for row in rows] for head in heads]
            cells = [f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in values]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        lines.append(f"\n{self.words}\n" if self.words else "")
        lines += [
            "Each run with its interval over the held-out images:\n",
            "| run | seed | score | interval |",
            "|---|---|---|---|",
        ]
        for row in runs:
            for name, (value, low, high) in row["intervals"].items():
                lines.append(f"| {row['arm']} | {row['seed']} | {name} {value:.3f} | {low:.3f} to {high:.3f} |")
        machine = facts["machine"]
        place = f"{machine['processor']}, {machine['cores']} cores, {facts['date']}."
        lines.append(f"\n{place} Command: `{self.command}`\n\nEvery run: `{facts['each']}`. Arms:\n")
        lines += [f"- {arm}: `{' '.join(words) or 'as it is'}`" for arm, words in self.arms.items()]
        return "\n".join(lines) + "\n"


def _without_places(words: Sequence[str]) -> list[str]:
    """Settings with the last part of each path alone."""
    return [
        f"{key}={Path(value).name}" if value.startswith("/") else word
        for word in words
        for key, _, value in [word.partition("=")]
    ]


def _intervals(stored: Report) -> dict[str, tuple[float, float, float]]:
    """Mean IoU, and V_Rand where there is one, each with its interval."""
    found = {"mean IoU": (stored["scores"]["mean_iou"], *stored["intervals"]["mean_iou"])}
    if em := stored.get("em"):
        found["V_Rand"] = (em["v_rand"], *em["intervals"]["v_rand"])
    return found
