"""FC-DenseNet, arXiv:1611.09326: counts, maps and sizes of tables 1 and 2, corrected as in the released README."""

import pytest
import torch
from torch import nn

from intarsia.models import create_model

MAPS = {
    "fcdensenet56": (48, 96, 144, 192, 240, 288, 336, 384, 336, 288, 240, 192),
    "fcdensenet67": (48, 128, 208, 288, 368, 448, 528, 608, 528, 448, 368, 288),
    "fcdensenet103": (48, 112, 192, 304, 464, 656, 896, 1088, 816, 576, 384, 256),
}


@pytest.mark.parametrize(
    ("name", "eleven", "twelve", "eight", "with_statistics"),
    [
        ("fcdensenet56", 1_376_795, 1_376_988, 1_376_216, 1_397_963),
        ("fcdensenet67", 3_463_243, 3_463_532, 3_462_376, 3_502_923),
        ("fcdensenet103", 9_322_091, 9_322_348, 9_321_320, 9_425_163),
    ],
)
def test_parameters(name, eleven, twelve, eight, with_statistics):
    for num_classes, count in ((11, eleven), (12, twelve), (8, eight)):
        with torch.device("meta"):
            model = create_model(name, num_classes=num_classes)
        assert model.count_parameters() == count
        if num_classes == 11:
            statistics = sum(2 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
            assert count + statistics == with_statistics


@pytest.mark.parametrize(("name", "depth"), [("fcdensenet56", 56), ("fcdensenet67", 67), ("fcdensenet103", 103)])
def test_the_name_is_the_number_of_convolutions(name, depth):
    with torch.device("meta"):
        model = create_model(name)
    assert sum(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) for m in model.modules()) == depth


@pytest.mark.parametrize("name", MAPS)
def test_maps_after_each_block(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=11).eval()
        seen = []
        for part in (model.first, *model.downs):
            part.register_forward_hook(lambda _m, inputs, out: seen.append((inputs[0].shape[1], out.shape[1])))
        ups = []
        for block in model.up_blocks:
            block.register_forward_hook(
                lambda block, inputs, out: ups.append(out.shape[1] + (0 if block.whole else inputs[0].shape[1]))
            )
        bottom = []
        model.bottleneck.register_forward_hook(lambda _m, i, out: bottom.append(i[0].shape[1] + out.shape[1]))
        model(torch.zeros(1, 3, 64, 64))
    assert (seen[0][1], *(maps for maps, _ in seen[1:]), *bottom, *ups) == MAPS[name]


def test_sizes_at_360_x_480():
    with torch.device("meta"):
        model = create_model("fcdensenet56").eval()
        downs, ups = [], []
        for part in model.downs:
            part.register_forward_hook(lambda _m, _i, out: downs.append(tuple(out.shape[-2:])))
        for part in model.ups:
            part.register_forward_hook(lambda _m, _i, out: ups.append(tuple(out.shape[-2:])))
        assert model(torch.zeros(1, 3, 360, 480)).shape[-2:] == (360, 480)
    assert downs == [(180, 240), (90, 120), (45, 60), (22, 30), (11, 15)]
    assert ups == [(23, 31), (45, 61), (91, 121), (181, 241), (361, 481)]


def test_only_new_maps_go_up():
    with torch.device("meta"):
        model = create_model("fcdensenet103")
    assert [up.in_channels for up in model.ups] == [15 * 16, 12 * 16, 10 * 16, 7 * 16, 5 * 16]
    assert all(up.in_channels == up.out_channels and up.kernel_size == (3, 3) for up in model.ups)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (61, 93)])
def test_any_size_in_both_modes(size):
    model = create_model("fcdensenet56", num_classes=2, growth=2, layers=(1,) * 11, first=4)
    for training in (True, False):
        assert model.train(training)(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def small(**settings):
    torch.manual_seed(0)
    settings = {"num_classes": 3, "growth": 2, "layers": (2,) * 7, "first": 4, **settings}
    return create_model("fcdensenet56", **settings).double().train()


def step(model, image, *, saving):
    """Logits, gradients, statistics and draws of a step, and how many blocks and transitions kept each map once."""
    image = image.clone().requires_grad_()
    torch.manual_seed(1)
    logits, others = model.with_auxiliary(image)
    nodes, todo = {}, [each.grad_fn for each in (logits, *others)]
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes[node] = node.name()
            todo += [each for each, _ in node.next_functions]
    kept_once = [name for name in nodes.values() if name in ("_DenseBlockBackward", "_TransitionBackward")]
    assert bool(kept_once) == saving
    (logits.square().mean() + sum(other.square().mean() for other in others)).backward()
    gradients = {f"d {key}": value.grad for key, value in model.named_parameters() if value.grad is not None}
    seen = {"logits": logits.detach(), "image": image.grad, "draws": torch.rand(3), **gradients}
    return seen | dict(model.named_buffers()), len(kept_once)


@pytest.mark.parametrize("settings", [{}, {"frozen": ("encoder",)}, {"frozen": ("up_blocks",)}, {"dropout": 0.0}])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_keeping_each_map_once_changes_no_number(settings, deep, batch):
    image = torch.randn(batch, 3, 37, 50, dtype=torch.float64)
    naive, auto = (small(deep_supervision=deep, memory=memory, **settings) for memory in ("naive", "auto"))
    assert naive.state_dict().keys() == auto.state_dict().keys()
    (expected, none), (found, count) = step(naive, image, saving=False), step(auto, image, saving=True)
    assert (none, count) == (0, 7 + 3)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.allclose(value, found[key], rtol=1e-8, atol=1e-10), key


def test_equal_to_the_naive_form_to_1e_5_in_float32():
    image = torch.randn(2, 3, 64, 64)
    naive, auto = (small(memory=memory).float() for memory in ("naive", "auto"))
    (expected, _), (found, _) = step(naive, image, saving=False), step(auto, image, saving=True)
    largest = max(value.abs().max() for key, value in expected.items() if key.startswith("d "))
    for key, value in expected.items():
        scale = largest if key.startswith("d ") else 1
        assert torch.allclose(value / scale, found[key] / scale, rtol=1e-5, atol=1e-5), key


def test_maps_are_kept_once_in_training_unless_asked_for():
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    step(small().eval(), image, saving=False)
    step(small(memory="saving").eval(), image, saving=True)
