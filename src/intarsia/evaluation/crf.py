"""Settings of the dense CRF found on a run's validation images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from intarsia.data.base import Dataset
from intarsia.errors import ConfigError
from intarsia.evaluation.evaluate import opened_for
from intarsia.images.overlay import to_rgb8
from intarsia.models.base import resize_logits
from intarsia.ops.crf import CrfConfig, CrfGrid, search_crf
from intarsia.ops.crf.search import V2, Tried
from intarsia.prediction.predictor import Predictor
from intarsia.progress import Progress, default_progress

IMAGES = 100
"""That are searched on, evenly from the first to the last: as many as DeepLab took (arXiv:1412.7062, section 5.1)."""


@dataclass(frozen=True)
class FoundCrf:
    """The best settings, and all that were tried, those without a CRF first."""

    config: CrfConfig
    tried: tuple[Tried, ...]
    images: int

    def text(self) -> str:
        """What a person needs: scores with and without, and the words that ask for these settings."""
        alone, best = self.tried[0].mean_iou, max(each.mean_iou for each in self.tried[1:])
        config = self.config
        words = (
            f"crf={config.name} crf.bilateral_weight={config.bilateral_weight:g} "
            f"crf.position_std={config.position_std:g} crf.colour_std={config.colour_std:g}"
        )
        helps = "" if best > alone else "   no better than the network alone"
        return (
            f"crf      {len(self.tried) - 1} settings tried on {self.images} validation images: "
            f"mean IoU {alone:.4f} without, {best:.4f} with the best{helps}\n         {words}"
        )


def search_on_validation(
    run: Any,
    *,
    data: str | None = None,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    grid: CrfGrid = V2,
    images: int = IMAGES,
    progress: Progress | None = None,
) -> FoundCrf:
    """The CRF's settings with the best mean IoU on a run's validation images.

    Args:
        run: a run folder, or what `train` returned.
        data: another data folder; None: the one that the run was trained on.
        settings: of prediction, but for the CRF.
        grid: where to look.
        images: at most so many of them.

    Raises:
        ConfigError: there are no validation images.
    """
    progress = progress or default_progress()
    _, predictor, dataset = opened_for(Path(getattr(run, "path", run)), data, device, settings, progress)
    items = dataset.items("val")
    if not items:
        raise ConfigError("crf=search: there are no validation images; give the settings, such as crf=deeplab.")
    chosen = [int(place) for place in np.linspace(0, len(items) - 1, min(images, len(items)))]
    config, tried = search_crf(lambda: _pairs(predictor, dataset, chosen), "deeplab", grid=grid, progress=progress)
    return FoundCrf(config, tuple(tried), len(chosen))


def _pairs(predictor: Predictor, dataset: Dataset, chosen: list[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Logits, image and mask of each."""
    items = dataset.items("val")
    predictor.network.eval()
    for place in chosen:
        item = items[place]
        image, mask = dataset.read_image(item), dataset.read_mask(item)
        logits = resize_logits(torch.as_tensor(predictor.network.of_image(image)), (item.height, item.width))[0]
        guide = torch.from_numpy(to_rgb8(image, predictor.preprocess.value_range)).permute(2, 0, 1)
        yield logits, guide, torch.from_numpy(mask)
