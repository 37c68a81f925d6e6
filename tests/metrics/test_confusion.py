"""Counts, compiled and plain, against a loop over pixels; numbers that are no class are refused."""

import sys

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError, DataError
from intarsia.metrics import confusion
from tests.both_forms import both_forms

MODULE = sys.modules["intarsia.metrics.confusion"]
KINDS = [torch.uint8, torch.int64, torch.int32, torch.int16, torch.uint16]


form = both_forms(MODULE.LIBRARY, autouse=True)


def drawn(num_classes, shape=(3, 17, 31), *, ignored=0.2, blocks=1):
    """Prediction and mask, int64; what is predicted where the truth is not known is anything."""
    rng = np.random.default_rng(num_classes)
    prediction, mask = rng.integers(0, num_classes, (2, *shape)).repeat(blocks, -1)[..., : shape[-1]]
    mask[rng.random(shape) < ignored] = 255
    prediction[mask == 255] = rng.integers(0, 256, (mask == 255).sum())
    return torch.from_numpy(prediction), torch.from_numpy(mask)


def counted(prediction, mask, num_classes):
    """Pixel by pixel."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    for found, truth in zip(prediction.flatten().tolist(), mask.flatten().tolist(), strict=True):
        if truth != 255:
            counts[truth, found] += 1
    return counts


def holds(prediction, mask, num_classes):
    counts = confusion(prediction, mask, num_classes)
    assert (counts.dtype, counts.shape) == (torch.int64, (num_classes, num_classes))
    assert np.array_equal(counts.numpy(), counted(prediction, mask, num_classes))


@pytest.mark.parametrize("mask_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [1, 2, 5, 19, 255])
def test_equals_a_loop(num_classes, kind, mask_kind):
    prediction, mask = drawn(num_classes)
    holds(prediction.to(kind), mask.to(mask_kind), num_classes)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1023), (1, 1, 1025), (2, 3, 4, 5), (0,), (2, 0, 3)])
def test_any_shape(shape):
    prediction, mask = drawn(5, shape) if shape else (torch.tensor(3), torch.tensor(1))
    holds(prediction.byte(), mask.byte(), 5)


@pytest.mark.parametrize("blocks", [3, 64, 4000])
def test_runs_of_labels(blocks):
    prediction, mask = drawn(12, (5, 4000), ignored=0.01, blocks=blocks)
    holds(prediction.byte(), mask.byte(), 12)


def test_orders_of_memory():
    prediction, mask = (part.byte() for part in drawn(5, (4, 20, 30), ignored=0.0))
    mask[1:, ::3] = 255
    turned = prediction.transpose(1, 2).contiguous().transpose(1, 2)
    holds(turned, mask, 5)
    holds(turned[:, 3:-1, ::2], mask[:, 3:-1, ::2], 5)
    holds(prediction.long().permute(2, 0, 1), mask.permute(2, 0, 1), 5)
    holds(prediction[0, 0].expand(20, 30), mask[0], 5)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(threads, monkeypatch):
    monkeypatch.setattr(MODULE, "LIGHT", 1)
    prediction, mask = (part.byte() for part in drawn(5, (2, 700, 801)))
    pairs = (mask.long() * 5 + prediction)[mask != 255]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert confusion(prediction, mask, 5).flatten().tolist() == torch.bincount(pairs, minlength=25).tolist()
    finally:
        torch.set_num_threads(before)


def test_nothing_but_ignored_counts_nothing():
    mask = torch.full((4, 4), 255, dtype=torch.uint8)
    assert not confusion(torch.full_like(mask, 77), mask, 3).any()


def test_more_classes_than_a_byte_holds():
    prediction, mask = torch.tensor([0, 256, 299, 7]), torch.tensor([1, 256, 299, 255])
    assert confusion(prediction, mask, 300).nonzero().tolist() == [[1, 0], [256, 256], [299, 299]]


def test_yes_and_no():
    prediction, mask = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    assert confusion(prediction, mask, 2).tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.int32])
@pytest.mark.parametrize("number", [5, 254])
def test_a_mask_with_a_number_that_is_no_class(number, kind):
    mask = torch.zeros(2, 600, dtype=kind)
    mask[1, 30] = mask[1, 599] = number
    with pytest.raises(DataError) as met:
        confusion(torch.full_like(mask, 9), mask, 5)  # the prediction is wrong as well: the mask is told first
    assert str(met.value) == (
        f"mask: holds class {number} (in 2 of 1200 pixels), but there are 5 classes, counted from 0, and 255 where there "
        "is no truth; put one of these in its place, or count more classes."
    )


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.int32])
@pytest.mark.parametrize("number", [5, 255])
def test_a_prediction_that_is_no_class(number, kind):
    prediction, mask = torch.zeros(2, 600, dtype=kind), torch.zeros(2, 600, dtype=torch.uint8)
    prediction[0, :3] = number
    mask[0, 0] = 255
    with pytest.raises(ConfigError) as met:
        confusion(prediction, mask, 5)
    assert str(met.value) == (
        f"prediction: holds class {number} (in 2 of 1200 pixels), but there are 5 classes, counted from 0; "
        "count as many classes as the model has that made it."
    )


@pytest.mark.parametrize("number", [-1, -(2**40), 256, 2**40, 2**63 - 1])
def test_numbers_beyond_a_byte(number):
    right, wrong = torch.zeros(3, dtype=torch.int64), torch.tensor([0, 0, number])
    with pytest.raises(DataError, match=rf"mask: holds class {number} \(in 1 of 3 pixels\)"):
        confusion(right, wrong, 5)
    with pytest.raises(ConfigError, match=rf"prediction: holds class {number} \(in 1 of 3 pixels\)"):
        confusion(wrong, right, 5)


def test_what_cannot_be_counted():
    with pytest.raises(ConfigError) as met:
        confusion(torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(3, 2, dtype=torch.int64), 5)
    assert str(met.value) == (
        "prediction and mask: are (2, 3) of torch.uint8 and (3, 2) of torch.int64; give class numbers, integers, of one shape."
    )
    whole, broken = torch.zeros(2, dtype=torch.uint8), torch.zeros(2)
    for given in ((whole, broken), (broken, whole)):
        with pytest.raises(ConfigError, match="give class numbers, integers"):
            confusion(*given, 5)


def test_on_an_accelerator_bins_are_added_up_in_another_way():
    bins = torch.tensor([3, 0, 3, 6, 3], dtype=torch.int32)
    assert MODULE._unwaiting_bincount(bins, 9).tolist() == [1, 0, 0, 3, 0, 0, 1, 0, 0]
    numbers = torch.zeros(2, 3, dtype=torch.uint8, device="meta")
    assert MODULE._plain(numbers, numbers, 5).shape == (28,)
