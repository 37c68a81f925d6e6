"""Drawn cells: round things that touch, under uneven light, with noise. Needs no package; serves the demo and the tests.

Classes: 0 background, 1 cell, 2 nucleus. Layout: {train,val,test}/{images,masks,instances}, 8-bit grey images,
8-bit masks, 16-bit instances (0 background, 1..n the cells). Licence: drawn by this file, no rights reserved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.classes import ClassTable

TABLE = ClassTable(names=("background", "cell", "nucleus"), ignore_index=None)
COUNTS = {"train": 48, "val": 12, "test": 20}
README = (
    "Drawn by intarsia (src/intarsia/data/cells.py): no rights reserved.\nmasks: 0 background, 1 cell, 2 nucleus.\n"
)


def draw_cells(
    rng: np.random.Generator, size: tuple[int, int] = (160, 160), count: int = 14
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint16]]:
    """An image (H, W), its mask and its instances; `count` cells are tried, those that would hide another are left out."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    image = np.full(size, 0.18, np.float32)
    mask, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    number = 0
    for _ in range(count):
        row, column = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        radius, stretch, angle = rng.uniform(9, 19), rng.uniform(0.75, 1.3), rng.uniform(0, np.pi)
        across = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
        along = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
        distance = np.hypot(across * stretch, along / stretch)
        wave = 1 + 0.08 * np.sin(rng.integers(2, 5) * np.arctan2(across, along) + rng.uniform(0, 6))
        body = distance < radius * wave
        shift = rng.uniform(-0.25, 0.25, 2) * radius
        core = np.hypot(rows - row - shift[0], columns - column - shift[1]) < radius * rng.uniform(0.32, 0.48)
        if (instances[body] > 0).mean() > 0.12 if body.any() else True:
            continue
        free = body & (instances == 0)
        number += 1
        instances[free], mask[free] = number, 1
        image[free] = rng.uniform(0.4, 0.55) + 0.12 * (1 - distance[free] / radius)
        inner = free & core
        mask[inner], image[inner] = 2, rng.uniform(0.68, 0.85)
    return _photograph(image, rng), mask, instances


def _photograph(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, uneven light, grain, shot noise."""
    height, width = image.shape
    soft: NDArray[np.floating[Any]] = image
    for axis in (0, 1):
        soft = (np.roll(soft, 1, axis) + 2 * soft + np.roll(soft, -1, axis)) / 4
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    tilt = rng.uniform(-0.25, 0.25, 2)
    light = 1 + tilt[0] * rows + tilt[1] * columns
    coarse = rng.normal(0, 1, (height // 8 + 1, width // 8 + 1))
    grain = np.kron(coarse, np.ones((8, 8)))[:height, :width]
    seen = soft * light + 0.025 * grain + rng.normal(0, 0.035, image.shape)
    photograph: NDArray[np.uint8] = (np.clip(seen, 0, 1) * 255).round().astype(np.uint8)
    return photograph


def write_cells_folder(folder: Path, *, counts: dict[str, int] | None = None, seed: int = 0) -> None:
    """Write the data folder: the same files for the same seed."""
    for part, (split, count) in enumerate((counts or COUNTS).items()):
        for kind in ("images", "masks", "instances"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            rng = np.random.Generator(np.random.Philox(key=[seed, part << 32 | index]))
            image, mask, instances = draw_cells(rng)
            for kind, array in (("images", image), ("masks", mask), ("instances", instances)):
                Image.fromarray(array).save(folder / split / kind / f"cells_{index:03d}.png")
    (folder / "classes.yaml").write_text(TABLE.to_text(), encoding="utf-8")
    (folder / "README.txt").write_text(README, encoding="utf-8")
