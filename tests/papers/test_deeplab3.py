"""DeepLabv3 and v3+, arXiv:1706.05587 and arXiv:1802.02611: counts, dilations; parity with torchvision and smp."""

import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.models import create_model
from intarsia.models.weights import fill, from_torchvision


def on_meta(name, **settings):
    with torch.device("meta"):
        return create_model(name, **{"pretrained": "none", "num_classes": 21, **settings})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("deeplab3_lite0", 5_670_677),
        ("deeplab3_resnet50", 39_048_533),
        ("deeplab3_resnet101", 58_040_661),
        ("deeplab3_resnet50_coco", 39_638_869),
        ("deeplab3_resnet101_coco", 58_630_997),
        ("deeplab3plus_lite0", 6_963_189),
        ("deeplab3plus_resnet50", 40_352_181),
        ("deeplab3plus_resnet101", 59_344_309),
    ],
)
def test_parameters(name, parameters):
    assert on_meta(name).count_parameters() == parameters


@pytest.mark.parametrize(("output_stride", "third", "fourth"), [(16, [1] * 6, [2, 4, 8]), (8, [2] * 6, [4, 8, 16])])
def test_multi_grid(output_stride, third, fourth):
    net = on_meta("deeplab3_resnet50", output_stride=output_stride).encoder.net
    assert [block.conv2.dilation[0] for block in net.layer3] == third
    assert [block.conv2.dilation[0] for block in net.layer4] == fourth


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
def test_rates_double_at_stride_8(output_stride, rates):
    model = on_meta("deeplab3_resnet50", output_stride=output_stride)
    assert [branch[0].dilation[0] for branch in model.aspp.dilated] == rates
    assert max(model.encoder.strides) == output_stride


def test_multi_grid_of_another_encoder_is_refused():
    with pytest.raises(ConfigError, match="is for ResNets"):
        on_meta("deeplab3_lite0", multi_grid=(1, 2, 4))


@pytest.mark.parametrize("name", ["deeplab3_lite0", "deeplab3plus_lite0"])
@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet10t", "convnext_atto", "pvt_v2_b0"])
@pytest.mark.parametrize("size", [(1, 1), (61, 93)])
def test_any_encoder_any_size_batch_of_one(name, encoder, size):
    stride = 32 if encoder == "pvt_v2_b0" else 16
    model = create_model(
        name, num_classes=2, encoder=encoder, output_stride=stride, width=8, pretrained="none", deep_supervision=True
    )
    logits, auxiliary = model.train().with_auxiliary(torch.rand(1, 3, *size))
    assert logits.shape == (1, 2, *size)
    assert [each.shape for each in auxiliary] == [logits.shape]
    logits.square().mean().backward()
    assert model.eval()(torch.rand(1, 3, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "instance", "none"])
def test_every_norm(norm):
    model = create_model("deeplab3plus_lite0", num_classes=2, width=8, norm=norm, pretrained="none")
    model(torch.rand(1, 3, 61, 93)).square().mean().backward()


def test_an_encoder_that_cannot_be_dilated_is_told_how():
    with pytest.raises(ConfigError, match=r"Set model\.output_stride=32"):
        create_model("deeplab3plus_lite0", encoder="pvt_v2_b0", pretrained="none")


def test_logits_of_torchvision_s_deeplabv3():
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError, reason="torchvision does not import here")
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, aux_loss=True
    ).eval()
    ours = create_model("deeplab3_resnet50_coco", num_classes=21, pretrained="none").eval()
    fill(ours, from_torchvision(theirs.state_dict()), (), first_layer="adapt")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image)["out"], atol=1e-4)


def test_weights_that_do_not_fit_are_told():
    state = on_meta("deeplab3_resnet50_coco").state_dict()
    with pytest.raises(ConfigError, match=r"do not fit: .* first aspp"):
        fill(on_meta("deeplab3_resnet50"), {k: v for k, v in state.items() if "aspp" not in k}, (), first_layer="adapt")


def test_logits_of_segmentation_models_pytorch():
    """Weights paired in order. Theirs up-samples corners on corners, ours from half-pixel centres as v3+'s successors do;
    the comparison sets theirs to ours."""
    smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError, reason="the peer is not installed")
    torch.manual_seed(0)
    theirs = smp.DeepLabV3Plus("tu-resnet18", encoder_weights=None, classes=5, encoder_output_stride=16).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Upsample):
            module.align_corners = False
    ours = create_model(
        "deeplab3plus_lite0",
        num_classes=5,
        encoder="resnet18",
        pretrained="none",
        rates=(12, 24, 36),
        separable=True,
        bridge=1,
        refine=1,
    ).eval()
    assert copied(theirs, ours) == len(ours.state_dict())
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.allclose(ours(image), theirs(image), atol=1e-4)


def copied(theirs, ours):
    """Copy tensors pairwise in order of their modules; shapes must agree. Returns how many were copied."""
    order = ("encoder", "decoder.aspp", "decoder.block1", "decoder.block2", "segmentation_head")
    source = [value for part in order for key, value in theirs.state_dict().items() if key.startswith(part + ".")]
    own = ("encoder", "aspp", "bridge", "reduce", "refine", "head")
    target = [(key, value) for part in own for key, value in ours.state_dict().items() if key.startswith(part + ".")]
    assert len(source) == len(target)
    for (key, value), given in zip(target, source, strict=True):
        assert value.shape == given.shape, key
        value.copy_(given)
    return len(target)
