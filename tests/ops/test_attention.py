"""scSE, arXiv:1803.02579: its formula, written out."""

import pytest
import torch

from intarsia.ops.attention import SCSE


def test_formula():
    torch.manual_seed(0)
    block, x = SCSE(32, reduction=4), torch.randn(2, 32, 5, 6)
    _, first, _, second = block.channel
    squeezed = x.mean((2, 3))
    excited = torch.relu(squeezed @ first.weight[:, :, 0, 0].T + first.bias)
    gate = torch.sigmoid(excited @ second.weight[:, :, 0, 0].T + second.bias)
    place = torch.sigmoid((x * block.place.weight[0]).sum(1, keepdim=True) + block.place.bias)
    assert torch.allclose(block(x), x * gate[:, :, None, None] + x * place, atol=1e-6)


@pytest.mark.parametrize(("width", "narrow"), [(64, 4), (16, 1), (3, 1)])
def test_the_narrow_layer_never_vanishes(width, narrow):
    assert SCSE(width).channel[1].out_channels == narrow
    assert SCSE(width)(torch.randn(1, width, 1, 1)).shape == (1, width, 1, 1)


def test_closed_gates_give_zero_and_open_ones_twice_the_map():
    block, x = SCSE(8), torch.randn(1, 8, 4, 4)
    for value, factor in ((-50.0, 0.0), (50.0, 2.0)):
        torch.nn.init.constant_(block.channel[3].bias, value)
        torch.nn.init.constant_(block.place.bias, value)
        assert torch.allclose(block(x), factor * x, atol=1e-6)
