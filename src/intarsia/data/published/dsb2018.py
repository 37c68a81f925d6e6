"""Data Science Bowl 2018: nuclei under the microscope (BBBC038), with single objects.

Source: https://bbbc.broadinstitute.org/BBBC038 . Licence: CC0 1.0. Classes: background, nucleus. Images: 670 (stage1_train),
no split; the other stages' labels come in run lengths and are not read. Sizes: 256 x 256 to 1040 x 1388 and more.
Layout: ID/images/ID.png with ID/masks/*.png, one file of 0 and 255 an object; also images/NAME.png, masks/NAME.png and
instances/NAME.png, as a converted copy has them. Objects are numbered in the order of their files' names; where two overlap
the first keeps the pixel. Some labels are wrong; corrected copies have the same layout.
Citation: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature Methods 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from intarsia.data.base import DATASETS
from intarsia.data.layout import Pair
from intarsia.data.published.base import Found, Published, images_below, plain_pairs, value_table
from intarsia.data.published.convert import Converter
from intarsia.data.published.sheet import Archive, Sheet
from intarsia.errors import FileError
from intarsia.images.files import read_mask
from intarsia.progress import Progress

TABLE = value_table(("background", "nucleus"), {0: "background", 1: "nucleus"}, ((0, 0, 0), (0, 114, 178)))


@DATASETS.family("dsb2018")
class Dsb2018Config(Published):
    """Data Science Bowl 2018: nuclei of many kinds, each an object."""

    sheet: ClassVar[Sheet] = Sheet(
        title="Data Science Bowl 2018 (stage1_train)",
        source="https://bbbc.broadinstitute.org/BBBC038",
        licence="CC0 1.0",
        classes="2, with objects",
        images="670, no split",
        sizes="256 x 256 to 1040 x 1388",
        layout="ID/images/ID.png and ID/masks/*.png",
        citation='Caicedo et al., "Nucleus segmentation across imaging experiments", Nature Methods 2019',
        archives=(Archive("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip", 83, into="stage1_train"),),
        folder="stage1_train",
    )

    def find(self, root: Path, progress: Progress) -> Found:
        if (root / "images").is_dir() and (found := plain_pairs(root, TABLE)):
            return found
        found, converter = Found(TABLE), Converter("dsb2018")
        for folder in sorted(path for path in root.iterdir() if (path / "images").is_dir()):
            objects = images_below(folder / "masks", "*.png")
            images = images_below(folder / "images", "*.png")
            if len(images) != 1 or not objects:
                raise self.other(root, f"{folder.name} has {len(images)} images and {len(objects)} masks")
            mask, instances = converter.ask(
                folder.name, objects, ("mask", "instances"), partial(merged_objects, objects)
            )
            found.pairs.append(Pair(folder.name, None, images[0], mask, instances))
        converter.run(progress)
        return found


def merged_objects(files: Sequence[Path]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Mask (0, 1) and instances (0, 1..n) of files that hold an object each, 0 outside it.

    Raises:
        FileError: a file is damaged, in colours, or of another size than the first.
    """
    instances: NDArray[np.uint16] | None = None
    for number, path in enumerate(files, 1):
        pixels = read_mask(path).pixels
        if pixels.ndim == 3:
            if (pixels != pixels[..., :1]).any():
                raise FileError(path, "E_MODE", "holds colours; an object's file is black and white")
            pixels = pixels[..., 0]
        if instances is None:
            instances = np.zeros(pixels.shape, np.uint16)
        if pixels.shape != instances.shape:
            sizes = [f"{shape[0]} x {shape[1]}" for shape in (pixels.shape, instances.shape)]
            raise FileError(path, "E_SIZE", f"is {sizes[0]}, the first object of the image is {sizes[1]}")
        instances[(pixels > 0) & (instances == 0)] = number
    if instances is None:
        raise ValueError("no files")
    return (instances > 0).astype(np.uint8), instances
