"""Dense CRF on a batch: compiled on the processor, plain torch on other devices and where there is no compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from intarsia.errors import DataError
from intarsia.ops.crf.compiled_field import FIELD, MOST_CLASSES, CompiledLattice, compiled_mean_field
from intarsia.ops.crf.compiled_lattice import LATTICE, MOST_CHANNELS, lattice_parts
from intarsia.ops.crf.config import CRFS, CrfConfig
from intarsia.ops.crf.embedding import Embedding
from intarsia.ops.crf.lattice import PlainLattice
from intarsia.ops.crf.mean_field import mean_field
from intarsia.ops.pieces import readable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

AnyLattice = PlainLattice | CompiledLattice


def dense_crf(
    logits_NKHW: Tensor, image_NCHW: Tensor, config: CrfConfig | str | Mapping[str, Any] = "deeplab"
) -> Tensor:
    """Log-probabilities (N, K, H, W) float32 of the classes, after the network's are compared with the image's colours.

    softmax of them, or exp, is Q of Krähenbühl and Koltun, arXiv:1210.5644, algorithm 1. There is no gradient; `CrfLayer`
    has one.

    Args:
        logits_NKHW: before softmax, any floating type.
        image_NCHW: of the same size, any number of channels, 0..255, uint8 or any other type: as read, not normalised.
        config: one of `CRFS`, by value or name.

    Raises:
        DataError: the two do not fit, or hold what is not a number.
        ConfigError: standard deviations that are too small for the image.
    """
    settings = CRFS.resolve(config)
    check_pair(logits_NKHW, image_NCHW)
    with torch.no_grad():
        images = zip(logits_NKHW.detach(), image_NCHW.detach(), strict=True)
        if len(logits_NKHW) == 1:
            return _one(*next(images), settings).unsqueeze(0)
        found = torch.empty(logits_NKHW.shape, dtype=torch.float32, device=logits_NKHW.device)
        for out_KHW, image in zip(found, images, strict=True):
            out_KHW.copy_(_one(*image, settings))
    return found


def _one(logits_KHW: Tensor, image_CHW: Tensor, config: CrfConfig) -> Tensor:
    return refined(logits_KHW, lattice_of(image_CHW, config, logits_KHW.device), config)


@overload
def lattice_of(image_CHW: Tensor, config: CrfConfig, device: torch.device, *, always: Literal[True]) -> AnyLattice: ...


@overload
def lattice_of(image_CHW: Tensor, config: CrfConfig, device: torch.device) -> AnyLattice | None: ...


def lattice_of(
    image_CHW: Tensor, config: CrfConfig, device: torch.device, *, always: bool = False
) -> AnyLattice | None:
    """An image's lattice, to be used with any weights and smoothness; None where the bilateral weight is 0.

    Args:
        image_CHW: 0..255; brought to the device.
        always: make one whatever the weight.

    Raises:
        DataError: the image holds what is not a number.
    """
    image_CHW = image_CHW.to(device, torch.float32).contiguous()
    if not bool(torch.isfinite(image_CHW).all()):
        raise DataError("image: holds NaN or infinity, and a CRF compares its colours; fill such pixels first.")
    if not (config.bilateral_weight or always):
        return None
    stds = config.position_std, config.colour_std
    field = FIELD.load() if readable(image_CHW) and len(image_CHW) <= MOST_CHANNELS else None
    library = LATTICE.load() if field is not None else None
    if field is None or library is None:
        return PlainLattice.of(image_CHW, *stds)
    return CompiledLattice.of(field, lattice_parts(library, image_CHW, Embedding.of(image_CHW, *stds)))


def refined(logits_KHW: Tensor, lattice: AnyLattice | None, config: CrfConfig) -> Tensor:
    """(K, H, W) float32 log Q of one image.

    Args:
        lattice: as `lattice_of` gives it, under the same INTARSIA_KERNEL.
    """
    logits_KHW = logits_KHW.float()
    if isinstance(lattice, PlainLattice) or len(logits_KHW) > MOST_CLASSES or not readable(logits_KHW):
        return mean_field(logits_KHW, lattice, config)
    field = FIELD.load() if lattice is None else lattice.library
    return (
        mean_field(logits_KHW, None, config)
        if field is None
        else compiled_mean_field(field, logits_KHW, lattice, config)
    )


def check_pair(logits_NKHW: Tensor, image_NCHW: Tensor) -> None:
    """Raises DataError if logits and images are not maps of the same size."""
    for name, tensor, shape in (("logits", logits_NKHW, "(N, K, H, W)"), ("image", image_NCHW, "(N, C, H, W)")):
        if tensor.ndim != 4:
            raise DataError(f"{name}: a CRF takes {shape}, got {tuple(tensor.shape)}.")
        if 0 in tensor.shape[1:]:
            raise DataError(f"{name}: has no {'pixels' if tensor.shape[1] else 'channels'}, got {tuple(tensor.shape)}.")
        if tensor.is_complex():
            raise DataError(f"{name}: a CRF takes real numbers, got {tensor.dtype}.")
    if len(logits_NKHW) != len(image_NCHW):
        raise DataError(
            f"image: there are {len(image_NCHW)} images for the logits of {len(logits_NKHW)}; give one each."
        )
    if logits_NKHW.shape[2:] != image_NCHW.shape[2:]:
        found, wanted = ("{} x {}".format(*each.shape[2:]) for each in (image_NCHW, logits_NKHW))
        raise DataError(f"image: is {found}, but the logits are {wanted}; resize the logits to the image.")
