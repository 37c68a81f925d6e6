"""Padding and cropping."""

import numpy as np
import pytest
import torch

from intarsia.ops.pad import center_crop, mirror_index, mirror_pad, pad_to_multiple


def test_mirror_does_not_double_the_border():
    assert mirror_index(3, 2, 3).tolist() == [2, 1, 0, 1, 2, 1, 0, 1]
    assert mirror_index(1, 2, 2).tolist() == [0] * 5


@pytest.mark.parametrize("amount", [0, 1, 4, 11])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 3)])
def test_mirror_equals_numpy_for_any_amount(size, amount):
    image = torch.arange(size[0] * size[1]).reshape(1, 1, *size)
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (amount, amount + 1), (amount, 2)), mode="reflect")
    assert np.array_equal(mirror_pad(image, amount, amount + 1, amount, 2).numpy(), expected)


@pytest.mark.parametrize(
    ("size", "least", "expected"), [((5, 8), 0, (8, 8)), ((8, 16), 0, (8, 16)), ((1, 1), 16, (16, 16))]
)
def test_pad_to_multiple(size, least, expected):
    image = torch.rand(1, 2, *size)
    padded = pad_to_multiple(image, 8, least=least)
    assert tuple(padded.shape[-2:]) == expected
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    assert torch.equal(padded[..., -1, -1], image[..., -1, -1])


def test_center_crop():
    image = torch.arange(25).reshape(1, 1, 5, 5)
    assert center_crop(image, (3, 3))[0, 0, 0, 0] == 6
    assert center_crop(image, (2, 2))[0, 0].tolist() == [[6, 7], [11, 12]]
