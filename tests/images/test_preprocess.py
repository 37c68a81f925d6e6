"""Pixels as a network takes them: on arrays, held against the same on tensors."""

import numpy as np
import pytest
import torch

from intarsia.errors import DataError
from intarsia.images.preprocess import Preprocess, resize_planes, to_channels
from intarsia.transforms.prepare import resize_image
from intarsia.transforms.prepare import to_channels as channels_of_tensor


def drawn(*shape, dtype=np.uint8):
    high = 256 if dtype == np.uint8 else 60000
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "channels"), [((9, 7), 1), ((9, 7), 3), ((9, 7, 3), 3), ((9, 7, 3), 1), ((9, 7, 5), 5)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_are_those_of_training(shape, channels, dtype):
    pixels = drawn(*shape, dtype=dtype)
    assert np.array_equal(to_channels(pixels, channels), channels_of_tensor(pixels, channels).numpy())


def test_other_bands_are_refused():
    with pytest.raises(DataError, match="takes 3 bands, the image has 5"):
        to_channels(drawn(4, 4, 5), 3)


def test_a_table_of_bytes_gives_what_the_formula_gives():
    preprocess = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = drawn(70, 80, 3)
    right = (pixels.astype(np.float64) / 255 - preprocess.mean) / preprocess.std
    found = preprocess(pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.moveaxis(right, -1, 0), atol=1e-6)
    np.testing.assert_allclose(preprocess(pixels.astype(np.float32)), found, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 30), (41, 55), (64, 96)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_resized_as_in_training(size, dtype):
    planes = drawn(3, 64, 80).astype(dtype)
    right = resize_image(torch.from_numpy(planes), size).numpy()
    found = resize_planes(planes, size)
    assert found.dtype == dtype
    assert np.abs(found.astype(np.float64) - right).max() <= (1 if dtype == np.uint8 else 5e-3)


def test_settings_alone_make_two_equal():
    first, second = Preprocess(), Preprocess()
    first(drawn(9, 9, 3)), second(drawn(9, 9, 3))
    assert first == second
    assert hash(first) == hash(second)
    assert first != Preprocess(scale=0.5)
