"""Drawn images with logits that are wrong at borders and in specks, for the tests of CRFs."""

import torch
from torch.nn import functional as F

from intarsia.ops.crf import CrfConfig


def scene(height=24, width=31, num_classes=3, channels=3, *, seed=0, images=None):
    """Logits (K, H, W) and an image (C, H, W) of coloured blobs; with `images`, a batch of as many."""
    if images is not None:
        drawn = [scene(height, width, num_classes, channels, seed=seed + index) for index in range(images)]
        return torch.stack([logits for logits, _ in drawn]), torch.stack([image for _, image in drawn])
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, num_classes, 4, 4, generator=generator)
    mask = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0].argmax(0)
    colours = 255 * torch.rand(num_classes, channels, generator=generator)
    image = colours[mask].permute(2, 0, 1) + 6 * torch.randn(channels, height, width, generator=generator)
    logits = 1.5 * F.one_hot(mask, num_classes).permute(2, 0, 1) + torch.randn(
        num_classes, height, width, generator=generator
    )
    return logits, image.clamp(0, 255)


def small(**changes):
    """Settings whose kernels fit into small images."""
    settings = {"bilateral_weight": 4, "position_std": 7, "colour_std": 25, "smoothness_std": 1.5, "iterations": 5}
    return CrfConfig(**{**settings, **changes})
