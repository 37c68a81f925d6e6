"""Normalisation: the definitions of the table, and maps that have too few values for them."""

from typing import get_args

import pytest
import torch
from torch import nn

from intarsia.ops.norm import Norm, make_norm

NORMS = [norm for norm in get_args(Norm) if norm != "none"]
AXES = {"batch": (0, 2, 3), "instance": (2, 3), "layer": (1,)}


@pytest.mark.parametrize("norm", AXES)
def test_mean_zero_and_deviation_one_over_the_axes_of_the_table(norm):
    torch.manual_seed(0)
    out = make_norm(norm, 12)(3 * torch.randn(2, 12, 5, 7) + 1)
    assert torch.allclose(out.mean(AXES[norm]), torch.zeros(()), atol=1e-5)
    assert torch.allclose(out.var(AXES[norm], unbiased=False), torch.ones(()), atol=1e-3)


@pytest.mark.parametrize(
    ("width", "groups"), [(64, 32), (256, 32), (48, 16), (7, 1), (1, 1), (40, 8), (32, 16), (16, 8), (2, 1)]
)
def test_groups_divide_the_width_and_hold_two_channels_if_there_are_two(width, groups):
    norm = make_norm("group", width)
    assert norm.num_groups == groups
    torch.manual_seed(0)
    out = norm(3 * torch.randn(2, width, 5, 7) + 1).reshape(2, groups, -1)
    assert torch.allclose(out.mean(-1), torch.zeros(()), atol=1e-5)


def test_layer_norm_is_that_of_every_pixel():
    torch.manual_seed(0)
    norm, x = make_norm("layer", 6), torch.randn(2, 6, 3, 4)
    assert torch.equal(norm(x)[1, :, 2, 3], nn.functional.layer_norm(x[1, :, 2, 3], (6,)))


def test_none_is_the_identity_without_weights():
    x = torch.randn(1, 3, 2, 2)
    assert torch.equal(make_norm("none", 3)(x), x)
    assert not list(make_norm("none", 3).parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("width", [2, 16, 32, 48])
@pytest.mark.parametrize("training", [True, False])
def test_one_value_a_channel_is_no_error_and_has_a_gradient(norm, width, training):
    layer = make_norm(norm, width).train(training)
    x = torch.randn(1, width, 1, 1, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()
    assert layer.bias.grad.abs().sum() > 0


def test_one_value_a_channel_uses_the_running_statistics_and_leaves_them():
    norm = make_norm("batch", 3).train()
    for _ in range(50):
        norm(2 * torch.randn(8, 3, 4, 4) + 5)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = torch.full((1, 3, 1, 1), 5.0)
    assert torch.allclose(norm(x), norm.eval()(x))
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_where_torch_gives_a_value_it_is_the_same(norm):
    torch.manual_seed(0)
    ours, x = make_norm(norm, 64), torch.randn(2, 64, 3, 3)
    theirs = {
        "batch": nn.BatchNorm2d(64),
        "instance": nn.InstanceNorm2d(64, affine=True),
        "group": nn.GroupNorm(32, 64),
    }[norm]
    assert torch.equal(ours(x), theirs(x))
    assert list(ours.state_dict()) == list(theirs.state_dict())
