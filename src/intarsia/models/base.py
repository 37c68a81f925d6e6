"""What every architecture is: a config that builds, and a module that maps images to logits.

A model takes normalised images (N, C, H, W) of any size that its docstring allows and returns logits (N, K, h, w), where
(h, w) = `output_size(H, W)`: the input's size, unless the architecture loses its border (U-Net with valid convolutions).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.config import NamedConfig
from intarsia.errors import ConfigError
from intarsia.ops.class_map import class_map as class_map
from intarsia.ops.pad import center_crop, mirror_pad
from intarsia.registry import Registry
from intarsia.runs import find_model, read_manifest


class ModelConfig(NamedConfig):
    """Settings that every architecture has."""

    carried: ClassVar[tuple[str, ...]] = ("num_classes", "in_channels")

    num_classes: int | None = Field(None, ge=1, le=255)
    """Number of classes, K; null: the data set's."""
    in_channels: int | None = Field(None, ge=1)
    """Channels of the images, C; null: the data set's."""
    frozen: tuple[str, ...] = ()
    """Parts that are not trained, such as [encoder]; their statistics and dropout rest as well."""
    deep_supervision: bool = False
    """Auxiliary logits from inside the network, with a loss of their own in training; predictions do not use them."""
    start_from: str = ""
    """Run or model folder whose weights are taken over before training, wherever name and shape are the same."""

    def build(self) -> SegmentationModel:
        """The network, with its start weights."""
        raise NotImplementedError

    def without_start_weights(self) -> Self:
        """The same network, built without looking for other weights: those of a saved model replace them."""
        return self.replace(
            {"start_from": "", **({"pretrained": "none"} if "pretrained" in type(self).model_fields else {})}
        )

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
    encoder_parts: tuple[str, ...] = ("encoder",)
    """Parts that together are the way down: `freeze("encoder")` and the setting train.encoder_lr mean them."""
    auxiliary_origin: int | None = 0
    """Row and column of the image's corner in a part's maps brought to full resolution; None: the maps are centred."""
    remembers_maxima: bool = False
    """Whether values are put back where a pooling found its maximum: of two that are almost equal, another order of summing
    finds the other, and what is put elsewhere shows in every pixel that sees it."""
    taps: Mapping[str, tuple[int, int]] = {}
    """Parts from which auxiliary logits are taken: path to (channels, stride)."""

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

    def supervise(self, taps: Mapping[str, tuple[int, int]]) -> None:
        """Make a 1x1 classifier for the maps of each part named, if `config.deep_supervision` asks for them.

        Args:
            taps: path of a part to channels and stride of its maps. The last call of an `__init__`, so that the other
                start weights are the same with and without.
        """
        self.auxiliary = nn.ModuleList()
        if self.config.deep_supervision:
            self.taps = dict(taps)
            self.auxiliary.extend(nn.Conv2d(width, self.config.classes, kernel_size=1) for width, _ in taps.values())

    def with_auxiliary(self, image_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and auxiliary logits of the same size from inside the network (Lee et al., arXiv:1409.5185).

        The list is empty unless the config sets deep_supervision.
        """
        seen: dict[str, Tensor] = {}
        hooks = [
            self.get_submodule(path).register_forward_hook(lambda _m, _in, out, path=path: seen.update({path: out}))
            for path in self.taps
        ]
        try:
            logits_NKHW = self(image_NCHW)
        finally:
            for hook in hooks:
                hook.remove()
        size = (logits_NKHW.shape[-2], logits_NKHW.shape[-1])
        strides = [stride for _, stride in self.taps.values()]
        maps = [head(seen[path]) for path, head in zip(self.taps, self.auxiliary, strict=True)]
        return logits_NKHW, [
            fit_auxiliary(each, size, stride, self.auxiliary_origin) for each, stride in zip(maps, strides, strict=True)
        ]

    def freeze(self, *parts: str) -> Self:
        """Leave out of training: no gradients, resting BatchNorm statistics, no dropout, whatever `train()` says.

        Args:
            parts: names of direct children; "encoder" means the way down of every architecture.

        Raises:
            ConfigError: no such part.
        """
        for part in parts:
            for name in self._parts(part):
                self.get_submodule(name).requires_grad_(False)
        self.config = self.config.replace(frozen=tuple(dict.fromkeys((*self.config.frozen, *parts))))
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.config.frozen:
            for name in self._parts(part):
                self.get_submodule(name).eval()
        return self

    def _parts(self, part: str) -> tuple[str, ...]:
        children = [name for name, _ in self.named_children()]
        if part in children:
            return (part,)
        if part == "encoder":
            return self.encoder_parts
        raise ConfigError(f"model.frozen: there is no part {part!r}; there are: encoder, {', '.join(children)}.")

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
    """The network of a config, with the weights that it starts from, its frozen parts frozen."""
    model = config.build()
    if config.start_from:
        take_over(model, Path(config.start_from).expanduser())
    return model.freeze(*config.frozen) if config.frozen else model


@torch.no_grad()
def take_over(model: SegmentationModel, path: Path) -> list[str]:
    """Copy the weights of a saved model wherever name and shape agree: FCN-32s to 16s to 8s, or other classes.

    Returns:
        The names that keep their start weights.

    Raises:
        ConfigError: there is no model, or nothing of it fits.
        IntegrityError: its files are not what was saved, or its weights are not finite.
    """
    from intarsia.models.saved import stored_weights  # which builds models

    folder = find_model(path)
    manifest = read_manifest(folder)
    theirs, ours = stored_weights(folder), model.state_dict()
    same = [key for key, value in ours.items() if key in theirs and theirs[key].shape == value.shape]
    if not same:
        raise ConfigError(f"model.start_from: nothing in {path} has the name and shape of a weight of this model.")
    for key in same:
        ours[key].copy_(theirs[key])
    left = [key for key in ours if key not in same]
    model.start = f"weights of {path.name}" + (f", but for {len(left)} of {len(ours)} tensors" if left else "")
    preprocess = manifest.get("preprocess", {})
    if preprocess.get("channels") == model.config.in_channels:
        model.mean, model.std = tuple(preprocess["mean"]), tuple(preprocess["std"])
    return left


def border_of(net: SegmentationModel, height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels (top, left, bottom, right) that the network must see around (height, width) to have logits for all of it.

    At the top and left it is what the network loses there, so that windows whose starts differ by its stride agree.
    """
    needed = net.input_size(height, width)
    out = net.output_size(*needed)
    top, left = (needed[0] - out[0]) // 2, (needed[1] - out[1]) // 2
    return top, left, needed[0] - height - top, needed[1] - width - left


def logits_for(model: nn.Module, image_NCHW: Tensor) -> Tensor:
    """Logits (N, K, H, W) for every pixel of the image, also from a model that loses its border.

    Such a model is given the image with mirrored borders, as in figure 2 of U-Net (arXiv:1505.04597).
    """
    height, width = image_NCHW.shape[-2:]
    top, left, bottom, right = border_of(cast(SegmentationModel, getattr(model, "module", model)), height, width)
    if not any((top, left, bottom, right)):
        return cast(Tensor, model(image_NCHW))
    logits_NKHW = cast(Tensor, model(mirror_pad(image_NCHW, top, bottom, left, right)))
    return logits_NKHW[..., :height, :width]


def resize_logits(logits_NKHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to `size`, half-pixel centres; a no-op where the size is right."""
    if tuple(logits_NKHW.shape[-2:]) == size:
        return logits_NKHW
    return F.interpolate(logits_NKHW.float(), size, mode="bilinear", align_corners=False)


def fit_auxiliary(maps_NKHW: Tensor, size: tuple[int, int], stride: int, origin: int | None) -> Tensor:
    """Coarse logits brought to full resolution (bilinear) and cut to the part that `size` shows of them."""
    full = resize_logits(maps_NKHW, (stride * maps_NKHW.shape[-2], stride * maps_NKHW.shape[-1]))
    lost = [(full.shape[axis] - size[axis]) // 2 if origin is None else origin for axis in (-2, -1)]
    if any(full.shape[axis] < lost[axis] + size[axis] or lost[axis] < 0 for axis in (-2, -1)):
        return resize_logits(maps_NKHW, size)  # maps of a pooling that rounds down do not reach the border
    return full[..., lost[0] : lost[0] + size[0], lost[1] : lost[1] + size[1]]


def fit_mask(mask_NHW: Tensor, logits_NKHW: Tensor) -> Tensor:
    """The part of the mask that the logits speak of: its centre, if the model lost its border."""
    size = (logits_NKHW.shape[-2], logits_NKHW.shape[-1])
    return mask_NHW if tuple(mask_NHW.shape[-2:]) == size else center_crop(mask_NHW, size)
