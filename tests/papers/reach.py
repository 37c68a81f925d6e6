"""How far an output sees: the extent of its gradient, with averages in place of maxima, which pass it to one place only."""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.nn import functional as F


@contextmanager
def averages_for_maxima():
    def average(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode=ceil_mode)

    with mock.patch.object(F, "max_pool2d", average):
        yield


def rows_seen(out, place, image):
    """(first row, number of rows) of the image that out[place] depends on."""
    (gradient,) = torch.autograd.grad(out[place], image, retain_graph=True)
    rows = gradient[0].abs().sum((0, 2)).nonzero().flatten()
    return int(rows[0]), int(rows[-1] - rows[0] + 1)


def positive(model):
    """The model in double with weights above zero and no biases, so that nothing cancels and no ReLU cuts."""
    model = model.double().eval()
    for key, parameter in model.named_parameters():
        parameter.data = parameter.data.abs() if key.endswith("weight") else torch.zeros_like(parameter)
    return model
