"""The effective receptive field as a picture: gradient mass over the image, and the theoretical field around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from intarsia.anatomy.effective import EffectiveField
from intarsia.anatomy.receptive_field import LayerField
from intarsia.anatomy.table import seen
from intarsia.errors import SaveError
from intarsia.ops.pad import mirror_index

BOX, RING, DOT = (255, 255, 255), (0, 200, 255), (0, 0, 0)
_HEAT = np.array([(0, 0, 0), (120, 20, 110), (235, 90, 40), (255, 190, 50), (255, 255, 220)], np.float64)
"""Dark to bright in lightness as well as colour, so that it reads without colours too."""


def draw_effective(
    found: EffectiveField, field: LayerField, *, title: str, image_HW3: NDArray[np.uint8] | None = None
) -> Image.Image:
    """The image dimmed, gradient mass in colour, circles that hold half and 95 % of it, the theoretical field as a frame.

    Args:
        field: of the logit, for the frame.
        title: first line below the picture.
        image_HW3: what the gradient was measured on; None: noise, nothing is shown behind the mass.
    """
    height, width = found.mass.shape
    factor = max(1, -(-480 // max(height, width)))
    strength = np.sqrt(found.mass / found.mass.max())
    heat = _coloured(strength)
    if image_HW3 is not None:
        back = _framed(image_HW3, found)
        heat = heat * np.maximum(strength, 0.25)[..., None] + back * (1 - np.maximum(strength, 0.25))[..., None] * 0.6
    picture = Image.fromarray(heat.clip(0, 255).astype(np.uint8)).resize((width * factor, height * factor), 0)
    draw = ImageDraw.Draw(picture)
    row, column = ((place + 0.5) * factor for place in found.place)
    for share in (0.5, 0.95):
        radius = max(found.radius(share), 0.5) * factor
        draw.ellipse((column - radius, row - radius, column + radius, row + radius), outline=RING, width=max(2, factor))
    if field.rows and field.columns:
        half = (field.rows.largest / 2 * factor, field.columns.largest / 2 * factor)
        frame = (column - half[1], row - half[0], column + half[1], row + half[0])
        draw.rectangle(frame, outline=BOX, width=max(2, factor))
    return _with_caption(picture, _lines(found, field, title))


def write_picture(picture: Image.Image, path: Path) -> None:
    """Save as PNG.

    Raises:
        SaveError: it cannot be written there.
    """
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror or error}).") from None


def _lines(found: EffectiveField, field: LayerField, title: str) -> list[str]:
    rows, columns = found.deviation()
    half, most = found.radius(0.5), found.radius(0.95)
    sides = (axis.largest for axis in (field.rows, field.columns) if axis)
    reaches = any(side > length for side, length in zip(sides, found.mass.shape, strict=False))
    frame = "beyond the image" if reaches else "white frame" if field.rows else "no frame"
    lines = [
        title,
        f"gradient mass of the logit in the middle: half within {half:.0f} px, 95 % within {most:.0f} px (circles)",
        f"standard deviation {rows:.1f} x {columns:.1f} px; theoretical field: {seen(field)} ({frame})",
    ]
    lines = [line.replace("–", "-") for line in lines]  # the built-in letters have no dash
    return [*lines, "layers that start at zero were drawn at random for this"] if found.drawn else lines


def _coloured(strength_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W, 3) of 0..1."""
    steps = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(strength_HW, steps, _HEAT[:, channel]) for channel in range(3)], axis=-1)


def _framed(image_HW3: NDArray[np.uint8], found: EffectiveField) -> NDArray[np.float64]:
    """The image with the border that was mirrored for the network."""
    sides = [
        mirror_index(size, before, total - size - before).numpy()
        for size, total, before in zip(image_HW3.shape[:2], found.mass.shape, found.border, strict=True)
    ]
    framed: NDArray[np.float64] = image_HW3[sides[0]][:, sides[1]].astype(np.float64)
    return framed


def _with_caption(picture: Image.Image, lines: list[str]) -> Image.Image:
    size = max(12, picture.width // 48)
    font = ImageFont.load_default(size)
    widest = max(int(font.getlength(line)) for line in lines) + size
    below = Image.new(
        "RGB", (max(picture.width, widest), picture.height + int(1.5 * size * len(lines)) + size), "white"
    )
    below.paste(picture, (0, 0))
    draw = ImageDraw.Draw(below)
    for number, line in enumerate(lines):
        draw.text((size / 2, picture.height + size / 2 + 1.5 * size * number), line, (20, 20, 20), font=font)
    return below
