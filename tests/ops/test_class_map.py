"""Class maps, compiled and plain, against NumPy's argmax: the first of equals wins, and NaN counts as the largest."""

import numpy as np
import pytest
import torch

from intarsia.ops import class_map as module
from intarsia.ops.class_map import class_map
from tests.both_forms import both_forms

KINDS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ORDERS = {
    "contiguous": torch.Tensor.contiguous,
    "channels_last": lambda logits: logits.contiguous(memory_format=torch.channels_last),
    "cropped": lambda logits: torch.nn.functional.pad(logits, (2, 1, 1, 3))[..., 1:-3, 2:-1],
    "cropped channels_last": lambda logits: torch.nn.functional.pad(logits, (2, 1, 1, 3)).contiguous(
        memory_format=torch.channels_last
    )[..., 1:-3, 2:-1],
    "every other": lambda logits: logits.repeat_interleave(2, 1).repeat_interleave(2, 3)[:, ::2, :, ::2],
    "turned": lambda logits: logits.transpose(2, 3).contiguous().transpose(2, 3),
    "images last": lambda logits: logits.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


form = both_forms(module.LIBRARY, autouse=True)


def drawn(num_classes, shape, *, seed=0, ties=False):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(shape[0], num_classes, *shape[1:], generator=generator)
    return numbers.round() if ties else numbers


def holds(logits):
    """The class map is NumPy's, and a tensor of its own."""
    found = class_map(logits)
    assert found.dtype == torch.uint8
    assert found.shape == (logits.shape[0], *logits.shape[2:])
    assert np.array_equal(found.numpy(), logits.double().numpy().argmax(1))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [1, 2, 5, 19, 255])
def test_equals_numpy(num_classes, kind, order):
    for ties in (False, True):
        holds(ORDERS[order](drawn(num_classes, (3, 17, 31), ties=ties).to(kind)))


@pytest.mark.parametrize("order", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity(kind, order):
    generator = torch.Generator().manual_seed(1)
    special = torch.tensor([torch.nan, -torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0, 1e-39])
    holds(ORDERS[order](special[torch.randint(0, 8, (2, 6, 37, 41), generator=generator)].to(kind)))
    holds(ORDERS[order](torch.full((1, 4, 3, 5), -torch.inf, dtype=kind)))
    holds(ORDERS[order](torch.full((1, 4, 3, 5), torch.nan, dtype=kind)))


@pytest.mark.parametrize("order", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 513, 1), (2, 32, 16), (1, 35, 1031), (3, 260, 300)])
def test_odd_sizes(shape, order):
    for num_classes in (3, 21):
        holds(ORDERS[order](drawn(num_classes, shape)))
        holds(ORDERS[order](drawn(num_classes, shape).bfloat16()))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(threads, monkeypatch):
    monkeypatch.setattr(module, "LIGHT", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        holds(drawn(12, (2, 250, 333)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_nothing_gives_nothing(shape):
    found = class_map(torch.zeros(shape))
    assert (found.shape, found.dtype) == ((shape[0], *shape[2:]), torch.uint8)


def test_no_classes_have_no_largest():
    with pytest.raises(IndexError, match="non-zero size"):
        class_map(torch.zeros(1, 0, 2, 2))


def test_other_numbers_and_dimensions():
    assert class_map(torch.tensor([[[[1]], [[3]]]])).tolist() == [[[1]]]
    assert class_map(torch.tensor([[1.0, 3.0]])).tolist() == [1]
    assert class_map(torch.zeros(1, 300, 2, 2).index_fill(1, torch.tensor(299), 1)).unique().tolist() == [299 - 256]


def test_logits_of_training_and_inference():
    logits = drawn(5, (2, 9, 9))
    expected = class_map(logits)
    assert torch.equal(class_map(logits.clone().requires_grad_()), expected)
    assert torch.equal(class_map(torch.nn.Parameter(logits)), expected)
    with torch.inference_mode():
        assert torch.equal(class_map(logits * 1), expected)


def test_tensors_that_are_not_in_memory():
    assert class_map(torch.zeros(2, 3, 4, 5, device="meta")).shape == (2, 4, 5)


def test_the_name_that_models_have():
    from intarsia.models.base import class_map as theirs

    assert theirs is class_map
