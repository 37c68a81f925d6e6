"""Networks of timm as encoders: sizes of every kind of network, dilation, first layers. Nothing is downloaded."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from intarsia.errors import ConfigError
from intarsia.models.encoders.timm import TimmEncoder
from intarsia.models.weights import adapt_first_layer
from intarsia.ops.pad import pad_to_multiple

timm = pytest.importorskip("timm", reason="timm cannot be imported here", exc_type=ImportError)

CNN, TRANSFORMER = (2, 4, 8, 16, 32), (4, 8, 16, 32)
KINDS = {
    "resnet10t": CNN,
    "mobilenetv3_small_050": CNN,
    "tf_efficientnet_lite0": CNN,
    "vgg11": (1, *CNN),
    "convnext_atto": TRANSFORMER,
    "mambaout_femto": TRANSFORMER,  # channels last
    "pvt_v2_b0": TRANSFORMER,
    "swin_tiny_patch4_window7_224": TRANSFORMER,
    "swinv2_cr_tiny_224": TRANSFORMER,
    "vit_tiny_patch16_224": TRANSFORMER,
    "vit_small_patch14_dinov2": TRANSFORMER,
}


def sizes(encoder, size, channels=3):
    """(channels, stride) of every level, measured; the image is padded as a model does."""
    torch.manual_seed(0)
    image = pad_to_multiple(torch.randn(1, channels, *size), max(encoder.strides))
    with torch.no_grad():
        features = encoder.eval()(image)
    assert all(image.shape[-2] // f.shape[-2] == image.shape[-1] // f.shape[-1] for f in features)
    assert all(torch.isfinite(feature).all() for feature in features)
    return [(feature.shape[1], image.shape[-2] // feature.shape[-2]) for feature in features]


@pytest.mark.parametrize(("name", "strides"), KINDS.items())
def test_every_kind_of_network_at_an_odd_size(name, strides):
    encoder = TimmEncoder(name, pretrained="none")
    assert encoder.strides == strides
    for size in ((61, 93), (33, 132)):
        assert sizes(encoder, size) == list(zip(encoder.channels, strides, strict=True))


@pytest.mark.parametrize("name", ["pvt_v2_b0", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_transformers_take_other_numbers_of_channels(name):
    encoder = TimmEncoder(name, in_channels=5, pretrained="none")
    assert len(sizes(encoder, (40, 50), channels=5)) == 4


def test_a_map_in_the_shape_of_the_other_layout_is_not_turned():
    encoder = TimmEncoder("pvt_v2_b0", pretrained="none").eval()
    with torch.no_grad():  # the finest map is as wide as it has channels, 32
        assert encoder(torch.randn(1, 3, 64, 128))[0].shape == (1, 32, 16, 32)


def test_a_plain_transformer_gives_maps_evenly_spaced_in_depth():
    encoder = TimmEncoder("vit_tiny_patch16_224", pretrained="none")
    assert encoder.net.out_indices == [2, 5, 8, 11]
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, features = encoder.net.eval()(image), encoder(image)
    assert torch.equal(maps[2], features[2])  # stride 16 is its own
    assert torch.allclose(nn.functional.avg_pool2d(maps[3], 2), features[3], atol=1e-6)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "tf_efficientnet_lite0", "convnext_atto"])
def test_dilation_keeps_the_weights_and_the_resolution(name, stride):
    encoder, plain = TimmEncoder(name, pretrained="none", output_stride=stride), TimmEncoder(name, pretrained="none")
    assert encoder.strides == tuple(min(own, stride) for own in plain.strides)
    assert sizes(encoder, (61, 93)) == list(zip(encoder.channels, encoder.strides, strict=True))
    assert {k: v.shape for k, v in encoder.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_what_cannot_be_dilated_says_so():
    for name in ("swin_tiny_patch4_window7_224", "pvt_v2_b0", "vgg11"):
        message = rf"model\.encoder: '{name}' cannot be dilated to output stride 16\. Set model\.output_stride=32"
        with pytest.raises(ConfigError, match=message):
            TimmEncoder(name, pretrained="none", output_stride=16)
    with pytest.raises(ConfigError, match="must be 8, 16 or 32, got 4"):
        TimmEncoder("resnet10t", pretrained="none", output_stride=4)


def test_nothing_is_dilated_where_nothing_is_coarser():
    assert TimmEncoder("vit_tiny_patch16_224", pretrained="none", output_stride=16).strides == (4, 8, 16, 16)
    assert TimmEncoder("pvt_v2_b0", pretrained="none", output_stride=32).strides == TRANSFORMER


def test_a_network_for_one_size_is_refused():
    with pytest.raises(ConfigError, match="'levit_128' takes only images of 224 x 224 pixels"):
        TimmEncoder("levit_128", pretrained="none")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Stand-ins for published weights: name to file, and the first layer."""
    folder = tmp_path_factory.mktemp("weights")

    def make(name, first):
        file = folder / f"{name}.safetensors"
        torch.manual_seed(3)
        state = timm.create_model(name, pretrained=False).state_dict()
        if not file.exists():
            save_file(state, file)
        return str(file), state[first]

    return make


FIRST = {
    "mobilenetv3_small_050": ("conv_stem.weight", "conv_stem.weight"),
    "resnet10t": ("conv1.0.weight", "conv1.0.weight"),
    "convnext_atto": ("stem.0.weight", "stem_0.weight"),
    "vit_tiny_patch16_224": ("patch_embed.proj.weight", "model.patch_embed.proj.weight"),
}


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
def test_the_first_layer_is_adapted_as_our_own_models_do(name, channels, weights):
    theirs, ours = FIRST[name]
    file, weight = weights(name, theirs)
    encoder = TimmEncoder(name, in_channels=channels, pretrained=file)
    expected = adapt_first_layer(weight, channels, "adapt", start=weight)
    assert torch.allclose(encoder.net.state_dict()[ours], expected, atol=1e-6)


@pytest.mark.parametrize("name", FIRST)
def test_a_fresh_first_layer_is_he_normal_and_the_rest_is_loaded(name, weights):
    theirs, ours = FIRST[name]
    file, _ = weights(name, theirs)
    torch.manual_seed(5)
    adapted = TimmEncoder(name, in_channels=5, pretrained=file).net.state_dict()
    fresh = TimmEncoder(name, in_channels=5, pretrained=file, first_layer="fresh").net.state_dict()
    changed = {key for key in fresh if not torch.equal(fresh[key], adapted[key])}
    assert ours in changed
    assert changed <= {ours, ours.replace("weight", "bias")}
    assert float(fresh[ours].std()) == pytest.approx((2 / fresh[ours][0].numel()) ** 0.5, rel=0.15)
    rgb = TimmEncoder(name, pretrained=file, first_layer="fresh").net.state_dict()
    assert torch.equal(rgb[ours], weights(name, theirs)[1])  # three channels stay as published


def test_every_branch_of_a_first_layer_is_fresh(weights):
    file, _ = weights("repvgg_a0", "stem.conv_kxk.conv.weight")
    torch.manual_seed(5)
    adapted = TimmEncoder("repvgg_a0", in_channels=2, pretrained=file).net.state_dict()
    fresh = TimmEncoder("repvgg_a0", in_channels=2, pretrained=file, first_layer="fresh").net.state_dict()
    changed = {key for key in fresh if not torch.equal(fresh[key], adapted[key])}
    assert changed == {"stem.conv_kxk.conv.weight", "stem.conv_1x1.conv.weight"}
