"""DICOM: series, frames that belong together, in the order of space. Standard: PS3.3, C.7.6.2 (image plane).

Of a patient nothing is read; series are numbered, since the file's own words may tell who it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.errors import FileError
from intarsia.images.medical.dicom_pixels import (
    functional_group,
    guarded_dicom,
    header_of,
    image_header,
    is_dicom,
    no_image,
    picture_of,
    read_frame,
    read_slice,
)
from intarsia.images.source import ArraySource, Source

__all__ = ["Series", "Slice", "dicom_frames", "find_series", "is_dicom", "picture_of", "read_slice"]

# fmt: off
_TAGS = [
    "SOPClassUID", "Modality", "SeriesInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "TotalPixelMatrixRows",
]
# fmt: on


@dataclass(frozen=True)
class Slice:
    """A frame of a file, and where it lies."""

    path: Path
    frame: int
    """From 0."""
    place: float | None
    """Millimetres along the normal of the plane; None where the file does not tell."""


@dataclass(frozen=True)
class Series:
    """Frames of one size and orientation that belong together, in the order of space."""

    name: str
    """series01, series02, ...: the file's own words may tell who it is."""
    slices: tuple[Slice, ...]
    size: tuple[int, int]
    """(H, W)"""
    spacing: tuple[float, float] | None
    """Millimetres between rows, and between columns."""
    modality: str
    notes: tuple[str, ...] = ()
    uid: str = field(default="", repr=False)

    @property
    def metres(self) -> tuple[float, float] | None:
        """Height and width of a pixel."""
        return (self.spacing[0] / 1000, self.spacing[1] / 1000) if self.spacing else None

    def frames(self) -> Iterator[tuple[str, Source]]:
        """Each slice, decoded when its turn comes, with what its name ends in: s0001, ...

        Raises:
            FileError: as `read_slice`.
        """
        opened, header = None, None
        for number, each in enumerate(self.slices, start=1):
            if opened != each.path:
                opened, header = each.path, image_header(each.path)
            found = read_frame(each.path, header, each.frame)
            source = ArraySource(found.pixels, found.nodata, path=each.path, notes=found.notes)
            source.metres = self.metres
            yield f"s{number:04d}", source


def dicom_frames(where: Path | str) -> Iterator[tuple[str, Source]]:
    """Every slice in a file or folder, series after series, each with what its name ends in.

    "" of a single slice, `s0001` of one series, `series01_s0001` of several.

    Raises:
        FileError: as `find_series` and `read_slice`.
    """
    found = find_series(where)
    for series in found:
        for name, source in series.frames():
            if len(found) > 1:
                name = f"{series.name}_{name}"
            elif len(series.slices) == 1:
                name = ""
            source.notes = (*source.notes, *series.notes)
            yield name, source


def find_series(where: Path | str | Iterable[Path | str]) -> list[Series]:
    """The series in a folder (with those below it), a file, or files.

    Frames of a series are sorted by ImagePositionPatient along the normal of ImageOrientationPatient (C.7.6.2.1.1); where one
    tells no position, by InstanceNumber, and a note says so. Segmentations, contours and the like are left out, with a note.

    Raises:
        FileError: there is no DICOM image at all.
    """
    folder = Path(where) if isinstance(where, str | Path) else None
    if folder is not None and folder.is_dir():
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    else:
        paths = [folder] if folder is not None else [Path(path) for path in where]  # type: ignore[union-attr]
    grouped: defaultdict[Any, list[_Frame]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for path in paths:
        if folder is not None and folder.is_dir() and not is_dicom(path):
            continue
        try:
            header = header_of(path, _TAGS)
            with guarded_dicom(path):
                what = no_image(header)
                count = 0 if what else int(header.get("NumberOfFrames") or 1)
            frames = [_frame(path, header, frame) for frame in range(count)]
        except FileError as error:
            if len(paths) == 1:
                raise
            what, frames = f"unreadable: {error.code}", []
        if what:
            left_out[what] += 1
        for each in frames:
            grouped[each.key].append(each)
    if not grouped:
        told = ", ".join(f"{count} × {what}" for what, count in sorted(left_out.items())) or "none is DICOM"
        raise FileError(folder or (paths[0] if paths else Path()), "E_NOT_IMAGE", f"holds no DICOM image ({told})")
    notes = [f"left out: {count} × {what}" for what, count in sorted(left_out.items())]
    return [_series(number, frames, notes) for number, frames in enumerate(grouped.values(), start=1)]


@dataclass(frozen=True)
class _Frame:
    slice: Slice
    key: tuple[Any, ...]
    """What the frames of a series have in common: UID, size, orientation."""
    number: int
    spacing: tuple[float, float] | None
    modality: str
    is_tile: bool


def _frame(path: Path, header: Any, frame: int) -> _Frame:
    with guarded_dicom(path):
        plane = functional_group(header, frame, "PlaneOrientationSequence") or header
        position = (functional_group(header, frame, "PlanePositionSequence") or header).get("ImagePositionPatient")
        orientation = plane.get("ImageOrientationPatient")
        place, turned = None, None
        if position and orientation:
            rows_along, columns_along = np.asarray(orientation, float).reshape(2, 3)
            place = float(np.cross(rows_along, columns_along) @ np.asarray(position, float))
            turned = tuple(np.round(np.asarray(orientation, float), 3).tolist())
        spacing = (functional_group(header, frame, "PixelMeasuresSequence") or header).get("PixelSpacing")
        sides = (float(spacing[0]), float(spacing[1])) if spacing else None
        size = (int(header.Rows), int(header.Columns))
        return _Frame(
            Slice(path, frame, place),
            (str(header.get("SeriesInstanceUID") or path), size, turned),
            int(header.get("InstanceNumber") or 0),
            sides,
            str(header.get("Modality") or ""),
            "TotalPixelMatrixRows" in header,
        )


def _series(number: int, frames: list[_Frame], notes: list[str]) -> Series:
    told = list(notes) if number == 1 else []
    if any(each.slice.place is None for each in frames):
        if len(frames) > 1:
            told.append("slices tell no position; they are in the order of InstanceNumber")
        frames = sorted(frames, key=lambda each: (each.number, each.slice.frame))
    else:
        frames = sorted(frames, key=lambda each: (round(each.slice.place or 0, 4), each.number, each.slice.frame))
        gaps = np.diff([each.slice.place or 0 for each in frames])
        if len(gaps) and gaps.min() < 1e-4:
            told.append("several slices lie at one place; those are in the order of InstanceNumber")
        elif len(gaps) and gaps.max() > 1.01 * gaps.min() + 1e-3:
            told.append(f"slices are not evenly spaced: {gaps.min():.3g} to {gaps.max():.3g} mm apart")
    first = frames[0]
    if first.is_tile:
        told.append("its frames are tiles of a slide; each is an image of its own")
    slices, size = tuple(each.slice for each in frames), first.key[1]
    return Series(f"series{number:02d}", slices, size, first.spacing, first.modality, tuple(told), first.key[0])
