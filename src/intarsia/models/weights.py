"""Published weights: where they lie, what they must hash to, under which licence, and how their names map to ours.

`pretrained` of a model is one of
    auto       the file if it lies in the cache folder already, else a download if its host answers within seconds, else
               random weights, said so
    none       random weights; nothing is looked for
    download   the published file, downloaded once; an error where that fails
    a path     the same file, or a .safetensors of the same names, kept anywhere
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch
from torch import Tensor, nn

from intarsia.downloads import cache_folder, fetch
from intarsia.errors import ConfigError, DownloadError, FileError, SaveError
from intarsia.progress import Progress, default_progress

FirstLayer = Literal["adapt", "fresh"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics, on the 0..1 scale and in the order RGB, of all weights below."""


@dataclass(frozen=True)
class Published:
    """One published file; `sha256` may be its first digits, as torch puts them into names of files."""

    url: str
    sha256: str
    holds: str
    """What it is, in words."""
    licence: str

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where it lies once downloaded; a file put there by hand is used as well."""
        return weights_folder() / self.file_name


_HOST = "https://download.pytorch.org/models/"
_BSD = "BSD-3-Clause (torchvision); ImageNet's terms of use hold for the data"
_COCO = "BSD-3-Clause (torchvision); trained on COCO images with the 21 classes of PASCAL VOC"

# name                      file                                      sha256 begins with
PUBLISHED: dict[str, Published] = {
    name: Published(_HOST + file, re.findall(r"-([0-9a-f]{8})\.pth", file)[0], holds, licence)
    for name, file, holds, licence in (
        ("vgg16", "vgg16-397923af.pth", "ImageNet weights of VGG16", _BSD),
        ("alexnet2014", "alexnet-owt-7be5be79.pth", "ImageNet weights of AlexNet (one tower, 2014)", _BSD),
        ("fcn_resnet50", "fcn_resnet50_coco-1167a1af.pth", "torchvision's FCN on ResNet-50", _COCO),
        ("fcn_resnet101", "fcn_resnet101_coco-7ecb50ca.pth", "torchvision's FCN on ResNet-101", _COCO),
        ("deeplab3_resnet50", "deeplabv3_resnet50_coco-cd0a2569.pth", "torchvision's DeepLabV3 on ResNet-50", _COCO),
        ("deeplab3_resnet101", "deeplabv3_resnet101_coco-586e9e4e.pth", "torchvision's DeepLabV3 on ResNet-101", _COCO),
    )
}


def weights_folder() -> Path:
    """Folder of published weights; INTARSIA_CACHE moves it. One may fill it by hand on a machine without network."""
    return cache_folder() / "weights"


def start_weights(
    name: str, pretrained: str, *, fits: bool = True, progress: Progress | None = None
) -> tuple[dict[str, Tensor] | None, str]:
    """Published weights in their own names (None: there are none to start from) and where they came from, in words.

    Args:
        name: a key of PUBLISHED.
        pretrained: auto, none, download or a path; see this file's head.
        fits: whether the network has the published one's shapes; where it has not, auto takes random weights.
        progress: where a download is shown; by default a bar in a terminal, else lines.

    Raises:
        ConfigError: the setting names no way and no file, or weights were asked for that cannot fit.
        FileError: a file that cannot be read as weights.
        IntegrityError: the file in the folder, or the one that came, is not the published one.
        DownloadError, SaveError: the download failed (auto takes random weights then); the message names file and folder.
    """
    known = PUBLISHED[name]
    if pretrained == "none" or (pretrained == "auto" and not fits):
        return None, "random weights"
    if not fits:
        raise ConfigError(
            f"model.pretrained: {known.holds} do not fit a network of other widths. Set model.pretrained=none."
        )
    if pretrained == "auto" and not known.path.is_file() and not host_answers(known.url):
        return None, f"random weights: no published weights at hand (put {known.file_name} into {weights_folder()})"
    if pretrained in ("auto", "download"):
        try:
            path = fetch(known.url, known.path, sha256=known.sha256, progress=progress or default_progress())
        except (DownloadError, SaveError) as error:
            if pretrained == "download":
                raise
            return None, f"random weights: {error}"
        return read_weights(path), known.holds
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise ConfigError(f"model.pretrained: must be auto, none, download or a file that exists, got {pretrained!r}.")
    return read_weights(path), f"weights of {path.name}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pth file, in float32; nothing in the file is executed."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: Mapping[str, Tensor] = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            weights = weights.get("state_dict", weights) if isinstance(weights, dict) else weights
        return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    except Exception as error:
        raise FileError(path, "E_WEIGHTS", f"cannot be read as weights ({error})") from None


@contextmanager
def as_published(net: str) -> Iterator[None]:
    """Say in one line that weights are not those of the net, in torchvision's names, where a name or shape is missing."""
    try:
        yield
    except (KeyError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"model.pretrained: these are not the weights of {net} as torchvision names them ({type(error).__name__}: "
            f"{error}). `intarsia list weights` shows the published file."
        ) from None


def adapt_first_layer(weight: Tensor, channels: int, how: str, *, start: Tensor) -> Tensor:
    """The first layer's weight (width, 3, k, k) for images of any number of channels, (width, channels, k, k).

    adapt: 1 channel gets the sum over RGB, so that a grey image gives what its RGB copy gave; n channels get RGB repeated
    and scaled by 3/n, which keeps the size of the response. fresh: `start`, the random weights, unless there are 3 channels.
    """
    if channels == weight.shape[1]:
        return weight
    if how == "fresh":
        return start.detach().clone()
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-channels // weight.shape[1])
    return weight.repeat(1, repeats, 1, 1)[:, :channels] * (weight.shape[1] / channels)


def for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """RGB statistics for any number of channels: their mean where there are not three."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def imagenet_statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the published weights' images, for any number of channels."""
    return for_channels(IMAGENET_MEAN, channels), for_channels(IMAGENET_STD, channels)


def load_coco(model: nn.Module, name: str, heads: tuple[str, ...], *, first_layer: str) -> str:
    """Fill a whole network with torchvision's COCO-VOC weights; where they came from, in words.

    Args:
        model: a network whose names are those of `from_torchvision`.
        name: a key of PUBLISHED.
        heads: prefixes of the last layers, which stay as drawn if the number of classes is not 21.

    Raises:
        ConfigError: nothing is published under that name.
        DownloadError: the download failed.
    """
    if name not in PUBLISHED:
        there = ", ".join(key for key in PUBLISHED if "resnet" in key)
        raise ConfigError(f"model.pretrained: coco weights are published for {there}; there are none for {name}.")
    state, start = start_weights(name, "download")
    fill(model, from_torchvision(state or {}), heads, first_layer=first_layer)
    return start


@torch.no_grad()
def fill(model: nn.Module, state: Mapping[str, Tensor], heads: tuple[str, ...], *, first_layer: str) -> None:
    """Copy every tensor by name; those of other shape only where it is the first layer or a head.

    Raises:
        ConfigError: a tensor of the network is not there, or does not fit.
    """
    wrong = []
    for key, ours in model.state_dict().items():
        theirs = state.get(key)
        if theirs is not None and theirs.ndim == 4 and theirs.shape[1] == 3 and ours.ndim == 4:
            theirs = adapt_first_layer(theirs, ours.shape[1], first_layer, start=ours)
        if theirs is not None and theirs.shape == ours.shape:
            ours.copy_(theirs)
        elif not key.startswith((*heads, "auxiliary.")):
            wrong.append(key)
    if wrong:
        raise ConfigError(f"model.pretrained: the weights do not fit: {len(wrong)} tensors differ, first {wrong[0]}.")


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's FCN and DeepLabV3 in our names; the auxiliary classifier is left out."""
    heads = _DEEPLAB3 if "classifier.0.project.0.weight" in state else _FCN
    named = {}
    for key, value in state.items():
        if key.startswith("backbone."):
            named["encoder.net." + key.removeprefix("backbone.")] = value
        for theirs, ours in heads.items():
            if key.startswith(theirs):
                named[ours + key.removeprefix(theirs)] = value
    return named


_FCN = {"classifier.0.": "hidden.0.", "classifier.1.": "hidden.1.", "classifier.4.": "scores.0."}
_DEEPLAB3 = {
    "classifier.0.convs.0.": "aspp.point.",
    "classifier.0.convs.1.": "aspp.dilated.0.",
    "classifier.0.convs.2.": "aspp.dilated.1.",
    "classifier.0.convs.3.": "aspp.dilated.2.",
    "classifier.0.convs.4.1.": "aspp.image.1.0.",
    "classifier.0.convs.4.2.": "aspp.image.1.1.",
    "classifier.0.project.": "aspp.project.",
    "classifier.1.": "bridge.0.0.",
    "classifier.2.": "bridge.0.1.",
    "classifier.4.": "head.",
}


def host_answers(url: str, seconds: float = 3.0) -> bool:
    """Whether the host of a url, or the proxy that stands before it, can be reached at all."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    if proxy:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=seconds):
            return True
    except (OSError, ValueError):
        return False
