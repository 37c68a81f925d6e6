"""Samples on any device: everything stays where the image is, and the processor's samples are the device's up to rounding."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from intarsia.images.preprocess import Preprocess
from intarsia.transforms.geometry import Window
from intarsia.transforms.mix import cutmix, mosaic
from intarsia.transforms.pipeline import AUGMENTS, AugmentConfig, augment
from intarsia.transforms.prepare import normalise
from intarsia.transforms.warp import Bend, _plain
from intarsia.transforms.warp_batch import warp_batch

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
            assert normalise(Preprocess(), sample.image).device.type == "cuda"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("nodes", [False, True])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_batch_is_its_samples_one_by_one(kind, nodes, weighted):
    """Of images of several sizes, one of a single row; enlarged, shrunk, turned, hanging over."""
    drawn, size, given = np.random.default_rng(0), (33, 41), []
    windows = [
        Window(3, 4, 33, 41), Window(-9, -7, 60, 90, mirror_columns=True), Window(0, 0, 150, 160, mirror_rows=True),
        Window(5, 2, 20, 25, quarter_turns=1), Window(-5, -5, 12, 30),
    ]  # fmt: skip
    for window, (height, width) in zip(windows, ((50, 60), (40, 70), (200, 190), (36, 36), (1, 30)), strict=True):
        image = torch.from_numpy(drawn.integers(0, 256, (3, height, width), dtype=np.uint8)).to(kind)
        mask = torch.from_numpy(drawn.integers(0, 5, (height, width), dtype=np.uint8))
        weights = torch.from_numpy(drawn.random((height, width), dtype=np.float32)) if weighted else None
        bend = Bend(13, 5, (0.1, -0.05), drawn.normal(0, 2, (2, 3, 3)) if nodes else None)
        given.append((image, mask, weights, window, bend))
    for (image, mask, weights, window, bend), batched in zip(given, warp_batch(given, size), strict=True):
        alone = _plain(image, mask, window, bend, size, weights)
        assert (alone[1] != batched[1]).float().mean() < 0.002
        assert ((alone[0] - batched[0]).abs() > 0.05).float().mean() < 0.002
        assert (alone[2] is None) == (batched[2] is None) == (weights is None)
        if weights is not None:
            assert ((alone[2] - batched[2]).abs() > 1e-3).float().mean() < 0.002


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
