"""The same network, data, seeds and steps with different losses: what each gives, in results/.

python scripts/compare_losses.py nuclei DATA       cross-entropy, with U-Net's border map, soft Dice; objects as well
python scripts/compare_losses.py classes DATA      unweighted against median-frequency cross-entropy; IoU of each class
"""

from __future__ import annotations

import sys
from pathlib import Path

from arms import Comparison, Report

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
TITLES = {"nuclei": "Border map and soft Dice against cross-entropy", "classes": "Median-frequency weights"}


def scores(stored: Report) -> dict[str, float]:
    """Means, objects if they were scored, and each class."""
    found = {"mean IoU": stored["scores"]["mean_iou"], "mean accuracy": stored["scores"]["mean_accuracy"]}
    objects = stored.get("objects")
    if objects:
        found |= {"object AP": objects["mean_average_precision"], "PQ": objects["mean_panoptic_quality"]}
    key = "dice" if objects else "iou"
    named = zip(stored["classes"], stored["scores"][key], strict=True)
    return found | {f"{'Dice' if objects else 'IoU'} {name}": value for name, value in named}


def main(kind: str, data: Path) -> None:
    """Run every arm with every seed."""
    Comparison(
        title=f"{TITLES[kind]}, {data.name}",
        file=f"{data.name}_losses",
        command=f"python scripts/compare_losses.py {kind} {data.name}",
        data=data,
        common=COMMON[kind],
        arms=ARMS[kind],
        column="loss",
        scores=scores,
    ).run()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
