"""The plain stack: receptive field, cost and size."""

import pytest
import torch

from intarsia.models import create_model


@pytest.mark.parametrize(("depth", "field"), [(1, 3), (5, 11), (10, 21), (20, 41)])
def test_receptive_field_is_2l_plus_1(depth, field):
    torch.manual_seed(0)
    model = create_model("plain", depth=depth, width=2, in_channels=1, num_classes=1).double()
    for parameter in model.parameters():
        parameter.data.abs_()
    image = torch.rand(1, 1, 51, 51, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(image)[0, 0, 25, 25], image)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0] + 1) == field


def test_parameters_are_the_sum_of_k2_c_in_c_out_plus_c_out():
    model = create_model("plain", depth=3, width=7, in_channels=2, num_classes=5)
    assert model.count_parameters() == (9 * 2 * 7 + 7) + (9 * 7 * 7 + 7) + (9 * 7 * 5 + 5)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (17, 4)])
def test_every_layer_keeps_the_size(size):
    model = create_model("plain", depth=4, width=2)
    seen = []
    for layer in (*model.stack, model.head):
        layer.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[-2:])))
    model(torch.rand(1, 3, *size))
    assert set(seen) == {size}
