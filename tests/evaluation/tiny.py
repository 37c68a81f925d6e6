"""A tiny data folder with odd class names, and run folders with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from intarsia.classes import IGNORE, ClassTable
from intarsia.config import to_yaml
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import MODELS, build_model
from intarsia.recipes.recipe import load_recipe
from intarsia.runs import write_json, write_model

NAMES = ("background", "<b>x</b>", 'thin & "rare"', "</script><i>never</i>")
TABLE = ClassTable(names=NAMES)
TEST_IMAGES = ("a_worst<1>", "b", "c", "d_without_truth")
HEIGHT, WIDTH = 120, 160


def write_data(root: Path) -> Path:
    """Noise images whose masks hold classes 0 to 2, never 3; the last test image has no truth."""
    rng = np.random.default_rng(0)
    for split, names in (("train", ("t",)), ("val", ("v",)), ("test", TEST_IMAGES)):
        for name in names:
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[30:90, rng.integers(20, 60) : 120] = 1
            mask[100:104] = 2
            mask[:6, :40] = IGNORE
            if name == "d_without_truth":
                mask[:] = IGNORE
            image = (mask[..., None] * 60 + rng.integers(0, 60, (HEIGHT, WIDTH, 3))).astype(np.uint8)
            for folder, pixels in (("images", image), ("masks", mask)):
                (root / split / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / split / folder / f"{name}.png")
    (root / "classes.yaml").write_text(TABLE.to_text(), encoding="utf-8")
    return root


def write_run(run: Path, data: Path, seed: int = 1, names: tuple[str, ...] = NAMES) -> Path:
    """A run folder as training leaves it; the random model never predicts the last of four classes."""
    run.mkdir()
    settings = {"width": 2, "depth": 1, "norm": "none", "num_classes": len(names), "in_channels": 3}
    recipe = load_recipe("default", {"data": {"path": str(data)}, "model": "unet_same", "train": {"steps": 40}})
    recipe = recipe.replace(model=settings, evaluate={"pictures": 3})
    torch.manual_seed(seed)
    model = build_model(MODELS.resolve(recipe.model))
    with torch.no_grad():
        model.get_submodule("head").bias.copy_(torch.tensor([0.2, 0.1, 0.0, -1e4])[: len(names)])  # type: ignore[union-attr]
    manifest = {
        "model": recipe.model.to_dict(),
        "classes": ClassTable(names=names).to_dict(),
        "preprocess": Preprocess().to_dict(),
        "start": model.start,
        "trained": {"data": data.name, "step": 20, "val_mean_iou": 0.3},
    }
    write_model(run / "model", {key: value.numpy() for key, value in model.state_dict().items()}, manifest)
    write_json(run / "environment.json", {"python": "3", "packages": {"intarsia": "0.1.0"}, "device": "a <device>"})
    lines = [f"{step},1,{step},0.1,{3 / step},{4 / step},{step / 100},0.5,0.5" for step in (10, 20, 30, 40)]
    header = "step,epoch,seconds,lr,loss,val_loss,val_mean_iou,val_mean_dice,val_pixel_accuracy"
    (run / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")
    (run / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    return run
