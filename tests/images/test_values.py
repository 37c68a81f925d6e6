"""Stored numbers as pixels, and what stands where there is none."""

import numpy as np
import pytest

from intarsia.images.values import as_pixels, spread_mean, without_value

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i1", ">i2", "u4", "i8", "f2", ">f8", "?"])
def test_kinds_of_number(dtype):
    stored = RNG.integers(0, 2, (4, 5)).astype(dtype)
    pixels = as_pixels(stored)
    assert pixels.dtype == {"u1": np.uint8, "<u2": np.uint16, ">u2": np.uint16}.get(dtype, np.float32)
    assert pixels.dtype.isnative
    assert np.array_equal(pixels, stored)


@pytest.mark.parametrize("nodata", [None, 3.0, -1.0, float("nan"), 1e300, 0.5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_where_there_is_no_value(dtype, nodata):
    planes = RNG.integers(2, 4, (20, 30, 2)).astype(dtype)
    if dtype == "float32":
        planes[3, 4, 1], planes[5, 6] = np.nan, np.inf
    expected = np.zeros((20, 30), bool)
    for row, column in np.ndindex(20, 30):
        pixel = [float(number) for number in planes[row, column]]
        expected[row, column] = not np.isfinite(pixel).all() or all(number == nodata for number in pixel)
    found = without_value(planes, nodata)
    assert (found is None) == (not expected.any())
    assert found is None or np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(5, 7), (256, 300), (2048, 600)])
def test_mean_of_an_image_that_is_not_large_is_that_of_all_its_values(size):
    planes = RNG.integers(0, 255, (*size, 2)).astype(np.uint8)
    mean = spread_mean(lambda t, l, h, w: planes[t : t + h, l : l + w], size, 7)  # noqa: E741
    expected = planes[~(planes == 7).all(axis=2)].mean(axis=0)
    assert mean == pytest.approx(expected, rel=1e-12)


def test_mean_of_a_large_image_is_that_of_windows_spread_over_it():
    asked = []

    def read(top, left, height, width):
        asked.append((top, left, height, width))
        return np.full((height, width, 1), top, np.float32)

    mean = spread_mean(read, (40_000, 30_000), None)
    assert len(asked) == 64
    assert all(part[2:] == (256, 256) for part in asked)
    assert max(part[0] for part in asked) == 40_000 - 256
    assert max(part[1] for part in asked) == 30_000 - 256
    assert mean == pytest.approx(np.mean([part[0] for part in asked]))


def test_mean_of_nothing_is_zero():
    assert spread_mean(lambda t, l, h, w: np.full((h, w, 3), np.nan, np.float32), (9, 9), None).tolist() == [0.0] * 3  # noqa: E741
