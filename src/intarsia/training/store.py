"""Decoded images and masks, kept: in memory if all of them fit into a quarter of it, else in files that are mapped into memory,
so that of a large image only the part is read that a sample is cut from.

A file is named by all that decides its content: path, size and time of change of what it was decoded from, what the mask's
values mean, bands, channels, scale and border. It is written aside, then renamed; one that is damaged or of another size is
made again. Files take at most half of the room that was free, and INTARSIA_CACHE_GB (20) in all: those that were longest not
used, and belong to no image of this run, go first. Where nothing can be written, or an image has no file of its own, it is
decoded each time. Samples are the same in all these cases.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from intarsia.data.base import Dataset, Item
from intarsia.data.decode import decode_item
from intarsia.devices import available_memory
from intarsia.downloads import cache_folder
from intarsia.errors import ConfigError
from intarsia.images.preprocess import Preprocess
from intarsia.losses.base import Border
from intarsia.progress import Progress, Silent
from intarsia.transforms.sampling import Loaded

Mode = Literal["auto", "memory", "disk", "off"]
VERSION = 1
"""Of what is stored; a new one leaves older files unread."""
ENDING = ".safetensors"
ABANDONED = 3600.0
"""Seconds after which a file written aside belongs to nobody any more."""


class Store:
    """Items of a data set as samples are cut from them, decoded as seldom as possible. Safe for threads.

    Args:
        items: all that will be asked for.
        rare: classes whose places are wanted.
        mode: auto; memory (up to a quarter, the rest is decoded each time), disk, or off.
        progress: told once where files go, and once if they can go there no longer.
    """

    def __init__(
        self,
        dataset: Dataset,
        items: Sequence[Item],
        preprocess: Preprocess,
        *,
        border: Border | None = None,
        rare: Sequence[int] = (),
        mode: Mode = "auto",
        progress: Progress | None = None,
    ) -> None:
        self.dataset, self.items, self.preprocess, self.border = dataset, tuple(items), preprocess, border
        self.rare, self.mode, self.progress = tuple(rare), mode, progress or Silent()
        self.room = available_memory() // 4
        self.kept: dict[str, Loaded] = {}
        self._all_fit: bool | None = {"memory": True, "disk": False}.get(mode)
        self._files = _Files(self.progress.note, self._paths) if mode in ("auto", "disk") else None
        self._names: dict[str, tuple[Path, str] | None] = {}
        self._lock = threading.Lock()
        self._decoding = tuple(threading.Lock() for _ in range(32))

    def load(self, item: Item) -> Loaded:
        """The item at data.scale.

        Raises:
            FileError: a file cannot be used.
        """
        loaded = self.kept.get(item.name)
        if loaded is None and self.mode == "off":
            loaded = self._decoded(item)
        elif loaded is None:
            with self._decoding[hash(item.name) % len(self._decoding)]:
                loaded = self.kept.get(item.name) or self._fetched(item)
        return loaded._replace(image=loaded.image.expand(self.preprocess.channels, -1, -1))

    def _fetched(self, item: Item) -> Loaded:
        """From a file if there is one; else decoded, and kept where there is room."""
        stored = self._read(item)
        if stored is None and self._files is not None:
            self._name(item)  # before it is decoded: what changes from now on makes another file
        loaded = stored or self._decoded(item)
        if self._fits_with_all(loaded):
            return self._keep(item, loaded, copy=stored is not None)
        if stored is None and not self._write(item, loaded) and self.mode == "auto":
            return self._keep(item, loaded)
        return loaded

    def _decoded(self, item: Item) -> Loaded:
        return decode_item(self.dataset, item, self.preprocess, border=self.border, rare=self.rare)

    def _fits_with_all(self, loaded: Loaded) -> bool:
        """Whether all items fit into memory, as far as one of them tells."""
        with self._lock:
            if self._all_fit is None:
                sizes = [self.preprocess.scaled_size(item.height, item.width) for item in self.items]
                pixels = sum(height * width for height, width in sizes)
                self._all_fit = pixels * bytes_of(loaded) / loaded.mask.numel() <= self.room
            return self._all_fit

    def _keep(self, item: Item, loaded: Loaded, *, copy: bool = False) -> Loaded:
        with self._lock:
            if bytes_of(loaded) <= self.room:
                self.room -= bytes_of(loaded)
                self.kept[item.name] = _copied(loaded) if copy else loaded
        return loaded

    def _read(self, item: Item) -> Loaded | None:
        """From its file, if it has one of the right sizes and types."""
        name = self._name(item) if self._files else None
        loaded = self._files.read(*name) if self._files and name else None
        if loaded is None:
            self._names.pop(item.name, None)  # its source may have changed since it was named
            return None
        image, mask, weights, places = loaded
        right = (
            tuple(mask.shape) == tuple(image.shape[1:]) == self.preprocess.scaled_size(item.height, item.width)
            and image.shape[0] in (1, self.preprocess.channels)
            and mask.dtype == torch.uint8
            and (weights is None) == (self.border is None)
            and (places is None) == (not self.rare)
        )
        return loaded if right else None

    def _write(self, item: Item, loaded: Loaded) -> bool:
        """Whether it has a file from now on."""
        name = self._name(item) if self._files else None
        return bool(self._files and name and self._files.write(*name, loaded))

    def _name(self, item: Item) -> tuple[Path, str] | None:
        """The item's file and what it must hold, as first met, so that a run goes on though its source has gone; None: the
        image is no file, but part of one."""
        if item.name not in self._names:
            self._names[item.name] = self._named(item)
        return self._names[item.name]

    def _named(self, item: Item) -> tuple[Path, str] | None:
        sources = []
        for path in (item.image, item.mask, item.instances if self.border else None):
            if path is not None and not path.is_file():
                return None
            facts = path.stat() if path else None
            sources.append((os.path.abspath(path), facts.st_size, facts.st_mtime_ns) if path and facts else None)
        ours, border = self.preprocess, self.border
        asked = (ours.channels, float(ours.scale), border and (float(border.w0), float(border.sigma)), self.rare)
        meaning = self.dataset.meaning(item) if item.mask else ""
        key = repr((VERSION, item.name, sources, item.height, item.width, item.bands, item.nodata, asked, meaning))
        digest = hashlib.sha256(key.encode()).hexdigest()
        return cache_folder() / "decoded" / f"{digest[:32]}{ENDING}", digest

    def _paths(self) -> set[Path]:
        """Files of all items, be they there or not."""
        return {name[0] for name in map(self._name, self.items) if name}


def bytes_of(loaded: Loaded) -> int:
    """What an item takes in memory, and but for a few hundred bytes in a file."""
    return sum(part.numel() * part.element_size() for part in _parts(loaded).values())


def _copied(loaded: Loaded) -> Loaded:
    return loaded._replace(**{name: part.clone() for name, part in _parts(loaded).items()})


def _parts(loaded: Loaded) -> dict[str, Tensor]:
    return {name: part for name, part in loaded._asdict().items() if part is not None}


def cache_bytes() -> float:
    """INTARSIA_CACHE_GB in bytes; 20 GB where nothing is said."""
    text = os.environ.get("INTARSIA_CACHE_GB") or "20"
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ConfigError(f"INTARSIA_CACHE_GB: must be a number of gigabytes, such as 20, got {text!r}.")
    return limit * 1e9


class _Files:
    """The folder of decoded images. What goes wrong there is said once, and ends the writing, not the run.

    Args:
        note: where that is said.
        ours: the files of this run, which are not removed for others of it.
    """

    def __init__(self, note: Callable[[str], None], ours: Callable[[], set[Path]]) -> None:
        self.note, self.ours, self.limit = note, ours, cache_bytes()
        self.is_closed = False
        self._met: set[Path] = set()
        self._lock = threading.Lock()
        self._others: deque[tuple[Path, int]] | None = None
        self._total, self._least_free = 0, 0

    def read(self, path: Path, key: str) -> Loaded | None:
        """What the file holds, mapped; None if it is not there, damaged or not of this key."""
        try:
            with safe_open(path, framework="pt") as stored:
                if (stored.metadata() or {}).get("key") != key:
                    return None
                parts = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            loaded = Loaded(**parts)
        except (OSError, RuntimeError, TypeError, SafetensorError):
            return None
        if path not in self._met:
            self._met.add(path)
            with suppress(OSError):
                os.utime(path)
        return loaded

    def write(self, path: Path, key: str, loaded: Loaded) -> bool:
        """Whether the file was written."""
        aside = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        size = bytes_of(loaded)
        try:
            if not self._has_room(path.parent, size):
                return False
            with aside.open("wb") as stream:
                stream.write(save(_parts(loaded), {"key": key}))
                stream.flush()
                os.fsync(stream.fileno())  # a name is never seen before its content, even after a power cut
            aside.replace(path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            self._close(f"{path.parent} cannot be written ({error.strerror or error})")
            return False
        self._met.add(path)
        return True

    def _has_room(self, folder: Path, size: int) -> bool:
        """Make room for a file, and count it; False if there is none."""
        with self._lock:
            if self.is_closed:
                return False
            if self._others is None:
                self._others = self._survey(folder)
            while self._total + size > self.limit and self._others:
                path, freed = self._others.popleft()
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    self._total -= freed
            short = shutil.disk_usage(folder).free - size < self._least_free
            over = self._total + size > self.limit
            if not (short or over):
                self._total += size
                return True
        where = f"half of the free space for {folder}" if short else f"INTARSIA_CACHE_GB={self.limit / 1e9:g}"
        self._close(f"{where} is used up")
        return False

    def _survey(self, folder: Path) -> deque[tuple[Path, int]]:
        """Say where files go, measure the room, and list other files, the longest unused first."""
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        self._least_free = free // 2
        most = min(free - self._least_free, self.limit) / 1e9
        self.note(f"cache    decoded images go to {folder}, up to {most:.1f} GB (train.cache, INTARSIA_CACHE_GB)")
        ours, others = self.ours(), []
        for path in folder.iterdir():
            with suppress(OSError):
                facts = path.stat()
                if path.suffix == ".tmp" and time.time() - facts.st_mtime > ABANDONED:
                    path.unlink()
                if path.suffix == ENDING:
                    self._total += facts.st_size
                    if path not in ours:
                        others.append((facts.st_mtime_ns, path, facts.st_size))
        return deque((path, size) for _, path, size in sorted(others))

    def _close(self, why: str) -> None:
        with self._lock:
            was_closed, self.is_closed = self.is_closed, True
        if not was_closed:
            self.note(f"cache    {why}: other images are decoded each time they are needed")
