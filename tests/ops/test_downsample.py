"""Down-sampling: the rules of the table, and their exchange inside a network."""

import copy

import pytest
import torch
from torch import nn

from intarsia.errors import ConfigError
from intarsia.ops.downsample import exchange_down, make_down

X = torch.arange(16.0).reshape(1, 1, 4, 4)


def test_rules():
    assert make_down("max", 1)(X)[0, 0].tolist() == [[5, 7], [13, 15]]
    assert make_down("average", 1)(X)[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert make_down("strided", 1)(X).shape == (1, 1, 2, 2)
    assert torch.equal(make_down("none", 1)(X), X)


def network():
    """Halves by a convolution, a pooling, and a residual-like pair of convolutions in a nested part."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(6, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
    return nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.MaxPool2d(3, 2, 1), nn.Sequential(inner))


@pytest.mark.parametrize("kind", ["max", "average", "strided"])
def test_size_and_weights_stay(kind):
    net = network().eval()
    before = copy.deepcopy(net.state_dict())
    image = torch.randn(1, 2, 32, 48)
    shape = net(image).shape
    changed = exchange_down(net, kind, 2)
    assert changed(image).shape == shape == (1, 8, 4, 6)
    after = changed.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert set(after) - set(before) == ({"1.weight"} if kind == "strided" else set())
    assert torch.equal(copy.deepcopy(changed)(image), changed(image))


@pytest.mark.parametrize(("kind", "pool"), [("max", nn.functional.max_pool2d), ("average", nn.functional.avg_pool2d)])
def test_a_strided_convolution_is_computed_everywhere_and_pooled(kind, pool):
    net = network()
    image = torch.randn(1, 2, 16, 16)
    everywhere = nn.functional.conv2d(image, net[0].weight, net[0].bias, padding=1)
    changed = exchange_down(net, kind, 2)
    assert torch.allclose(changed[0](image), pool(everywhere, 2), atol=1e-6)
    assert isinstance(changed[1], nn.MaxPool2d if kind == "max" else nn.AvgPool2d)


def test_a_strided_pooling_starts_as_an_average():
    net = exchange_down(network(), "strided", 2)
    assert net[0].stride == (2, 2)
    x = torch.randn(1, 6, 8, 8)
    mean = nn.functional.avg_pool2d(x, 3, 2, 1)  # the border's zeros count in both
    assert torch.allclose(net[1](x), mean, atol=1e-6)


def test_the_network_keeps_its_mode_and_statistics():
    net = network().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    exchange_down(net, "average", 2)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_network_that_halves_by_poolings_alone():
    net = exchange_down(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2)), "average", 2)
    assert isinstance(net[1], nn.AvgPool2d)


@pytest.mark.parametrize("net", [nn.Sequential(nn.Conv2d(3, 8, 4, stride=4)), nn.Sequential(nn.Conv2d(3, 8, 1))])
def test_patches_cannot_be_exchanged(net):
    with pytest.raises(ConfigError, match=r"model\.down: max cannot take the place .* Leave model\.down at encoder"):
        exchange_down(net, "max", 3)
