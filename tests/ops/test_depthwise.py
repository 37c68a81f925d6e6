"""Depthwise convolutions leave autocast; nothing else changes."""

import copy

import pytest
import torch
from torch import nn

from intarsia.models import create_model
from intarsia.ops.depthwise import depthwise_in_float32


def test_only_depthwise_convolutions_compute_in_float32():
    model = depthwise_in_float32(
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2))
    )
    seen = []
    for layer in model:
        layer.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(1, 4, 8, 8))
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16]


def test_result_names_and_copies_stay():
    pytest.importorskip("timm")
    model = create_model("encdec", num_classes=2, pretrained="none").eval()
    image = torch.randn(1, 3, 64, 64)
    before, keys = model(image), list(model.state_dict())
    changed = copy.deepcopy(depthwise_in_float32(depthwise_in_float32(model)))
    assert torch.equal(changed(image), before)
    assert list(changed.state_dict()) == keys
