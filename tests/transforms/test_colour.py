"""Colour: the formula of the docstring in NumPy, hue against SciPy's rotations, and nothing cut where nothing is bounded."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from intarsia.images.preprocess import Preprocess
from intarsia.transforms.colour import hue_matrix
from intarsia.transforms.pipeline import AugmentConfig, augment
from tests.transforms.alone import jitter_colour

GREY = np.array([0.299, 0.587, 0.114])
STILL = AugmentConfig(zoom=(1, 1), aspect=1, mirror="none", colour=0)


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def turned(x_3HW, turn):
    """Every pixel turned about (1, 1, 1), then moved along it to the grey it had."""
    rotation = Rotation.from_rotvec(np.ones(3) / np.sqrt(3) * 2 * np.pi * turn).as_matrix()
    moved = np.einsum("ij,jhw->ihw", rotation, x_3HW)
    return moved + np.einsum("i,ihw->hw", GREY, x_3HW - moved)


def oracle(x_CHW, seed, strength, hue, *, bounded):
    """jitter_colour in float64: hue first, of the image and so of its mean, then saturation, contrast, brightness, gamma."""
    draws = rng(seed)
    brightness, contrast, saturation, gamma = draws.uniform(-1, 1, 4) * strength
    x = x_CHW.astype(np.float64)
    if hue and len(x) == 3:
        x = turned(x, draws.uniform(-hue, hue))
    mean = x.mean(axis=(1, 2), keepdims=True)
    away = x - mean
    if len(x) == 3:
        grey = np.einsum("i,ihw->hw", GREY, away)
        away = grey + max(0, 1 + 2 * saturation) * (away - grey)
    x = (1 + contrast) * away + mean + brightness
    power = np.exp(gamma / 2)
    return x.clip(0, 1) ** power if bounded else np.where(x < 0, x, np.abs(x) ** power)


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("hue", [0.0, 0.3])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("strength", [0.25, 0.9])
def test_colour_is_the_formula(channels, hue, bounded, strength):
    x = rng(9).uniform(-0.5, 2, (channels, 11, 13)).astype(np.float32)
    for seed in range(5):
        found = jitter_colour(torch.from_numpy(x), rng(seed), strength, hue=hue, bounded=bounded)
        assert found.dtype == torch.float32
        assert np.allclose(found.numpy(), oracle(x, seed, strength, hue, bounded=bounded), atol=2e-5)


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.01, 0.25, 1 / 3])
def test_hue_turns_about_grey(turn):
    x = rng().uniform(0, 1, (3, 5, 6))
    found = (hue_matrix(turn).double() @ torch.from_numpy(x).reshape(3, -1)).reshape(3, 5, 6).numpy()
    assert np.allclose(found, turned(x, turn), atol=1e-6)
    assert np.abs(found - x).max() > 0.01
    assert np.allclose(hue_matrix(turn).numpy() @ np.ones(3), 1, atol=1e-6)
    assert np.allclose(GREY @ hue_matrix(turn).numpy(), GREY, atol=1e-6)
    assert np.allclose(hue_matrix(turn) @ hue_matrix(-turn), np.eye(3), atol=1e-6)
    assert np.allclose(hue_matrix(turn) @ hue_matrix(turn), hue_matrix(2 * turn), atol=1e-6)


def test_a_third_of_the_circle_takes_red_to_green_to_blue():
    chroma = np.eye(3) - 1 / 3
    third = hue_matrix(1 / 3).numpy()
    for number in range(3):
        colour = third[:, number]
        assert np.allclose(colour - colour.mean(), chroma[(number + 1) % 3], atol=1e-6)


def test_an_image_of_one_colour_turns_as_a_whole_and_grey_not_at_all():
    red = torch.tensor([0.5, 0.4, 0.4])[:, None, None].expand(3, 4, 5)
    turns = {int(jitter_colour(red, rng(seed), 0.0, hue=0.5)[:, 0, 0].argmax()) for seed in range(30)}
    assert turns == {0, 1, 2}
    grey = torch.rand(1, 4, 5).expand(3, 4, 5)
    assert torch.allclose(jitter_colour(grey, rng(), 0.0, hue=0.5), grey, atol=1e-6)


def test_no_hue_draws_four_numbers_as_ever():
    image = torch.rand(3, 4, 5)
    for hue, count in ((0.0, 4), (0.1, 5)):
        for strength in (0.0, 0.3):
            used, fresh = rng(3), rng(3)
            jitter_colour(image, used, strength, hue=hue)
            fresh.uniform(-1, 1, count)
            assert used.random() == fresh.random()


def test_turns_stay_within_the_share_and_go_either_way():
    image = torch.tensor([0.5, 0.4, 0.4])[:, None, None]
    angles = []
    for seed in range(200):
        red, green, blue = jitter_colour(image, rng(seed), 0.0, hue=0.1).flatten().tolist()
        angles.append(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi))
    assert -0.1 <= min(angles) < -0.09
    assert 0.09 < max(angles) <= 0.1


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_no_strength_and_no_hue_is_the_identity(channels):
    image = 3 * torch.rand(channels, 4, 5) - 1
    assert torch.equal(jitter_colour(image, rng(), 0.0), image)
    assert torch.equal(jitter_colour(image, rng(), 0.0, bounded=False), image)


def test_samples_are_turned_by_their_setting():
    image = torch.tensor([130, 100, 100], dtype=torch.uint8)[:, None, None].expand(3, 6, 7)
    mask = torch.zeros(6, 7, dtype=torch.uint8)
    turns = {
        int(augment(image, mask, (6, 7), STILL.replace(hue=0.5), Preprocess(), rng(seed)).image[:, 0, 0].argmax())
        for seed in range(30)
    }
    assert turns == {0, 1, 2}


def test_unbounded_is_continuous_and_rises_through_0():
    ramp = torch.linspace(-0.5, 2, 5001).reshape(1, 1, -1)
    for seed in range(20):
        step = jitter_colour(ramp, rng(seed), 1.0, bounded=False).diff()
        assert step.min() >= 0
        assert step.max() < 0.03  # the steepest there is, (0.001)^exp(-1/2), is 0.015
        assert torch.isfinite(step).all()


def test_outliers_of_16_bit_images_survive_and_8_bit_stays_within_0_and_1():
    mask = torch.zeros(6, 7, dtype=torch.uint8)
    config = STILL.replace(colour=0.25, noise=0.2, degraded=1)
    deep = torch.full((1, 6, 7), 200.0)
    deep[0, 0, 0], deep[0, 5, 6] = 1000.0, -400.0
    wide = Preprocess(channels=1, value_range=(100.0, 300.0), mean=(0.5,), std=(0.5,))
    narrow = Preprocess(channels=1, mean=(0.5,), std=(0.5,))
    extremes = torch.tensor([0, 255] * 21, dtype=torch.uint8).reshape(1, 6, 7)
    for seed in range(10):
        found = augment(deep, mask, (6, 7), config, wide, rng(seed)).image
        assert found.max() > 2
        assert found.min() < -1
        found = augment(extremes, mask, (6, 7), config, narrow, rng(seed)).image
        assert found.max() <= 1
        assert found.min() >= 0
