"""Masks and images that are not published as image files, converted once into the cache folder.

A converted file is named by its sources' paths, sizes and times of change, so a change makes a new one. The data set's own
folder is never written to.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.devices import cores
from intarsia.downloads import cache_folder
from intarsia.errors import SaveError
from intarsia.progress import Progress

VERSION = 1
"""Of the conversions; a new one leaves older files unread."""

Make = Callable[[], Sequence[NDArray[Any]]]


@dataclass(frozen=True)
class _Job:
    targets: tuple[Path, ...]
    make: Make


class Converter:
    """Conversions of one data set, asked for one by one and done together.

    Args:
        name: the data set's, a folder in the cache.
        settings: what the result depends on beside the files.
    """

    def __init__(self, name: str, settings: str = "") -> None:
        self.folder, self.settings = cache_folder() / "data" / name, settings
        self.jobs: list[_Job] = []

    def ask(
        self, stem: str, sources: Sequence[Path], kinds: Sequence[str], make: Make, content: str = ""
    ) -> tuple[Path, ...]:
        """Where the files of `kinds` lie once `run` is done; `make` gives their arrays, uint8 or uint16.

        A file is a PNG, unless its kind ends in .tif, as it must for other than 1 or 3 bands.

        Args:
            content: stands for what the result depends on beside the sources.
        """
        stats = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in sources]
        digest = hashlib.sha256(repr((VERSION, self.settings, content, stem, stats)).encode()).hexdigest()[:16]
        flat = stem.replace("/", "_")[-80:]
        names = (kind if kind.endswith(".tif") else f"{kind}.png" for kind in kinds)
        targets = tuple(self.folder / f"{flat}-{digest}-{name}" for name in names)
        if not all(target.is_file() for target in targets):
            self.jobs.append(_Job(targets, make))
        return targets

    def run(self, progress: Progress) -> None:
        """Convert what is not there yet.

        Raises:
            SaveError: the cache folder does not take the files.
        """
        if not self.jobs:
            return
        with progress.task("convert", len(self.jobs)) as task, ThreadPoolExecutor(cores()) as pool:
            for number, _ in enumerate(pool.map(_convert, self.jobs), 1):
                task.update(number, f"{number} of {len(self.jobs)} masks and images")
        self.jobs = []


def _convert(job: _Job) -> None:
    arrays = job.make()
    for target, array in zip(job.targets, arrays, strict=True):
        aside = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix == ".tif":
                import tifffile

                tifffile.imwrite(aside, array, photometric="minisblack", planarconfig="contig", compression="zlib")
            else:
                Image.fromarray(np.ascontiguousarray(array)).save(aside, format="PNG")
            aside.replace(target)
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            raise SaveError(
                f"{target}: cannot be written ({error.strerror or error}). "
                "Make room, or choose another cache folder with INTARSIA_CACHE."
            ) from None
