"""lattice.c on tensors: the lattice of an image on the processor, made by several threads."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from torch import Tensor

from intarsia.compiled import Compiled, Unfit
from intarsia.ops.crf.embedding import Embedding
from intarsia.ops.crf.lattice import PlainLattice, simplices
from intarsia.ops.crf.memory import fresh
from intarsia.ops.pieces import share

WORTH = 1 << 12
"""Pixels that are worth a thread."""
MOST_CHANNELS = 30
"""Channels that lattice.c takes."""

_pointer, _size = ctypes.c_void_p, ctypes.c_int64


class _Frame(ctypes.Structure):
    _fields_ = (
        ("image", _pointer),
        ("height", _size),
        ("width", _size),
        ("channels", _size),
        ("factor", _pointer),
        ("step", _pointer),
        ("bits", _size),
    )


class _Table(ctypes.Structure):
    _fields_ = (("slot", _pointer), ("key", _pointer), ("count", _size), ("room", _size))


@dataclass(frozen=True)
class LatticeParts:
    """A lattice as mean_field.c reads it. Each strip of image rows has vertices of its own, numbered from 1."""

    size: tuple[int, int]
    """(H, W)."""
    corners: Tensor
    """(P, D) int32 numbers within the strip."""
    weights: Tensor
    """(P, D) float32."""
    neighbours: Tensor
    """(D, R, 2) int32 rows; 0: there is none."""
    extra: Tensor
    """(E, 2) int32: rows whose vertex an earlier strip has too, and the row of that one."""
    base: Tensor
    """int64 (strips + 1): rows before a strip's own."""
    start: Tensor
    """int64 (strips + 1): a strip's first image row."""


def strips_of(height: int, width: int) -> Tensor:
    """int64: where each thread's strip of image rows starts, and the end."""
    count = max(1, min(torch.get_num_threads(), height, height * width // WORTH))
    return torch.tensor([height * index // count for index in range(count + 1)], device="cpu")


def lattice_parts(library: ctypes.CDLL, image_CHW: Tensor, embedding: Embedding) -> LatticeParts:
    """The lattice of an image, before normalisation.

    Args:
        image_CHW: float32, contiguous.
    """
    channels, height, width = image_CHW.shape
    size = embedding.dimensions + 1
    factors = torch.tensor(embedding.factors, dtype=torch.float64, device="cpu")
    steps = torch.tensor(embedding.steps, dtype=torch.int64, device="cpu")
    frame = _Frame(image_CHW.data_ptr(), height, width, channels, factors.data_ptr(), steps.data_ptr(), embedding.bits)
    start = strips_of(height, width)
    spans = list(pairwise(start.tolist()))
    corners_PD = fresh(height * width, size, dtype=torch.int32)
    weights_PD = fresh(height * width, size)
    tables = (_Table * len(spans))()
    failed = [0] * len(spans)

    def fill(index: int) -> None:
        to = corners_PD.data_ptr(), weights_PD.data_ptr(), ctypes.byref(tables[index])
        failed[index] = library.lattice_strip(ctypes.byref(frame), *spans[index], *to)

    try:
        share(fill, len(spans))
        counts = [table.count for table in tables]
        extra_E2 = torch.empty(sum(counts[1:]), 2, dtype=torch.int32, device="cpu")
        extras = -1 if any(failed) else library.lattice_merge(tables, len(spans), extra_E2.data_ptr())
        if extras < 0:
            raise MemoryError("no memory for the lattice of a CRF")
        base = list(accumulate(counts, initial=0))
        neighbours_DR2 = torch.zeros(size, base[-1] + 1, 2, dtype=torch.int32, device="cpu")

        def connect(index: int) -> None:
            for own, before, count in zip(tables, base, counts, strict=False):
                span = count * index // len(spans), count * (index + 1) // len(spans)
                given = ctypes.byref(frame), tables, ctypes.byref(own), before, *span
                library.lattice_neighbours(*given, base[-1] + 1, neighbours_DR2.data_ptr())

        share(connect, len(spans))
    finally:
        library.lattice_free(tables, len(spans))
    return LatticeParts(
        (height, width),
        corners_PD,
        weights_PD,
        neighbours_DR2,
        extra_E2[:extras].clone(),
        torch.tensor(base, device="cpu"),
        start,
    )


def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, held against plain torch on drawn images: the same corners, weights and neighbours, number by number."""
    library.lattice_strip.argtypes = [_pointer, _size, _size, _pointer, _pointer, _pointer]
    library.lattice_strip.restype = ctypes.c_int32
    library.lattice_merge.argtypes, library.lattice_merge.restype = [_pointer, _size, _pointer], _size
    library.lattice_neighbours.argtypes = [_pointer, _pointer, _pointer, *[_size] * 4, _pointer]
    library.lattice_neighbours.restype = None
    library.lattice_free.argtypes, library.lattice_free.restype = [_pointer, _size], None
    generator = torch.Generator("cpu").manual_seed(0)
    for channels in (1, 3, 4, 9):
        image_CHW = 255 * torch.rand(channels, 67, 150, generator=generator, device="cpu")
        embedding = Embedding.of(image_CHW, 8.0, 40.0)
        if not _same(lattice_parts(library, image_CHW, embedding), image_CHW, embedding):
            raise Unfit("lattice.c, compiled, gives another lattice than torch")
    return library


def _same(found: LatticeParts, image_CHW: Tensor, embedding: Embedding) -> bool:
    """Whether it is the lattice of plain torch, but for the numbering of vertices."""
    _, shares_PD = simplices(image_CHW, embedding)
    plain = PlainLattice.of(image_CHW, 8.0, 40.0)
    if not torch.equal(found.weights, shares_PD.float() / (1 << embedding.bits)):
        return False
    pixels_per_row = found.size[1]
    rows_PD = found.corners.long()
    for base, (first, last) in zip(found.base.tolist(), pairwise(found.start.tolist()), strict=False):
        rows_PD[first * pixels_per_row : last * pixels_per_row] += base
    number_R = torch.zeros(found.neighbours.shape[1], dtype=torch.int64, device="cpu")
    number_R[rows_PD] = plain.corners
    extra_E, head_E = found.extra.long().unbind(1)
    heads = torch.ones_like(number_R, dtype=torch.bool)
    heads[extra_E] = heads[0] = False
    return (
        torch.equal(number_R[rows_PD], plain.corners)
        and torch.equal(number_R[extra_E], number_R[head_E])
        and len(plain.neighbours[0, 0]) == int(heads.sum())
        and torch.equal(
            number_R[found.neighbours.long()][:, heads].transpose(1, 2),
            plain.neighbours[..., number_R[heads] - 1],
        )
    )


LATTICE = Compiled(Path(__file__).with_name("lattice.c"), _checked)
