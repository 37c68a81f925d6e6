"""What every architecture is: a config that builds, and a module that maps images to logits.

A model takes normalised images (N, C, H, W) of any size that its docstring allows and returns logits (N, K, h, w), where
(h, w) = `output_size(H, W)`: the input's size, unless the architecture loses its border (U-Net with valid convolutions).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.config import NamedConfig
from intarsia.errors import ConfigError
from intarsia.ops.pad import center_crop, mirror_pad
from intarsia.registry import Registry


class ModelConfig(NamedConfig):
    """Settings that every architecture has."""

    carried: ClassVar[tuple[str, ...]] = ("num_classes", "in_channels")

    num_classes: int | None = Field(None, ge=1, le=255)
    """Number of classes, K; null: the data set's."""
    in_channels: int | None = Field(None, ge=1)
    """Channels of the images, C; null: the data set's."""
    frozen: tuple[str, ...] = ()
    """Parts that are not trained, such as [encoder]; their statistics and dropout rest as well."""

    def build(self) -> SegmentationModel:
        """The network, with its start weights."""
        raise NotImplementedError

    def without_start_weights(self) -> Self:
        """The same network, built without looking for published weights: those of a saved model replace them."""
        return self

    @property
    def classes(self) -> int:
        if self.num_classes is None:
            raise ConfigError("model.num_classes: is not set; give a number, or train on a folder that tells it.")
        return self.num_classes

    @property
    def channels(self) -> int:
        if self.in_channels is None:
            raise ConfigError("model.in_channels: is not set; 3 for RGB, 1 for grey.")
        return self.in_channels


MODELS: Registry[ModelConfig] = Registry("model", "models")


class SegmentationModel(nn.Module):
    """Images to logits."""

    mean: tuple[float, ...] | None = None
    """Channel means (on the 0..1 scale) that the start weights were trained with; None: the data set's are used."""
    std: tuple[float, ...] | None = None
    start: str = "random weights"
    """Where the weights came from before training, in words."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the logits for an input of (height, width)."""
        return height, width

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Smallest input (H, W) whose logits cover (height, width)."""
        return height, width

    def sample_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of training samples near (height, width) that wastes nothing: multiples of 32, at least 32."""
        return max(32, height // 32 * 32), max(32, width // 32 * 32)

    def freeze(self, *parts: str) -> Self:
        """Leave out of training: no gradients, resting BatchNorm statistics, no dropout, whatever `train()` says.

        Args:
            parts: names of direct children, such as "encoder".

        Raises:
            ConfigError: no such part.
        """
        children = dict(self.named_children())
        for part in parts:
            if part not in children:
                raise ConfigError(f"model.frozen: there is no part {part!r}; there are: {', '.join(children)}.")
            children[part].requires_grad_(False)
        self.config = self.config.replace(frozen=tuple(dict.fromkeys((*self.config.frozen, *parts))))
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.config.frozen:
            self.get_submodule(part).eval()
        return self

    def count_parameters(self) -> int:
        """Number of weights that can be trained or are frozen; statistics of BatchNorm are not counted."""
        return sum(parameter.numel() for parameter in self.parameters())

    def size_in_words(self) -> str:
        """ "5.2 M parameters" """
        count = self.count_parameters()
        number = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.0f} k" if count >= 1e3 else str(count)
        return f"{number} parameters"


def create_model(
    name: str, *, num_classes: int | None = None, in_channels: int | None = None, **settings: Any
) -> SegmentationModel:
    """The network of a preset, with settings replaced; a plain `torch.nn.Module`.

    >>> create_model("unet", num_classes=2, in_channels=1).count_parameters()
    31030658

    Args:
        name: a preset; `intarsia list models` shows them.
        num_classes: K, channels of the logits; 2 if neither given nor in the preset.
        in_channels: C, channels of the images; 3 if neither given nor in the preset.
        settings: of the preset's config class, such as `width=32`.

    Raises:
        UnknownName: there is no such preset.
        ConfigError: there is no such setting, or its value is wrong.
    """
    config = MODELS[name].replace(settings, where="model")
    config = config.replace(
        {
            "num_classes": num_classes if num_classes is not None else config.num_classes or 2,
            "in_channels": in_channels if in_channels is not None else config.in_channels or 3,
        },
        where="model",
    )
    return build_model(config)


def build_model(config: ModelConfig) -> SegmentationModel:
    """The network of a config, its frozen parts frozen."""
    model = config.build()
    return model.freeze(*config.frozen) if config.frozen else model


def logits_for(model: nn.Module, image_NCHW: Tensor) -> Tensor:
    """Logits (N, K, H, W) for every pixel of the image, also from a model that loses its border.

    Such a model is given the image with mirrored borders, as in figure 2 of U-Net (arXiv:1505.04597).
    """
    net = cast(SegmentationModel, getattr(model, "module", model))
    height, width = image_NCHW.shape[-2:]
    needed = net.input_size(height, width)
    if needed == (height, width):
        return cast(Tensor, model(image_NCHW))
    top, left = (needed[0] - height) // 2, (needed[1] - width) // 2
    padded = mirror_pad(image_NCHW, top, needed[0] - height - top, left, needed[1] - width - left)
    logits_NKHW = cast(Tensor, model(padded))
    gap_h, gap_w = needed[0] - logits_NKHW.shape[-2], needed[1] - logits_NKHW.shape[-1]
    first_h, first_w = top - gap_h // 2, left - gap_w // 2
    return logits_NKHW[..., first_h : first_h + height, first_w : first_w + width]


def resize_logits(logits_NKHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to `size`, half-pixel centres; a no-op where the size is right."""
    if tuple(logits_NKHW.shape[-2:]) == size:
        return logits_NKHW
    return F.interpolate(logits_NKHW.float(), size, mode="bilinear", align_corners=False)


def fit_mask(mask_NHW: Tensor, logits_NKHW: Tensor) -> Tensor:
    """The part of the mask that the logits speak of: its centre, if the model lost its border."""
    size = (logits_NKHW.shape[-2], logits_NKHW.shape[-1])
    return mask_NHW if tuple(mask_NHW.shape[-2:]) == size else center_crop(mask_NHW, size)


def class_map(logits_NKHW: Tensor) -> Tensor:
    """(N, H, W) uint8: the class of the largest logit. `max` with indices instead of `argmax`, which is slower on CPUs."""
    return logits_NKHW.max(dim=1)[1].to(torch.uint8)
