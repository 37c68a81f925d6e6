"""What an input is, and the images that it holds: one, or several such as the pages of a TIFF or the slices of a volume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import ClassTable
from intarsia.errors import FileError
from intarsia.images.files import max_pixels, read_image
from intarsia.images.medical.dicom import Series, find_series, is_dicom
from intarsia.images.medical.nifti import NiftiVolume, is_nifti, write_classes
from intarsia.images.source import ArraySource, Source
from intarsia.images.tiff.page import page_of
from intarsia.images.zarrs import is_zarr
from intarsia.optional import found
from intarsia.prediction.inputs import dicom_files

WITHOUT_GEO = "its coordinates are not kept, since rasterio is not installed: pip install 'intarsia[geo]'"
WITHOUT_SEG = "no DICOM segmentation is written, since highdicom is not installed: pip install 'intarsia[med]'"


@dataclass
class Stack(ABC):
    """Images whose class maps make one more file together."""

    name: str
    slices: list[NDArray[np.uint8]] = field(default_factory=list)
    """(H, W) class maps so far."""

    @abstractmethod
    def write(self, folder: Path, table: ClassTable) -> None:
        """Write the file into a folder."""


@dataclass(frozen=True)
class Frame:
    """One image of an input, and the name of its results."""

    name: str
    source: Source
    stack: Stack | None = None


@dataclass
class NiftiStack(Stack):
    """Slices of a NIfTI volume."""

    volume: NiftiVolume | None = None

    def write(self, folder: Path, table: ClassTable) -> None:
        assert self.volume is not None
        classes = np.stack(self.slices)
        if self.volume.times > 1:
            classes = classes.reshape(self.volume.times, *self.volume.shape)
        write_classes(folder / f"{self.name}.nii.gz", classes, self.volume)


@dataclass
class SegStack(Stack):
    """Slices of a DICOM series, as a DICOM segmentation."""

    series: Series | None = None

    def write(self, folder: Path, table: ClassTable) -> None:
        from intarsia.images.medical.dicom_seg import write_dicom_seg

        assert self.series is not None
        write_dicom_seg(folder / f"{self.name}_seg.dcm", np.stack(self.slices), self.series, table)


@dataclass
class ZarrStack(Stack):
    """Planes of a Zarr image, as OME-Zarr labels."""

    path: Path | None = None
    places: list[str] = field(default_factory=list)
    """What the name of each plane ends in: t000_z003, or nothing."""

    def write(self, folder: Path, table: ClassTable) -> None:
        from intarsia.images.zarrs import write_labels

        letters = "".join(part[0] for part in self.places[-1].split("_") if part)
        counts = [len({place.split("_")[axis] for place in self.places}) for axis in range(len(letters))]
        height, width = self.slices[0].shape
        classes = self.slices[0] if not letters else np.stack(self.slices).reshape(*counts, height, width)
        write_labels(folder / f"{self.name}.zarr", classes, table, like=self.path, axes=f"{letters}yx")


def frames_of(path: Path, name: str, bands: tuple[int, ...] | None, plane: str | None = None) -> Iterator[Frame]:
    """The images of an input, each open until the next one is asked for.

    Args:
        bands: of image files, from 1; None: all but transparency.
        plane: of volumes: axial, coronal or sagittal; None: across the coarsest axis.

    Raises:
        FileError: the file cannot be read.
        MissingExtra: it takes a package that is not installed.
    """
    if path.is_dir():
        if is_zarr(path):
            from intarsia.images.zarrs import zarr_frames

            stack = ZarrStack(name, path=path)
            for suffix, source in zarr_frames(path, bands):
                stack.places.append(suffix)
                yield Frame(f"{name}_{suffix}" if suffix else name, _in_memory(source), stack)
        else:
            yield from _of_series(find_series(dicom_files(path)), name)
    elif not path.is_file():
        yield Frame(name, decoded(path, bands))  # which says what is wrong with it
    elif is_nifti(path):
        volume = NiftiVolume(path, plane)
        slices = NiftiStack(name, volume=volume)
        for suffix, source in volume.frames():
            yield Frame(f"{name}_{suffix}", source, slices)
    elif is_dicom(path):
        yield from _of_series(find_series([path]), name)
    else:
        yield from _of_image(path, name, bands)


def decoded(path: Path, bands: tuple[int, ...] | None) -> Source:
    """An image file in memory.

    Raises:
        FileError: as `read_image`.
    """
    image = read_image(path, bands)
    return ArraySource(image.pixels, image.nodata, path=path, orientation=image.orientation, notes=image.notes)


def _named(name: str, frames: Iterator[tuple[str, Source]]) -> Iterator[Frame]:
    for suffix, source in frames:
        yield Frame(f"{name}_{suffix}" if suffix else name, _in_memory(source))


def _in_memory(source: Source) -> Source:
    """A source that is read whole, if it may be: its results are then those of an image file."""
    if source.is_in_memory or source.height * source.width > max_pixels():
        return source
    with source:
        whole = source.read(0, 0, *source.size)
        there = ArraySource(whole.pixels, whole.nodata, path=source.path, notes=source.notes)
        there.metres = source.metres
        return there


def _of_series(found_series: list[Series], name: str) -> Iterator[Frame]:
    """Each slice; those of a series become one segmentation."""
    for series in found_series:
        own = f"{name}_{series.name}" if len(found_series) > 1 else name
        stack = SegStack(own, series=series) if found("highdicom") else None
        for suffix, source in series.frames():
            if stack is None:
                source.notes = (*source.notes, WITHOUT_SEG)
            source.notes = (*source.notes, *series.notes)
            yield Frame(f"{own}_{suffix}" if len(series.slices) > 1 else own, source, stack)


def _pages_and_area(path: Path) -> tuple[int, int]:
    """Pages of a TIFF, and pixels of the first; (0, 0) if it is none."""
    try:
        with page_of(path) as page:
            return (page.pages, int(page.page.imagelength) * int(page.page.imagewidth)) if page else (0, 0)
    except OSError as error:
        raise FileError(path, "E_CORRUPT", f"cannot be read ({error})") from None


def _of_image(path: Path, name: str, bands: tuple[int, ...] | None) -> Iterator[Frame]:
    from intarsia.images.tiff.geotiff import GeoSource, is_geotiff
    from intarsia.images.tiff.windows import TiffSource, tiff_frames

    pages, area = _pages_and_area(path)
    located = pages > 0 and is_geotiff(path)
    if located and found("rasterio"):
        yield Frame(name, GeoSource(path, bands))
    elif pages > 1:
        yield from _named(name, tiff_frames(path, bands))
    elif area > max_pixels():
        yield Frame(name, TiffSource(path, bands=bands))
    else:
        source = decoded(path, bands)
        if located:
            source.notes = (*source.notes, WITHOUT_GEO)
        yield Frame(name, source)
