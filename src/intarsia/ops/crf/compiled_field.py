"""mean_field.c on tensors: filters and inference on a lattice of lattice.c, by several threads."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from intarsia.compiled import Compiled, Unfit
from intarsia.errors import DataError
from intarsia.ops.crf.compiled_lattice import LATTICE, LatticeParts, lattice_parts, strips_of
from intarsia.ops.crf.config import CrfConfig
from intarsia.ops.crf.embedding import Embedding
from intarsia.ops.crf.gaussian import gaussian_taps, inverse_root
from intarsia.ops.crf.lattice import TINY, PlainLattice
from intarsia.ops.crf.mean_field import NOT_NUMBERS, mean_field
from intarsia.ops.crf.memory import fresh
from intarsia.ops.pieces import share

PHASE = 16
"""int64 of a `Phase` of mean_field.c."""
MOST_CLASSES = 256
"""Classes that mean_field.c takes."""
EDGE = 3
"""Zeros at either end of the taps."""

_pointer, _size, _float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class _Lattice(ctypes.Structure):
    _fields_ = (
        ("height", _size),
        ("width", _size),
        ("corners", _size),
        ("rows", _size),
        ("strips", _size),
        ("extras", _size),
        ("corner", _pointer),
        ("weight", _pointer),
        ("neighbour", _pointer),
        ("extra", _pointer),
        ("base", _pointer),
        ("start", _pointer),
        ("x", _pointer),
        ("y", _pointer),
    )


class _Filter(ctypes.Structure):
    _fields_ = (
        ("lattice", _pointer),
        ("phase", _pointer),
        ("reversed", _size),
        ("input", _pointer),
        ("output", _pointer),
    )


class _Field(ctypes.Structure):
    _fields_ = (
        ("lattice", _pointer),
        ("phase", _pointer),
        ("classes", _size),
        ("iterations", _size),
        ("radius", _size),
        ("logits", _pointer),
        ("class_step", _size),
        ("row_step", _size),
        ("lowest", _float),
        ("bilateral", _float),
        ("smoothness", _float),
        ("taps", _pointer),
        ("scale_y", _pointer),
        ("scale_x", _pointer),
        ("unary", _pointer),
        ("q", _pointer),
        ("p", _pointer),
        ("out", _pointer),
        ("down", _pointer),
        ("along", _pointer),
        ("wrong", ctypes.c_long),
    )


@dataclass(frozen=True)
class CompiledLattice:
    """An image's lattice, and mean_field.c to use it with."""

    library: ctypes.CDLL
    parts: LatticeParts

    @staticmethod
    def of(library: ctypes.CDLL, parts: LatticeParts) -> CompiledLattice:
        """The lattice with its symmetric normalisation, as `PlainLattice` has it."""
        raw = CompiledLattice(library, parts)
        sums_P1 = raw.filter(torch.ones(len(parts.weights), 1, device="cpu"))
        return replace(raw, parts=replace(parts, weights=parts.weights.mul_((sums_P1 + TINY).rsqrt_())))

    def filter(self, values_PK: Tensor, *, transposed: bool = False) -> Tensor:
        """F values, or F^T values; float32."""
        classes = values_PK.shape[1]
        if classes > MOST_CLASSES:
            return torch.cat(
                [self.filter(each, transposed=transposed) for each in torch.split(values_PK, MOST_CLASSES, 1)], 1
            )
        wide = classes if classes == 1 else self.library.padded_classes(classes)
        padded = pad(values_PK, (0, wide - classes)).contiguous()
        out = torch.empty_like(padded)
        view, kept = _view(self.parts, wide)
        phases = torch.zeros(len(self.parts.neighbours) + 3, PHASE, dtype=torch.int64, device="cpu")
        job = _Filter(ctypes.addressof(view), phases.data_ptr(), int(transposed), padded.data_ptr(), out.data_ptr())
        share(lambda _: self.library.filter_map(ctypes.byref(job), wide), view.strips)
        del kept
        return out[:, :classes]


def _view(parts: LatticeParts | None, wide: int, size_HW: tuple[int, int] = (0, 0)) -> tuple[_Lattice, list[Tensor]]:
    """`Lattice` of mean_field.c, and the memory it points to."""
    if parts is None:
        start = strips_of(*size_HW)
        base = torch.zeros_like(start)
        pointers = [None, None, None, None, base.data_ptr(), start.data_ptr(), None, None]
        return _Lattice(*size_HW, 0, 1, len(start) - 1, 0, *pointers), [base, start]
    rows = parts.neighbours.shape[1]
    x, y = (fresh(rows, wide) for _ in range(2))
    held = [
        parts.corners,
        parts.weights,
        parts.neighbours,
        parts.extra,
        parts.base,
        parts.start,
        x,
        y,
    ]
    numbers = parts.corners.shape[1], rows, len(parts.start) - 1, len(parts.extra)
    return _Lattice(*parts.size, *numbers, *(each.data_ptr() for each in held)), held


def compiled_mean_field(
    library: ctypes.CDLL, logits_KHW: Tensor, lattice: CompiledLattice | None, config: CrfConfig
) -> Tensor:
    """As `mean_field`; float32 logits of up to 256 classes.

    Raises:
        DataError: a pixel has no softmax.
    """
    classes, height, width = logits_KHW.shape
    gaussians = _gaussians()
    if logits_KHW.stride(2) != 1:
        logits_KHW = logits_KHW.contiguous()
    wide = library.padded_classes(classes)
    parts = lattice.parts if lattice is not None and config.bilateral_weight else None
    view, held = _view(parts, wide, (height, width))
    taps = gaussian_taps(config.smoothness_std, max(height, width))
    rows = [pad(taps, (EDGE, EDGE)), inverse_root(taps, height), inverse_root(taps, width)]
    taps_y_x = [each.float() for each in rows]
    unary_PK, own_PK = fresh(2, height * width, wide)
    shared_PK = fresh(height * width, wide)
    # The last step writes log Q, and no Q: it may stand where the Q before the one that it reads was.
    out_KHW = shared_PK.flatten()[: logits_KHW.numel()].view(logits_KHW.shape)
    q_p = (own_PK, shared_PK) if config.iterations % 2 else (shared_PK, own_PK)
    phases = torch.zeros((view.corners + 2) * config.iterations + 1, PHASE, dtype=torch.int64, device="cpu")
    field = _Field(
        ctypes.addressof(view),
        phases.data_ptr(),
        classes,
        config.iterations,
        len(taps) // 2,
        logits_KHW.data_ptr(),
        logits_KHW.stride(0),
        logits_KHW.stride(1),
        math.log(config.least_probability) if config.least_probability else -math.inf,
        config.bilateral_weight,
        config.smoothness_weight,
        *(each.data_ptr() for each in (*taps_y_x, unary_PK, *q_p, out_KHW)),
        *gaussians,
        0,
    )
    ended = [0] * view.strips

    def work(index: int) -> None:
        ended[index] = library.mean_field(ctypes.byref(field))

    share(work, view.strips)
    del held
    if all(ended):
        raise MemoryError("no memory for the inference of a CRF")
    if field.wrong:
        raise DataError(NOT_NUMBERS)
    return out_KHW


def _gaussians() -> list[int | None]:
    """Addresses of gaussian.c's functions; its library stays loaded.

    Raises:
        Unfit: there are none.
    """
    library = GAUSSIAN.load()
    if library is None:
        raise Unfit(f"mean_field.c needs gaussian.c, which is missing ({GAUSSIAN.state()})")
    return [ctypes.cast(each, _pointer).value for each in (library.gaussian_down, library.gaussian_along)]


def _along_checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, one direction held against torch; mean_field.c, with both, is held against all of it."""
    library.gaussian_along.argtypes, library.gaussian_along.restype = [_pointer, *[_size] * 3, _pointer, _pointer], None
    taps, row = gaussian_taps(1.5, 99), torch.rand(99, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    radius, found = len(taps) // 2, torch.empty(99, device="cpu")
    ends, padded = pad(taps.float(), (EDGE, EDGE)), pad(row, (radius, radius))
    library.gaussian_along(padded.data_ptr(), 99, 1, radius, ends.data_ptr(), found.data_ptr())
    if not torch.allclose(found, padded.unfold(0, len(taps), 1) @ taps.float(), rtol=1e-5):
        raise Unfit("gaussian.c, compiled, gives other numbers than torch")
    return library


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against plain torch on drawn images and logits."""
    library.padded_classes.argtypes, library.padded_classes.restype = [_size], _size
    library.mean_field.argtypes, library.mean_field.restype = [_pointer], ctypes.c_int32
    library.filter_map.argtypes, library.filter_map.restype = [_pointer, _size], None
    lattices = LATTICE.load()
    if lattices is None:
        raise Unfit(f"mean_field.c works on lattice.c, which is missing ({LATTICE.state()})")
    generator = torch.Generator("cpu").manual_seed(0)
    image_CHW = 255 * torch.rand(3, 67, 150, generator=generator, device="cpu")
    config = CrfConfig(position_std=8, colour_std=60, smoothness_std=1.5, iterations=3)
    plain = PlainLattice.of(image_CHW, config.position_std, config.colour_std)
    parts = lattice_parts(lattices, image_CHW, Embedding.of(image_CHW, config.position_std, config.colour_std))
    lattice = CompiledLattice.of(library, parts)
    for classes in (1, 2, 5, 12, 21, 30, 40):
        logits_KHW = 4 * torch.randn(classes, 67, 150, generator=generator, device="cpu")
        found = compiled_mean_field(library, logits_KHW, lattice, config)
        expected = mean_field(logits_KHW, plain, config)
        values = logits_KHW.flatten(1).T
        pairs = [(found.exp(), expected.exp())]
        pairs += [(lattice.filter(values, transposed=t), plain.filter(values, transposed=t)) for t in (False, True)]
        if not all(torch.allclose(a, b, rtol=1e-4, atol=2e-5) for a, b in pairs):
            raise Unfit("mean_field.c, compiled, gives other numbers than torch")
    return library


GAUSSIAN = Compiled(Path(__file__).with_name("gaussian.c"), _along_checked)
FIELD = Compiled(Path(__file__).with_name("mean_field.c"), _checked)
