"""An anatomy as text: one fact a line, numbers aligned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from intarsia.anatomy.receptive_field import LayerField

if TYPE_CHECKING:
    from intarsia.anatomy.describe import Anatomy
    from intarsia.anatomy.layers import Layer

HEADS = ("layer", "gives", "stride", "sees", "from", "parameters", "MACs", "kept", "alive")


def text_of(found: Anatomy, *, every_layer: bool = False) -> str:
    """The page of one model: what holds for all of it, a row a part (or a layer), what resolution and grids do."""
    rows = found.layers if every_layer else found.parts
    legend = [
        "",
        "sees    receptive field in pixels, far from borders; * and the whole image besides      from   its centre for place 0",
        "kept    bytes that wait for the way back in training      alive   most bytes alive at rest while the layer runs",
    ]
    return "\n".join([*_head(found), "", *_table(rows), *legend, "", *_resolution(found), "", *_grids(found)])


def _head(found: Anatomy) -> list[str]:
    size = f"{found.input[0]} x {found.input[1]}"
    given = f" (mirrored to {size}, whose border is lost)" if found.input != found.image else ""
    step = found.training
    training = (
        f"in training  {megabytes(step.kept_bytes)} kept for the way back, {megabytes(step.peak_bytes)} at most; "
    )
    training += f"gradients {megabytes(step.gradient_bytes)} (one image, float32)"
    return [
        found.name,
        f"image        {found.image[0]} x {found.image[1]}, {found.channels} channels{given}",
        f"logits       {' x '.join(map(str, found.output))}",
        f"parameters   {found.parameters:,}".replace(",", " "),
        f"MACs         {count(found.macs)}",
        f"at rest      {megabytes(found.peak_bytes)} of activations at most",
        training,
        f"sees         {seen(found.field)}",
    ]


def seen(field: LayerField) -> str:
    """ "188–204 x 188–204 pixels", or why that cannot be told."""
    if field.unknown:
        return f"cannot be told: {field.unknown}"
    local = f"{field.rows.size} x {field.columns.size} pixels" if field.rows and field.columns else ""
    if field.wide:
        return f"the whole image ({', '.join(field.wide)})" + (f"; {local} without" if local else "")
    return local


def _table(layers: tuple[Layer, ...]) -> list[str]:
    cells = [
        (
            layer.name,
            " x ".join(map(str, layer.shape)),
            *_field_cells(layer.field),
            count(layer.parameters) if layer.parameters else "",
            count(layer.macs) if layer.macs else "",
            megabytes(layer.kept_bytes),
            megabytes(layer.live_bytes),
        )
        for layer in layers
    ]
    return aligned([HEADS, *cells])


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of equal columns, the first `left` of them flush left, the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def _field_cells(field: LayerField) -> tuple[str, str, str]:
    """Stride, size and start of rows; of columns too where they differ."""
    star = "*" if field.wide else ""
    if field.unknown:
        return "?", "?", "?"
    if field.rows is None or field.columns is None:
        return "", f"all{star}", ""
    texts = []
    for row, column in (
        (number(field.rows.stride), number(field.columns.stride)),
        (field.rows.size, field.columns.size),
        (number(field.rows.start), number(field.columns.start)),
    ):
        texts.append(row if row == column else f"{row} x {column}")
    return texts[0], texts[1] + star, texts[2]


def _resolution(found: Anatomy) -> list[str]:
    """Where it is lost and regained: a line a change, with the layer that makes it."""
    lines = ["resolution"]
    before: float = 1
    for stride, layer in found.resolutions():
        word = "lost at    " if stride > before else "regained at" if stride < before else "full at    "
        shape = layer.shape
        lines.append(f"  stride {number(stride):>5}   {shape[-2]:>4} x {shape[-1]:<4}   {word} {layer.name}")
        before = stride
    return lines


def _grids(found: Anatomy) -> list[str]:
    """One line a transposed convolution."""
    if not found.checkerboard:
        return ["checkerboard   no transposed convolution"]
    width = max(len(each.path) for each in found.checkerboard)
    return ["checkerboard", *(f"  {each.text(width)}" for each in found.checkerboard)]


def count(value: int) -> str:
    """ "134.3 M" """
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)


def megabytes(value: int) -> str:
    """ "12.3 MB", of 2^20 bytes."""
    return f"{value / (1 << 20):,.1f} MB".replace(",", " ")


def number(value: float) -> str:
    """ "8", "7.5" """
    return f"{value + 0.0:.2f}".rstrip("0").rstrip(".")
