"""Everything that a training loop needs, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from intarsia.data.base import Dataset, Item
from intarsia.devices import Device
from intarsia.images.preprocess import Preprocess
from intarsia.losses.base import LossConfig
from intarsia.models.base import SegmentationModel
from intarsia.progress import Progress
from intarsia.recipes.recipe import TrainConfig
from intarsia.training.feed import Feeder
from intarsia.training.state import Counters


@dataclass
class Training:
    """Everything that a loop needs; `counters` says where it stands."""

    run: Path
    model: SegmentationModel
    feeder: Feeder
    dataset: Dataset
    val_items: tuple[Item, ...]
    preprocess: Preprocess
    loss: LossConfig
    config: TrainConfig
    device: Device
    channels_last: bool
    save_model: Callable[[nn.Module, str, Counters], None]
    """Writes a model folder of the run: (network, "model" or "model-last", counters)."""
    progress: Progress
    counters: Counters = field(default_factory=Counters)

    @property
    def total_steps(self) -> float:
        """Steps that the budget allows; infinite if only the clock ends the run."""
        epoch = len(self.feeder.items) / (self.feeder.batch * self.config.accumulate)
        by_epochs = math.ceil(self.config.epochs * epoch) if self.config.epochs else math.inf
        return max(1, min(by_epochs, self.config.steps or math.inf))

    @property
    def share(self) -> float:
        """Share of the run that is done, 0..1, by steps or by the clock, whichever is further."""
        by_clock = self.counters.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.counters.step / self.total_steps, by_clock))
