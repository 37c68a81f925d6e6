"""Preparation and augmentation: exact where they can be, aligned always."""

import numpy as np
import pytest
import torch

from intarsia.classes import IGNORE
from intarsia.images.preprocess import Preprocess
from intarsia.transforms.geometry import Window, cut_weights, cut_window, draw_window
from intarsia.transforms.pipeline import AugmentConfig, augment
from intarsia.transforms.prepare import resize_mask, to_channels
from tests.transforms.alone import jitter_colour

STILL = AugmentConfig(zoom=(1, 1), aspect=1, mirror="none", colour=0)
PLAIN = Preprocess(channels=3)


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def sample(height=24, width=32, seed=0):
    """An image whose first channel tells the class of each pixel."""
    mask = torch.from_numpy(rng(seed).integers(0, 4, (height, width)).astype(np.uint8))
    image = torch.stack([mask * 60, mask * 0 + 7, mask * 0 + 9])
    return image, mask


def test_normalisation_is_the_formula():
    preprocess = Preprocess(channels=1, mean=(0.25,), std=(0.5,), value_range=(100.0, 300.0))
    pixels = np.array([[100, 200], [300, 500]], np.uint16)
    assert preprocess(pixels)[0].tolist() == [[-0.5, 0.5], [1.5, 3.5]]


@pytest.mark.parametrize("value", [0, 1])
def test_scale_depends_on_the_type_never_on_the_values(value):
    dark = np.full((4, 4, 3), value, np.uint8)
    assert float(Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3)(dark).max()) == pytest.approx(value / 255)


def test_channels():
    grey, rgb = np.full((2, 2), 9, np.uint8), np.zeros((2, 2, 3), np.uint8)
    rgb[..., 1] = 100
    assert to_channels(grey, 3).shape == (3, 2, 2)
    assert to_channels(rgb, 1)[0, 0, 0] == 59


def test_without_any_change_a_sample_is_the_image():
    image, mask = sample()
    unit, same, weights = augment(image, mask, (24, 32), STILL, PLAIN, rng())
    assert torch.equal(same, mask)
    assert weights is None
    assert torch.allclose(unit, image.float() / 255)


@pytest.mark.parametrize("window", [Window(3, 4, 10, 12), Window(-5, -6, 40, 50), Window(20, -3, 9, 60)])
@pytest.mark.parametrize("turn", [(False, False, 0), (True, False, 1), (False, True, 2), (True, True, 3)])
def test_image_and_mask_stay_together(window, turn):
    image, mask = sample()
    turned = Window(window.top, window.left, window.height, window.width, *turn)
    size = (window.height, window.width) if turn[2] % 2 == 0 else (window.width, window.height)
    cut_image, cut_mask = cut_window(image, mask, turned, size)
    known = cut_mask != IGNORE
    assert torch.equal(cut_image[0][known], cut_mask[known] * 60)


@pytest.mark.parametrize(
    "window", [Window(3, 4, 10, 12), Window(-5, -6, 40, 50), Window(20, -3, 9, 60), Window(24, 0, 9, 9)]
)
@pytest.mark.parametrize("turn", [(False, False, 0), (True, False, 1), (False, True, 2), (True, True, 3)])
def test_weights_stay_with_the_mask_and_are_0_outside(window, turn):
    image, mask = sample()
    turned = Window(window.top, window.left, window.height, window.width, *turn)
    size = (window.height, window.width) if turn[2] % 2 == 0 else (window.width, window.height)
    _, cut_mask = cut_window(image, mask, turned, size)
    cut = cut_weights(mask.float() + 1, turned, size)
    assert cut.dtype == torch.float32
    assert torch.equal(cut, torch.where(cut_mask == IGNORE, 0, cut_mask.float() + 1))


def test_weights_are_resized_as_the_image_is_inside_it():
    image = torch.rand(1, 24, 32)
    window = Window(3, 4, 10, 12, mirror_columns=True)
    cut_image, _ = cut_window(image, torch.zeros(24, 32, dtype=torch.uint8), window, (37, 21))
    assert torch.equal(cut_weights(image[0], window, (37, 21)), cut_image[0])


def test_weights_change_nothing_that_is_drawn():
    image, mask = sample()
    config = AugmentConfig(mirror="both", turn=True)
    for seed in range(8):
        plain = augment(image, mask, (20, 28), config, PLAIN, rng(seed))
        weighted = augment(image, mask, (20, 28), config, PLAIN, rng(seed), torch.ones(24, 32))
        assert torch.equal(plain.image, weighted.image)
        assert torch.equal(plain.mask, weighted.mask)
        assert plain.weights is None
        assert weighted.weights.shape == plain.mask.shape
        assert weighted.weights.max() <= 1 + 1e-6


def test_outside_is_ignored_and_mirrored_never_class_0():
    image, mask = torch.ones(1, 4, 4, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.uint8)
    cut_image, cut_mask = cut_window(image, mask, Window(-2, -2, 8, 8), (8, 8))
    assert (cut_image == 1).all()
    assert int((cut_mask == 1).sum()) == 16
    assert int((cut_mask == IGNORE).sum()) == 48


def test_mirror_twice_is_the_identity():
    image, mask = sample()
    window = Window(0, 0, 24, 32, mirror_columns=True, mirror_rows=True)
    twice = cut_window(*cut_window(image, mask, window, (24, 32)), window, (24, 32))
    assert torch.equal(twice[0], image)
    assert torch.equal(twice[1], mask)


@pytest.mark.parametrize("seed", range(20))
def test_no_class_appears_that_was_not_there(seed):
    image, mask = sample(seed=seed)
    config = AugmentConfig(mirror="both", turn=True)
    unit, cut, _ = augment(image, mask, (40, 16), config, PLAIN, rng(seed))
    assert unit.shape == (3, 40, 16)
    assert cut.shape == (40, 16)
    assert set(cut.unique().tolist()) <= {0, 1, 2, 3, IGNORE}
    assert unit.min() >= 0
    assert unit.max() <= 1


def test_same_generator_same_sample_other_generator_another():
    image, mask = sample()
    first = augment(image, mask, (16, 16), AugmentConfig(), PLAIN, rng(5))
    again = augment(image, mask, (16, 16), AugmentConfig(), PLAIN, rng(5))
    other = augment(image, mask, (16, 16), AugmentConfig(), PLAIN, rng(6))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_windows_cover_every_place_and_zoom():
    windows = [
        draw_window((100, 100), (50, 50), rng(i), zoom=(0.5, 2), aspect=1, mirror="none", turn=False)
        for i in range(300)
    ]
    heights = [window.height for window in windows]
    assert min(heights) < 30
    assert max(heights) > 90
    assert np.median(heights) == pytest.approx(50, rel=0.15)
    inside = [window for window in windows if window.height < 60]
    assert min(window.top for window in inside) < 8
    assert all(0 <= window.top <= 100 - window.height for window in inside)


def test_colour_of_no_strength_is_the_identity_and_grey_keeps_one_channel():
    image = torch.rand(3, 5, 5)
    assert torch.equal(jitter_colour(image, rng(), 0.0), image)
    assert jitter_colour(torch.rand(1, 5, 5), rng(), 0.5).shape == (1, 5, 5)


def test_masks_are_resized_by_nearest_centres():
    mask = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    assert resize_mask(mask, (4, 4)).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert resize_mask(torch.arange(9, dtype=torch.uint8).reshape(3, 3), (1, 1)).tolist() == [[4]]
