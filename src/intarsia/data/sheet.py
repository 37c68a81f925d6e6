"""A contact sheet: many small pictures with a line below each, under headings, and the legend of classes at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from intarsia.classes import ClassTable
from intarsia.data.base import Dataset, Item, evenly
from intarsia.data.checks import FolderProblems
from intarsia.data.inspection import Finding
from intarsia.errors import DataError, SaveError
from intarsia.images.files import read_image
from intarsia.images.overlay import Rgb, overlay, to_rgb8, with_legend

TILE = 200
"""Longest side of a small picture."""
GAP = 10
TEXT = 12
NARROWEST = 3
"""Tiles that a sheet is wide at least, so that headings have room."""
LINES = 3
"""Lines below a tile, at most."""
_INK, _QUIET, _PAPER = (24, 24, 24), (96, 96, 96), (255, 255, 255)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """A small picture and the line below it."""

    picture: Rgb
    caption: str


@dataclass(frozen=True)
class Section:
    """Tiles under a heading."""

    heading: str
    tiles: Sequence[Tile]


def draw_sheet(
    sections: Sequence[Section], table: ClassTable | None, present: Sequence[int], *, columns: int = 6
) -> Rgb:
    """The sheet, as wide as `columns` tiles, or as the most tiles of a section if these are fewer.

    Args:
        table: the classes; None: no legend.
        present: classes that the legend names.
    """
    columns = max(1, min(columns, max((len(section.tiles) for section in sections), default=1)))
    width = max(columns, NARROWEST) * (TILE + GAP) + GAP
    bands = [_section(section, columns, width) for section in sections if section.tiles]
    sheet = np.concatenate(bands) if bands else np.full((GAP, width, 3), 255, np.uint8)
    return with_legend(sheet, table, list(present), TEXT + 3) if table else sheet


def _section(section: Section, columns: int, width: int) -> Rgb:
    head = 2 * TEXT + GAP if section.heading else GAP
    rows = [section.tiles[start : start + columns] for start in range(0, len(section.tiles), columns)]
    small = ImageFont.load_default(TEXT)
    texts = [[_wrapped(tile.caption, small) for tile in row] for row in rows]
    heights = [
        max(tile.picture.shape[0] + len(lines) * (TEXT + 2) for tile, lines in zip(row, below, strict=True)) + GAP + 4
        for row, below in zip(rows, texts, strict=True)
    ]
    band = Image.new("RGB", (width, head + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(band)
    if section.heading:
        heading = _fitted(section.heading, ImageFont.load_default(TEXT + 3), width - 2 * GAP)
        draw.text((GAP, head / 2), heading, _INK, font=ImageFont.load_default(TEXT + 3), anchor="lm")
    top = head
    for row, below, height in zip(rows, texts, heights, strict=True):
        for place, (tile, lines) in enumerate(zip(row, below, strict=True)):
            left = GAP + place * (TILE + GAP)
            band.paste(Image.fromarray(tile.picture), (left, top))
            for number, line in enumerate(lines):
                draw.text((left, top + tile.picture.shape[0] + 3 + number * (TEXT + 2)), line, _QUIET, font=small)
        top += height
    return np.asarray(band)


def _wrapped(text: str, font: Font) -> list[str]:
    """The text in at most `LINES` lines of a tile's width, broken at spaces; a word that is too long loses its middle."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > TILE:
            lines.append(word)
        else:
            lines[-1] = longer
    kept = [*lines[: LINES - 1], " ".join(lines[LINES - 1 :])] if len(lines) > LINES else lines
    return [_fitted(line, font, TILE) for line in kept]


def _fitted(text: str, font: Font, width: int) -> str:
    """The text, its middle left out where it is too long: the ends of file names tell them apart."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = text[: kept // 3] + "..." + text[len(text) - (kept - kept // 3) :]
        if font.getlength(short) <= width:
            return short
    return ""


def tile_of(dataset: Dataset, item: Item, caption: str, *, plain: bool = False) -> Tile:
    """An item with its classes over it, or without them; what cannot be read is a grey tile that says so."""
    try:
        photo = small_photo(dataset.picture(item))
        if not plain:
            photo = overlay(photo, small_map(dataset.read_mask(item), photo.shape), dataset.table)
    except DataError:
        return Tile(np.full((TILE // 2, TILE, 3), 220, np.uint8), f"not readable: {caption}")
    return Tile(photo, caption)


def small_photo(photo: Rgb, longest: int = TILE) -> Rgb:
    """The picture brought to a tile's size; few pixels are enlarged as squares."""
    height, width = photo.shape[:2]
    factor = longest / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = Image.Resampling.NEAREST if factor > 2 else Image.Resampling.BILINEAR if factor > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(photo)).resize(size, how))


def small_map(classes_HW: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A class map brought to the (height, width) of a tile."""
    return np.asarray(Image.fromarray(classes_HW).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def sheet_of_split(dataset: Dataset, split: str, count: int) -> Rgb:
    """`count` items of a split, evenly from its first to its last, with the classes over them."""
    items = dataset.items(split)
    chosen = [items[place] for place in evenly(len(items), count)]
    heading = f"{dataset.label}: {len(chosen)} of {len(items)} images of {split}"
    tiles = [tile_of(dataset, item, item.name) for item in chosen]
    return draw_sheet([Section(heading, tiles)], dataset.table, present_in(dataset, (split,)))


def sheet_of_findings(dataset: Dataset, findings: Sequence[Finding], *, most: int = 6) -> Rgb:
    """The first items of each finding under its title, then some of each split."""
    sections = []
    for finding in findings:
        if finding.items:
            tiles = _tiles_of(dataset, finding, most)
            sections.append(Section(f"{finding.code}  {finding.title}  ({finding.count})", tiles))
    for split in dataset.class_pixels:
        items = dataset.items(split)
        tiles = [tile_of(dataset, items[place], items[place].name) for place in evenly(len(items), most)]
        sections.append(Section(f"{split}: {len(tiles)} of {len(items)}", tiles))
    return draw_sheet(sections, dataset.table, present_in(dataset, tuple(dataset.class_pixels)), columns=most)


def sheet_of_problems(problems: FolderProblems) -> Rgb:
    """The first files of each fault that keeps a folder from being used, as far as they can be drawn."""
    sections = []
    for number, problem in enumerate(problems.problems, 1):
        tiles = [_tile_of_file(_file_in(problems.root, example), example) for example in problem.examples]
        sections.append(Section(f"{number}  {problem.title}  ({problem.count})", tiles))
    return draw_sheet(sections, None, [])


def _file_in(root: Path, example: str) -> Path | None:
    """The file that an example begins with."""
    starts = (example, example.partition(": ")[0], example.partition(" and ")[0], example.split(" ")[0])
    return next((root / start for start in starts if len(start) < 250 and (root / start).is_file()), None)


def _tile_of_file(path: Path | None, caption: str) -> Tile:
    """A file as it is, its values spread from black to white: class numbers are else all dark."""
    try:
        pixels = read_image(path).pixels if path else np.zeros((0, 0), np.uint8)
    except DataError:
        pixels = np.zeros((0, 0), np.uint8)
    if not pixels.size:
        return Tile(np.full((TILE // 2, TILE, 3), 220, np.uint8), caption)
    return Tile(small_photo(to_rgb8(pixels.astype(np.uint16) if pixels.ndim == 2 else pixels)), caption)


def _tiles_of(dataset: Dataset, finding: Finding, most: int) -> list[Tile]:
    """The first items of a finding, each followed by the one that it is like."""
    plain = finding.code in ("W_CONSTANT", "W_ALIKE")
    tiles: list[Tile] = []
    for item, other in zip(finding.items, finding.beside, strict=True):
        if len(tiles) + (2 if other else 1) > most:
            break
        tiles.append(tile_of(dataset, item, item.name, plain=plain))
        if other:
            tiles.append(
                tile_of(dataset, other, f"= {other.name}" if finding.code != "W_ALIKE" else other.name, plain=plain)
            )
    return tiles


def present_in(dataset: Dataset, splits: Sequence[str]) -> list[int]:
    """Classes that occur in the splits."""
    pixels = np.sum([dataset.class_pixels[split] for split in splits if split in dataset.class_pixels], axis=0)
    return [int(index) for index in np.flatnonzero(pixels)]


def write_picture(path: Path, picture: Rgb, option: str) -> None:
    """Save a picture; its ending says the format.

    Raises:
        SaveError: it cannot be written, or the ending is no picture's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SaveError(
            f"{path}: cannot be written ({reason}). Give another place with {option}, such as sheet.png."
        ) from None
