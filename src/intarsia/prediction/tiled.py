"""An image of any size through a network: pieces that are final are written and freed, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from intarsia.images.source import Source, Window
from intarsia.ops.tiles import TilePlan, blend
from intarsia.prediction.canvas import Canvas
from intarsia.prediction.networks.windows import WindowNetwork

MOST_KEPT = 1 << 29
"""Bytes of logits that are kept between rows of tiles; a wider image is done in blocks of columns."""


def segment(
    network: WindowNetwork,
    source: Source,
    canvas: Canvas,
    num_classes: int,
    *,
    tick: Callable[[int, int], None] | None = None,
) -> None:
    """Fill a canvas from an image; a canvas on disk that is partly filled is gone on with.

    Args:
        tick: told how many pieces of how many are done.
    """
    plan = network.plan(source.size)
    blocks = column_blocks(plan, num_classes)
    at_block, at_row = canvas.done()
    parts = []
    for number, columns in enumerate(blocks):
        first = next(
            (row for row, (top, _) in enumerate(plan.rows.finals) if number != at_block or top >= at_row), None
        )
        if number >= at_block and first is not None:
            parts.append((number, plan.part(range(first, plan.rows.count), columns)))
    total = sum(len(part.rows) * len(part.columns) for _, part in parts)
    done = 0
    for number, part in parts:
        nodata: dict[tuple[int, int], NDArray[np.bool_]] = {}

        def seen(
            row: int, column: int, window: Window, nodata: dict[tuple[int, int], NDArray[np.bool_]] = nodata
        ) -> None:
            if window.nodata is not None and window.nodata.any():
                nodata[row, column] = _final(plan, row, column, window.nodata)

        for piece in blend(part, network.tiles(source, part, seen, classes=num_classes)):
            canvas.put(piece, nodata.pop((piece.row, piece.column), None))
            done += 1
            if piece.column == part.columns[-1] and piece.row < plan.rows.count - 1:
                canvas.finished(number, plan.rows.finals[piece.row][1])
            if tick:
                tick(done, total)
        canvas.finished(number + 1, 0)


def _final(plan: TilePlan, row: int, column: int, seen_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a tile's window says of the pixels that are final after it."""
    (top, bottom), (left, right) = plan.rows.finals[row], plan.columns.finals[column]
    first_row, first_column = plan.rows.spans[row][0], plan.columns.spans[column][0]
    return seen_HW[top - first_row : bottom - first_row, left - first_column : right - first_column]


def column_blocks(plan: TilePlan, num_classes: int, most: int = MOST_KEPT) -> list[range]:
    """Blocks of tile columns whose logits kept between rows of tiles take at most so many bytes."""
    bytes_a_column = 4 * num_classes * max(1, max(plan.rows.carried))
    widest = max(1, most // bytes_a_column)
    blocks, first = [], 0
    for column in range(1, plan.columns.count):
        if plan.columns.finals[column][1] - plan.columns.finals[first][0] > widest:
            blocks.append(range(first, column))
            first = column
    return [*blocks, range(first, plan.columns.count)]
