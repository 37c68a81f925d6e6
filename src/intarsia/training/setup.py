"""From a recipe and its data to everything a loop needs: what the data decides is filled in, what the machine decides tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from intarsia.data.base import Dataset
from intarsia.devices import Device, choose_device, cores
from intarsia.errors import ConfigError
from intarsia.images.preprocess import Preprocess, median_size
from intarsia.losses.base import LossConfig, Occurrence
from intarsia.models.base import ModelConfig, SegmentationModel, build_model
from intarsia.ops.depthwise import depthwise_in_float32
from intarsia.progress import Progress
from intarsia.recipes.recipe import Recipe, TrainConfig
from intarsia.training.feed import Feeder
from intarsia.training.trial import faster_with_channels_last

DEFAULT_EPOCHS = 50.0


@dataclass(frozen=True)
class Setup:
    """A resolved recipe and what was made from it."""

    recipe: Recipe
    dataset: Dataset
    device: Device
    model: SegmentationModel
    preprocess: Preprocess
    feeder: Feeder


def set_up(recipe: Recipe, progress: Progress, began: Mapping[str, Any] | None = None) -> Setup:
    """Open the data, build the model, choose sample size and layout.

    Args:
        began: what `write_start` noted of a run that has a checkpoint: its normalisation holds, and weights to start from are
            not looked for again, since they may have gone, or have come, in the meantime.

    Raises:
        DataError: the data cannot be used.
        ConfigError: the settings do not fit the data or the machine.
    """
    dataset = recipe.data.open(progress)
    device = choose_device(recipe.train.device, recipe.train.precision)
    recipe = recipe.replace(
        model=_fitted(recipe.model, dataset), loss=_resolved(recipe.loss, dataset), train=_bounded(recipe.train)
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.train.seed)
        model = build_model(recipe.model.without_start_weights() if began else recipe.model)
    if device.is_cpu_in_bf16:
        depthwise_in_float32(model)
    preprocess = Preprocess(**began["preprocess"]) if began else _preprocess(recipe, dataset, model)
    model.start = began["weights"] if began else model.start
    size = recipe.data.size or model.sample_size(
        *median_size([(item.height, item.width) for item in dataset.items("train")], preprocess.scale)
    )
    feeder = Feeder(
        dataset=dataset,
        items=dataset.items("train"),
        size=size,
        augment=recipe.transforms,
        preprocess=preprocess,
        batch=recipe.train.batch,
        seed=recipe.train.seed,
        workers=_workers(recipe.train.workers, device),
        border=recipe.loss.border,
        device=device.torch_name if recipe.train.augment_on == "device" else "cpu",
        cache=recipe.train.cache,
        progress=progress,
    )
    layout = recipe.train.memory_format
    if layout == "auto":
        layout = "channels_last" if _gains_from_channels_last(recipe, model, feeder, device) else "contiguous"
    recipe = recipe.replace(data={"size": size}, train={"memory_format": layout})
    return Setup(recipe, dataset, device, model, preprocess, feeder)


def _fitted(config: ModelConfig, dataset: Dataset) -> ModelConfig:
    """The model's config with the data set's classes and channels."""
    for given, there, name in (
        (config.num_classes, dataset.table.count, "num_classes"),
        (config.in_channels, dataset.channels, "in_channels"),
    ):
        if given is not None and (given != there if name == "num_classes" else given < there):
            raise ConfigError(
                f"model.{name}: is {given}, but {dataset.label} has {there}. Leave it out, or set {there}."
            )
    return config.replace(
        num_classes=config.num_classes or dataset.table.count, in_channels=config.in_channels or dataset.channels
    )


def _resolved(loss: LossConfig, dataset: Dataset) -> LossConfig:
    """The loss with the training masks' numbers where it names a way to weigh classes."""
    return loss.resolved(Occurrence(dataset.class_pixels["train"].tolist(), dataset.holding_pixels["train"].tolist()))


def _bounded(train: TrainConfig) -> TrainConfig:
    if train.epochs is None and train.steps is None and train.minutes is None:
        return train.replace(epochs=DEFAULT_EPOCHS)
    return train


def _preprocess(recipe: Recipe, dataset: Dataset, model: SegmentationModel) -> Preprocess:
    """Statistics of the start weights if there are any, else those of the training images."""
    channels = recipe.model.channels
    mean, std = model.mean, model.std
    if mean is None or std is None:
        repeated = channels // dataset.channels if channels % dataset.channels == 0 else 1
        mean, std = dataset.mean * repeated, dataset.std * repeated
    return Preprocess(
        channels=channels,
        bands=dataset.bands,
        value_range=dataset.value_range,
        mean=mean,
        std=std,
        scale=recipe.data.scale,
    )


def _workers(given: int | None, device: Device) -> int:
    return given if given is not None else 0 if device.kind == "cpu" else min(8, cores())


def _gains_from_channels_last(recipe: Recipe, model: SegmentationModel, feeder: Feeder, device: Device) -> bool:
    batch = feeder.at(0)
    return faster_with_channels_last(model, batch.image, batch.mask, recipe.loss, device, weights_NHW=batch.weights)
