"""Receptive fields by rule against the gradient's support: of every registered model, and of random small networks."""

import numpy as np
import pytest
import torch
from torch import nn

from intarsia.anatomy.field import Field, Unknown
from intarsia.anatomy.receptive_field import exact_fields, trace_fields
from intarsia.anatomy.trace import on_meta
from tests.anatomy.measured import MODELS, positive, reached, small

LONG = {"deeplab2_resnet101"}  # three scales of a whole ResNet on a wide image
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in MODELS.names()]


def size_beyond(name, model, seen):
    """An input wider than the field and low, as far as the model allows."""
    width = (seen.columns.largest if seen.columns else 200) + 90
    return model.input_size(35, 350 if seen.wide else width)


def last_of(fields):
    return list(fields.values())[-1]


def check_against_gradient(model, size, places):
    field = last_of(exact_fields(on_meta(model), size))
    assert isinstance(field, Field), field
    for (row, column), (rows, columns) in reached(positive(model), size, places).items():
        if field.wide:
            assert rows == (0, size[0] - 1)
            assert columns == (0, size[1] - 1)
        else:
            assert (field.rows.low[row], field.rows.high[row]) == rows
            assert (field.columns.low[column], field.columns.high[column]) == columns
    return field


@pytest.mark.parametrize("name", NAMES)
def test_the_field_of_every_model_is_what_its_gradient_reaches(name):
    model = small(name)
    seen = last_of(trace_fields(on_meta(model), model.input_size(40, 40)))
    assert not seen.unknown
    size = size_beyond(name, model, seen)
    height, width = model.output_size(*size)
    middle = width // 2
    places = [(height // 2, middle + step) for step in (0, 5)] + [(0, width - 1)]
    field = check_against_gradient(model, size, places)
    if not seen.wide:
        sizes = field.columns.high - field.columns.low + 1
        free = (field.columns.low > 0) & (field.columns.high < size[1] - 1)
        assert free[middle]
        assert seen.columns.smallest <= sizes[free].min() <= sizes[free].max() <= seen.columns.largest


class Pick(nn.Module):
    """An operator without a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def random_layer(rng):
    """A layer of one channel with geometry drawn at random."""
    k, s, p, d = (int(rng.integers(low, high)) for low, high in ((1, 6), (1, 4), (0, 3), (1, 3)))
    up = int(rng.integers(2, 4))
    return [
        lambda: nn.Conv2d(1, 1, k, s, p, d),
        lambda: nn.ConvTranspose2d(1, 1, k, s, min(p, k - 1), dilation=d),
        lambda: nn.MaxPool2d(k, s, min(p, k // 2), ceil_mode=bool(p)),
        lambda: nn.AvgPool2d(k, s, min(p, k // 2)),
        lambda: nn.Upsample(scale_factor=up, mode="bilinear"),
        lambda: nn.Upsample(size=(17 + p, 23 + k), mode="bilinear", align_corners=True),
        lambda: nn.Upsample(size=(11 + k, 29 + p), mode="nearest"),
        lambda: nn.Upsample(size=(11 + k, 29 + p), mode="bilinear"),
        lambda: nn.ReplicationPad2d((p, k, 0, s)),
        lambda: nn.ReflectionPad2d((p, 1, 1, s)),
        lambda: nn.ZeroPad2d((p, -1, 0, 2)),
        lambda: Pick(lambda x: x[..., p:, s:-1]),
        lambda: Pick(lambda x: x[..., ::s, 1::up]),
        lambda: Pick(lambda x: x.repeat_interleave(up, -1)),
        lambda: Pick(lambda x: x.transpose(2, 3)),
        lambda: Pick(lambda x: x.flip(3).roll(p, 2)),
        lambda: Pick(lambda x: x + nn.functional.avg_pool2d(x, 2 * p + 1, 1, p)),
        lambda: nn.Sequential(nn.Conv2d(1, up**2, 3, padding=1), nn.PixelShuffle(up), nn.Conv2d(1, 1, 1)),
        lambda: Pick(lambda x: x.flatten(2).unflatten(2, x.shape[2:])),
    ][rng.integers(19)]()


@pytest.mark.parametrize("seed", range(150))
def test_random_networks_see_what_their_gradient_reaches(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), *(random_layer(rng) for _ in range(rng.integers(1, 6))))
    size = (int(rng.integers(40, 60)), int(rng.integers(40, 60)))
    try:
        with torch.no_grad():
            height, width = model(torch.zeros(1, 1, *size)).shape[-2:]
    except RuntimeError:  # some chains leave no pixel
        pytest.skip("the layers drawn do not fit each other")
    if not 0 < height * width < 1 << 18:
        pytest.skip("the layers drawn leave no pixel, or too many")
    places = {(int(rng.integers(height)), int(rng.integers(width))) for _ in range(6)} | {
        (0, 0),
        (height - 1, width - 1),
    }
    fields = last_of(exact_fields(on_meta(model), size))
    if isinstance(fields, Unknown):  # a transposed map made tokens: the one thing drawn here that has no rule
        assert fields.reason == "_unsafe_view (rows, columns and more in one dimension)"
        return
    expected = {}
    for row, column in places:
        here = [(row, column)[axis.dim - 2] for axis in fields.axes]  # a transposition may have exchanged them
        seen = [(axis.low[at], axis.high[at]) for axis, at in zip(fields.axes, here, strict=True)]
        if all(low <= high for low, high in seen):
            expected[row, column] = seen
    assert reached(positive(model), size, list(expected)) == expected
