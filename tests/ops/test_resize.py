"""Maps resized on arrays against torch's `interpolate`."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from intarsia.ops.resize import resize_maps


@pytest.mark.parametrize("size", [(20, 31), (41, 15), (7, 100), (1, 1), (23, 37), (46, 74)])
def test_it_is_bilinear_with_half_pixel_centres(size):
    maps = np.random.default_rng(0).normal(size=(2, 3, 23, 37)).astype(np.float32)
    right = F.interpolate(torch.from_numpy(maps), size, mode="bilinear", align_corners=False).numpy()
    np.testing.assert_allclose(resize_maps(maps, size), right, atol=2e-5)


def test_maps_of_one_pixel_are_spread():
    assert np.array_equal(resize_maps(np.full((1, 1, 1), 3, np.float32), (2, 5)), np.full((1, 2, 5), 3, np.float32))
