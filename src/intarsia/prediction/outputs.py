"""The files that are written of a prediction.

An image in memory gets PNG files, one that is read by windows (a raster with coordinates, or one larger than memory) tiled
TIFFs, which carry its coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.classes import IGNORE, ClassTable
from intarsia.images.files import as_stored, write_class_map
from intarsia.images.overlay import overlay, to_rgb8, with_legend
from intarsia.images.source import Source, release
from intarsia.images.tiff.geotiff import GeoSource
from intarsia.images.tiff.geotiff_write import write_class_geotiff, write_float_geotiff
from intarsia.images.tiff.write import write_class_tiff
from intarsia.optional import found
from intarsia.prediction.canvas import Canvas
from intarsia.prediction.kinds import Frame
from intarsia.prediction.predictor import Predictor

LARGEST_OVERLAY = 4096
"""Pixels a side; the overlay of a larger image is reduced."""
ROWS = 1024
"""That are looked at together."""


def write_outputs(
    folder: Path, frame: Frame, canvas: Canvas, counts: NDArray[np.int64], predictor: Predictor, key: str
) -> None:
    """Write what the settings ask for into an empty folder.

    Args:
        counts: (256,) pixels of each class number of the canvas.
        key: stands for image, model and settings, and is written into rasters.
    """
    source, table, outputs = frame.source, predictor.table, predictor.config.outputs
    value_range = predictor.preprocess.value_range
    raster = not source.is_in_memory
    kept = canvas.as_stored(source.orientation) if predictor.config.stored_frame else canvas
    if "overlay" in outputs:
        picture = _overlay(source, canvas, table, value_range)
        picture = as_stored(picture, source.orientation) if predictor.config.stored_frame else picture
        present = [int(index) for index in np.flatnonzero(counts) if index != IGNORE]
        Image.fromarray(with_legend(picture, table, present)).save(folder / f"{frame.name}_overlay.png")
    if raster:
        _write_rasters(folder, frame, kept, predictor, key)
    else:
        _write_pictures(folder, frame.name, kept, table, outputs)
    if "areas" in outputs:
        from intarsia.prediction.vectors.areas import class_areas, write_areas

        write_areas(folder / f"{frame.name}_areas.csv", class_areas(kept.classes, table, source))
    if "polygons" in outputs:
        _write_polygons(folder, frame, kept, predictor)


def _write_pictures(folder: Path, name: str, canvas: Canvas, table: ClassTable, outputs: tuple[str, ...]) -> None:
    if "classes" in outputs:
        write_class_map(folder / f"{name}.png", canvas.classes, table)
    if "binary" in outputs:
        for index, safe in enumerate(_safe_names(table)):
            mask = np.where(canvas.classes == index, 255, 0).astype(np.uint8)
            Image.fromarray(mask).save(folder / f"{name}_{safe}.png")
    if canvas.probabilities is not None:
        np.savez_compressed(
            folder / f"{name}_probabilities.npz", probabilities=canvas.probabilities, names=np.asarray(table.names)
        )
    if canvas.entropy is not None:
        Image.fromarray(canvas.entropy).save(folder / f"{name}_entropy.png")


def _safe_names(table: ClassTable) -> list[str]:
    """Names of classes as parts of file names."""
    return ["".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name) for name in table.names]


def counts_of(classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) pixels of each class number."""
    counts = np.zeros(256, np.int64)
    for _, rows in row_blocks(classes):
        counts += Image.fromarray(rows).histogram()  # a third of np.bincount's time, which widens each number
    return counts


def row_blocks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """First row and rows of the last two dimensions, block after block; pages of a mapped file are let go."""
    for top in range(0, array.shape[-2], ROWS):
        yield top, array[..., top : top + ROWS, :]
        release(array)


def _overlay(source: Source, canvas: Canvas, table: ClassTable, value_range: Any) -> NDArray[np.uint8]:
    step = -(-max(source.size) // LARGEST_OVERLAY)
    if step == 1:
        return overlay(to_rgb8(source.read(0, 0, *source.size).pixels, value_range), canvas.classes, table)
    rows = []
    for top, classes in row_blocks(canvas.classes):
        first = -top % step
        window = source.read(top, 0, classes.shape[0], source.width).pixels[first::step, ::step]
        if len(window):
            rows.append(overlay(to_rgb8(window, value_range), classes[first::step, ::step], table))
    return np.concatenate(rows)


def _write_rasters(folder: Path, frame: Frame, canvas: Canvas, predictor: Predictor, key: str) -> None:
    table, outputs, name = predictor.table, predictor.config.outputs, frame.name
    like = frame.source if found("rasterio") else None
    located = like if isinstance(like, GeoSource) else None
    tags = {"MODEL_SHA256": predictor.digest, "INTARSIA_KEY": key}
    if "classes" in outputs:
        _write_classes(folder / f"{name}.tif", canvas.classes, table, located, tags)
    if "binary" in outputs:
        mask = np.lib.format.open_memmap(folder / "mask.npy", mode="w+", dtype=np.uint8, shape=canvas.classes.shape)
        for index, safe in enumerate(_safe_names(table)):
            for top, rows in row_blocks(canvas.classes):
                mask[top : top + len(rows)] = rows == index
            black_and_white = ClassTable(names=("other", table.names[index]), colors=((0, 0, 0), (255, 255, 255)))
            _write_classes(folder / f"{name}_{safe}.tif", mask, black_and_white, located, tags)
        (folder / "mask.npy").unlink()
    for values, what, names in (
        (canvas.probabilities, "probabilities", table.names),
        (None if canvas.entropy is None else canvas.entropy[None], "entropy", ("entropy",)),
    ):
        if values is not None:
            write_float_geotiff(folder / f"{name}_{what}.tif", values, names, located, tags=tags)


def _write_classes(
    path: Path, classes: NDArray[np.uint8], table: ClassTable, located: GeoSource | None, tags: dict[str, str]
) -> None:
    if located is not None or found("rasterio"):
        write_class_geotiff(path, classes, table, located, tags=tags)
    else:
        write_class_tiff(path, classes, table, tags=tags)


def _write_polygons(folder: Path, frame: Frame, canvas: Canvas, predictor: Predictor) -> None:
    from intarsia.prediction.vectors.files import SUFFIXES, write_vectors
    from intarsia.prediction.vectors.polygons import polygons_of

    config = predictor.config
    polygons = polygons_of(
        canvas.classes, table=predictor.table, min_area_pixels=config.min_area, simplify_pixels=config.simplify
    )
    beside = "_coco" if config.polygons == "coco" else ""
    path = folder / f"{frame.name}{beside}{SUFFIXES[config.polygons]}"
    write_vectors(path, polygons, predictor.table, kind=config.polygons, like=frame.source, size=canvas.classes.shape)
