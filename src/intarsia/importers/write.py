"""What every export shares: a new folder, each item's class map, its image beside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.errors import ConfigError, SaveError
from intarsia.images.files import TURNS, frame_of, read_image

if TYPE_CHECKING:
    from intarsia.data.base import Dataset, Item
    from intarsia.progress import Progress


def new_folder(target: Path) -> None:
    """Make the folder.

    Raises:
        ConfigError: it exists and holds something.
        SaveError: it cannot be made.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: exists and is not an empty folder; name one that does not exist.")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"{target}: cannot be made ({error.strerror}).") from None


def each_item(dataset: Dataset, progress: Progress) -> Iterator[tuple[Item, NDArray[np.uint8]]]:
    """Every item of every split once, with its class map (255 ignored)."""
    items = {item.name: item for split in dataset.splits.values() for item in split}
    with progress.task("write", len(items)) as task:
        for count, item in enumerate(items.values(), 1):
            yield item, dataset.read_mask(item)
            task.update(count, f"{count} of {len(items)} images")


def copied_image(item: Item, folder: Path) -> Path:
    """The item's image in a folder, under the item's name with slashes as folders.

    An image that EXIF turns is written upright, as PNG or TIFF, since class maps are upright and tools do not agree on EXIF.
    """
    target = folder / (item.name + item.image.suffix.lower())
    target.parent.mkdir(parents=True, exist_ok=True)
    if frame_of(item.image)[1] not in TURNS:
        shutil.copyfile(item.image, target)
        return target
    pixels = read_image(item.image).pixels
    if pixels.dtype == np.float32 or (pixels.ndim == 3 and (pixels.shape[2] != 3 or pixels.dtype != np.uint8)):
        import tifffile

        target = target.with_name(f"{target.stem}.tif")
        tifffile.imwrite(target, pixels, photometric="minisblack", planarconfig="contig" if pixels.ndim == 3 else None)
    else:
        target = target.with_name(f"{target.stem}.png")
        Image.fromarray(pixels).save(target)
    return target
