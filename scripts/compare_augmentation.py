"""The same network, data, seeds and steps with different augmentation: what each gives, in results/.

python scripts/compare_augmentation.py membranes DATA     U-Net on ISBI 2012 with and without elastic deformation
python scripts/compare_augmentation.py street DATA        CamVid with none, FCN's mirror and shift, and all of the default
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from arms import Comparison, Report
from membrane import TEST, TRAIN, VAL

COMMON = {
    "membranes": (
        *("model=unet_same", "model.width=16", "loss=ce", "data.size=160", "train.steps=300", "train.batch=4"),
        *("train.lr=1e-3", "train.validations=3", "evaluate.metrics=[em]"),
    ),
    "street": ("model=encdec", "data.scale=0.5", "train.steps=300", "train.batch=8", "train.validations=3"),
}
ARMS = {
    "membranes": {
        "windows alone": ("transforms=none",),
        "rotation, grey values": ("transforms=unet", "transforms.elastic=0"),
        "rotation, grey values, elastic deformation": ("transforms=unet",),
    },
    "street": {
        "none": ("transforms=none",),
        "mirror, shift by up to 32 pixels": ("transforms=fcn",),
        "all of the default": ("transforms=default",),
    },
}
TITLES = {"membranes": "Elastic deformation, ISBI 2012", "street": "Augmentation of street scenes, CamVid"}
WORDS = {
    "membranes": "Sections 00 to 19 trained, 20 to 23 chose the weights, 24 to 29 were held out; see isbi2012_membrane.md.",
    "street": "Samples are of the median size: without zoom, `none` and `fcn` see nearly whole images.",
}


def scores(stored: Report) -> dict[str, float]:
    """Of membranes as the challenge has them, of streets by classes."""
    if em := stored.get("em"):
        found = {"V_Rand": em["v_rand"], "V_Info": em["v_info"], "pixel error": em["pixel_error"]}
        return found | {"mean IoU": stored["scores"]["mean_iou"]}
    named = zip(stored["classes"], stored["scores"]["iou"], strict=True)
    return {"mean IoU": stored["scores"]["mean_iou"], **{f"IoU {name}": value for name, value in named}}


def main(kind: str, data: Path) -> None:
    """Run every arm with every seed."""
    with tempfile.TemporaryDirectory() as folder:
        common = list(COMMON[kind])
        if kind == "membranes":
            file = Path(folder) / "splits.json"
            parts = (("train", TRAIN), ("val", VAL), ("test", TEST))
            file.write_text(json.dumps({name: [f"{n:02}" for n in part] for name, part in parts}), encoding="utf-8")
            common += [f"data.splits={file}", f"data.classes={data / 'classes.json'}"]
        Comparison(
            title=TITLES[kind],
            file="isbi2012_augmentation" if kind == "membranes" else f"{data.name}_augmentation",
            command=f"python scripts/compare_augmentation.py {kind} {data.name}",
            data=data / "train" if kind == "membranes" else data,
            common=common,
            arms=ARMS[kind],
            column="augmentation",
            scores=scores,
            words=WORDS[kind],
        ).run()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
