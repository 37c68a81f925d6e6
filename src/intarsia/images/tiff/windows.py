"""TIFFs read window by window: any size, strips or tiles, any compression; pages and stacks.

Axes of a stack are those that its metadata tells (OME-XML, ImageJ), never guessed: channels are bands, times and depths frames.
Pages of any other file are frames of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError
from intarsia.images.files import TURNS, Array, guarded, read_image
from intarsia.images.sniff import notes_on
from intarsia.images.source import ArraySource, Source, Window
from intarsia.images.tiff.segments import OpenTiff, Plane, checked_tiff
from intarsia.images.values import spread_mean, without_value

_UNITS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "um": 1e-6, "micron": 1e-6, "nm": 1e-9, "inch": 0.0254}
"""Units of length that OME and ImageJ write, in metres."""


def tiff_pages(path: Path | str) -> int:
    """How many pages of full size a TIFF holds.

    Raises:
        FileError: it is missing, damaged or no TIFF.
    """
    file = OpenTiff(checked_tiff(path))
    try:
        return sum(1 for _ in file.pages())
    finally:
        file.release()


def tiff_frames(path: Path | str, bands: Sequence[int] | None = None) -> Iterator[tuple[str, Source]]:
    """Frames of a TIFF, each with what its name ends in; close each source when it is done with.

    | file | frames |
    |---|---|
    | OME-TIFF, ImageJ hyperstack | one a time and depth, `t000_z003`, from 0; channels and samples are bands |
    | any other of several pages | one a page, `p0001`, from 1 |
    | of one page | one, "" |

    Args:
        bands: as `TiffSource`.

    Raises:
        FileError: the file is missing, damaged, no TIFF, or has an axis that is neither time, depth nor channel.
    """
    file = OpenTiff(checked_tiff(path))
    try:
        with guarded(file.path):
            series = file.tiff.series[0] if file.tiff.is_ome or file.tiff.is_imagej else None
        if series is None:
            several = len(list(islice(file.pages(), 2))) > 1
            for number, page in enumerate(file.pages(), start=1):
                yield f"p{number:04d}" if several else "", TiffSource(path, number - 1, bands, _of=(file, [(page, 0)]))
        else:
            yield from _stack(file, series, bands)
    finally:
        file.release()


def _stack(file: OpenTiff, series: Any, bands: Sequence[int] | None) -> Iterator[tuple[str, Source]]:
    inner = len(series.keyframe.axes)
    axes, counts = series.axes[:-inner], series.shape[:-inner]
    if strange := sorted(set(axes) - set("TZC")):
        told = (
            f"has axes {series.axes}; of {', '.join(strange)} nothing is known. Save it with T, Z, C, Y, X (and S) only"
        )
        raise FileError(file.path, "E_PAGES", told)
    places = np.arange(prod(counts)).reshape(counts)
    outer = [axis for axis in axes if axis != "C"]
    channels_last = np.moveaxis(places, axes.index("C"), -1) if "C" in axes else places[..., None]
    others = len(file.tiff.series) - 1
    notes = (f"{others} more image{'s' * (others > 1)} in the file, not read",) if others else ()
    metres = _metres(file.tiff)
    for at in np.ndindex(channels_last.shape[:-1]):
        name = "_".join(f"{axis.lower()}{number:03d}" for axis, number in zip(outer, at, strict=True))
        planes = [_nth(file.path, series, int(place)) for place in channels_last[at]]
        source = TiffSource(file.path, int(channels_last[at][0]), bands, _of=(file, planes))
        source.notes, source.metres = (*source.notes, *notes), metres
        yield name, source


def _nth(path: Path, series: Any, number: int) -> tuple[Any, int]:
    """A page of a stack, and how many bytes behind its start the pixels lie: ImageJ describes a long stack by one page."""
    pages = series.pages
    with guarded(path):
        if series.is_truncated and series.dataoffset is not None:
            return series.keyframe, number * int(series.keyframe.nbytes)
        page = pages[number] if number < len(pages) else None
    if page is None:
        told = f"lacks page {number + 1} that its metadata tells of; copy the file anew, with those beside it"
        raise FileError(path, "E_TRUNCATED", told)
    return page, 0


class TiffSource(Source):
    """One page of a TIFF, read window by window; upright, whatever orientation it is stored in.

    Args:
        page: the page of full size, from 0.
        bands: bands to take, from 1, in this order; None: all but transparency.

    Raises:
        FileError: the file is missing, cut off, no TIFF, or has not this page or these bands.
    """

    def __init__(
        self,
        path: Path | str,
        page: int = 0,
        bands: Sequence[int] | None = None,
        *,
        _of: tuple[OpenTiff, list[tuple[Any, int]]] | None = None,
    ) -> None:
        self.path = file_path = Path(path)
        file, found = _of or (OpenTiff(checked_tiff(path)), [])
        self._file = file.share() if _of else file
        try:
            if not found:
                pages = list(islice(self._file.pages(), page + 1))
                if page >= len(pages):
                    raise FileError(file_path, "E_PAGES", f"holds {len(pages)} pages; there is no page {page + 1}")
                found = [(pages[page], 0)]
            self._planes = [Plane(file_path, self._file, *each, raw=bands is not None) for each in found]
            self._start(file_path, bands, several=len(found) > 1)
        except BaseException:
            self._file.release()
            raise

    def _start(self, path: Path, bands: Sequence[int] | None, *, several: bool) -> None:
        first = self._planes[0]
        whole = None
        if not first.is_readable:
            if several or len(list(islice(self._file.pages(), 2))) > 1:
                raise FileError(
                    path, "E_MODE", f"has pages of a form that is not read ({first.form}); save them as RGB"
                )
            whole = read_image(path, bands)  # says what is wrong, if it is too large
            there, self.orientation, self.notes = _bands(whole.pixels), whole.orientation, whole.notes
            self.height, self.width = whole.pixels.shape[:2]
        else:
            there = sum(plane.bands for plane in self._planes)
            self.orientation = first.tags.orientation
            size = first.height, first.width
            self.height, self.width = size[::-1] if self.orientation in range(5, 9) else size
            self.notes = (
                *notes_on(path, "TIFF"),
                *first.notes,
                *(["alpha channel dropped"] if bands is None and first.alpha else []),
            )
        if bands is not None and whole is None and max(bands) > there:
            told = f"has {there} band{'s' * (there != 1)}, but band {max(bands)} is asked for (data.bands)"
            raise FileError(path, "E_BANDS", told)
        self._whole = ArraySource(whole.pixels, whole.nodata) if whole else None
        self._bands = None if bands is None else [band - 1 for band in bands]
        self.bands = there if bands is None or whole else len(bands)
        self._nodata: float | None = first.tags.nodata
        self._fill: NDArray[np.float64] | None = None

    def read(self, top: int, left: int, height: int, width: int) -> Window:
        if self._whole:
            return self._whole.read(top, left, height, width)
        planes = self._read(top, left, height, width)
        there = without_value(planes, self._nodata)
        if there is not None:
            if self._fill is None:
                self._fill = spread_mean(self._read, self.size, self._nodata)
            planes[there] = self._fill.astype(planes.dtype)
        return Window(np.ascontiguousarray(planes[..., 0] if planes.shape[2] == 1 else planes), there)

    def _read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """(h, w, C) of the upright image."""
        turn = TURNS.get(self.orientation)
        where = _stored_window(self.orientation, self._planes[0], top, left, height, width)
        parts = [plane.read(*where) for plane in self._planes]
        stored = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        chosen = stored if self._bands is None else stored[..., self._bands]
        return np.array(turn(chosen) if turn else chosen, order="C")

    def close(self) -> None:
        if self._planes:
            self._planes = []
            self._file.release()


def _bands(pixels: Array) -> int:
    return pixels.shape[2] if pixels.ndim == 3 else 1


def _stored_window(orientation: int, plane: Plane, top: int, left: int, height: int, width: int) -> tuple[int, ...]:
    """The window of the stored pixels that `TURNS` turns into the window of the upright ones: top, left, height, width."""
    if orientation >= 5:
        top, left, height, width = left, top, width, height
    if orientation in (3, 4, 6, 7):
        top = plane.height - top - height
    if orientation in (2, 3, 7, 8):
        left = plane.width - left - width
    return top, left, height, width


def _metres(tiff: Any) -> tuple[float, float] | None:
    """Height and width of a pixel as OME-XML or ImageJ tells them."""
    if tiff.is_ome:
        from defusedxml.ElementTree import fromstring  # without entities

        pixels = fromstring(tiff.ome_metadata).find(".//{*}Pixels")
        if pixels is None:
            return None
        told = [(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "YX"]
        sides = [float(side) * _UNITS.get(unit, 0) if side else 0.0 for side, unit in told]
    else:
        unit = str((tiff.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
        ratios = [tiff.pages[0].tags.get(tag) for tag in (283, 282)]  # pixels a unit, vertically and horizontally
        sides = [_UNITS.get(unit, 0) * tag.value[1] / tag.value[0] if tag and tag.value[0] else 0.0 for tag in ratios]
    return (sides[0], sides[1]) if all(side > 0 for side in sides) else None
