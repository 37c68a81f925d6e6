"""Settings that make each preset small enough for a test and keep what is particular to it, and the step of one odd size."""

import torch

from intarsia.models.base import logits_for

SMALL = {
    "unet": {"width": 2, "dropout": 0.5},
    "unet_same": {"width": 2, "dropout": 0.1},
    "encdec": {"pretrained": "none"},
    **{
        f"encdec_{decoder}": {"pretrained": "none"}
        for decoder in ("unetplusplus", "linknet", "fpn", "psp", "upernet", "segformer")
    },
    "plain": {"width": 4, "depth": 3},
    "segnet": {"widths": ((4, 4), (4, 4))},
    "segnet_basic": {"widths": ((4,), (4,)), "kernel": 3},
    "unet_released": {"width": 2, "dropout": 0.5},
    "unet_bn": {"width": 2, "dropout": 0.5},
    **{
        name: {"width": 1 / 32, "hidden": 8, "pretrained": "none"}
        for name in (
            "fcn32s_alexnet",
            "fcn32s_vgg16",
            "fcn16s_vgg16",
            "fcn8s_vgg16",
            "fcn8s_atonce_vgg16",
            "deeplab_largefov_vgg16",
            "deeplab2_vgg16",
            "deeplab2_vgg16_aspp_s",
        )
    },
    "fcn": {"pretrained": "none"},
    "fcn_resnet50": {"encoder": "resnet10t", "hidden": 8, "pretrained": "none"},
    "fcn_resnet101": {"encoder": "resnet10t", "hidden": 8, "pretrained": "none"},
    "deeplab2_resnet101": {"encoder": "resnet50", "pretrained": "none"},
    **{
        name: {"encoder": "resnet10t", "width": 8, "multi_grid": (), "pretrained": "none"}
        for name in (f"deeplab3{plus}_resnet{depth}" for plus in ("", "plus") for depth in (50, 101))
    },
    **{f"deeplab3_resnet{d}_coco": {"encoder": "resnet10t", "width": 8, "pretrained": "none"} for d in (50, 101)},
    "deeplab3_lite0": {"width": 8, "pretrained": "none"},
    "deeplab3plus_lite0": {"width": 8, "pretrained": "none"},
    **{f"fcdensenet{depth}": {"growth": 2, "layers": (2,) * 11, "first": 4} for depth in (56, 67, 103)},
    "resunet": {"width": 2, "depths": (1, 1, 2, 1, 1, 1, 1), "dropout": 0.1},
    **{
        name: {"width": 1 / 64, "hidden": 4, "pretrained": "none"}
        for name in ("dilated_frontend", "dilation8", "dilation8_camvid", "dilation7_kitti", "dilation10_cityscapes")
    },
    **{name: {"front": {"name": "plain", "width": 4, "depth": 3}} for name in ("context_basic", "context_large")},
}


def step_at_61_x_93(model, channels):
    """Forward and backward with a batch of one: logits of the image's size, finite gradients."""
    logits = logits_for(model, torch.randn(1, channels, 61, 93))
    assert logits.shape == (1, 3, 61, 93)
    logits.square().mean().backward()
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
