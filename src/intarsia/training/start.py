"""What a run writes and says before its first step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from intarsia import __version__
from intarsia.config import to_yaml
from intarsia.errors import ConfigError, SaveError
from intarsia.images.overlay import overlay_of_sample, unit_to_rgb8
from intarsia.images.ranges import kind_in_words
from intarsia.progress import Progress
from intarsia.recipes.recipe import Recipe
from intarsia.runs import environment, new_run_folder, write_json, write_text
from intarsia.training.feed import Feeder
from intarsia.training.setup import Setup
from intarsia.training.state import newest_checkpoint

START = "start.json"
"""What the first step started from: the source of the weights, in words, and the normalisation."""


def began(folder: Path) -> dict[str, Any] | None:
    """What a run started from, if it can be gone on with from a checkpoint."""
    if newest_checkpoint(folder / "checkpoints")[0] is None:
        return None
    try:
        found: dict[str, Any] = json.loads((folder / START).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a run of an earlier version
        return None
    return found


def check_free(out: Path) -> None:
    """Raise ConfigError if something lies where a new run is to be."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: exists and is not empty. --resume goes on with it; or choose another folder.")


def make_run_folder(out: Path | None, name: str) -> Path:
    """`out` if it is new or empty, else runs/NAME-N."""
    if out is None:
        return new_run_folder(Path("runs"), name)
    check_free(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"--out {out}: cannot be made ({error.strerror}).") from None
    return out


def write_start(folder: Path, setup: Setup) -> None:
    """Classes, splits, machine, a picture of the samples; recipe.yaml last, as its presence makes the folder a run."""
    dataset, device = setup.dataset, setup.device
    write_text(folder / "classes.yaml", dataset.table.to_text())
    splits = {split: [item.name for item in items] for split, items in dataset.splits.items()}
    if splits["val"] == splits["train"]:  # a single image: it is listed once, and validated on as before
        splits["val"] = []
    write_json(folder / "splits.json", {"source": dataset.split_source, **splits})
    threads = {"threads": torch.get_num_threads(), "device": device.describe(), "precision": device.precision}
    write_json(folder / "environment.json", {**environment(), **threads})
    write_json(folder / START, {"weights": setup.model.start, "preprocess": setup.preprocess.to_dict()})
    draw_augmented(setup.feeder, folder / "augmented.png")
    write_text(folder / "recipe.yaml", to_yaml(_with_whole_path(setup.recipe)))


def _with_whole_path(recipe: Recipe) -> Recipe:
    """The recipe with the data folder's whole path, so that it can be read from anywhere."""
    path = recipe.data.to_dict().get("path")
    return recipe.replace(data={"path": os.path.abspath(os.path.expanduser(path))}) if path else recipe


def draw_augmented(feeder: Feeder, path: Path, count: int = 8) -> None:
    """What the network sees after augmentation: samples above, their classes over them below; what is ignored is dark."""
    mean, std = (np.asarray(values).reshape(-1, 1, 1) for values in (feeder.preprocess.mean, feeder.preprocess.std))
    tiles = []
    for position in range(count):
        image, mask, _ = feeder.sample(position)
        picture = unit_to_rgb8(image.numpy() * std + mean)
        classes = mask.numpy()
        tiles.append(np.concatenate([picture, overlay_of_sample(picture, classes, feeder.dataset.table)]))
    half = count // 2
    rows = [np.concatenate(tiles[start : start + half], axis=1) for start in (0, half)]
    Image.fromarray(np.concatenate(rows)).save(path)


def announce(progress: Progress, setup: Setup, folder: Path) -> None:
    """What is about to happen, one fact a line."""
    recipe, dataset, model = setup.recipe, setup.dataset, setup.model
    sizes = {(item.height, item.width) for items in dataset.splits.values() for item in items}
    size = "{} x {}".format(*next(iter(sizes))) if len(sizes) == 1 else f"{len(sizes)} sizes"
    counts = " · ".join(f"{len(items)} {split}" for split, items in dataset.splits.items() if items)
    names = dataset.table.names
    shown = " · ".join(names[:8]) + (f" · ... ({len(names)})" if len(names) > 8 else "")
    progress.note(f"intarsia {__version__} · torch {torch.__version__.partition('+')[0]} · {setup.device.describe()}")
    progress.note(f"data     {dataset.label}   {counts}   {size} {kind_in_words(dataset.channels)}")
    progress.note(f"classes  {shown}   ({dataset.table_source})")
    for note in dataset.notes:
        progress.note(f"note     {note}")
    progress.note(f"model    {recipe.model.name}, {model.size_in_words()}, {model.start}   loss {recipe.loss.name}")
    height, width = setup.feeder.size
    progress.note(f"plan     {recipe.train.budget_in_words()}, batches of {recipe.train.batch} of {height} x {width}")
    progress.note(f"run      {folder}")
