"""Residual U-Net, arXiv:1608.04117: the table of layers and its 11 M weights; counts of the authors' fcn_maker."""

import pytest
import torch
from torch import nn

from intarsia.errors import ConfigError
from intarsia.models import create_model


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, 11_451_745),
        ({"short": False}, 10_757_601),
        ({"skip": "none"}, 11_567_393),
        ({"init_blocks": 2}, 11_470_369),
        ({"init_blocks": 2, "skip": "concat"}, 12_048_833),
        ({"width": 16}, 2_883_761),
    ],
)
def test_parameters(settings, parameters):
    with torch.device("meta"):
        model = create_model("resunet", num_classes=1, in_channels=1, **settings)
    assert model.count_parameters() == parameters


def test_parameters_and_statistics():
    with torch.device("meta"):
        model = create_model("resunet", num_classes=1, in_channels=1)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert model.count_parameters() + sum(2 * m.num_features for m in norms) == 11_504_481
    assert {m.momentum for m in norms} == {0.1}  # Keras' 0.9


def test_table_of_layers():
    with torch.device("meta"):
        model = create_model("resunet", num_classes=1, in_channels=1).eval()
        table = []
        parts = (model.first, *model.down, model.across, *model.up, model.last, model.head)
        for part in parts:
            part.register_forward_hook(lambda _m, _i, out: table.append((out.shape[-1], out.shape[1])))
        model(torch.zeros(1, 1, 512, 512))
    assert table == [
        (512, 32),
        (256, 32),
        (128, 128),
        (64, 256),
        (32, 512),
        (32, 1024),
        (64, 512),
        (128, 256),
        (256, 128),
        (512, 32),
        (512, 32),
        (512, 1),
    ]
    assert [len(stage) for stage in (*model.down, model.across, *model.up)] == [1, 3, 8, 10, 3, 10, 8, 3, 1]


def test_across_goes_down_to_16_and_up_again():
    with torch.device("meta"):
        model = create_model("resunet").eval()
        sizes = []
        for module in model.across.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
        model(torch.zeros(1, 3, 512, 512))
    assert min(sizes) == 16
    assert sizes[-1] == 32


@pytest.mark.parametrize(("init_blocks", "stride"), [(1, 32), (2, 64)])
def test_the_deepest_stride(init_blocks, stride):
    with torch.device("meta"):
        model = create_model("resunet", width=1, init_blocks=init_blocks, depths=(1,) * 7).eval()
        sides = []
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
        model(torch.zeros(1, 3, 128, 128))
    assert min(sides) == 128 // stride


@pytest.mark.parametrize("kind", ["bottleneck", "basic", "simple"])
def test_a_block_whose_convolutions_are_zero_is_its_short_skip(kind):
    model = create_model("resunet", width=4, block=kind, depths=(1, 1, 1)).eval()
    for part, expected in (
        (model.down[0], lambda x: x[..., ::2, ::2]),
        (model.up[-1], lambda x: x.repeat_interleave(2, -1).repeat_interleave(2, -2)),
    ):
        for module in part[0].body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.weight)
        x = torch.randn(1, 4, 6, 8)  # of both signs: no activation after the addition
        assert torch.equal(part(x), expected(x))


def test_convolutions_of_a_block():
    def kinds(block):
        with torch.device("meta"):
            model = create_model("resunet", width=4, block=block, depths=(1, 1, 1))
        stage = model.down[1][0].body
        return [(m.kernel_size[0], m.stride[0], m.out_channels) for m in stage.modules() if isinstance(m, nn.Conv2d)]

    assert kinds("bottleneck") == [(1, 2, 4), (3, 1, 4), (1, 1, 16)]
    assert kinds("basic") == [(3, 2, 4), (3, 1, 4)]
    assert kinds("simple") == [(3, 1, 4)]


def test_without_short_skips_nothing_goes_around():
    model = create_model("resunet", width=4, depths=(1, 1, 1), short=False).eval()
    x = torch.randn(1, 4, 6, 8)
    assert torch.equal(model.down[0](x), model.down[0][0].body(x))


def test_long_skips_are_added_to_the_decoder_at_the_encoders_width():
    with torch.device("meta"):
        model = create_model("resunet")
    assert [(m.project.in_channels, m.project.out_channels) for m in model.merge[:-1]] == [
        (1024, 512),
        (512, 256),
        (256, 128),
    ]
    merge = create_model("resunet", width=2, depths=(1, 1, 1)).topmost
    x, skip = torch.randn(2, 1, 2, 4, 4)
    assert torch.equal(merge(x, skip), x + skip)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (65, 96)])
@pytest.mark.parametrize("settings", [{}, {"skip": "concat", "block": "basic"}, {"skip": "none", "block": "simple"}])
def test_any_size_in_both_modes(size, settings):
    model = create_model("resunet", num_classes=2, width=2, depths=(1,) * 7, **settings)
    for training in (True, False):
        assert model.train(training)(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_auxiliary_logits_of_the_way_up():
    model = create_model("resunet", width=2, depths=(1,) * 7, deep_supervision=True)
    logits, others = model.with_auxiliary(torch.rand(1, 3, 64, 96))
    assert [tuple(each.shape) for each in others] == [tuple(logits.shape)] * 4
    seen = []
    for path in model.taps:
        model.get_submodule(path).register_forward_hook(
            lambda _m, _i, out: seen.append((out.shape[1], 64 // out.shape[-2]))
        )
    model(torch.rand(1, 3, 64, 96))
    assert seen == list(model.taps.values())


def test_depths_that_do_not_mirror_are_refused():
    with pytest.raises(ConfigError, match="odd number"):
        create_model("resunet", depths=(1, 2))
