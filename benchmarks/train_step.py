"""One training step of our encoder-decoder against segmentation_models.pytorch's U-Net with the same encoder and widths.

Both: tf_efficientnet_lite0 from random weights, decoder 256-128-64-32-16, the same batch, cross-entropy + Dice, AdamW.
`smp` is the eager float32 step that its users write; `smp_bf16` the same with autocast and channels last set by hand;
`ours` is what `intarsia train` runs (bf16 and layout chosen by the machine); `ours_fp32` the same in float32.

    pip install -c constraints.txt '.[bench]' && python benchmarks/train_step.py
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable

import torch
from side_by_side import compare
from torch import nn

ENCODER, CLASSES = "tf_efficientnet_lite0", 11


def batch(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same images and blocky masks for every side."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(count, 3, height, width, generator=generator)
    coarse = torch.randint(0, CLASSES, (count, 1, height // 16, width // 16), generator=generator)
    mask = nn.functional.interpolate(coarse.float(), (height, width), mode="nearest")[:, 0].to(torch.uint8)
    return image, mask


def smp_side(count: int, height: int, width: int, *, bf16: bool) -> Callable[[], object]:
    """The peer's network and losses."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    model = smp.Unet(f"tu-{ENCODER}", encoder_weights=None, classes=CLASSES)
    image, mask = batch(count, height, width)
    if bf16:
        model, image = model.to(memory_format=torch.channels_last), image.contiguous(memory_format=torch.channels_last)
    dice = smp.losses.DiceLoss("multiclass")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    truth = mask.long()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
            logits = model(image)
        loss = nn.functional.cross_entropy(logits.float(), truth) + dice(logits.float(), truth)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def our_side(count: int, height: int, width: int, *, precision: str) -> Callable[[], object]:
    """What the training loop does in a step."""
    from intarsia.devices import choose_device
    from intarsia.losses import LOSSES
    from intarsia.models import create_model
    from intarsia.ops.depthwise import depthwise_in_float32
    from intarsia.recipes import TrainConfig
    from intarsia.training.optimizers import make_optimizer
    from intarsia.training.trial import faster_with_channels_last

    torch.manual_seed(0)
    device = choose_device("cpu", precision)
    model = create_model("encdec", num_classes=CLASSES, encoder=ENCODER, pretrained="none")
    if device.is_cpu_in_bf16:
        depthwise_in_float32(model)
    image, mask = batch(count, height, width)
    loss_of = LOSSES["ce_dice"]
    last = faster_with_channels_last(model, image, mask, loss_of, device)
    layout = torch.channels_last if last else torch.contiguous_format
    model = model.to(memory_format=layout).train()
    image = image.contiguous(memory_format=layout)
    optimizer = make_optimizer(model, TrainConfig(lr=1e-4))

    def step() -> None:
        with device.autocast():
            logits = model(image)
        loss_of(logits, mask).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    size = (given.batch, *given.size)
    sides = {
        "smp": functools.partial(smp_side, *size, bf16=False),
        "smp_bf16": functools.partial(smp_side, *size, bf16=True),
        "ours": functools.partial(our_side, *size, precision="auto"),
        "ours_fp32": functools.partial(our_side, *size, precision="fp32"),
    }
    about = {"encoder": ENCODER, "batch": given.batch, "size": list(given.size), "classes": CLASSES}
    compare("train_step", sides, rounds=given.rounds, images=given.batch, about=about)


if __name__ == "__main__":
    main()
