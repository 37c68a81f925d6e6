"""Dilated convolutions, arXiv:1511.07122: table 1, the identity start, the front end and the released nets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from intarsia.errors import ConfigError
from intarsia.models import MODELS, create_model, dilated
from intarsia.models.base import build_model
from intarsia.models.dilated import (
    BASIC,
    CITYSCAPES,
    KITTI,
    LARGE,
    BilinearUp,
    ContextModule,
    ContextSettings,
    with_context,
)
from intarsia.ops.pad import mirror_pad

NARROW = {"pretrained": "none", "width": 1 / 512, "hidden": 1}
FULL = {"pretrained": "none"}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def positive(module):
    """The same connections with weights above zero, so that no path is cut by a ReLU."""
    for parameter in module.parameters():
        parameter.data.abs_().add_(0.1)
    return module.double().eval()


def seen_by(score, image):
    """Rows and columns of the image that a score depends on: first and last."""
    (gradient,) = torch.autograd.grad(score, image, retain_graph=True)
    rows, columns = (gradient[0].abs().sum((0, axis)).nonzero().flatten() for axis in (2, 1))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


@pytest.mark.parametrize(
    ("settings", "classes", "parameters"),
    [
        (BASIC, 21, 28_392),
        (BASIC, 11, 7_832),
        (BASIC, 19, 23_256),
        (LARGE, 21, 6_803_139),
        (LARGE, 11, 1_867_129),
        (KITTI, 11, 6_732),
        (CITYSCAPES, 19, 29_792),
    ],
)
def test_parameters_of_the_context_module(settings, classes, parameters):
    with torch.device("meta"):
        assert count(ContextModule(classes, settings)) == parameters


def test_basic_has_64_weights_a_pair_of_classes():
    with torch.device("meta"):
        module = ContextModule(21)
    assert sum(p.numel() for p in module.parameters() if p.ndim == 4) == 64 * 21**2 == 28_224
    assert sum(p.numel() for p in module.parameters() if p.ndim == 1) == 8 * 21 == 168


def test_table_1():
    with torch.device("meta"):
        layers = [[m for m in ContextModule(21, each).modules() if isinstance(m, nn.Conv2d)] for each in (BASIC, LARGE)]
    for convolutions in layers:
        assert [m.dilation[0] for m in convolutions] == [1, 1, 2, 4, 8, 16, 1, 1]
        assert [m.kernel_size[0] for m in convolutions] == [3] * 7 + [1]
    assert [m.out_channels for m in layers[0]] == [21] * 8
    assert [m.out_channels for m in layers[1]] == [42, 42, 84, 168, 336, 672, 672, 21]
    assert [m.padding[0] for m in layers[0]] == [1, 1, 2, 4, 8, 16, 1, 0]
    assert [m.padding[0] for m in layers[1]] == [33] + [0] * 7
    assert isinstance(ContextModule(2)[-1], nn.Conv2d)


def test_sizes_of_the_large_module():
    with torch.device("meta"):
        module = ContextModule(21, LARGE)
        sides = [66 + 2 * module[0].padding[0]]
        module[0].register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
        sides.append(module(torch.zeros(1, 21, 66, 66)).shape[-1])
    assert sides == [132, 130, 66]


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        (BASIC, [3, 5, 9, 17, 33, 65, 67, 67]),
        (KITTI, [3, 5, 9, 17, 33, 35, 35]),
        (CITYSCAPES, [3, 5, 9, 17, 33, 65, 129, 257, 259, 259]),
    ],
)
def test_receptive_field_of_each_layer(settings, fields):
    module = positive(ContextModule(1, settings))
    image = torch.rand(1, 1, 261, 3, dtype=torch.double, requires_grad=True)
    x, measured = image, []
    for layer in module:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            first, last = seen_by(x[0, 0, 130, 1], image)[0]
            measured.append(last - first + 1)
    assert measured == fields


def test_receptive_field_of_the_large_module():
    module = positive(ContextModule(1, LARGE))
    image = torch.rand(1, 1, 81, 1, dtype=torch.double, requires_grad=True)
    assert seen_by(module(image)[0, 0, 40, 0], image)[0] == (40 - 33, 40 + 33)


@pytest.mark.parametrize("classes", [1, 2, 3, 11])
@pytest.mark.parametrize("settings", [BASIC, LARGE, KITTI, CITYSCAPES])
def test_without_noise_it_starts_as_the_identity_behind_a_relu(settings, classes):
    module = ContextModule(classes, settings.replace(sigma=0.0)).double()
    logits = torch.randn(1, classes, 9, 7, dtype=torch.double)
    with torch.no_grad():
        assert (module(logits) - logits.clamp(min=0)).abs().max() < 1e-12


def test_noise_around_the_identity_has_deviation_sigma():
    torch.manual_seed(0)
    conv = ContextModule(21, LARGE)[10]
    weight = conv.weight.detach().clone()
    assert weight.shape[:2] == (672, 336)
    same = torch.arange(672)[:, None] * 21 // 672 == torch.arange(336) * 21 // 336
    assert torch.equal(weight[:, :, 1, 1][same], torch.full((int(same.sum()),), 21 / 672))
    weight[:, :, 1, 1][same] = float("nan")
    assert float(weight[~weight.isnan()].std()) == pytest.approx(0.01, rel=0.01)
    assert not conv.bias.any()


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("dilated_frontend", 21, 134_346_581),
        ("dilated_frontend", 11, 134_305_611),
        ("dilated_frontend", 19, 134_338_387),
        ("dilation8", 21, 141_149_720),
        ("dilation8_camvid", 11, 134_313_443),
        ("dilation7_kitti", 11, 134_312_343),
        ("dilation10_cityscapes", 19, 134_368_179),
    ],
)
def test_parameters_of_the_released_nets(name, classes, parameters):
    with torch.device("meta"):
        assert create_model(name, num_classes=classes, **FULL).count_parameters() == parameters


@pytest.mark.parametrize(
    ("size", "scores"),
    [(380, 1), (404, 4), (500, 16), (628, 32), (852, 60), (900, 66), (1100, 91), (1396, 128), (1640, 158)],
)
def test_scores_of_the_front_end(size, scores):
    with torch.device("meta"):
        model = create_model("dilated_frontend", num_classes=21, **FULL)
        assert model.scores(torch.zeros(1, 3, size, size)).shape == (1, 21, scores, scores)


def test_layers_of_the_front_end():
    with torch.device("meta"):
        model = create_model("dilated_frontend", **FULL)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 16
    assert all(m.padding == (0, 0) and m.stride == (1, 1) for m in convolutions)
    assert [m.dilation[0] for m in convolutions] == [1] * 10 + [2, 2, 2] + [4, 1, 1]
    assert [m.kernel_size[0] for m in convolutions] == [3] * 13 + [7, 1, 1]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_receptive_field_of_the_front_end_is_380_and_centred_on_its_pixels():
    model = positive(create_model("dilated_frontend", in_channels=1, num_classes=1, **NARROW))
    model.pool = nn.AvgPool2d(2)  # as wide as max-pooling, and every path counts
    image = torch.rand(1, 1, 404, 396, dtype=torch.double, requires_grad=True)
    scores = model.scores(image)
    for row, column in ((0, 0), (2, 1), (3, 2)):
        rows, columns = seen_by(scores[0, 0, row, column], image)
        assert rows == (8 * row, 8 * row + 379)
        assert columns == (8 * column, 8 * column + 379)
        assert sum(rows) / 2 - 186 == 8 * row + 3.5  # in the image without its margin


@pytest.mark.parametrize(
    ("name", "field"),
    [("dilation7_kitti", 652), ("dilation8", 908), ("dilation8_camvid", 908), ("dilation10_cityscapes", 2444)],
)
def test_receptive_field_of_front_end_and_context(name, field):
    model = positive(create_model(name, in_channels=1, num_classes=1, **NARROW))
    model.pool = nn.AvgPool2d(2)
    image = torch.rand(1, 1, field + 16, 380, dtype=torch.double, requires_grad=True)
    scores = model.context(model.scores(image))
    rows, _ = seen_by(scores[0, 0, scores.shape[-2] // 2, 0], image)
    assert rows == (8, field + 7)


def test_the_margin_is_mirrored_without_doubling_the_border():
    torch.manual_seed(0)
    model = create_model("dilated_frontend", **{**NARROW, "width": 1 / 64, "hidden": 4}).eval()
    image = torch.rand(1, 3, 200, 208)
    padded = F.pad(image, (186,) * 4, mode="reflect")
    with torch.no_grad():
        scores = model.scores(padded)
        assert scores.shape[-2:] == (25, 26)
        assert torch.equal(model(image), F.interpolate(scores, scale_factor=8, mode="bilinear"))
        part = model.scores(mirror_pad(image[..., :195, :201], 186, 186 + 5, 186, 186 + 7))
        assert torch.equal(
            model(image[..., :195, :201]), F.interpolate(part, scale_factor=8, mode="bilinear")[..., :195, :201]
        )


def test_fixed_transposed_convolution_is_bilinear_inside_and_not_trained():
    up = BilinearUp(3)
    assert not list(up.parameters())
    assert not up.state_dict()
    x = torch.randn(2, 3, 5, 6)
    expected = F.interpolate(x, scale_factor=8, mode="bilinear")
    assert torch.allclose(up(x)[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], atol=1e-6)
    assert up(x).shape == expected.shape


def test_start_weights():
    torch.manual_seed(0)
    for name, bias in (("dilated_frontend", 0.0), ("dilation8", 1.0)):
        model = create_model(name, num_classes=21, pretrained="none", width=0.25)
        assert float(model.score.weight.detach().std()) == pytest.approx(0.001, rel=0.02)
        assert torch.equal(model.score.bias, torch.full((21,), bias))
    weight = model.stages[3][2].weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)


def test_published_weights_are_refused_where_they_cannot_fit():
    with pytest.raises(ConfigError, match="do not fit"):
        create_model("dilation8", width=0.5, pretrained="download")


@pytest.mark.parametrize(
    ("name", "channels", "mean"), [("dilation8", 3, (0.485, 0.456, 0.406)), ("dilated_frontend", 1, (0.449,))]
)
def test_published_weights_fill_stages_fc6_and_fc7(monkeypatch, name, channels, mean):
    filled = []
    monkeypatch.setattr(dilated, "start_weights", lambda *_args, **_fits: ({"any": torch.zeros(1)}, "VGG16's"))
    monkeypatch.setattr(dilated, "load_vgg16", lambda _s, *parts, first_layer: filled.append((*parts, first_layer)))
    model = create_model(name, in_channels=channels, width=0.02, hidden=2, first_layer="fresh")
    assert filled == [(model.stages, (model.fc6, model.fc7), "fresh")]
    assert model.start == "VGG16's"
    assert model.mean == pytest.approx(mean)
    assert len(model.std) == channels


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (33, 20)])
@pytest.mark.parametrize("name", ["dilated_frontend", "dilation8", "dilation7_kitti", "dilation10_cityscapes"])
@pytest.mark.parametrize("channels", [1, 5])
def test_any_size_in_both_modes(name, size, channels):
    model = create_model(name, num_classes=2, in_channels=channels, **NARROW)
    for training in (True, False):
        assert model.train(training)(torch.rand(1, channels, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize(("name", "tap"), [("dilated_frontend", "stages.4"), ("dilation8_camvid", "score")])
def test_auxiliary_logits_lie_on_the_image(name, tap):
    model = create_model(name, num_classes=2, deep_supervision=True, **NARROW).eval()
    logits, (other,) = model.with_auxiliary(torch.rand(1, 3, 30, 41))
    assert other.shape == logits.shape
    assert list(model.taps) == [tap]
    seen = []
    model.get_submodule(tap).register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    model(torch.rand(1, 3, 32, 40))
    assert (seen[0][1], 8) == model.taps[tap]
    lost = model.auxiliary_origin // 8  # positions beyond the image, on each side
    assert seen[0][-2:] == (4 + 2 * lost, 5 + 2 * lost)


@pytest.mark.parametrize(("kind", "parameters"), [("basic", 28_392), ("large", 6_803_139)])
def test_the_module_as_a_plug(kind, parameters):
    with torch.device("meta"):
        model = create_model(f"context_{kind}", num_classes=21, front={"name": "unet_same"})
        plugged = with_context(create_model("unet_same", num_classes=21), kind)
    for each in (model, plugged):
        assert count(each.context) == parameters
        assert each.count_parameters() == parameters + each.front.count_parameters()
        assert each.front.config.name == "unet_same"


def test_a_plug_keeps_what_the_model_says():
    torch.manual_seed(0)
    front = create_model("unet", num_classes=3, in_channels=1, width=2).eval()
    front.mean, front.std, front.start = (0.5,), (0.2,), "somewhere"
    model = with_context(front).eval()
    assert model.output_size(188, 204) == (4, 20)
    assert model.input_size(100, 100) == front.input_size(100, 100)
    assert model.sample_size(256, 256) == front.sample_size(256, 256)
    assert (model.mean, model.std, model.start) == ((0.5,), (0.2,), "somewhere")
    image = torch.rand(1, 1, 188, 204)
    with torch.no_grad():
        assert torch.equal(model(image), model.context(front(image)))
    model.freeze("front").train()
    assert not any(p.requires_grad for p in model.front.parameters())
    assert not model.front.training
    again = build_model(MODELS.resolve(model.config.to_dict()).without_start_weights())
    again.load_state_dict(model.state_dict())
    assert again.config == model.config.replace(front=again.front.config)


def test_a_recipe_names_the_front_and_no_start_weights_reach_it():
    config = MODELS["context_basic"].replace(
        {"front": {"name": "dilated_frontend", "width": 0.1}, "context": {"sigma": 0}}, num_classes=2, in_channels=1
    )
    assert (config.front.name, config.front.width, config.context.sigma) == ("dilated_frontend", 0.1, 0)
    assert config.front.pretrained == "auto"
    assert config.without_start_weights().front.pretrained == "none"
    assert build_model(config.without_start_weights()).front.config.in_channels == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dilations": (1, 1)}, "as many of one"), ({"multipliers": (1,) * 7 + (2,)}, "last multiplier must be 1")],
)
def test_layers_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ContextSettings(**settings)
