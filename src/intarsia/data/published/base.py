"""What every published data set shares: its sheet, and the way from pairs of files to a `Dataset`.

A data set's file says in `find` which files belong together, in which split, and what their values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from intarsia.classes import ClassTable
from intarsia.data.assemble import Reading, SourceConfig, counts_in_words, notes_on, reading_of
from intarsia.data.base import Bands
from intarsia.data.checks import FolderProblems, check_files, check_values
from intarsia.data.hashes import check_hashes
from intarsia.data.layout import Layout, Pair, apply_split_file, find_pairs
from intarsia.data.published.sheet import Sheet
from intarsia.data.scan import ScannedPair, scan
from intarsia.errors import ConfigError, DataError
from intarsia.images.files import IMAGE_SUFFIXES
from intarsia.progress import Progress


@dataclass
class Found:
    """The files of a data set and the meaning of its masks."""

    table: ClassTable
    pairs: list[Pair] = field(default_factory=list)
    split_source: str = "the data set's own"
    """In words; "" where the data set has no split."""
    notes: list[str] = field(default_factory=list)


class Published(SourceConfig):
    """A published data set."""

    sheet: ClassVar[Sheet]

    path: str = ""
    """Its folder, as it is once unpacked; `intarsia data download NAME` fetches it or says how to get it."""
    splits: str | None = None
    """File of names, {train: [...], val: [...], test: [...]}; null: the data set's own split, else drawn."""

    def find(self, root: Path, progress: Progress) -> Found:
        """The pairs below `root`.

        Raises:
            DataError: `root` is not laid out as the data set is.
        """
        raise NotImplementedError

    def read(self, progress: Progress) -> Reading:
        root = self._root()
        found = self.find(root, progress)
        layout = Layout(pairs=found.pairs, notes=found.notes, split_source=found.split_source)
        self._check_pairs(root, layout)
        if self.splits:
            layout.pairs = [replace(pair, split=None) for pair in layout.pairs]
            apply_split_file(root, layout, Path(self.splits).expanduser())
        elif all(pair.split is None for pair in layout.pairs):
            layout.split_source = ""
        layout.pairs.sort(key=lambda pair: (pair.split or "", pair.name))
        scanned = scan(root, layout.pairs, progress, self.bands)
        return sound_reading(root, layout, scanned, self.bands, found.table, self.sheet.title)

    def _root(self) -> Path:
        """The folder, or the one in it that the archives make."""
        if not self.path:
            raise ConfigError(
                f"data.path: is not set; give the folder of {self.sheet.title}. "
                f"`intarsia data download {self.name or 'NAME'}` says how to get it."
            )
        root = Path(self.path).expanduser()
        if not root.is_dir():
            state = "is a file, not a folder" if root.exists() else "does not exist"
            raise DataError(f"{root}: {state}. `intarsia data download {self.name} --to {root}` says how to get it.")
        inner = root / self.sheet.folder
        return inner if self.sheet.folder and inner.is_dir() else root

    def _check_pairs(self, root: Path, layout: Layout) -> None:
        """Raise DataError unless each image has its mask and each name is there once."""
        if not layout.pairs:
            raise self.other(root, "no labelled image was found")
        if lonely := [pair for pair in layout.pairs if pair.mask is None]:
            raise self.other(root, f"{len(lonely)} images have no mask, first {lonely[0].image}")
        missing = [path for pair in layout.pairs for path in (pair.image, pair.mask) if path and not path.is_file()]
        if missing:
            raise self.other(root, f"{len(missing)} files are missing, first {missing[0]}")
        names = [pair.name for pair in layout.pairs]
        if len(set(names)) < len(names):
            layout.pairs = [replace(pair, name=f"{pair.split}/{pair.name}") for pair in layout.pairs]

    def other(self, root: Path, reason: str) -> DataError:
        """The error for a folder that is not the data set: what was expected, what was met, what to do."""
        met = ", ".join(sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())[:8]) or "nothing"
        return DataError(
            f"{root}: is not {self.sheet.title} as published: {reason}. Expected {self.sheet.layout}; met: {met}. "
            f"`intarsia data download {self.name}` says how to get it."
        )

    def folder(self, root: Path, *names: str) -> Path:
        """The first of `names` that is a folder below `root`.

        Raises:
            DataError: none of them is.
        """
        for name in names:
            if (root / name).is_dir():
                return root / name
        raise self.other(root, f"there is no folder {' or '.join(names)}")

    def list_of(self, root: Path, name: str) -> list[str]:
        """The first word of each line of a text file; empty lines and lines that start with # are passed over.

        Raises:
            DataError: the file is not there.
        """
        file = root / name
        if not file.is_file():
            raise self.other(root, f"there is no file {name}")
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def sound_reading(
    root: Path,
    layout: Layout,
    scanned: Sequence[ScannedPair],
    bands: Bands,
    table: ClassTable,
    source: str,
    *,
    called: Path | None = None,
) -> Reading:
    """The reading of files whose class table is known.

    Args:
        called: what messages call the whole; None: `root`.

    Raises:
        FolderProblems: some cannot be used.
    """
    findings = check_files(layout, scanned, root, skip_unlabelled=False)
    check_hashes(findings, scanned, root)
    check_values(findings, scanned, table)
    if findings.problems:
        raise FolderProblems(called or root, counts_in_words(layout), findings.problems)
    notes = [*layout.notes, *notes_on(layout, scanned, findings)]
    return reading_of(root, layout, scanned, bands, table, source, notes)


def images_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Image files in `folder`, by name; hidden files, such as those of macOS archives, are passed over."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def pairs_of(
    images: Iterable[Path], root: Path, split: str | None, mask_of: Callable[[Path], Path | None]
) -> list[Pair]:
    """Each image with its mask; named by its path below `root`, without ending."""
    return [Pair(path.relative_to(root).with_suffix("").as_posix(), split, path, mask_of(path)) for path in images]


def png_in(folder: Path, image: Path) -> Path:
    """The PNG in `folder` of an image's name."""
    return folder / f"{image.stem}.png"


def plain_pairs(root: Path, table: ClassTable) -> Found | None:
    """The pairs of a folder that somebody has put into images/ and masks/, with or without splits; None if it is not so.
    Images without mask are left out with a note."""
    try:
        layout = find_pairs(root)
    except DataError:
        return None
    kept = [pair for pair in layout.pairs if pair.mask]
    if layout.split_source == "folders":
        kept = [replace(pair, name=f"{pair.split}/{pair.name}") for pair in kept]
    notes = list(layout.notes)
    if left := len(layout.pairs) - len(kept):
        notes.append(f"{left} images without mask are left out")
    return Found(table, kept, "its folders" if layout.split_source == "folders" else layout.split_source, notes)


def value_table(
    names: Iterable[str], values: dict[int, str], colors: Iterable[tuple[int, int, int]] = ()
) -> ClassTable:
    """A table whose masks hold `values` and nothing else."""
    return ClassTable(names=tuple(names), colors=tuple(colors), values=values, ignore_index=None)
