"""From a recipe to a run folder with a trained model."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from intarsia.classes import IGNORE
from intarsia.config import to_yaml
from intarsia.data.base import Dataset
from intarsia.devices import Device, choose_device, cores
from intarsia.errors import ConfigError, Interrupted, SaveError
from intarsia.images.overlay import overlay
from intarsia.models.base import SegmentationModel, build_model
from intarsia.ops.depthwise import depthwise_in_float32
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import Recipe, load_recipe
from intarsia.runs import environment, new_run_folder, write_json, write_model, write_text
from intarsia.training.feed import Feeder
from intarsia.training.history import draw_curves, read_history
from intarsia.training.loop import Training, fit
from intarsia.training.state import Counters, weights_of
from intarsia.training.trial import faster_with_channels_last
from intarsia.transforms.preprocess import Preprocess

DEFAULT_EPOCHS = 50.0
LARGEST_SAMPLE = 512
MAY_CHANGE = ("epochs", "steps", "minutes", "validations", "patience", "workers", "save_minutes")


def train_model(
    target: str | Path | Recipe,
    settings: list[str] | dict[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train, and return the run folder.

    Args:
        target: a data folder, a YAML file, a recipe's name, or a recipe.
        settings: to replace, as `["train.lr=1e-3"]` or nested.
        out: the run folder; None: runs/NAME-N, never an existing one.
        resume: go on with the run in `out`, with its own recipe.
        progress: where notes and bars go.

    Raises:
        ConfigError, DataError, SaveError, Diverged, Interrupted: see `intarsia.errors`.
    """
    progress = progress or default_progress()
    folder = Path(out) if out is not None else None
    going_on = resume and folder is not None and (folder / "recipe.yaml").is_file()
    if resume and folder is None:
        raise ConfigError("--resume: needs --out RUN, the run to go on with.")
    if going_on and folder is not None:
        recipe = _resumable(folder, settings or [])
    else:
        recipe = load_recipe(target, settings or [])
    dataset = recipe.data.open(progress)
    device = choose_device(recipe.train.device, recipe.train.precision)
    recipe, model, preprocess = _resolve(recipe, dataset)
    if device.kind == "cpu" and device.precision == "bf16":
        depthwise_in_float32(model)
    if not going_on:
        folder = _run_folder(folder, dataset.label)
    assert folder is not None
    feeder = Feeder(
        dataset=dataset,
        items=dataset.items("train"),
        size=_sample_size(recipe),
        augment=recipe.transforms,
        preprocess=preprocess,
        batch=recipe.train.batch,
        seed=recipe.train.seed,
        workers=_workers(recipe.train.workers, device),
    )
    recipe = _choose_layout(recipe, model, feeder, device)
    if not going_on:
        _write_start(folder, recipe, dataset, device)
        _draw_augmented(feeder, folder / "augmented.png")
    _announce(progress, recipe, dataset, model, device, folder)

    def save_model(net: nn.Module, name: str, counters: Counters) -> None:
        manifest = {
            "model": recipe.model.to_dict(),
            "classes": dataset.table.to_dict(),
            "preprocess": preprocess.to_dict(),
            "start": model.start,
            "trained": {"data": dataset.label, "step": counters.step, "val_mean_iou": max(counters.best, 0.0)},
        }
        assert folder is not None
        write_model(folder / name, {key: value.numpy() for key, value in weights_of(net).items()}, manifest)

    training = Training(
        run=folder,
        model=model,
        feeder=feeder,
        dataset=dataset,
        val_items=dataset.items("val"),
        preprocess=preprocess,
        loss=recipe.loss,
        config=recipe.train,
        device=device,
        channels_last=recipe.train.memory_format == "channels_last",
        save_model=save_model,
        progress=progress,
    )
    try:
        counters = fit(training, resume=going_on)
    except Interrupted:
        best = training.counters
        raise Interrupted(
            f"stopped after this step; saved {folder} at step {best.step} (val mIoU {max(best.best, 0):.3f})\n"
            f"go on with:  intarsia train {recipe_target(target)} --out {folder} --resume"
        ) from None
    draw_curves(read_history(folder / "metrics.csv"), folder / "curves.png", counters.best_step)
    return folder


def recipe_target(target: str | Path | Recipe) -> str:
    """How the target is written on the command line."""
    return (target.name or "default") if isinstance(target, Recipe) else str(target)


def _resumable(folder: Path, settings: list[str] | dict[str, Any]) -> Recipe:
    """The run's own recipe; only how long it runs may be changed."""
    stored = load_recipe(folder / "recipe.yaml")
    changed = stored.replace(settings) if isinstance(settings, dict) else load_recipe(stored, settings)
    fixed = stored.replace(train={key: getattr(changed.train, key) for key in MAY_CHANGE})
    if changed != fixed:
        raise ConfigError(f"--resume: only train.{{{','.join(MAY_CHANGE)}}} may change; start a new run for other settings.")
    return changed


def _resolve(recipe: Recipe, dataset: Dataset) -> tuple[Recipe, SegmentationModel, Preprocess]:
    """The recipe with everything the data decides filled in, its model with start weights, and the preparation."""
    for given, there, name in (
        (recipe.model.num_classes, dataset.table.count, "num_classes"),
        (recipe.model.in_channels, dataset.channels, "in_channels"),
    ):
        if given is not None and given < there:
            raise ConfigError(f"model.{name}: is {given}, but {dataset.label} has {there}. Leave it out, or set {there}.")
    config = recipe.model.replace(
        num_classes=recipe.model.num_classes or dataset.table.count,
        in_channels=recipe.model.in_channels or dataset.channels,
    )
    train = recipe.train
    if train.epochs is None and train.steps is None and train.minutes is None:
        train = train.replace(epochs=DEFAULT_EPOCHS)
    with torch.random.fork_rng():
        torch.manual_seed(train.seed)
        model = build_model(config)
    channels = config.channels
    own = model.mean is not None and model.std is not None
    repeated = channels // dataset.channels if channels % dataset.channels == 0 else 1
    preprocess = Preprocess(
        channels=channels,
        value_range=dataset.value_range,
        mean=model.mean if own else dataset.mean * repeated,
        std=model.std if own else dataset.std * repeated,
        scale=recipe.data.scale,
    )
    size = recipe.data.size or model.sample_size(*_median_size(dataset, preprocess))
    return recipe.replace(model=config, train=train, data={"size": size}), model, preprocess


def _median_size(dataset: Dataset, preprocess: Preprocess) -> tuple[int, int]:
    sizes = [preprocess.scaled_size(item.height, item.width) for item in dataset.items("train")]
    height, width = (int(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    return min(height, LARGEST_SAMPLE), min(width, LARGEST_SAMPLE)


def _sample_size(recipe: Recipe) -> tuple[int, int]:
    assert recipe.data.size is not None
    return recipe.data.size


def _workers(given: int | None, device: Device) -> int:
    return given if given is not None else 0 if device.kind == "cpu" else min(8, cores())


def _choose_layout(recipe: Recipe, model: SegmentationModel, feeder: Feeder, device: Device) -> Recipe:
    if recipe.train.memory_format != "auto":
        return recipe
    samples = [feeder.sample(position) for position in range(recipe.train.batch)]
    image, mask = (torch.stack([sample[part] for sample in samples]) for part in (0, 1))
    channels_last = faster_with_channels_last(model, image, mask, recipe.loss, device)
    return recipe.replace(train={"memory_format": "channels_last" if channels_last else "contiguous"})


def _run_folder(folder: Path | None, name: str) -> Path:
    if folder is None:
        return new_run_folder(Path("runs"), name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: exists and is not empty. --resume goes on with it; or choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"--out {folder}: cannot be made ({error.strerror}).") from None
    return folder


def _write_start(folder: Path, recipe: Recipe, dataset: Dataset, device: Device) -> None:
    """What is known before the first step; recipe.yaml last, as its presence makes the folder a run."""
    write_text(folder / "classes.yaml", dataset.table.to_text())
    splits = {split: [item.name for item in items] for split, items in dataset.splits.items()}
    write_json(folder / "splits.json", {"source": dataset.split_source, **splits})
    threads = {"threads": torch.get_num_threads(), "device": device.describe(), "precision": device.precision}
    write_json(folder / "environment.json", {**environment(), **threads})
    path = os.path.abspath(dataset.root)
    write_text(folder / "recipe.yaml", to_yaml(recipe.replace(data={"path": path}) if "path" in recipe.data.to_dict() else recipe))


def _draw_augmented(feeder: Feeder, path: Path, count: int = 8) -> None:
    """What the network sees after augmentation: image above, classes over it below."""
    tiles = []
    mean, std = (np.asarray(values).reshape(-1, 1, 1) for values in (feeder.preprocess.mean, feeder.preprocess.std))
    for position in range(min(count, max(4, len(feeder.items)))):
        image, mask = feeder.sample(position)
        unit = np.clip(image.numpy() * std + mean, 0, 1)
        rgb = (np.repeat(unit[:1], 3, 0) if unit.shape[0] != 3 else unit).transpose(1, 2, 0)
        picture = (rgb * 255).round().astype(np.uint8)
        classes = mask.numpy()
        shaded = overlay(picture, classes, feeder.dataset.table)
        shaded[classes == IGNORE] = shaded[classes == IGNORE] // 3
        tiles.append(np.concatenate([picture, shaded]))
    columns = min(4, len(tiles))
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles) // columns * columns, columns)]
    Image.fromarray(np.concatenate(rows)).save(path)


def _announce(
    progress: Progress, recipe: Recipe, dataset: Dataset, model: SegmentationModel, device: Device, folder: Path
) -> None:
    """What is about to happen, one fact a line."""
    sizes = {(item.height, item.width) for items in dataset.splits.values() for item in items}
    size = "{} x {}".format(*next(iter(sizes))) if len(sizes) == 1 else f"{len(sizes)} sizes"
    counts = " · ".join(f"{len(items)} {split}" for split, items in dataset.splits.items() if items)
    names = dataset.table.names
    shown = " · ".join(names[:8]) + (f" · ... ({len(names)})" if len(names) > 8 else "")
    progress.note(f"data     {dataset.label}   {counts}   {size} {'grey' if dataset.channels == 1 else 'colour'}")
    progress.note(f"classes  {shown}   ({dataset.table_source})")
    for note in dataset.notes:
        progress.note(f"note     {note}")
    weights = model.count_parameters()
    millions = f"{weights / 1e6:.1f} M" if weights >= 1e5 else f"{weights / 1e3:.0f} k"
    progress.note(f"model    {recipe.model.name}, {millions} parameters   loss {recipe.loss.name}")
    progress.note(f"start    {model.start}")
    budget = [
        f"{value:g} {unit}"
        for unit, value in (("epochs", recipe.train.epochs), ("steps", recipe.train.steps), ("minutes", recipe.train.minutes))
        if value is not None and math.isfinite(value)
    ]
    height, width = _sample_size(recipe)
    progress.note(
        f"plan     {' or '.join(budget)}, batches of {recipe.train.batch} of {height} x {width}"
        f"   {device.describe()}, {recipe.train.memory_format}"
    )
    progress.note(f"run      {folder}")
