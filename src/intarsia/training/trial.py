"""Short trials that choose what cannot be known beforehand."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor

from intarsia.devices import Device
from intarsia.losses.base import LossConfig
from intarsia.models.base import SegmentationModel, fit_mask


def faster_with_channels_last(
    model: SegmentationModel,
    image_NCHW: Tensor,
    mask_NHW: Tensor,
    loss: LossConfig,
    device: Device,
    rounds: int = 3,
    *,
    weights_NHW: Tensor | None = None,
) -> bool:
    """Whether a training step is faster when feature maps are stored channels last; the model is not changed.

    Most convolutional networks gain; networks with instance normalisation lose.
    """
    seconds = {}
    with torch.random.fork_rng():
        for layout in (torch.contiguous_format, torch.channels_last):
            net = copy.deepcopy(model).to(device.torch_name).to(memory_format=layout).train()
            image = image_NCHW.to(device.torch_name).contiguous(memory_format=layout)
            mask = mask_NHW.to(device.torch_name)
            weights = None if weights_NHW is None else weights_NHW.to(device.torch_name)
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                with device.autocast():
                    logits = net(image)
                fitted = None if weights is None else fit_mask(weights, logits)
                loss(logits, fit_mask(mask, logits), fitted).backward()  # type: ignore[no-untyped-call]
                if device.kind == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            seconds[layout] = min(times)
    return seconds[torch.channels_last] < seconds[torch.contiguous_format]
