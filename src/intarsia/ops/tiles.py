"""An image in overlapping tiles, and their logits blended without seams, in memory that does not grow with its height.

Along each side a tile has a span [start, stop) that the network sees, and a core, the span without a halo at edges that are
not the image's own. Where cores overlap, logits are averaged with Hann weights w, one factor a side. The average is kept
running, tile after tile in reading order:

    mean <- mean + a (logits - mean),   a = w_i / (w_1 + .. + w_i)

so that equal logits stay what they are to the bit, whatever the weights: a network that returns its input does so for any tile
and overlap. If the halo is as wide as the network sees to one side, and starts fit its stride, the result is that of the
whole image. The weights are products, so rows and columns are averaged one after the other: pixels that no later tile
touches are handed out at once, and what is kept is the overlap with the next tile and with the next row of tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import ConfigError
from intarsia.ops.running_mean import Maps, mix, room_like


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of an image."""

    length: int
    spans: tuple[tuple[int, int], ...]
    """[start, stop) of each; starts and stops rise."""
    halo: int = 0
    """Pixels at a span's inner edges that are thrown away."""

    @property
    def count(self) -> int:
        return len(self.spans)

    @cached_property
    def cores(self) -> tuple[tuple[int, int], ...]:
        """[begin, end) of each tile that counts."""
        last = self.count - 1
        return tuple(
            (start + (self.halo if i else 0), stop - (self.halo if i < last else 0))
            for i, (start, stop) in enumerate(self.spans)
        )

    @cached_property
    def finals(self) -> tuple[tuple[int, int], ...]:
        """[begin, end) of the pixels that are final after each tile."""
        begins = [begin for begin, _ in self.cores]
        return tuple(pairwise([*begins, self.length]))

    @cached_property
    def shares(self) -> tuple[NDArray[np.float32], ...]:
        """a of each tile over its core."""
        total = np.zeros(self.length)
        shares = []
        for begin, end in self.cores:
            places = (np.arange(end - begin) + 0.5) / (end - begin)
            weights = np.sin(np.pi * places) ** 2
            total[begin:end] += weights
            shares.append((weights / total[begin:end]).astype(np.float32))
        return tuple(shares)

    @cached_property
    def carried(self) -> tuple[int, ...]:
        """Pixels that each tile shares with the tiles before it."""
        return 0, *(max(0, before[1] - core[0]) for before, core in pairwise(self.cores))

    def first_for(self, index: int) -> int:
        """The first tile that has a say in what is final after tile `index`."""
        begin = self.cores[index][0]
        return next(i for i, (_, end) in enumerate(self.cores) if end > begin)


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of an image lie."""

    rows: Axis
    columns: Axis

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image"""
        return self.rows.length, self.columns.length

    @property
    def count(self) -> int:
        return self.rows.count * self.columns.count

    def part(self, rows: range | None = None, columns: range | None = None) -> Part:
        """What is final after these rows and columns of tiles; None: all."""
        return Part(self, rows or range(self.rows.count), columns or range(self.columns.count))


@dataclass(frozen=True)
class Part:
    """Rows and columns of tiles whose final pixels are wanted."""

    plan: TilePlan
    rows: range
    columns: range

    def tiles(self) -> list[tuple[int, int]]:
        """(row, column) of every tile that has a say in them, in reading order."""
        first_row = self.plan.rows.first_for(self.rows[0])
        first_column = self.plan.columns.first_for(self.columns[0])
        return list(product(range(first_row, self.rows.stop), range(first_column, self.columns.stop)))


@dataclass(frozen=True)
class Piece:
    """Pixels that no later tile touches."""

    row: int
    """Of the tile."""
    column: int
    top: int
    left: int
    logits: Maps
    """(K, h, w), a view; valid until the next piece is asked for."""


def plan_axis(length: int, *, tile: int, overlap: float, align: int = 1, halo: int = 0) -> Axis:
    """Tiles of `tile` pixels, evenly spread, that start at multiples of `align`; the last, up to `align` larger, ends with
    the image. One tile if the image is not larger.

    Args:
        overlap: least share of a tile, 0..1 (1 excluded), that the next one covers.

    Raises:
        ConfigError: the halo eats the overlap.
    """
    if length < tile + align:
        return Axis(length, ((0, length),), halo)
    step = max(align, int(tile * (1 - overlap)) // align * align)
    if tile - step < 2 * halo:
        raise ConfigError(
            f"halo: twice {halo} pixels do not fit into the overlap of {tile - step} pixels of tiles of {tile}; "
            "choose a smaller halo, a larger overlap or a larger tile."
        )
    gaps = -(-(length - tile) // step)
    starts = sorted({(length - tile) * i // gaps // align * align for i in range(gaps + 1)})
    stops = [*(start + tile for start in starts[:-1]), length]
    return Axis(length, tuple(zip(starts, stops, strict=True)), halo)


def plan_tiles(size: tuple[int, int], *, tile: int, overlap: float, align: int = 1, halo: int = 0) -> TilePlan:
    """`plan_axis` for height and width."""
    rows, columns = (plan_axis(side, tile=tile, overlap=overlap, align=align, halo=halo) for side in size)
    return TilePlan(rows, columns)


def blend(part: Part, logits: Iterable[Maps]) -> Iterator[Piece]:
    """The final pixels of a part, piece after piece in reading order of the tiles, from the logits of its tiles.

    Args:
        logits: (K, h, w) float32 arrays or tensors of each of `part.tiles()`, in that order, over the tile's span; they are
            altered.
    """
    rows, columns = part.plan.rows, part.plan.columns
    given = iter(logits)
    first_row, first_column = part.tiles()[0]
    left_edge = columns.cores[first_column][0]
    below: Maps = None  # (K, rows shared with the tiles below, width)
    for row in range(first_row, part.rows.stop):
        beside: Maps = None  # (K, h, columns shared with the tile to the right)
        (top, bottom), shared = rows.finals[row], rows.carried[row]
        kept = rows.cores[row][1] - bottom
        for column in range(first_column, part.columns.stop):
            (left, right), end = columns.finals[column], columns.cores[column][1]
            tile = _core(next(given), rows, row, columns, column)
            if beside is not None and beside.shape[2]:
                mix(beside, tile[:, :, : beside.shape[2]], columns.shares[column][None, : beside.shape[2]])
            beside = tile[:, :, right - left : end - left]
            final = tile[:, :, : right - left]
            where = slice(left - left_edge, right - left_edge)
            if row > first_row and shared and below is not None:
                mix(below[:, :shared, where], final[:, :shared], rows.shares[row][:shared, None])
            if row >= part.rows.start and column >= part.columns.start:
                yield Piece(row, column, top, left, final[:, : bottom - top])
            if kept > 0 and row + 1 < part.rows.stop:
                if below is None:
                    most = max(rows.carried)
                    width = columns.finals[part.columns.stop - 1][1] - left_edge
                    below = room_like(tile, most, width)
                below[:, :kept, where] = final[:, bottom - top :]


def _core(logits_KHW: Maps, rows: Axis, row: int, columns: Axis, column: int) -> Maps:
    """The tile without its halo."""
    (start, _), (begin, end) = rows.spans[row], rows.cores[row]
    (start_x, _), (begin_x, end_x) = columns.spans[column], columns.cores[column]
    return logits_KHW[:, begin - start : end - start, begin_x - start_x : end_x - start_x]


def assemble(part: Part, logits: Iterable[Maps]) -> Maps:
    """(K, H, W) of the whole plan in one array or tensor."""
    whole: Maps = None
    for piece in blend(part, logits):
        found = piece.logits
        if whole is None:
            whole = room_like(found, *part.plan.size)
        whole[:, piece.top : piece.top + found.shape[1], piece.left : piece.left + found.shape[2]] = found
    return whole
