"""The running mean of overlapping tiles: compiled, by NumPy and by torch, in both orders of memory."""

import numpy as np
import pytest
import torch

from intarsia.ops import running_mean
from intarsia.ops.running_mean import mix, room_like


def drawn(seed, *, last=False):
    maps = np.random.default_rng(seed).normal(size=(4, 37, 53)).astype(np.float32)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(maps, 0, -1)), -1, 0) if last else maps


SHARES = {
    "of rows": np.random.default_rng(2).random((37, 1)).astype(np.float32),
    "of columns": np.random.default_rng(3).random((1, 53)).astype(np.float32),
}


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("kind", ["array", "tensor", "NumPy alone"])
def test_it_is_the_formula(kind, shares, last, monkeypatch):
    mean, logits = drawn(0, last=last), drawn(1, last=last)
    right = mean.astype(np.float64) + shares * (logits.astype(np.float64) - mean)
    if kind == "NumPy alone":
        monkeypatch.setenv("INTARSIA_KERNEL", "0")
    found = torch.from_numpy(logits) if kind == "tensor" else logits
    mix(torch.from_numpy(mean) if kind == "tensor" else mean, found, shares)
    np.testing.assert_allclose(np.asarray(found), right, atol=1e-6)


@pytest.mark.parametrize("kernel", ["0", "1"])
def test_equal_numbers_stay_what_they_are_to_the_bit(kernel, monkeypatch):
    monkeypatch.setenv("INTARSIA_KERNEL", kernel)
    mean = drawn(0)
    logits = mean.copy()
    mix(mean, logits, SHARES["of rows"])
    assert np.array_equal(mean, logits)


def test_a_part_of_a_map_is_mixed_in_its_place():
    whole, mean = drawn(1), drawn(0)[:, :10, :7]
    before = whole.copy()
    mix(mean, whole[:, 5:15, 40:47], np.full((10, 1), 0.25, np.float32))
    np.testing.assert_allclose(whole[:, 5:15, 40:47], mean + 0.25 * (before[:, 5:15, 40:47] - mean), atol=1e-6)
    whole[:, 5:15, 40:47] = before[:, 5:15, 40:47]
    assert np.array_equal(whole, before)


def test_room_is_in_the_same_order_of_memory():
    array, last = drawn(0), torch.zeros(1, 4, 8, 9).to(memory_format=torch.channels_last)[0]
    assert room_like(array, 3, 5).shape == (4, 3, 5)
    assert room_like(last, 3, 5).stride() == (1, 20, 4)
    assert room_like(torch.zeros(4, 8, 9), 3, 5).stride() == (15, 5, 1)


def test_it_is_compiled_here_or_says_why():
    assert running_mean.LIBRARY.load() is not None or "plain forms are used" in running_mean.LIBRARY.state()
