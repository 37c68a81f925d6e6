"""U-Net, arXiv:1505.04597: counts, sizes and receptive field of figure 1."""

import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.models import create_model
from intarsia.models.base import logits_for
from intarsia.ops.pad import mirror_pad


@pytest.mark.parametrize(
    ("in_channels", "num_classes", "parameters"),
    [
        (1, 2, 31_030_658),
        (1, 1, 31_030_593),
        (3, 1, 31_031_745),
        (3, 2, 31_031_810),
        (3, 21, 31_033_045),
        (3, 11, 31_032_395),
    ],
)
def test_parameters_of_the_figure(in_channels, num_classes, parameters):
    with torch.device("meta"):
        model = create_model("unet", in_channels=in_channels, num_classes=num_classes)
    assert model.count_parameters() == parameters


def test_batch_norm_variant_without_biases():
    with torch.device("meta"):
        assert create_model("unet_same", in_channels=1, num_classes=2).count_parameters() == 31_036_546


def test_layers_of_the_figure():
    with torch.device("meta"):
        model = create_model("unet", in_channels=1, num_classes=2)
    convolutions = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    kinds = [type(module).__name__ + str(module.kernel_size[0]) for module in convolutions]
    assert kinds.count("Conv2d3") == 18
    assert kinds.count("ConvTranspose2d2") == 4
    assert kinds.count("Conv2d1") == 1
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_sizes_at_every_level_of_the_figure():
    model = create_model("unet", in_channels=1, num_classes=2, width=2).eval()
    sizes = []
    for part in (*model.down, *model.merge):
        part.register_forward_hook(lambda _module, _in, out: sizes.append((out.shape[1], out.shape[-1])))
    logits = model(torch.zeros(1, 1, 572, 572))
    assert logits.shape == (1, 2, 388, 388)
    assert sizes == [(2, 568), (4, 280), (8, 136), (16, 64), (32, 28), (16, 52), (8, 100), (4, 196), (2, 388)]


@pytest.mark.parametrize(("size", "out"), [(188, 4), (204, 20), (572, 388), (588, 404), (700, 516)])
def test_valid_sizes(size, out):
    with torch.device("meta"):
        model = create_model("unet", in_channels=1, num_classes=2, width=1)
        assert model.output_size(size, size) == (out, out)
        assert model(torch.zeros(1, 1, size, size)).shape[-1] == out


def test_smallest_input_for_an_output_of_512_is_700():
    with torch.device("meta"):
        assert create_model("unet", width=1).input_size(512, 512) == (700, 700)


@pytest.mark.parametrize("size", [187, 190, 172])
def test_other_sizes_are_refused_with_the_right_ones(size):
    with pytest.raises(ConfigError, match="188, 204, 220"):
        create_model("unet", width=1)(torch.zeros(1, 3, size, 188))


def test_receptive_field_is_188_or_204():
    torch.manual_seed(0)
    model = create_model("unet", in_channels=1, num_classes=1, width=2, dropout=0.0).double().eval()
    for parameter in model.parameters():
        parameter.data.abs_()
    extents = set()
    image = torch.rand(1, 1, 380, 380, dtype=torch.double, requires_grad=True)
    logits = model(image)
    for place in range(90, 106):
        (gradient,) = torch.autograd.grad(logits[0, 0, place, place], image, retain_graph=True)
        rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
        extents.add(int(rows[-1] - rows[0] + 1))
    assert extents == {188, 204}


def test_overlap_tiles_equal_the_whole_image_when_stepped_by_16():
    torch.manual_seed(0)
    model = create_model("unet", in_channels=1, num_classes=2, width=2).double().eval()
    image = torch.rand(1, 1, 400, 64, dtype=torch.double)
    padded = mirror_pad(image, 92, 92, 92, 92)
    with torch.no_grad():
        whole = model(padded[..., :572, :236])
        for origin in (0, 16, 96, 176):
            tile = model(padded[..., origin : origin + 236, :236])
            assert torch.allclose(tile, whole[..., origin : origin + tile.shape[-2], :], atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (97, 131), (188, 188), (200, 189)])
def test_mirrored_borders_give_logits_for_every_pixel(size):
    model = create_model("unet", in_channels=1, num_classes=2, width=1).eval()
    assert logits_for(model, torch.rand(1, 1, *size)).shape == (1, 2, *size)


def test_mirrored_logits_are_those_of_the_padded_image():
    torch.manual_seed(0)
    model = create_model("unet", in_channels=1, num_classes=2, width=2).double().eval()
    image = torch.rand(1, 1, 388, 388, dtype=torch.double)
    with torch.no_grad():
        assert torch.equal(logits_for(model, image), model(mirror_pad(image, 92, 92, 92, 92)))


def test_start_weights_have_deviation_sqrt_2_over_fan_in():
    torch.manual_seed(0)
    model = create_model("unet", in_channels=1, num_classes=2)
    weight = model.down[1][2].weight
    assert weight.shape[1] == 128
    assert float(weight.detach().std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)


def test_skips_are_concatenated_after_the_upsampled():
    model = create_model("unet_same", in_channels=1, num_classes=2, width=2, depth=1, norm="none").eval()
    seen = {}
    model.merge[0].register_forward_hook(lambda _m, inputs, _o: seen.update(x=inputs[0]))
    model.down[0].register_forward_hook(lambda _m, _i, out: seen.update(skip=out))
    model(torch.rand(1, 1, 8, 8))
    assert torch.equal(seen["x"][:, 2:], seen["skip"])


@pytest.mark.parametrize(
    ("name", "in_channels", "parameters"),
    [("unet_released", 1, 31_100_354), ("unet_bn", 3, 31_043_586), ("unet_bn", 1, 31_042_434)],
)
def test_parameters_of_the_variants(name, in_channels, parameters):
    with torch.device("meta"):
        assert create_model(name, in_channels=in_channels, num_classes=2).count_parameters() == parameters


def test_released_net_keeps_128_channels_in_its_last_up_convolution_and_has_relus_there():
    with torch.device("meta"):
        model = create_model("unet_released", in_channels=1, num_classes=2)
    assert [step[0].out_channels for step in model.up] == [512, 256, 128, 128]
    assert all(isinstance(step[1], torch.nn.ReLU) for step in model.up)
    assert [stage[0].in_channels for stage in model.merge] == [1024, 512, 256, 192]


def test_skips_are_cropped_by_4_16_40_and_88():
    model = create_model("unet", in_channels=1, num_classes=2, width=2).eval()
    skips, joined = [], []
    for stage in model.down[:-1]:
        stage.register_forward_hook(lambda _m, _i, out: skips.append(out))
    for stage in model.merge:
        stage.register_forward_hook(lambda _m, inputs, _o: joined.append(inputs[0]))
    model(torch.rand(1, 1, 572, 572))
    for skip, x, offset in zip(reversed(skips), joined, (4, 16, 40, 88), strict=True):
        end = skip.shape[-1] - offset
        assert torch.equal(x[:, x.shape[1] // 2 :], skip[..., offset:end, offset:end])


def test_dropout_follows_the_second_convolution_of_the_two_deepest_levels():
    model = create_model("unet", in_channels=1, num_classes=2, width=2)
    kinds = [[type(layer).__name__ for layer in stage] for stage in model.down]
    assert ["Dropout" in stage for stage in kinds] == [False, False, False, True, True]
    assert kinds[3] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Dropout"]  # the skip is taken behind it, as in two ports
    assert model.down[3][-1].p == 0.5
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in model.merge.modules())


UPS = ["nearest", "nails", "bilinear", "transposed", "resize", "subpixel", "unpool"]


@pytest.mark.parametrize("skip", ["concat", "sum", "none"])
@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("down", ["max", "average", "strided", "none"])
def test_operators_exchange_with_everything_else_equal(down, up, skip):
    settings = {"width": 2, "depth": 2, "down": down, "up": up, "skip": skip}
    if up == "unpool" and down != "max":
        with pytest.raises(ConfigError, match="up=unpool needs"):
            create_model("unet_same", **settings)
        return
    model = create_model("unet_same", **settings)
    seen = []
    model.down[-1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-2:]))
    logits = model(torch.rand(1, 3, 61, 93))
    assert logits.shape == (1, 2, 61, 93)
    assert seen == [(64, 96) if down == "none" else (16, 24)]
    logits.square().mean().backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None]


def test_without_skips_the_contracting_path_reaches_the_logits_only_through_the_bottom():
    model = create_model("unet_same", width=2, depth=1, skip="none", norm="none").eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = model(image)
        model.down[1].register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
        assert model(image).std() < before.std()
        assert torch.equal(model(image), model(torch.rand(1, 3, 16, 16)))


def test_dilation_in_place_of_pooling_sees_as_far_as_the_convolutions_of_the_levels():
    model = create_model("unet_same", width=1, depth=3, down="none")
    assert [stage[0].dilation[0] for stage in model.down] == [1, 2, 4, 8]
    with pytest.raises(ConfigError, match="down=none needs padding=same"):
        create_model("unet", down="none")


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "layer"])
def test_every_norm(norm):
    model = create_model("unet_same", width=2, depth=2, norm=norm)
    model(torch.rand(1, 3, 61, 93)).square().mean().backward()


def test_released_details_belong_together():
    with pytest.raises(ConfigError, match="released needs"):
        create_model("unet_released", skip="sum")


def test_auxiliary_logits_of_a_valid_net_lie_over_the_middle():
    """A bright square in the image shows at the same place in logits and in auxiliary logits."""
    torch.manual_seed(0)
    model = create_model(
        "unet", in_channels=1, num_classes=1, width=4, depth=2, dropout=0.0, deep_supervision=True
    ).eval()
    for parameter in model.parameters():
        parameter.data.abs_()
    image = torch.zeros(1, 1, *model.input_size(128, 128))
    middle = image.shape[-1] // 2
    image[..., middle - 30 : middle - 10, middle + 5 : middle + 25] = 1
    with torch.no_grad():
        logits, (other,) = model.with_auxiliary(image)
    for found in (logits, other):
        peak = (found - found.amin()).double()[0, 0]
        rows = torch.arange(len(peak), dtype=torch.double)
        row = (peak.sum(1) * rows).sum() / peak.sum()
        column = (peak.sum(0) * rows).sum() / peak.sum()
        assert abs(float(row) - (logits.shape[-1] / 2 - 20.5)) < 4
        assert abs(float(column) - (logits.shape[-1] / 2 + 14.5)) < 4
