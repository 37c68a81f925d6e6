"""A film through a network, frame after frame in constant memory, to a film with the classes over it and one of class maps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intarsia.images.overlay import overlay, to_rgb8, with_legend
from intarsia.images.source import ArraySource
from intarsia.images.video import VideoFrames, VideoWriter
from intarsia.prediction.canvas import canvas_in_memory
from intarsia.prediction.networks.ahead import ahead
from intarsia.prediction.predictor import Predictor
from intarsia.prediction.tiled import segment


def predict_film(
    predictor: Predictor,
    path: Path,
    folder: Path,
    name: str,
    tick: Callable[[int, int], None] | None = None,
) -> tuple[VideoFrames, NDArray[np.int64], int]:
    """Write NAME_overlay.mp4 (with a legend of all classes) and NAME.mkv (class numbers, lossless) into a folder.

    Frames keep their times. The next frame is read, and the last one encoded, while the network computes.

    Returns:
        The film, pixels of each class number over all frames, the number of frames.

    Raises:
        FileError: the film cannot be read.
        SaveError: a film cannot be written.
    """
    film, table = VideoFrames(path), predictor.table
    height, width = film.size
    band = with_legend(np.zeros((height, width, 3), np.uint8), table, list(range(table.count)))
    kinds = [kind for kind in ("classes", "overlay") if kind in predictor.config.outputs]
    paths = {"classes": folder / f"{name}.mkv", "overlay": folder / f"{name}_overlay.mp4"}
    sizes = {"classes": film.size, "overlay": (band.shape[0], band.shape[1])}
    writers = {kind: VideoWriter(paths[kind], sizes[kind], film.time_base, kind, rate=film.rate) for kind in kinds}
    counts, number = np.zeros(256, np.int64), 0

    def encode(pixels: NDArray[np.uint8], classes: NDArray[np.uint8], time: Fraction) -> None:
        if "classes" in writers:
            writers["classes"].write(classes, time)
        if "overlay" in writers:
            shown = band.copy()
            shown[:height] = overlay(to_rgb8(pixels), classes, table)
            writers["overlay"].write(shown, time)

    try:
        with ThreadPoolExecutor(1, "write") as writing:
            pending: Future[None] | None = None
            for number, (pixels, time) in enumerate(ahead(iter(film), 1), 1):
                canvas = canvas_in_memory(film.size, table.count, (), "float16")
                segment(predictor.network, ArraySource(pixels), canvas, table.count)
                counts += np.bincount(canvas.classes.ravel(), minlength=256)
                if pending:
                    pending.result()
                pending = writing.submit(encode, pixels, canvas.classes, time)
                if tick:
                    tick(number, max(number, film.count or 0))
            if pending:
                pending.result()
        for writer in writers.values():
            writer.close()
    except BaseException:
        for writer in writers.values():
            writer.abort()
        raise
    return film, counts, number
