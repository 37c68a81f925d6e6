"""From a recipe to a run folder with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from intarsia.errors import ConfigError, Interrupted
from intarsia.models.base import SegmentationModel
from intarsia.models.saved import save_model
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import Recipe, load_recipe, recipe_of_run
from intarsia.training.history import draw_curves, read_history
from intarsia.training.loop import fit
from intarsia.training.session import Training
from intarsia.training.setup import Setup, set_up
from intarsia.training.start import announce, began, check_free, make_run_folder, write_start
from intarsia.training.state import Counters

MAY_CHANGE = ("epochs", "steps", "minutes", "validations", "patience", "workers", "cache", "save_minutes")
"""Settings of train that a resumed run may change."""


def train_model(
    target: str | Path | Recipe,
    settings: Sequence[str] | dict[str, Any] = (),
    *,
    changes: dict[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train, and return the run folder.

    Args:
        target: a data folder, a YAML file, a recipe's name, or a recipe.
        settings: to replace, as `["train.lr=1e-3"]` or nested.
        changes: more of them, nested; they hold over `settings`.
        out: the run folder; None: runs/NAME-N, never an existing one.
        resume: go on with the run in `out`, with its own recipe; start it if it is not there.
        progress: where notes and bars go.

    Raises:
        ConfigError, DataError, SaveError, Diverged, Interrupted: see `intarsia.errors`.
    """
    progress = progress or default_progress()
    given = Path(out) if out is not None else None
    if resume and given is None:
        raise ConfigError("--resume: needs --out RUN, the run to go on with.")
    going_on = resume and given is not None and (given / "recipe.yaml").is_file()
    if going_on and given:
        stored = recipe_of_run(given)
        recipe = _checked_resume(stored, load_recipe(stored, settings).replace(changes))
    else:
        recipe = load_recipe(target, settings).replace(changes)
    if given is not None and not going_on:
        check_free(given)
    setup = set_up(recipe, progress, began(given) if going_on and given else None)
    folder = given if going_on and given else make_run_folder(given, setup.dataset.label)
    if not going_on:
        write_start(folder, setup)
    announce(progress, setup, folder)
    training = _training(folder, setup, progress)
    try:
        counters = fit(training, resume=going_on)
    except Interrupted:
        at = training.counters
        name = target.name if isinstance(target, Recipe) else target
        raise Interrupted(
            f"stopped after this step; saved {folder} at step {at.step} (best val mIoU {max(at.best, 0):.3f})\n"
            f"go on with:  intarsia train {name} --out {folder} --resume"
        ) from None
    draw_curves(read_history(folder / "metrics.csv"), folder / "curves.png", counters.best_step)
    return folder


def _training(folder: Path, setup: Setup, progress: Progress) -> Training:
    return Training(
        run=folder,
        model=setup.model,
        feeder=setup.feeder,
        dataset=setup.dataset,
        val_items=setup.dataset.items("val"),
        preprocess=setup.preprocess,
        loss=setup.recipe.loss,
        config=setup.recipe.train,
        device=setup.device,
        channels_last=setup.recipe.train.memory_format == "channels_last",
        save_model=_model_writer(folder, setup, progress),
        progress=progress,
    )


def _model_writer(folder: Path, setup: Setup, progress: Progress) -> Callable[[nn.Module, str, Counters], None]:
    """Writes `folder/NAME`, a model folder that predicts without the run."""

    def write(net: nn.Module, name: str, counters: Counters) -> None:
        about = {
            "start": setup.model.start,
            "trained": {
                "data": setup.dataset.label,
                "step": counters.step,
                "best_step": counters.best_step,
                "val_mean_iou": max(counters.best, 0.0),
            },
        }
        lacking = save_model(
            folder / name,
            cast(SegmentationModel, net),
            setup.dataset.table,
            setup.preprocess,
            size=setup.feeder.size,
            about=about,
        )
        if lacking:
            progress.note(f"note     {folder / name}: {lacking}")

    return write


def _checked_resume(stored: Recipe, changed: Recipe) -> Recipe:
    """The changed recipe, if only how long it runs was changed."""
    allowed = {key: getattr(changed.train, key) for key in MAY_CHANGE}
    if changed != stored.replace(train=allowed):
        listed = ", ".join(MAY_CHANGE)
        raise ConfigError(
            f"--resume: of a run's settings only train.{{{listed}}} may change; start a new run for others."
        )
    return changed
