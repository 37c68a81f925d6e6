"""A golden input and output: what a network computed of a built-in image when it was saved, computed again when it is loaded.

Hashes tell that files are those that were saved; this tells that they still mean the same: the normalisation, the order of
channels and classes, and what the installed versions of torch and timm make of the network.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from intarsia.devices import Device
from intarsia.errors import GoldenMismatch, SaveError
from intarsia.images.files import Array
from intarsia.images.preprocess import Preprocess
from intarsia.images.ranges import BYTES, ValueRange
from intarsia.models.base import SegmentationModel, logits_for, resize_logits

PATTERN = "waves 1"
"""Name of the image that `golden_image` makes; another image needs another name, as stored logits belong to it."""
SIDE, STEP, FIRST = 64, 8, 4
"""Pixels a side of the image; of its logits every eighth pixel of both axes is kept, from the fourth on."""
DIGITS = 6
TOLERANCE = {"fp32": 0.01, "bf16": 0.05}
"""Largest difference by precision, as a share of the range of the stored logits."""
LEAST_RANGE = 1e-3
"""Range that is taken where logits hardly differ: this, or this share of the largest of them."""
PACKAGES = ("intarsia", "torch", "timm")
"""Packages whose versions decide what a network computes."""
CPU = Device("cpu", 0, "fp32")


def golden_image(channels: int, value_range: ValueRange = BYTES) -> Array:
    """The built-in image, the same for ever: (64, 64, C), or (64, 64) for one channel.

    In channel c the pixel (y, x) is v = (3 x + 5 y + 37 c + (x y + c x²) // 8 + 90 s) mod 256 with s = (x // 16 + y // 16 + c)
    mod 2: slopes, ever finer waves and a chessboard's edges; no two channels alike, and no flat part, where maxima would be
    a matter of rounding.

    Args:
        value_range: (0, 255) makes uint8; any other float32, low + (high - low) v / 255.
    """
    y, x, c = np.meshgrid(np.arange(SIDE), np.arange(SIDE), np.arange(channels), indexing="ij")
    board = (x // 16 + y // 16 + c) % 2
    v_HWC = (3 * x + 5 * y + 37 * c + (x * y + c * x * x) // 8 + 90 * board) % 256
    if value_range == BYTES:
        image: Array = v_HWC.astype(np.uint8)
    else:
        low, high = (np.asarray(bound, np.float64) for bound in value_range)
        image = (low + (high - low) * v_HWC / 255).astype(np.float32)
    return image[..., 0] if channels == 1 else image


def golden_of(model: nn.Module, preprocess: Preprocess) -> dict[str, Any]:
    """What the manifest of a model folder keeps: the image's name and sha256, and the logits, (K, 8, 8), of its sampled pixels.

    Computed on the CPU in float32, wherever the model lies; the model stays as it is.

    Raises:
        SaveError: the logits are not finite.
    """
    net = cast(SegmentationModel, getattr(model, "module", model))
    is_on_cpu = all(each.device.type == "cpu" for each in (*net.parameters(), *net.buffers()))
    trained = [module for module in net.modules() if module.training]
    try:
        logits_KHW = _logits((net if is_on_cpu else copied_to_cpu(net)).eval(), preprocess, CPU)
    finally:
        for module in trained:
            module.training = True
    if not np.isfinite(logits_KHW).all():
        raise SaveError("golden output: the logits are not finite, so it is not kept.")
    rounded = [[[float(f"{value:.{DIGITS}g}") for value in row] for row in plane] for plane in logits_KHW.tolist()]
    return {"pattern": PATTERN, "input": _digest(preprocess), "logits": rounded}


def check_golden(
    model: nn.Module,
    preprocess: Preprocess,
    golden: Mapping[str, Any],
    folder: Path,
    tolerance: float | None = None,
    *,
    device: Device = CPU,
    packages: Mapping[str, str] | None = None,
) -> float:
    """Compute the golden output again and hold it against the stored one; returns the largest difference of logits.

    Args:
        model: in evaluation; it may lie on any device.
        golden: of `golden_of`.
        folder: the model folder, for the message.
        tolerance: largest difference, as a share of the range of the stored logits; None: 1 % in fp32, 5 % in bf16.
        device: where the model lies, and the precision in which it computes.
        packages: versions of the packages with which the model was saved, for the message.

    Raises:
        GoldenMismatch: the logits differ by more, or are of another image.
    """
    if golden.get("pattern") != PATTERN:
        raise GoldenMismatch(
            f"{folder}: its golden output is of the image {golden.get('pattern')!r}, this intarsia knows {PATTERN!r}. "
            "Update intarsia."
        )
    if golden.get("input") != _digest(preprocess):
        raise GoldenMismatch(
            f"{folder}: the golden input is another one than when the model was saved: channels or value_range in the "
            "manifest's preprocess were changed. Copy the folder again."
        )
    net = cast(SegmentationModel, getattr(model, "module", model))
    stored, met = _stored(golden, folder), _logits(net, preprocess, device)
    if stored.shape != met.shape:
        raise GoldenMismatch(
            f"{folder}: the golden output is {stored.shape}, the network computes {met.shape}. Copy the folder again."
        )
    difference = float(np.abs(met - stored).max())
    low, high, largest = float(stored.min()), float(stored.max()), float(np.abs(stored).max())
    share = TOLERANCE[device.precision] if tolerance is None else tolerance
    allowed = share * max(high - low, LEAST_RANGE, LEAST_RANGE * largest)
    if not difference <= allowed:  # also where the difference is no number
        raise GoldenMismatch(
            f"{folder}: the network computes something else than when it was saved: logits of the golden input differ by up to "
            f"{difference:.3g}, allowed is {allowed:.3g}. {_advice(packages or {})}"
        )
    return difference


def _advice(packages: Mapping[str, str]) -> str:
    """What to do, by what is installed."""
    here = {name: _installed(name) for name in PACKAGES}
    packages = {name: packages[name].partition("+")[0] for name in PACKAGES if name in packages}
    other = [name for name in packages if packages[name] != here[name]]
    if not other:
        return "The versions of intarsia, torch and timm are the same, so the folder was changed: copy it again."
    saved, met = (", ".join(f"{name} {of[name]}" for name in other) for of in (packages, here))
    wanted = " ".join(f"{name}=={packages[name]}" for name in other)
    return (
        f"It was saved with {saved}, here are {met}: pip install {wanted}, or copy the folder again if it was changed."
    )


def _installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "-"


def _stored(golden: Mapping[str, Any], folder: Path) -> NDArray[np.float64]:
    try:
        stored = np.asarray(golden["logits"], np.float64)
        if stored.ndim == 3 and stored.size and np.isfinite(stored).all():
            return stored
    except (KeyError, TypeError, ValueError):
        pass
    raise GoldenMismatch(f"{folder}: the golden output in its manifest is damaged. Copy the folder again.")


def _digest(preprocess: Preprocess) -> str:
    """sha256 of the golden image's type, shape and bytes."""
    image = golden_image(preprocess.channels, preprocess.value_range)
    plain = image.astype(image.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{image.dtype} {image.shape} ".encode() + plain.tobytes()).hexdigest()


def copied_to_cpu(net: SegmentationModel) -> SegmentationModel:
    """A copy of the network on the CPU that takes no memory of the device."""
    memo: dict[int, Any] = {}
    for each in (*net.parameters(), *net.buffers()):
        moved = each.detach().cpu()
        memo[id(each)] = nn.Parameter(moved, requires_grad=False) if isinstance(each, nn.Parameter) else moved
    return copy.deepcopy(net, memo)


@torch.no_grad()
def _logits(net: SegmentationModel, preprocess: Preprocess, device: Device) -> NDArray[np.float64]:
    """(K, 8, 8)"""
    image = golden_image(preprocess.channels, preprocess.value_range)
    image_CHW = torch.from_numpy(
        preprocess.replace()(image)
    )  # by a copy, so that the given one keeps no table of bytes
    with device.autocast():
        logits_NKHW: Tensor = logits_for(net, image_CHW.unsqueeze(0).to(device.torch_name))
    sampled = resize_logits(logits_NKHW.float(), (SIDE, SIDE))[0, :, FIRST::STEP, FIRST::STEP]
    found: NDArray[np.float64] = sampled.cpu().numpy().astype(np.float64)
    return found
