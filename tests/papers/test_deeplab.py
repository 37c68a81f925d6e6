"""DeepLab v1 and v2, arXiv:1412.7062 and arXiv:1606.00915: counts, sizes, receptive fields, scales."""

import pytest
import torch
from torch import nn

from intarsia.models import create_model
from intarsia.models.deeplab import pad_to_grid
from tests.papers.reach import averages_for_maxima, positive, rows_seen

TINY = {"width": 1 / 64, "hidden": 4, "pretrained": "none"}


def on_meta(name, **settings):
    with torch.device("meta"):
        return create_model(name, **{"pretrained": "none", "num_classes": 21, **settings})


@pytest.mark.parametrize(
    ("name", "settings", "parameters"),
    [
        ("deeplab_largefov_vgg16", {}, 20_505_429),
        ("deeplab_largefov_vgg16", {"kernel": 4, "rates": (4,), "hidden": 4096}, 65_140_565),
        ("deeplab_largefov_vgg16", {"kernel": 7, "rates": (4,), "hidden": 4096}, 134_346_581),
        ("deeplab2_vgg16", {}, 37_877_652),
        ("deeplab2_vgg16_aspp_s", {}, 37_877_652),
        ("deeplab2_resnet101", {}, 44_048_532),
        ("deeplab2_resnet101", {"num_classes": 182}, 55_919_384),
    ],
)
def test_parameters(name, settings, parameters):
    assert on_meta(name, **settings).count_parameters() == parameters


def test_trunk_of_resnet101():
    assert sum(p.numel() for p in on_meta("deeplab2_resnet101").encoder.parameters()) == 42_500_160


def test_sizes_of_a_crop_of_321_and_of_513():
    model = on_meta("deeplab_largefov_vgg16", **TINY).eval()
    seen = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[-1]))
    model.branches[0].register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
    assert model(torch.empty(1, 3, 321, 321, device="meta")).shape[-2:] == (321, 321)
    assert seen == [321, 161, 81, 41, 41, 41]
    seen.clear()
    model(torch.empty(1, 3, 513, 513, device="meta"))
    assert seen[-1] == 65


@pytest.mark.parametrize("name", ["deeplab_largefov_vgg16", "deeplab2_vgg16"])
def test_any_size(name):
    model = on_meta(name, **TINY).eval()
    for side in range(1, 100):
        assert model(torch.empty(1, 3, side, 100 - side, device="meta")).shape[-2:] == (side, 100 - side)


def test_rates_of_the_branches_and_no_average_pool_in_v2():
    large, small = on_meta("deeplab2_vgg16"), on_meta("deeplab2_vgg16_aspp_s")
    assert [branch[0][0].dilation[0] for branch in large.branches] == [6, 12, 18, 24]
    assert [branch[0][0].dilation[0] for branch in small.branches] == [2, 4, 8, 12]
    assert not large.config.average_pool
    assert on_meta("deeplab_largefov_vgg16").config.average_pool


@pytest.mark.parametrize(
    ("average", "rate", "part", "extent"), [(False, 12, "pool5", 227), (True, 12, "pool5", 243), (True, 12, "fc6", 435)]
)
def test_receptive_fields_of_v1(average, rate, part, extent):
    torch.manual_seed(0)
    model = create_model(
        "deeplab_largefov_vgg16", num_classes=1, in_channels=1, rates=(rate,), average_pool=average, **TINY
    )
    model, seen = positive(model), {}
    model.branches[0][0][0].register_forward_hook(lambda _m, inputs, out: seen.update(pool5=inputs[0], fc6=out))
    image = torch.rand(1, 1, 721, 721, dtype=torch.double, requires_grad=True)
    with averages_for_maxima():
        model(image)
    place = seen[part].shape[-1] // 2
    assert rows_seen(seen[part].sum(1), (0, place, place), image)[1] == extent


@pytest.mark.parametrize("side", [1, 8, 9, 10, 320, 321])
def test_padding_reaches_the_next_grid_point(side):
    padded = pad_to_grid(torch.zeros(1, 1, side, side)).shape[-1]
    assert padded % 8 == 1
    assert 0 <= padded - side < 8


def test_scores_lie_on_every_eighth_pixel():
    torch.manual_seed(0)
    model = create_model("deeplab_largefov_vgg16", num_classes=2, **TINY).eval()
    seen = {}
    model.branches[0].register_forward_hook(lambda _m, _i, out: seen.update(score=out))
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 41, 57))
    assert torch.allclose(logits[..., ::8, ::8], seen["score"], atol=1e-5)


def test_fc6_takes_every_fourth_filter_and_third_tap_of_the_classifier_s():
    from intarsia.models.encoders.vgg import large_layer, load_vgg16, vgg_stages
    from tests.papers.test_fcn import random_vgg16

    state = random_vgg16()
    fc6, fc7 = large_layer(512, 1024, 3, dilation=12, padding=12), large_layer(1024, 1024, 1)
    load_vgg16(state, vgg_stages(3), (fc6, fc7))
    whole = state["classifier.0.weight"].reshape(4096, 512, 7, 7)
    assert torch.equal(fc6[0].weight, whole[::4, :, ::3, ::3])
    assert torch.equal(fc7[0].weight[..., 0, 0], state["classifier.3.weight"][::4, ::4])
    assert torch.equal(fc7[0].bias, state["classifier.3.bias"][::4])


def test_strides_and_dilations_of_v2_s_residual_network():
    net = on_meta("deeplab2_resnet101").encoder.net
    for stage, stride, dilation in ((1, 1, 1), (2, 2, 1), (3, 1, 2), (4, 1, 4)):
        blocks = getattr(net, f"layer{stage}")
        assert all(block.conv2.dilation == (dilation, dilation) for block in blocks)
        assert blocks[0].conv1.stride == (stride, stride)  # in the first 1x1 convolution
        assert all(block.conv2.stride == (1, 1) for block in blocks)


def test_multi_scale_takes_the_maximum_and_gives_each_scale_a_loss():
    torch.manual_seed(0)
    settings = {"num_classes": 3, "pretrained": "none", "encoder": "resnet50"}
    model = create_model("deeplab2_resnet101", deep_supervision=True, **settings).eval()
    image = torch.rand(1, 3, 61, 93)
    with torch.no_grad():
        logits, each = model.with_auxiliary(image)
        assert torch.equal(logits, model(image))
    assert len(each) == 3
    assert torch.equal(logits, torch.stack(each).amax(0))
    single = create_model("deeplab2_resnet101", scales=(1.0,), **settings).eval()
    single.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(single(image), each[0], atol=1e-5)


def test_score_layers_start_small():
    torch.manual_seed(0)
    model = create_model("deeplab2_vgg16", num_classes=21, **{**TINY, "hidden": 1024})
    for _, _, score in model.branches:
        assert float(score.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert not score.bias.any()


def test_learning_reaches_every_branch():
    model = create_model("deeplab2_vgg16", num_classes=2, **TINY)
    model(torch.rand(1, 3, 33, 41)).square().sum().backward()
    assert all(isinstance(b[2], nn.Conv2d) and b[2].weight.grad.abs().sum() > 0 for b in model.branches)
