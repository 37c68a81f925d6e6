"""What a data set is: a config that opens it, and the opened thing, checked and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from intarsia.classes import IGNORE, UNKNOWN, ClassTable
from intarsia.config import NamedConfig
from intarsia.errors import ConfigError, DataError, FileError
from intarsia.images.files import Array, Decoded, read_image, read_mask
from intarsia.images.overlay import Rgb, to_rgb8
from intarsia.images.ranges import ValueRange
from intarsia.progress import Progress
from intarsia.registry import Registry, did_you_mean

if TYPE_CHECKING:
    from intarsia.losses.base import Border

Bands = tuple[int, ...] | None
SPLITS = ("train", "val", "test")


class DataConfig(NamedConfig):
    """Settings that every data set has."""

    scale: float = Field(1.0, gt=0, le=8)
    """Factor on both image sides before the network; scores are counted at the masks' own size all the same."""
    bands: Bands = None
    """Bands of the image files to take, from 1, in this order, such as [4, 3, 2, 8]; null: all but transparency. Of more
    than three, the first three are shown as red, green and blue."""
    size: tuple[int, int] | None = None
    """(height, width) of training samples after scaling; null: the median image's, at most 512."""

    @field_validator("size", mode="before")
    @classmethod
    def _pair(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) and not isinstance(size, bool) else size

    @field_validator("bands")
    @classmethod
    def _from_one(cls, bands: Bands) -> Bands:
        if bands is not None and (not bands or min(bands) < 1 or len(set(bands)) < len(bands)):
            raise ValueError("bands must be different numbers from 1")
        return bands

    @field_validator("size")
    @classmethod
    def _positive(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and min(size) < 1:
            raise ValueError("size must be positive")
        return size

    def of_run(self, folder: Path) -> Self:
        """The same data with the class table and the split that a run wrote down, whatever the data folder says by now."""
        return self

    def open(self, progress: Progress) -> Dataset:
        """Find, read and check everything.

        Raises:
            DataError: something cannot be used; the message lists what, where, and what mends it.
        """
        raise NotImplementedError


DATASETS: Registry[DataConfig] = Registry("data", "data")


@dataclass(frozen=True)
class Item:
    """One image and its mask."""

    name: str
    """Path of the image below its folder, without ending; unique in a data set."""
    image: Path
    mask: Path | None
    height: int
    width: int
    instances: Path | None = None
    """Single objects, 0 background, each other value one of them; null: they were not drawn."""
    bands: Bands = None
    """Bands of the image file that are read, from 1; null: all but transparency."""
    nodata: bool = False
    """Whether the image has pixels without value; they are ignored."""


@dataclass(frozen=True)
class Dataset:
    """Images and masks, checked, with the classes they hold and how they are split."""

    label: str
    """Name for people: the folder's."""
    root: Path
    table: ClassTable
    table_source: str
    """Where the class table came from, in words."""
    splits: Mapping[str, tuple[Item, ...]]
    split_source: str
    """Where the split came from, in words."""
    channels: int
    """1 if every image is grey, 3 if they are in colour, else the number of bands."""
    value_range: ValueRange
    mean: tuple[float, ...]
    """Mean of each channel of the training images, 0..1 scale."""
    std: tuple[float, ...]
    class_pixels: Mapping[str, NDArray[np.int64]]
    """Split to (K,) pixels of each class."""
    holding_pixels: Mapping[str, NDArray[np.int64]]
    """Split to (K,) pixels, ignored ones too, of the images that hold the class."""
    notes: tuple[str, ...] = ()
    """What a person should know, one line each."""
    decoders: Mapping[str, MaskDecoder] = field(default_factory=dict, repr=False)
    """Item's name to what its mask's values mean, where that is not what the class table says."""
    _decoder: list[MaskDecoder] = field(default_factory=list, repr=False)

    def items(self, split: str) -> tuple[Item, ...]:
        """The items of a split.

        Raises:
            ConfigError: there is no such split, or it is empty.
        """
        if not self.splits.get(split):
            there = ", ".join(f"{name} ({len(items)})" for name, items in self.splits.items() if items)
            hint = did_you_mean(split, self.splits)
            raise ConfigError(f"{self.label}: has no split {split!r}; there are: {there}.{hint}")
        return self.splits[split]

    @property
    def bands(self) -> Bands:
        """Bands of image files that every item takes; None where they differ."""
        each = {item.bands for items in self.splits.values() for item in items}
        return each.pop() if len(each) == 1 else None

    def read_image(self, item: Item) -> Array:
        """(H, W) or (H, W, C), upright: uint8, uint16 or float32."""
        return read_image(item.image, item.bands).pixels

    def picture(self, item: Item) -> Rgb:
        """(H, W, 3) uint8 for the eye."""
        return to_rgb8(self.read_image(item), self.value_range)

    def read_mask(self, item: Item) -> NDArray[np.uint8]:
        """(H, W) class numbers; 255 where nothing is known."""
        if item.mask is None:
            return np.full((item.height, item.width), IGNORE, np.uint8)
        classes = self._decoder_of(item)(item.mask, read_mask(item.mask))
        if item.nodata and (without := read_image(item.image, item.bands).nodata) is not None:
            classes[without] = IGNORE
        return classes

    def meaning(self, item: Item) -> str:
        """All that the class numbers of the item's mask depend on beside the file."""
        return self._decoder_of(item).meaning

    def _decoder_of(self, item: Item) -> MaskDecoder:
        if item.name in self.decoders:
            return self.decoders[item.name]
        if not self._decoder:
            self._decoder.append(MaskDecoder(self.table))
        return self._decoder[0]

    def read_instances(self, item: Item) -> NDArray[Any]:
        """(H, W) single objects, 0 background: as drawn, else the connected parts of the mask's classes but 0.

        Raises:
            FileError: the file is damaged, holds colours, or is not of the image's size.
        """
        if item.instances is None:
            from intarsia.ops.objects import objects_of

            return objects_of(self.read_mask(item))
        instances = read_mask(item.instances).pixels
        if instances.ndim != 2:
            raise FileError(
                item.instances, "E_MODE", "holds colours; instances are numbers, 0 background, 1..n objects"
            )
        if instances.shape != (item.height, item.width):
            raise FileError(
                item.instances,
                "E_SIZE",
                f"is {instances.shape[0]} x {instances.shape[1]}, its image {item.image} is {item.height} x {item.width}; "
                "export both at one size, or move this file away",
            )
        return instances

    def border_weights(self, item: Item, border: Border) -> NDArray[np.float32]:
        """(H, W) weights of the borders between objects, from the cache where they are known.

        Raises:
            FileError: as `read_instances`.
        """
        from intarsia.data.weights import border_weights

        return border_weights(self, item, border)


def evenly(total: int, count: int) -> list[int]:
    """At most `count` positions below `total`, evenly from the first to the last."""
    return [int(place) for place in np.linspace(0, total - 1, min(count, total)).round()]


class MaskDecoder:
    """Values or colours of mask files to class numbers.

    Args:
        table: what the files hold.
        to: the class number that each class of the table becomes, `IGNORE` to leave it out; None: its own.
    """

    def __init__(self, table: ClassTable, to: Sequence[int] | None = None) -> None:
        self.table, self.to = table, to
        self.meaning = table.to_text() + (f"to: {list(to)}" if to is not None else "")
        self._becomes = np.arange(-1, 256).astype(np.int16)  # entry 1 + k for class k; the first for UNKNOWN
        if to is not None:
            self._becomes[1 : 1 + len(to)] = to
        self.values: NDArray[np.int16] = self._becomes[table.lookup() + 1]
        self._colours: NDArray[np.int16] | None = None

    def __call__(self, path: Path, decoded: Decoded) -> NDArray[np.uint8]:
        """Class numbers of a decoded mask.

        Raises:
            DataError: a value or colour that the class table does not know.
        """
        classes = self.values[decoded.pixels] if decoded.pixels.ndim == 2 else self.of_colours(pack(decoded.pixels))
        if (classes == UNKNOWN).any():
            row, column = (int(place) for place in np.argwhere(classes == UNKNOWN)[0])
            raise DataError(
                f"{path}: holds {decoded.pixels[row, column].tolist()} at row {row}, column {column}, "
                "which the class table does not know. Add it to classes.yaml."
            )
        return classes.astype(np.uint8)

    def of_scanned(self, mask: Mapping[str, Any]) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        """Class number and pixels of each value or colour that a scan met in a mask; `UNKNOWN` for what nobody said."""
        met = np.asarray(mask["values"], np.int64).reshape(-1, 2)
        classes = self.of_colours(met[:, 0].astype(np.int32)) if mask["coloured"] else self.values[met[:, 0]]
        return classes, met[:, 1]

    def of_colours(self, packed: NDArray[np.int32]) -> NDArray[np.int16]:
        """Class numbers of packed colours. Greys that are no class colour are read as values."""
        if self._colours is None:
            table = np.full(1 << 24, UNKNOWN, np.int16)
            greys = np.arange(256)
            table[greys << 16 | greys << 8 | greys] = self.values[:256]
            for colour, index in self.table.colour_lookup().items():
                table[colour] = self._becomes[index + 1]
            self._colours = table
        return self._colours[packed]


def pack(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """(H, W, 3) uint8 colours as (H, W) red<<16 | green<<8 | blue."""
    if pixels.dtype != np.uint8:
        raise FileError("mask", "E_MODE", "is a 16-bit colour image; a mask in colours has 8 bits a channel")
    wide = pixels.astype(np.int32)
    packed: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed
