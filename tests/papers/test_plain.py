"""The plain stack: receptive field, cost and size."""

import pytest
import torch

from intarsia.errors import ConfigError
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


def test_cost_is_the_formula_of_the_article_measured_by_hooks():
    """MACs = H W sum k² C_in C_out; maps to keep = H W sum C_out; a halving in front of a layer divides its cost by 4."""
    model = create_model("plain", depth=4, width=6, in_channels=3, num_classes=5)
    macs, values = {}, {}

    def count(name):
        def hook(module, _inputs, out):
            macs[name] = module.weight.numel() * out.shape[-2] * out.shape[-1]
            values[name] = out.numel()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count(name))
    model(torch.rand(1, 3, 20, 28))
    assert sum(macs.values()) == 20 * 28 * 9 * (3 * 6 + 6 * 6 + 6 * 6 + 6 * 5)
    assert sum(values.values()) == 20 * 28 * (6 + 6 + 6 + 5)
    whole = dict(macs)
    halved = create_model("plain", depth=4, width=6, in_channels=3, num_classes=5, halvings=1)
    stage = next(m for m in halved.stages[0] if isinstance(m, torch.nn.Conv2d))
    stage.register_forward_hook(count("inside"))
    halved(torch.rand(1, 3, 20, 28))
    assert 4 * macs["inside"] == whole["stack.2"]


@pytest.mark.parametrize("skip", ["concat", "sum", "none"])
@pytest.mark.parametrize("up", ["nearest", "nails", "bilinear", "transposed", "resize", "subpixel", "unpool"])
@pytest.mark.parametrize("down", ["max", "average", "strided", "none"])
def test_halvings_with_every_operator(down, up, skip):
    settings = {"depth": 8, "width": 2, "halvings": 2, "down": down, "up": up, "skip": skip}
    if up == "unpool" and down != "max":
        with pytest.raises(ConfigError, match="up=unpool needs down=max"):
            create_model("plain", **settings)
        return
    model = create_model("plain", **settings)
    convolutions = [*model.stack, *model.stages.modules(), *model.back.modules(), model.head]
    assert sum(isinstance(m, torch.nn.Conv2d) for m in convolutions) == 8  # as many as without halvings
    seen = []
    model.stages[-1].register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[-2:])))
    logits = model(torch.rand(1, 3, 61, 93))
    assert logits.shape == (1, 2, 61, 93)
    assert seen == [(64, 96) if down == "none" else (16, 24)]
    logits.square().mean().backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None]


def test_too_many_halvings_for_the_depth_are_told():
    with pytest.raises(ConfigError, match="halvings=3 needs depth=8 or more"):
        create_model("plain", depth=5, halvings=3)
