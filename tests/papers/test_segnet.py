"""SegNet, arXiv:1511.00561: counts and sizes of the released prototxt."""

import pytest
import torch
from torch import nn

from intarsia.models import create_model


@pytest.mark.parametrize(
    ("num_classes", "convolutions", "total"), [(11, 29_433_483, 29_449_355), (12, 29_434_060, 29_449_932)]
)
def test_parameters(num_classes, convolutions, total):
    with torch.device("meta"):
        model = create_model("segnet", num_classes=num_classes)
    counted = sum(p.numel() for m in model.modules() if isinstance(m, nn.Conv2d) for p in m.parameters())
    assert (counted, model.count_parameters()) == (convolutions, total)


def test_parameters_of_the_basic_net():
    with torch.device("meta"):
        model = create_model("segnet_basic", num_classes=11)
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert (model.count_parameters() - norms, norms) == (1_415_563, 1_024)


def test_thirteen_convolutions_down_and_thirteen_back():
    with torch.device("meta"):
        model = create_model("segnet", num_classes=11)
    widths = [[m.out_channels for m in stage if isinstance(m, nn.Conv2d)] for stage in (*model.encoder, *model.decoder)]
    assert widths[:5] == [[64, 64], [128, 128], [256] * 3, [512] * 3, [512] * 3]
    assert widths[5:] == [[512, 512, 512], [512, 512, 256], [256, 256, 128], [128, 64], [64]]
    assert model.head.kernel_size == (3, 3)


def test_sizes_of_a_camvid_image_round_up_and_come_back():
    model = create_model("segnet", num_classes=2, widths=((2,),) * 5).eval()
    seen = []
    for stage in (*model.encoder, *model.decoder):
        stage.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[-2:])))
    assert model(torch.rand(1, 3, 360, 480)).shape == (1, 2, 360, 480)
    down = [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30)]
    assert seen == [*down, *reversed(down)]


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (61, 93)])
@pytest.mark.parametrize("name", ["segnet", "segnet_basic"])
def test_any_size_in_both_modes(name, size):
    model = create_model(name, num_classes=2, widths=((4,),) * 4)
    for training in (True, False):
        assert model.train(training)(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_basic_decoder_has_no_relu_and_the_image_is_normalised():
    model = create_model("segnet_basic", num_classes=2)
    assert not any(isinstance(m, nn.ReLU) for m in model.decoder.modules())
    assert (model.normalise.size, model.normalise.alpha, model.normalise.beta) == (5, 1e-4, 0.75)
    assert model.head.kernel_size == (1, 1)
