"""`Recipe`: data, augmentation, model, loss, training and evaluation as one frozen value with three doors.

Python: `Recipe().replace(model="unet_same", train={"minutes": 10})`; YAML: `load_recipe("mine.yaml")`; command line:
`intarsia train cells/ model=unet_same train.minutes=10`. `intarsia show NAME` prints all of it with its help.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from intarsia.config import Config, NamedConfig, override, read_yaml
from intarsia.data.base import DATASETS, DataConfig
from intarsia.data.folder import FolderConfig
from intarsia.errors import ConfigError
from intarsia.importers.find import EXPORTS, is_export, refuse_unknown
from intarsia.losses import LOSSES, CrossEntropyDiceConfig, LossConfig
from intarsia.models.base import MODELS, ModelConfig
from intarsia.models.encdec import EncDecConfig
from intarsia.registry import Registry, did_you_mean
from intarsia.transforms.pipeline import AugmentConfig, resolve_augment


class TrainConfig(Config):
    """How long, how fast, where."""

    epochs: float | None = Field(None, gt=0)
    """Passes over the training images; null: 50, if neither steps nor minutes are given either."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; of epochs, steps and minutes, whichever is reached first ends the training."""
    minutes: float | None = Field(None, gt=0)
    """Time for the training loop, validation included. The schedule follows the clock, so such a run does not repeat to
    the bit."""
    batch: int = Field(8, ge=1)
    """Samples a step."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are summed before a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate at its peak."""
    encoder_lr: float = Field(1.0, gt=0)
    """Factor on the learning rate of the encoder, whose start weights are often published ones."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled weight decay of weights; biases and normalisation have none."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """Learning rate after the warm-up: lr (1 - t)^0.9, half a cosine, or constant; t is the share of the run done."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the run over which the learning rate rises from zero."""
    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0: not clipped."""
    auxiliary: float = Field(0.4, ge=0)
    """Weight of the mean loss of auxiliary logits, for a model with deep_supervision (0.4 as in PSPNet, arXiv:1612.01105)."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of an average of the weights that is validated and kept instead of them; 0: none."""
    validations: int = Field(15, ge=1)
    """Validations on full images, evenly spread over the run; each also saves a checkpoint. A run by minutes leaves some out
    that would take more than a quarter of its time."""
    save_minutes: float = Field(5.0, gt=0)
    """A checkpoint is also saved when the last one is older than this."""
    patience: int | None = Field(None, ge=1)
    """Stop early after so many validations without a better mean IoU; null: never."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of start weights, order, augmentation and dropout."""
    workers: int | None = Field(None, ge=0)
    """Threads that read and augment ahead; null: none beside a CPU that computes the network, else one a core, at most 8.
    The result does not depend on it."""
    augment_on: Literal["processor", "device"] = "processor"
    """Where samples are cut and altered: the processor, or the device of the network, to which images are moved whole."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where decoded images are kept: memory (up to a quarter of what is free), disk (files below the cache folder), off
    (nowhere); auto: memory if all fit, else disk. The result does not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the hardware computes it fast."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Layout of the feature maps; auto: whichever is faster in a short trial."""

    def budget_in_words(self) -> str:
        """ "50 epochs or 10 minutes" """
        given = {"epochs": self.epochs, "steps": self.steps, "minutes": self.minutes}
        return " or ".join(f"{value:g} {unit}" for unit, value in given.items() if value is not None)


class EvaluateConfig(Config):
    """What happens when training is done, and what a report shows."""

    after_training: bool = True
    """Score the best model on the test images (validation images, if there are no test images) and write the report."""
    metrics: tuple[Literal["boundary", "objects", "calibration", "em", "overlap", "all"], ...] = ()
    """What is scored beside overlap: boundary, objects, calibration, em, or all that apply to the data."""
    pictures: int = Field(6, ge=0, le=200)
    """Images that the report shows large, from worst to best."""


class Recipe(NamedConfig):
    """Every setting of an experiment."""

    data: Annotated[SerializeAsAny[DataConfig], BeforeValidator(DATASETS.resolve)] = FolderConfig(name="folder")
    """The data set; `intarsia list data` shows the kinds."""
    transforms: Annotated[AugmentConfig, BeforeValidator(resolve_augment)] = AugmentConfig(name="default")
    """Augmentation of training samples; `intarsia list transforms` shows the presets."""
    model: Annotated[SerializeAsAny[ModelConfig], BeforeValidator(MODELS.resolve)] = EncDecConfig(name="encdec")
    """The network; `intarsia list models` shows them."""
    loss: Annotated[SerializeAsAny[LossConfig], BeforeValidator(LOSSES.resolve)] = CrossEntropyDiceConfig(
        name="ce_dice"
    )
    """What is minimised; `intarsia list losses` shows them."""
    train: TrainConfig = TrainConfig()
    """How it is minimised."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How it is judged."""


RECIPES: Registry[Recipe] = Registry("recipe", "recipes")


def load_recipe(target: str | Path | Recipe, settings: Sequence[str] | dict[str, Any] = ()) -> Recipe:
    """The recipe of a data folder, a YAML file, a recipe's name, or a recipe, with settings replaced.

    Raises:
        ConfigError: the target is none of these, or a setting is wrong.
    """
    start = target if isinstance(target, Recipe) else _found(str(target), told=_names_data(settings))
    try:
        recipe = start.replace(settings) if isinstance(settings, dict) else override(start, list(settings))
    except ConfigError:
        _known(start)  # that a setting is wrong is told only of data that is known
        raise
    path = start.data.to_dict().get("path")
    if path and recipe.data.to_dict().get("path") == "":  # data=NAME took another kind of data, which lies there too
        recipe = recipe.replace(data={"path": path})
    _known(recipe)
    return recipe


def _known(recipe: Recipe) -> None:
    """Raise DataError over a folder that nobody can read."""
    if isinstance(recipe.data, FolderConfig) and recipe.data.path:
        folder = Path(recipe.data.path).expanduser()
        if folder.is_dir():
            refuse_unknown(folder)


def recipe_of_run(folder: Path) -> Recipe:
    """The recipe of a run, with the class table and the split that the run wrote down.

    Raises:
        ConfigError: the folder is no run.
    """
    if not (folder / "recipe.yaml").is_file():
        raise ConfigError(f"{folder}: is no run folder (no recipe.yaml in it).")
    recipe = load_recipe(folder / "recipe.yaml")
    return recipe.replace(data=recipe.data.of_run(folder))


def _names_data(settings: Sequence[str] | dict[str, Any]) -> bool:
    """Whether settings say which kind of data it is."""
    if isinstance(settings, dict):
        data = settings.get("data")
        return isinstance(data, str) or (isinstance(data, dict) and "name" in data)
    return any(word.startswith(("data=", "data.name=")) for word in settings)


def _found(target: str, *, told: bool) -> Recipe:
    path = Path(target).expanduser()
    if not told and (path.is_dir() or path.suffix.lower() in EXPORTS) and is_export(path):
        return RECIPES["default"].replace(data={"name": "annotations", "path": str(path)})
    if path.is_dir():
        return RECIPES["default"].replace(data={"path": str(path)})
    if path.suffix in (".yaml", ".yml", ".json"):
        if not path.is_file():
            raise ConfigError(f"{target}: does not exist.")
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ConfigError(f"{target}: is no recipe. `intarsia show default` prints one.")
        name = str(content.get("name"))
        start = RECIPES[name] if name in RECIPES else Recipe()
        return start.replace(content)
    if target in RECIPES:
        return RECIPES[target]
    hint = did_you_mean(target, RECIPES.names())
    raise ConfigError(
        f"{target}: is no folder, no YAML file and no recipe.{hint} `intarsia list recipes` shows the recipes."
    )
