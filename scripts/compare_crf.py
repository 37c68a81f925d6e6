"""Runs with and without a dense CRF, side by side: test mean IoU and boundary F1, with intervals over images.

    python scripts/compare_crf.py NAME RUN... [--images 24]

For each run: the network alone, the preset `deeplab`, and settings searched on validation images (a coarse part of DeepLab v2's
grid, arXiv:1606.00915, then half the steps around the best). Writes results/NAME.json and results/NAME.md.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from intarsia.devices import describe_machine
from intarsia.evaluation.crf import search_on_validation
from intarsia.evaluation.evaluate import evaluate
from intarsia.ops.crf import CrfGrid
from intarsia.progress import Plain
from intarsia.recipes.recipe import recipe_of_run

RESULTS = Path(__file__).resolve().parents[1] / "results"
GRID = CrfGrid((1, 2, 4, 6), (20, 50, 80), (3, 5, 8), rounds=1)


def scores(run: Path, settings: dict[str, Any], progress: Plain) -> dict[str, Any]:
    found = evaluate(run, "test", metrics=("boundary",), settings=settings, report=False, progress=progress).to_dict()
    boundary = found["boundary"]
    return {
        "mean_iou": found["scores"]["mean_iou"],
        "mean_iou_interval": found["intervals"]["mean_iou"],
        "pixel_accuracy": found["scores"]["pixel_accuracy"],
        "iou": dict(zip(found["classes"], found["scores"]["iou"], strict=True)),
        "boundary_f1": boundary["mean_boundary_f1"],
        "boundary_f1_interval": boundary["intervals"]["mean_boundary_f1"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=24)
    given = parser.parse_args()
    progress, rows = Plain(60), []
    for run in given.runs:
        recipe = recipe_of_run(run)
        found = search_on_validation(run, grid=GRID, images=given.images, progress=progress)
        progress.note(found.text())
        arms: dict[str, dict[str, Any]] = {"none": {}, "deeplab": {"crf": "deeplab"}, "searched": {"crf": found.config}}
        row = {
            "model": recipe.model.to_dict(),
            "steps": recipe.train.steps,
            "scale": recipe.data.to_dict()["scale"],
            "searched": found.config.to_dict(),
            "validation": {"images": found.images, "tried": len(found.tried) - 1, "without": found.tried[0].mean_iou,
                           "best": max(each.mean_iou for each in found.tried[1:])},
            "arms": {name: scores(run, settings, progress) for name, settings in arms.items()},
        }  # fmt: skip
        rows.append(row)
        write(given.name, rows, given)


def write(name: str, rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    runs = " ".join(run.name for run in given.runs)
    command = f"python scripts/compare_crf.py {name} {runs} --images {given.images}"
    result = {"date": date.today().isoformat(), "command": command, "machine": describe_machine(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Dense CRF after the network: CamVid, test images at 360 x 480",
        "",
        "One run each, one seed: trained with `intarsia train camvid model=NAME train.steps=N data.scale=0.5`. The CRF works",
        "at full resolution. `deeplab` is DeepLab v2's setting for VGG16; the searched one is the best on validation images.",
        "Intervals are over images (95 %), of this run; boundary F1 with a tolerance of 0.75 % of the diagonal. `encdec` is a",
        "U-Net's decoder on an encoder with ImageNet weights, as `deeplab3_lite0` has.",
        "",
        "| model | steps | CRF | w1, sigma_alpha, sigma_beta | mean IoU | pixel accuracy | boundary F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for arm, found in row["arms"].items():
            config = row["searched"]
            at = {"none": "", "deeplab": "4, 49, 5"}.get(
                arm, f"{config['bilateral_weight']:g}, {config['position_std']:g}, {config['colour_std']:g}"
            )
            iou, f1 = (f"{found[key]:.3f} ({found[f'{key}_interval'][0]:.3f} to {found[f'{key}_interval'][1]:.3f})"
                       for key in ("mean_iou", "boundary_f1"))  # fmt: skip
            lines.append(
                f"| `{row['model']['name']}` | {row['steps']} | {arm} | {at} | {iou} | {found['pixel_accuracy']:.3f} | {f1} |"
            )
    lines += ["", f"{describe_machine()['processor']}, {result['date']}. Command: `{command}`"]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
