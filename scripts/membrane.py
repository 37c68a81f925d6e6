"""A U-Net on ISBI 2012's membranes, sections 00 to 23 against 24 to 29, with the challenge's scores: results/isbi2012_membrane.

python scripts/membrane.py DATA          DATA holds train/images, train/masks and classes.json
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
from intarsia.runs import environment
from intarsia.training.history import read_history

ROOT = Path(__file__).resolve().parents[1] / "results"
TRAIN, VAL, TEST = range(20), range(20, 24), range(24, 30)
SETTINGS = (
    *(
        "model=unet_same",
        "model.width=24",
        "loss=ce",
        "data.size=192",
        "transforms.mirror=both",
        "transforms.turn=true",
    ),
    *("train.steps=800", "train.batch=4", "train.lr=1e-3", "train.validations=4", "evaluate.metrics=[all]"),
)
PROTOCOL = """\
Sections 00 to 19 trained, 20 to 23 chose the weights, 24 to 29 were held out (the challenge's own 30 test sections have no
public labels). Scores as in Arganda-Carreras et al. 2015: V_Rand and V_Info of the regions after thinning the membrane to
a line, each slice by itself, then the mean; warping error, pixel error and Rand error without thinning; each at the
threshold of 0, 0.1, ..., 1 that is best for the six sections together, as the challenge does. Predictions are of the whole
section at once, without test-time augmentation. Six sections of one volume: the intervals are too narrow."""


def main(data: Path) -> None:
    """Train, score, write."""
    splits = {name: [f"{n:02}" for n in part] for name, part in (("train", TRAIN), ("val", VAL), ("test", TEST))}
    with tempfile.TemporaryDirectory() as folder:
        run, file = Path(folder) / "run", Path(folder) / "splits.json"
        file.write_text(json.dumps(splits), encoding="utf-8")
        words = [str(data / "train"), f"data.splits={file}", f"data.classes={data / 'classes.json'}", *SETTINGS]
        subprocess.run([sys.executable, "-m", "intarsia", "train", *words, "--out", str(run)], check=True)
        stored = json.loads((run / "report" / "test.json").read_text(encoding="utf-8"))
        seconds = read_history(run / "metrics.csv")[-1]["seconds"]
    found: dict[str, Any] = {
        "title": "Membranes of ISBI 2012",
        "date": date.today().isoformat(),
        "command": f"python scripts/membrane.py {data.name}",
        "each": f"intarsia train {data.name}/train data.splits=SPLITS {' '.join(SETTINGS)}",
        "protocol": PROTOCOL,
        "splits": splits,
        "training_seconds": seconds,
        "machine": describe_machine(),
        "environment": environment()["packages"],
        **{key: value for key, value in stored.items() if key not in ("images", "data", "split")},
    }
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (ROOT / f"{data.name}_membrane.json").write_text(text, encoding="utf-8")
    (ROOT / f"{data.name}_membrane.md").write_text(page(found), encoding="utf-8")


def page(found: dict[str, Any]) -> str:
    """The scores as a table."""
    em = found["em"]
    rows = [
        ("V_Rand, thinned", "v_rand", f"threshold {em['v_rand_threshold']:g}"),
        ("V_Info, thinned", "v_info", f"threshold {em['v_info_threshold']:g}"),
        ("Rand error, not thinned", "adapted_rand_error", ""),
        ("warping error", "warping_error", ""),
        ("pixel error", "pixel_error", ""),
    ]
    lines = [f"# {found['title']}\n", found["protocol"] + "\n", "| score | value | interval | |", "|---|---|---|---|"]
    for name, key, remark in rows:
        low, high = em["intervals"][key]
        digits = 6 if key == "warping_error" else 4
        lines.append(f"| {name} | {em[key]:.{digits}f} | {low:.{digits}f} to {high:.{digits}f} | {remark} |")
    lines += [
        (
            f"\nMean IoU {found['scores']['mean_iou']:.3f}, boundary F1 {found['boundary']['mean_boundary_f1']:.3f}, "
            f"calibration error {found['calibration']['expected_calibration_error']:.3f}."
        ),
        (
            f"\n{found['machine']['processor']}, {found['machine']['cores']} cores, {found['date']}, "
            f"{found['training_seconds']:.0f} s of training. Command: `{found['command']}`, which runs `{found['each']}`."
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
