"""One short training of each family on the same data, one after the other, as a table in results/. A smoke comparison.

    python scripts/compare_families.py DATA NAME [MINUTES] [MODEL ...]

writes results/NAME.json and results/NAME.md. Every run is `intarsia train DATA model=... train.minutes=MINUTES
data.scale=0.5` with the settings that the table shows; widths are reduced where a processor would do too few steps otherwise.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from intarsia.devices import describe_machine
from intarsia.models import create_model
from intarsia.runs import environment
from intarsia.training.history import read_history

ROOT = Path(__file__).resolve().parents[1] / "results"
VGG = ("model.width=0.25", "model.hidden=512")
FAMILIES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "fcn32s_alexnet": ("model.width=0.5", "model.hidden=512"),
    "fcn32s_vgg16": VGG,
    "fcn8s_vgg16": VGG,
    "fcn": (),
    "segnet": ("model.widths=[[32,32],[64,64],[128,128,128],[256,256,256],[256,256,256]]",),
    "segnet_basic": (),
    "unet": ("model.width=32",),
    "unet_same": ("model.width=32",),
    "resunet": (),
    "fcdensenet56": (),
    "dilation8_camvid": VGG,
    "context_basic": ("model.front=encdec",),
    "deeplab_largefov_vgg16": ("model.width=0.5", "model.hidden=512"),
    "deeplab2_vgg16": ("model.width=0.5", "model.hidden=256"),
    "deeplab3_lite0": (),
    "deeplab3plus_lite0": (),
    "encdec": (),
    "encdec_fpn": (),
    "encdec_segformer": (),
}
"""Preset to the settings that make it fit for a processor."""


def trained(data: Path, name: str, minutes: float, out: Path) -> dict[str, Any]:
    """What one run reached, or the line with which it ended."""
    words = [str(data), f"model={name}", f"train.minutes={minutes:g}", "data.scale=0.5", *FAMILIES[name]]
    command = [sys.executable, "-m", "intarsia", "train", *words, "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    row: dict[str, Any] = {"model": name, "settings": list(FAMILIES[name])}
    if ended.returncode:
        return {**row, "failed": (ended.stderr.strip().splitlines() or ["?"])[-1]}
    manifest = json.loads((out / "model" / "manifest.json").read_text(encoding="utf-8"))
    settings = {key: value for key, value in manifest["model"].items() if key != "name"}
    without = {"pretrained": "none"} if "pretrained" in settings else {}
    if isinstance(settings.get("front"), dict):
        settings["front"] = {**settings["front"], "pretrained": "none"}
    scores = json.loads((out / "report" / "test.json").read_text(encoding="utf-8"))["scores"]
    return {
        **row,
        "start": manifest["start"],
        "weights": create_model(manifest["model"]["name"], **{**settings, **without}).count_parameters(),
        "steps": int(read_history(out / "metrics.csv")[-1]["step"] or 0),
        "test_mean_iou": scores["mean_iou"],
        "test_pixel_accuracy": scores["pixel_accuracy"],
    }


def table(found: dict[str, Any]) -> str:
    """The rows as a page."""
    lines = [
        f"# {found['data']}: {found['minutes']:g} minutes of training each\n",
        "A smoke comparison: one seed, a few hundred steps at most, no setting tuned for any of them. It shows that each",
        "family trains, not which is best. Networks that start from published weights have an advantage, which is named.\n",
        "| model | settings | weights | start | steps | test mean IoU | pixel accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["runs"]:
        settings = " ".join(f"`{each}`" for each in row["settings"]) or "preset"
        if "failed" in row:
            lines.append(f"| `{row['model']}` | {settings} | | | | {row['failed']} | |")
            continue
        start = "ImageNet" if "ImageNet" in row["start"] else "random"
        lines.append(
            f"| `{row['model']}` | {settings} | {row['weights'] / 1e6:.1f} M | {start} | {row['steps']} "
            f"| {row['test_mean_iou']:.3f} | {row['test_pixel_accuracy']:.3f} |"
        )
    machine = found["machine"]
    if found.get("note"):
        lines.append(f"\n{found['note']}")
    lines.append(f"\n{machine['processor']}, {machine['cores']} cores, {found['date']}. Command: `{found['command']}`")
    return "\n".join(lines) + "\n"


def main(data: Path, name: str, minutes: float, models: list[str]) -> None:
    """Train each and write after each, so that a stop leaves what is done."""
    command = " ".join(["python scripts/compare_families.py", data.name, name, f"{minutes:g}", *models])
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "data": data.name,
        "minutes": minutes,
        "command": command,
        "each": f"intarsia train {data.name} model=MODEL train.minutes={minutes:g} data.scale=0.5 SETTINGS",
        "machine": describe_machine(),
        "environment": environment()["packages"],
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for model in models or FAMILIES:
            found["runs"].append(trained(data, model, minutes, Path(folder) / model))
            print(found["runs"][-1], flush=True)
            ROOT.mkdir(exist_ok=True)
            text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
            (ROOT / f"{name}.json").write_text(text, encoding="utf-8")
            (ROOT / f"{name}.md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    folder, title, *rest = sys.argv[1:]
    main(Path(folder), title, float(rest[0]) if rest else 3.0, rest[1:])
