"""What a running model shows: rows and columns its gradient reaches, and the memory its tensors take."""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from intarsia.models import MODELS, create_model
from tests.contract.presets import SMALL

SAME = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_"}
POOLS = {"max_pool2d", "_max_pool2d", "max_pool2d_with_indices", "_max_pool2d_with_indices"}


def small(name, **settings):
    torch.manual_seed(0)
    return create_model(name, **{"num_classes": 2, "in_channels": 1, **SMALL.get(name, {}), **settings})


class Open(TorchFunctionMode):
    """Lets a gradient through everything that a value can come through: averages for maxima, no ReLU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in SAME:
            return args[0]
        if name == "amax":
            return args[0].sum(*args[1:], **kwargs)
        if name in POOLS:
            names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
            given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
            assert given.get("dilation", 1) == 1
            shape = {key: given[key] for key in ("kernel_size", "stride", "padding", "ceil_mode") if key in given}
            pooled = F.avg_pool2d(args[0], **shape)
            return (pooled, func(*args, **kwargs)[1]) if "with_indices" in name else pooled
        return func(*args, **kwargs)


def spread(x, where, size):
    """A value may come back anywhere in its cell: into all of it."""
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : size[0], : size[1]]


@contextmanager
def everything_passes():
    with mock.patch("intarsia.models.segnet.max_unpool", spread), Open():
        yield


def positive(model):
    """In double, weights above zero and no biases, so that nothing cancels."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(3)
    for key, parameter in model.named_parameters():
        drawn = 0.1 + torch.rand(parameter.shape, generator=generator, dtype=torch.double)
        parameter.data = drawn / max(1, drawn[0].numel()) if parameter.ndim > 1 else torch.ones_like(parameter)
        if key.endswith("bias"):
            parameter.data.zero_()
    for buffer in (b for k, b in model.named_buffers() if k.endswith("kernel")):
        assert (buffer > 0).all()
    return model


def reached(model, size, places):
    """For each (row, column) of the logits, first and last row and column of the image with a gradient."""
    image = torch.rand(1, 1, *size, dtype=torch.double, requires_grad=True)
    found = {}
    with everything_passes():
        logits = model(image)
        for row, column in places:
            (gradient,) = torch.autograd.grad(logits[0, :, row, column].sum(), image, retain_graph=True)
            seen = gradient[0, 0] != 0
            found[row, column] = [(int(k[0]), int(k[-1])) for k in (seen.any(1).nonzero(), seen.any(0).nonzero())]
    return found


__all__ = ["MODELS", "everything_passes", "positive", "reached", "small"]
