"""Encoder-decoders: every decoder with every part, and the peer's numbers with the same weights."""

import pytest
import torch
from torch import nn

from intarsia.errors import ConfigError
from intarsia.losses import cross_entropy
from intarsia.models import MODELS, create_model
from intarsia.models.decoders import SegFormerDecoder, UPerNetDecoder
from intarsia.models.decoders.base import MergeBlock, PyramidPooling, way_up
from intarsia.ops.upsample import UPS

pytest.importorskip("timm", reason="timm cannot be imported here", exc_type=ImportError)

DECODERS = ("unet", "unetplusplus", "linknet", "fpn", "psp", "upernet", "segformer")
CNN, SMALL_WIDTHS = "mobilenetv3_small_050", (16, 16, 8, 8, 8)
WEIGHTS = {
    "encdec": 5_198_306,
    "encdec_unetplusplus": 5_429_826,
    "encdec_linknet": 3_117_266,
    "encdec_fpn": 4_710_914,
    "encdec_psp": 6_013_058,
    "encdec_upernet": 10_563_586,
    "encdec_segformer": 3_350_018,
}


def build(decoder="unet", encoder=CNN, in_channels=3, **settings):
    torch.manual_seed(0)
    narrow = {} if decoder in ("unet", "unetplusplus") else {"width": 32}
    settings = {"widths": SMALL_WIDTHS, **narrow, **settings}
    return create_model(
        "encdec",
        num_classes=3,
        in_channels=in_channels,
        encoder=encoder,
        pretrained="none",
        decoder=decoder,
        **settings,
    )


def learns(model, size=(61, 93), channels=3):
    """One step at batch one reaches every parameter and stays finite; logits of the image's size in both modes."""
    torch.manual_seed(1)
    image, mask = torch.randn(1, channels, *size), torch.randint(0, 3, (1, *size))
    logits = model.train()(image)
    assert logits.shape == (1, 3, *size)
    cross_entropy(logits, mask).backward()
    without = [key for key, value in model.named_parameters() if value.grad is None]
    assert not without
    assert all(torch.isfinite(value.grad).all() for value in model.parameters())
    with torch.no_grad():
        assert torch.isfinite(model.eval()(image)).all()


@pytest.mark.parametrize(("name", "count"), WEIGHTS.items())
def test_parameters_of_the_table(name, count):
    with torch.device("meta"):
        assert create_model(name, num_classes=2, pretrained="none").count_parameters() == count


def test_every_decoder_has_a_preset():
    assert {MODELS[name].decoder for name in WEIGHTS} == set(DECODERS)
    assert MODELS["encdec_psp"].down == "none"  # the paper's encoder is dilated


def test_the_default_names_its_weights_as_saved_models_do():
    model = create_model("encdec", num_classes=2, pretrained="none")
    names = {key.split(".", 1)[1] for key in model.state_dict() if key.startswith("decoder.4.")}
    layers = ("0.weight", *(f"1.{part}" for part in ("weight", "bias", "running_mean", "running_var")))
    expected = {f"4.{conv}.{layer}" for conv in ("first", "second") for layer in (*layers, "1.num_batches_tracked")}
    assert names == expected
    assert {"head.weight", "head.bias"} <= set(model.state_dict())
    assert {key.split(".")[0] for key in model.state_dict()} == {"encoder", "decoder", "head"}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("norm", ["none", "batch", "group", "layer", "instance"])
def test_every_decoder_with_every_norm(decoder, norm):
    model = build(decoder, norm=norm)
    learns(model)
    kinds = {type(module).__name__ for module in model.decoder.modules() if "Norm" in type(module).__name__}
    expected = {"batch": "BatchNorm", "group": "GroupNorm", "layer": "LayerNorm", "instance": "InstanceNorm"}
    assert kinds == ({expected[norm]} if norm != "none" else set())


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", ["pvt_v2_b0", "vit_tiny_patch16_224"])
def test_every_decoder_on_transformers(decoder, encoder):
    learns(build(decoder, encoder))


@pytest.mark.parametrize("decoder", ["upernet", "unet"])
def test_decoders_on_swin(decoder):
    learns(build(decoder, "swin_tiny_patch4_window7_224"))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(1, 1), (33, 200)])
def test_maps_of_one_pixel_and_flat_images(decoder, size):
    model = build(decoder, norm="batch")
    learns(model, size)
    with torch.no_grad():  # 32 x 32 without the padding of training: the deepest maps have one pixel
        assert model.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)
        maps = model.encoder(torch.randn(1, 3, 32, 32))
        assert torch.isfinite(model.decoder.train()(maps)).all()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("channels", [1, 5])
def test_grey_and_many_channels(decoder, channels):
    learns(build(decoder, in_channels=channels), channels=channels)


@pytest.mark.parametrize("decoder", ["unet", "unetplusplus", "linknet"])
@pytest.mark.parametrize("up", UPS)
def test_every_way_up(decoder, up):
    learns(build(decoder, up=up))


@pytest.mark.parametrize("encoder", ["resnet10t", CNN, "vgg11", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("down", ["max", "average", "strided"])
def test_every_way_down_keeps_the_strides_and_the_weights(encoder, down):
    model, plain = build(encoder=encoder, down=down), build(encoder=encoder)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        shapes = [[feature.shape for feature in net.encoder.eval()(image)] for net in (model, plain)]
    assert shapes[0] == shapes[1]
    assert set(plain.state_dict()) <= set(model.state_dict())
    learns(model)


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_encoder_without_halvings_below_stride_8(decoder):
    model = build(decoder, down="none")
    assert model.encoder.strides == (2, 4, 8, 8, 8)
    learns(model)


def test_what_cannot_be_exchanged_says_what_to_set():
    with pytest.raises(
        ConfigError, match=r"'pvt_v2_b0' cannot be dilated to output stride 8\. Set model\.down=encoder"
    ):
        build(encoder="pvt_v2_b0", down="none")
    with pytest.raises(ConfigError, match=r"model\.down: max cannot take the place of .* Leave model\.down at encoder"):
        build(encoder="convnext_atto", down="max")


@pytest.mark.parametrize(
    ("skip", "attention"), [("concat", "scse"), ("sum", "none"), ("none", "none"), ("sum", "scse")]
)
def test_every_skip_with_and_without_attention(skip, attention):
    learns(build(skip=skip, attention=attention))


def test_attention_in_nested_skips():
    learns(build("unetplusplus", attention="scse"))


def test_without_skips_only_the_deepest_level_counts():
    model = build(skip="none").eval()
    with torch.no_grad():
        features = model.encoder(torch.randn(1, 3, 64, 64))
        changed = [torch.zeros_like(feature) for feature in features[:-1]]
        assert torch.equal(model.decoder(features), model.decoder([*changed, features[-1]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder": "fpn", "up": "nearest"}, r"model\.up: the decoder fpn has bilinear by definition"),
        ({"decoder": "linknet", "skip": "concat"}, r"model\.skip: the decoder linknet has sum by definition"),
        ({"decoder": "psp", "attention": "scse"}, r"model\.attention: the decoder psp has none by definition"),
        ({"decoder": "unetplusplus", "skip": "sum"}, r"model\.skip: .* has concat by definition"),
        ({"widths": (8,) * 6}, r"model\.widths: 6 numbers, .* 5 steps below the image\. Give at most 5"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        create_model("encdec", pretrained="none", **settings)
    assert create_model("encdec", encoder=CNN, pretrained="none", decoder="fpn", up="bilinear")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", [CNN, "pvt_v2_b0"])
def test_deep_supervision(decoder, encoder):
    plain, model = build(decoder, encoder), build(decoder, encoder, deep_supervision=True)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in plain.state_dict().items())
    image = torch.randn(1, 3, 61, 93)
    logits, extra = model.train().with_auxiliary(image)
    assert extra
    assert all(each.shape == logits.shape for each in extra)
    sum(each.square().mean() for each in (logits, *extra)).backward()
    assert all(value.grad is not None for value in model.parameters())


def test_nested_skips_form_the_triangle_of_figure_1():
    model = build("unetplusplus")
    assert [len(row) for row in model.decoder.rows] == [1, 2, 3, 4]
    assert list(model.decoder.taps) == ["rows.3.0", "rows.3.1", "rows.3.2"]
    own = model.encoder.channels
    inputs = [[block.first[0].in_channels for block in row] for row in model.decoder.rows]
    below = [[own[4]], [own[3], 16], [own[2], own[2], 16], [own[1], own[1], own[1], 8]]
    expected = [
        [source + (node + 1) * own[3 - row] for node, source in enumerate(sources)] for row, sources in enumerate(below)
    ]
    assert inputs == expected


def test_the_way_up():
    assert way_up((2, 4, 8, 16, 32)) == [16, 8, 4, 2, 1]
    assert way_up((4, 8, 16, 32)) == [16, 8, 4, 2, 1]
    assert way_up((1, 2, 4)) == [2, 1]
    assert way_up((2, 4, 8, 8, 8)) == [8, 8, 4, 2, 1]
    assert way_up((32,)) == [16, 8, 4, 2, 1]


def test_pyramid_pooling_of_a_constant_is_constant():
    pooling = PyramidPooling(4, 3, norm="none")
    out = pooling(torch.ones(1, 4, 5, 7))
    assert out.shape == (1, 4 + 4 * 3, 5, 7)
    assert torch.allclose(out, out[..., :1, :1].expand_as(out), atol=1e-6)
    assert [pooled[0].output_size for pooled in pooling.bins] == [1, 2, 3, 6]


def test_an_up_convolution_gives_the_block_its_width():
    assert MergeBlock(32, 8, 16, up="transposed").first[0].in_channels == 16 + 8
    assert MergeBlock(32, 8, 16, up="nearest").first[0].in_channels == 32 + 8


# The peer, segmentation_models.pytorch, with the same weights.


@pytest.fixture(scope="module")
def smp():
    return pytest.importorskip(
        "segmentation_models_pytorch", reason="the peer is not installed: pip install '.[bench]'"
    )


@pytest.fixture
def half_pixel_centres(monkeypatch):
    """smp aligns corners in FPN's and the heads' bilinear steps; we keep half-pixel centres, and only that is changed here."""
    interpolate = nn.functional.interpolate

    def half_pixel(x, size=None, scale_factor=None, mode="nearest", align_corners=None, **settings):
        return interpolate(x, size, scale_factor, mode, None if align_corners is None else False, **settings)

    monkeypatch.setattr("torch.nn.functional.interpolate", half_pixel)


def copy_in_order(theirs, ours):
    """Pairs tensors in order of their names' appearance; every shape must fit."""
    source, target = theirs.state_dict(), ours.state_dict()
    assert [tuple(value.shape) for value in source.values()] == [tuple(value.shape) for value in target.values()]
    ours.load_state_dict(dict(zip(target, source.values(), strict=True)))


def randomise(model):
    """Statistics that are not trivial, so that a normalisation in the wrong place would show."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)


def agree(theirs, ours):
    torch.manual_seed(4)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = theirs.eval()(image), ours.eval()(image)
    assert expected.abs().mean() > 1e-3
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max().clamp(min=1)))


@pytest.mark.parametrize("attention", [None, "scse"])
def test_unet_equals_the_peers(smp, attention):
    theirs = smp.Unet("tu-resnet18", encoder_weights=None, classes=3, decoder_attention_type=attention)
    ours = create_model("encdec", num_classes=3, encoder="resnet18", pretrained="none", attention=attention or "none")
    randomise(theirs)
    copy_encoder(theirs, ours)
    for their, our in zip(theirs.decoder.blocks, ours.decoder.children(), strict=True):
        copy_in_order(their.conv1, our.first)
        copy_in_order(their.conv2, our.second)
        if attention:
            copy_in_order(their.attention2, our.behind)
            if our.skip != "none":
                copy_in_order(their.attention1, our.before)
    copy_in_order(theirs.segmentation_head, ours.head)
    agree(theirs, ours)


def copy_encoder(theirs, ours):
    copy_in_order(theirs.encoder.model, ours.encoder.net)


def test_unetplusplus_equals_the_peers(smp):
    theirs = smp.UnetPlusPlus("tu-resnet18", encoder_weights=None, classes=3)
    ours = create_model("encdec_unetplusplus", num_classes=3, encoder="resnet18", pretrained="none")
    randomise(theirs)
    copy_encoder(theirs, ours)
    for number, row in enumerate(ours.decoder.rows):  # their x_d_l is row l, counted from its last node
        for node, block in enumerate(row):
            copy_in_order(theirs.decoder.blocks[f"x_{number - node}_{number}"], block)
    copy_in_order(theirs.decoder.blocks["x_0_4"], ours.decoder.last[0])
    copy_in_order(theirs.segmentation_head, ours.head)
    agree(theirs, ours)


def test_linknet_equals_the_peers(smp):
    theirs = smp.Linknet("tu-resnet18", encoder_weights=None, classes=3)
    ours = create_model("encdec_linknet", num_classes=3, encoder="resnet18", pretrained="none")
    randomise(theirs)
    copy_in_order(theirs, ours)
    agree(theirs, ours)


def test_fpn_equals_the_peers(smp, half_pixel_centres):
    theirs = smp.FPN("tu-resnet18", encoder_weights=None, classes=3)
    ours = create_model("encdec_fpn", num_classes=3, encoder="resnet18", pretrained="none")
    randomise(theirs)
    copy_encoder(theirs, ours)
    decoder = theirs.decoder
    laterals = (decoder.p2.skip_conv, decoder.p3.skip_conv, decoder.p4.skip_conv, decoder.p5)
    for their, our in zip(laterals, ours.decoder.lateral, strict=True):
        copy_in_order(their, our)
    for their, our in zip(reversed(decoder.seg_blocks), ours.decoder.branches, strict=True):
        copy_in_order(their, our)
    copy_in_order(theirs.segmentation_head, ours.head)
    agree(theirs, ours)


def features(channels):
    torch.manual_seed(5)
    return [
        torch.randn(2, width, 64 // stride, 96 // stride)
        for width, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_segformer_decoder_equals_the_peers(smp):
    from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

    channels = (32, 64, 160, 256)
    theirs, ours = SegformerDecoder([3, 0, *channels]).eval(), SegFormerDecoder(channels, (4, 8, 16, 32)).eval()
    randomise(theirs)
    for stage, linear in zip(reversed(theirs.mlp_stage), ours.linear, strict=True):
        linear.weight.data = stage.linear.weight.data[:, :, None, None]  # a linear layer at every pixel
        linear.bias.data = stage.linear.bias.data
    copy_in_order(theirs.fuse_stage, ours.merge)
    maps = features(channels)
    with torch.no_grad():
        expected = theirs([torch.zeros(2, 3, 64, 96), torch.zeros(2, 0, 32, 48), *maps])
        assert torch.allclose(ours(maps), expected, atol=1e-5)


def test_upernet_decoder_equals_the_peers(smp):
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder as Theirs

    channels = (32, 64, 160, 256)
    theirs, ours = Theirs([3, 0, *channels]).eval(), UPerNetDecoder(channels, (4, 8, 16, 32)).eval()
    theirs.feature_norms = nn.ModuleList(nn.Identity() for _ in channels)  # theirs normalises the encoder's maps first
    randomise(theirs)
    copy_in_order(theirs.psp.blocks, ours.pyramid)
    copy_in_order(theirs.psp.out_conv, ours.context)
    for their, our in ((theirs.fpn_lateral_blocks, ours.lateral), (theirs.fpn_conv_blocks, ours.smooth)):
        for block, mine in zip(reversed(their), our, strict=True):
            copy_in_order(block, mine)
    copy_in_order(theirs.fusion_block, ours.merge)
    maps = features(channels)
    with torch.no_grad():
        expected = theirs([torch.zeros(2, 3, 64, 96), torch.zeros(2, 0, 32, 48), *maps])
        assert torch.allclose(ours(maps), expected, atol=1e-5)
