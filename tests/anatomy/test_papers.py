"""Numbers of the papers, read off the anatomy: receptive fields, strides, checkerboards."""

import pytest
import torch
from torch import nn

import intarsia as ia
from intarsia.anatomy import checkerboard
from intarsia.anatomy.checkerboard import coverage_of
from intarsia.anatomy.describe import preset_on_meta
from intarsia.models import create_model
from intarsia.models.dilated import BASIC, CITYSCAPES, KITTI, ContextModule


def field_of(found, path, kind=None):
    layers = [layer for layer in found.layers if layer.path == path and kind in (None, layer.kind)]
    assert len(layers) == 1
    return layers[0].field.rows


def size_and_stride(axis):
    assert axis.smallest == axis.largest
    return axis.largest, axis.stride


def test_fcn_table_1_vgg16_is_404_at_the_scores_and_436_behind_the_upscore():
    found = ia.anatomy("fcn32s_vgg16")
    pools = [layer.field.rows for layer in found.layers if layer.kind == "max pooling"]
    assert [size_and_stride(pool) for pool in pools][2:] == [(44, 8), (100, 16), (212, 32)]
    assert size_and_stride(field_of(found, "score_fr")) == (404, 32)
    assert found.field.rows.size == "436"  # every pixel mixes two scores, 32 pixels apart


def test_fcn_table_1_alexnet_is_355():
    found = ia.anatomy("fcn32s_alexnet")
    assert size_and_stride(field_of(found, "trunk.14")) == (195, 32)
    assert size_and_stride(field_of(found, "score_fr")) == (355, 32)
    assert found.field.rows.size == "355–387"


def inception(width):
    """The widest path of GoogLeNet's module (arXiv:1409.4842, figure 2b): 1x1, then 5x5."""
    return nn.Sequential(nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 5, padding=2))


def googlenet(average):
    pool = [nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(4)]
    stem = [nn.Conv2d(3, 2, 7, 2, 3), pool[0], nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1), pool[1]]
    stages = [*(inception(2) for _ in range(2)), pool[2], *(inception(2) for _ in range(5)), pool[3]]
    last = [inception(2), inception(2), *([nn.AvgPool2d(7, 1)] if average else [])]
    return nn.Sequential(*stem, *stages, *last)


def test_fcn_table_1_googlenet_is_907_only_with_the_average_pool_that_the_text_discards():
    assert size_and_stride(ia.anatomy(googlenet(average=False)).field.rows) == (715, 32)
    assert size_and_stride(ia.anatomy(googlenet(average=True)).field.rows) == (715 + 6 * 32, 32) == (907, 32)


@pytest.mark.parametrize("depth", [1, 5, 10, 20])
def test_plain_stack_sees_two_pixels_more_a_layer(depth):
    found = ia.anatomy("plain", depth=depth, width=4)
    assert size_and_stride(found.field.rows) == (2 * depth + 1, 1)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (BASIC, [3, 5, 9, 17, 33, 65, 67, 67]),
        (KITTI, [3, 5, 9, 17, 33, 35, 35]),
        (CITYSCAPES, [3, 5, 9, 17, 33, 65, 129, 257, 259, 259]),
    ],
)
def test_context_module_sees_67(settings, sizes):
    found = ia.anatomy(ContextModule(21, settings), (64, 64))
    assert [layer.field.rows.largest for layer in found.layers] == sizes


@pytest.mark.parametrize(
    ("name", "last", "seen"), [("dilated_frontend", "score", 380), ("dilation8", "context.14", 908)]
)
def test_dilated_front_end_sees_380_and_908_with_its_context(name, last, seen):
    found = ia.anatomy(name)
    assert size_and_stride(field_of(found, last)) == (seen, 8)
    assert found.field.rows.size == str(seen + 8)  # the bilinear map mixes two scores
    assert found.coarsest_stride == 8


def test_dilation10_sees_2444():
    assert size_and_stride(field_of(ia.anatomy("dilation10_cityscapes"), "context.18")) == (2444, 8)


def test_unet_sees_188_or_204_by_the_phase_and_140_at_the_bottom():
    found = ia.anatomy("unet", (388, 388), in_channels=1)
    assert found.input == (572, 572)
    assert found.output == (2, 388, 388)
    assert (found.field.rows.smallest, found.field.rows.largest) == (188, 204)
    assert found.field.rows.start == 92  # the border that is lost
    assert size_and_stride(field_of(found, "down.4.2")) == (140, 16)
    assert found.parameters == 31_030_658


def test_largefov_sees_227_then_243_then_435():
    found = ia.anatomy("deeplab_largefov_vgg16", num_classes=21)
    assert [layer.field.rows.largest for layer in found.layers if layer.kind == "max pooling"][-1] == 227
    assert field_of(found, "", "average pooling").size == "243"
    assert size_and_stride(field_of(found, "branches.0.0.0")) == (435, 8)
    assert found.parameters == 20_505_429


@pytest.mark.parametrize(
    ("name", "stride", "finest"),
    [("fcn32s_vgg16", 32, "score_fr"), ("fcn16s_vgg16", 16, "score_pool4"), ("fcn8s_vgg16", 8, "score_pool3")],
)
def test_the_finest_scores_of_an_fcn_have_the_stride_in_its_name(name, stride, finest):
    assert field_of(ia.anatomy(name), finest).stride == stride


@pytest.mark.parametrize(
    ("kernel", "stride", "counts"),
    [
        (2, 2, (1, 1)), (3, 2, (2, 1)), (4, 2, (2, 2)), (5, 2, (3, 2)), (5, 3, (2, 2, 1)), (6, 3, (2, 2, 2)),
        (4, 4, (1,) * 4), (8, 4, (2,) * 4),
    ],
)  # fmt: skip
def test_coverage_of_the_table(kernel, stride, counts):
    assert coverage_of(kernel, stride) == counts


@pytest.mark.parametrize(
    ("name", "sides", "even"),
    [
        ("fcn32s_vgg16", [(64, 32)], True),
        ("fcn16s_vgg16", [(4, 2), (32, 16)], True),
        ("fcn8s_vgg16", [(4, 2), (4, 2), (16, 8)], True),
        ("unet", [(2, 2)] * 4, True),
        ("fcdensenet103", [(3, 2)] * 5, False),
        ("fcn32s_alexnet", [(63, 32)], False),
    ],
)
def test_who_makes_checkerboards(name, sides, even):
    found = checkerboard(preset_on_meta(name))
    assert [(each.kernel[0], each.stride[0]) for each in found] == sides
    for each in found:
        assert each.is_uniform == even
        outer = tuple(tuple(row * column for column in each.columns) for row in each.rows)
        assert each.measured == outer  # by definition, and counted by the running layer


def test_bilinear_weights_of_alexnets_upscore_make_up_for_uneven_counts():
    model = create_model("fcn32s_alexnet", width=1 / 32, hidden=4, pretrained="none")
    (upscore,) = checkerboard(model, (64, 64))
    assert not upscore.is_uniform
    assert upscore.response == pytest.approx(0, abs=1e-5)


def test_random_weights_of_a_3_2_transition_do_not():
    torch.manual_seed(0)
    (layer,) = checkerboard(nn.Sequential(nn.ConvTranspose2d(3, 2, 3, 2)), (20, 20))
    assert layer.measured == ((4, 2), (2, 1))
    assert layer.response > 0.1
    equal = nn.ConvTranspose2d(3, 2, 3, 2, bias=False)
    nn.init.ones_(equal.weight)
    assert checkerboard(nn.Sequential(equal), (20, 20))[0].response == pytest.approx((4 - 1) / (9 / 4))
