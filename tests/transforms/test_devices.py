"""Samples on any device: everything stays where the image is, and the processor's samples are the device's up to rounding."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from intarsia.transforms.mix import cutmix, mosaic
from intarsia.transforms.pipeline import AUGMENTS, AugmentConfig, augment
from intarsia.transforms.preprocess import Preprocess

EVERYTHING = AugmentConfig(
    rotation=30, shear=10, perspective=0.2, elastic=4, turn=True, mirror="both", hue=0.1, blur=2, low_resolution=0.5,
    noise=0.1, degraded=1,
)  # fmt: skip
CONFIGS = [
    EVERYTHING,
    EVERYTHING.replace(rotation=0, shear=0, perspective=0, elastic=0),
    *map(AUGMENTS.__getitem__, AUGMENTS.names()),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name or "everything")
def test_nothing_is_made_on_another_device(config):
    """On tensors that have a device but no content; whoever mixes devices raises."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(3, 70, 90, dtype=torch.uint8, device="cuda")
        mask = torch.empty(70, 90, dtype=torch.uint8, device="cuda")
        weights = torch.empty(70, 90, device="cuda")
        rng = np.random.default_rng(0)
        samples = [augment(image, mask, (64, 80), config, Preprocess(), rng, weights) for _ in range(4)]
        for sample in (*samples, cutmix(*samples[:2], rng), mosaic(samples, rng)):
            assert {part.device.type for part in sample} == {"cuda"}
            assert Preprocess().normalise(sample.image).device.type == "cuda"


def test_the_fake_device_tells_on_mixing():
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match="same device"):
        torch.empty(3, device="cuda") + torch.empty(3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name or "everything")
def test_cuda_gives_the_samples_of_the_processor(config):
    drawn = np.random.default_rng(0)
    image = torch.from_numpy(drawn.integers(0, 256, (3, 70, 90), dtype=np.uint8))
    mask = torch.from_numpy(drawn.integers(0, 5, (70, 90), dtype=np.uint8))
    for seed in range(8):
        ours = augment(image, mask, (64, 80), config, Preprocess(), np.random.default_rng(seed))
        there = augment(image.cuda(), mask.cuda(), (64, 80), config, Preprocess(), np.random.default_rng(seed))
        assert (there.image.cpu() - ours.image).abs().mean() < 2e-3
        assert (there.mask.cpu() != ours.mask).float().mean() < 1e-2
