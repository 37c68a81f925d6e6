"""Full images through a model: class maps and counts at the masks' own size. Training and evaluation use the same code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intarsia.data.base import Dataset, Item
from intarsia.metrics.confusion import confusion
from intarsia.models.base import class_map, resize_logits
from intarsia.prediction.networks.windows import WindowNetwork
from intarsia.transforms.prepare import resize_mask


@dataclass(frozen=True)
class Scored:
    """One image after the network."""

    item: Item
    prediction: NDArray[np.uint8]
    """(H, W) class numbers."""
    mask: NDArray[np.uint8]
    counts: NDArray[np.int64]
    """(K, K) confusion matrix of this image."""
    loss: float
    """At the network's resolution; NaN if no loss was asked for."""
    logits: Tensor
    """(1, K, H, W), of the image's own size, on the model's device; held by nobody once the next image comes."""

    @property
    def mask_tensor(self) -> Tensor:
        """(1, H, W)"""
        return torch.from_numpy(self.mask).unsqueeze(0)


@torch.inference_mode()
def score_images(
    network: WindowNetwork, dataset: Dataset, items: Iterable[Item], *, loss: object = None
) -> Iterator[Scored]:
    """Each image with its prediction and counts, in order; the models are put into evaluation and stay there.

    Args:
        loss: of (logits, mask), or None. It gets no weights of pixels: a loss with a border map is scored without it.
    """
    network.eval()
    num_classes = dataset.table.count
    for item in items:
        logits = torch.as_tensor(network.of_image(dataset.read_image(item)))
        mask = dataset.read_mask(item)
        value = float(loss(logits, _small(mask, logits))) if callable(loss) else float("nan")
        logits = resize_logits(logits, (item.height, item.width))
        prediction = class_map(logits)[0].cpu()
        counts = confusion(prediction, torch.from_numpy(mask), num_classes)
        yield Scored(item, prediction.numpy(), mask, counts.numpy(), value, logits)
        del logits


def _small(mask: NDArray[np.uint8], logits: Tensor) -> Tensor:
    return resize_mask(torch.from_numpy(mask), (logits.shape[-2], logits.shape[-1])).unsqueeze(0).to(logits.device)
