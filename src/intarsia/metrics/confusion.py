"""The confusion matrix: counts that add, over images, batches and processes; compiled (confusion.c) or by torch."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from intarsia.classes import IGNORE, MAX_CLASSES
from intarsia.compiled import Compiled, Unfit
from intarsia.errors import ConfigError, DataError
from intarsia.ops.pieces import address, pieces, readable, share

TABLES = 8
"""Of confusion.c."""
LIGHT = 16
"""Pixels that are counted while a loss computes one logit, and a thread wakes."""


def confusion(prediction: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64: number of pixels of each true class (row) that were predicted as each class (column).

    Args:
        prediction: class numbers 0..K-1, integers of any shape; where the mask is 255 they may be anything.
        mask: true class numbers, the same shape; 255 is not counted.
        num_classes: K.

    Raises:
        DataError: the mask has a number that is neither a class nor 255.
        ConfigError: the prediction has a number that is no class, at a pixel that is counted; shapes differ, or types are
            not integers.
    """
    if prediction.shape != mask.shape or any(
        each.is_floating_point() or each.is_complex() for each in (prediction, mask)
    ):
        prediction_is, mask_is = (f"{tuple(each.shape)} of {each.dtype}" for each in (prediction, mask))
        raise ConfigError(
            f"prediction and mask: are {prediction_is} and {mask_is}; give class numbers, integers, of one shape."
        )
    library = LIBRARY.load() if 0 < num_classes <= MAX_CLASSES and readable(prediction, mask) else None
    bins = (
        _plain(prediction, mask, num_classes) if library is None else _compiled(library, prediction, mask, num_classes)
    )
    if any(bins[-2:].tolist()):
        raise _wrong_class(prediction.long(), mask.long(), num_classes)
    return bins[:-3].reshape(num_classes, num_classes)


def _plain(prediction: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """(K² + 3,): truth by prediction, then the pixels that are ignored, of wrong truth, and of wrong prediction."""
    kind = torch.int32 if prediction.dtype == mask.dtype == torch.uint8 else torch.int64
    found_P, truth_P, pairs = prediction.to(kind).reshape(-1), mask.to(kind).reshape(-1), num_classes**2
    bin_P = (truth_P * num_classes).add_(found_P)
    bin_P.masked_fill_((found_P < 0) | (found_P >= num_classes), pairs + 2)
    bin_P.masked_fill_((truth_P < 0) | (truth_P >= num_classes), pairs + 1)
    bin_P.masked_fill_(truth_P == IGNORE, pairs)
    return torch.bincount(bin_P, minlength=pairs + 3) if bin_P.is_cpu else _unwaiting_bincount(bin_P, pairs + 3)


def _unwaiting_bincount(bin_P: Tensor, count: int) -> Tensor:
    """As torch's, which waits for the device twice to see how many bins there are."""
    one = bin_P.new_ones((), dtype=torch.int64)
    return bin_P.new_zeros(count, dtype=torch.int64).scatter_add_(0, bin_P.long(), one.expand_as(bin_P))


def _compiled(library: ctypes.CDLL, prediction: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """The same by confusion.c."""
    found_1P, truth_1P = _readable(prediction), _readable(mask)
    parts = pieces(mask.numel(), mask.numel() // LIGHT)
    apart = TABLES + 1  # one that stays empty keeps threads off each other's cache lines
    tables = torch.zeros(len(parts), apart, num_classes**2 + 3, dtype=torch.int64, device="cpu")

    def work(index: int) -> None:
        given = []
        for numbers_1P in (truth_1P, found_1P):
            given += [address(numbers_1P, 0, parts[index]), int(numbers_1P.dtype == torch.int64)]
        library.confusion_count(*given, num_classes, len(parts[index]), tables[index].data_ptr())

    share(work, len(parts))
    return tables.sum((0, 1))


def _readable(numbers: Tensor) -> Tensor:
    """(1, P) as confusion.c reads it; copied only where type or order of memory are others."""
    numbers = numbers if numbers.dtype in (torch.uint8, torch.int64) else numbers.long()
    return numbers.reshape(1, -1).contiguous()


def _wrong_class(prediction: Tensor, mask: Tensor, num_classes: int) -> DataError | ConfigError:
    """The error for a number that is no class: in the mask, else in the prediction."""
    counted = f"but there are {num_classes} classes, counted from 0"
    if len(wrong := mask[(mask != IGNORE) & ((mask < 0) | (mask >= num_classes))]):
        return DataError(
            f"mask: holds class {int(wrong[0])} (in {len(wrong)} of {mask.numel()} pixels), {counted}, and {IGNORE} "
            "where there is no truth; put one of these in its place, or count more classes."
        )
    wrong = prediction[(mask != IGNORE) & ((prediction < 0) | (prediction >= num_classes))]
    return ConfigError(
        f"prediction: holds class {int(wrong[0])} (in {len(wrong)} of {mask.numel()} pixels), {counted}; "
        "count as many classes as the model has that made it."
    )


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against the plain form on drawn numbers, also wrong ones, in both types."""
    pointer, number, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    count = library.confusion_count
    count.argtypes, count.restype = [pointer, number, pointer, number, size, size, pointer], None
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randint(-1, 7, (2, 3001), generator=generator, device="cpu")
    drawn[drawn == 6] = IGNORE
    narrow = drawn.remainder(IGNORE + 1).to(torch.uint8)
    for prediction, mask in (drawn, narrow, (narrow[0], drawn[1])):
        if not torch.equal(_compiled(library, prediction, mask, 5), _plain(prediction, mask, 5)):
            raise Unfit("confusion.c, compiled, gives other counts than torch")
    return library


LIBRARY = Compiled(Path(__file__).with_name("confusion.c"), _checked)
