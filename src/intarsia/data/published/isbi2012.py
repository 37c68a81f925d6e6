"""ISBI 2012: neuronal membranes in electron microscopy, a stack of 30 sections.

Source: http://brainiac2.mit.edu/isbi_challenge/ (it no longer answers; copies are in many repositories). Licence: for
research, with citation. Classes: cell, membrane. Images: 30 sections with labels, 30 without. Sizes: 512 x 512, grey,
4 x 4 x 50 nm a voxel.
Layout: train-volume.tif and train-labels.tif, TIFF stacks of 30 pages (labels 255 cell, 0 membrane); also train/images/NN.png
with train/masks/NN.png (0 cell, 1 membrane), as a converted copy has them. Neighbouring sections are alike, so the last
fifth of the stack is held out for validation, not a random fifth.
Citation: Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics", Frontiers
in Neuroanatomy 2015; Cardona et al., PLoS Biology 2010.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from intarsia.data.base import DATASETS
from intarsia.data.layout import Pair
from intarsia.data.published.base import Found, Published, plain_pairs, value_table
from intarsia.data.published.convert import Converter
from intarsia.data.published.sheet import Sheet
from intarsia.errors import FileError
from intarsia.images.files import max_pixels
from intarsia.progress import Progress

TABLE = value_table(("cell", "membrane"), {0: "cell", 1: "membrane"}, ((0, 0, 0), (230, 159, 0)))


@DATASETS.family("isbi2012")
class Isbi2012Config(Published):
    """ISBI 2012: membranes of neurons, 30 sections of 512 x 512."""

    sheet: ClassVar[Sheet] = Sheet(
        title="ISBI 2012 EM",
        source="http://brainiac2.mit.edu/isbi_challenge/",
        licence="for research, with citation",
        classes="2",
        images="30 sections (24 train, 6 val here)",
        sizes="512 x 512",
        layout="train-volume.tif and train-labels.tif",
        citation='Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms", 2015',
        steps=(
            (
                "Get train-volume.tif and train-labels.tif: the challenge's page asks for registration; if it does not answer, "
                "copies are in public repositories, such as data/membrane of github.com/zhixuhao/unet (as PNG)."
            ),
            "Put both into one folder. PNG copies go to train/images/NN.png and train/masks/NN.png (0 cell, 1 membrane).",
        ),
    )

    def find(self, root: Path, progress: Progress) -> Found:
        volume, labels = root / "train-volume.tif", root / "train-labels.tif"
        if not volume.is_file() or not labels.is_file():
            if found := plain_pairs(root, TABLE):
                return _last_held_out(found)
            raise self.other(root, "train-volume.tif or train-labels.tif is missing")
        pages = _pages(volume)
        if pages != _pages(labels):
            raise self.other(root, f"train-volume.tif has {pages} pages, train-labels.tif {_pages(labels)}")
        converter = Converter("isbi2012")
        images = converter.ask("volume", [volume], [f"{n:02d}" for n in range(pages)], lambda: read_stack(volume))
        masks = converter.ask("labels", [labels], [f"{n:02d}" for n in range(pages)], lambda: _membranes(labels))
        converter.run(progress)
        pairs = [Pair(f"{n:02d}", None, images[n], masks[n]) for n in range(pages)]
        return _last_held_out(Found(TABLE, pairs))


def _last_held_out(found: Found) -> Found:
    """The last fifth for validation, unless something else is for it already."""
    if {pair.split for pair in found.pairs} & {"val", "test"}:
        return found
    found.pairs.sort(key=lambda pair: pair.name)
    first = len(found.pairs) - max(1, round(0.2 * len(found.pairs))) if len(found.pairs) > 1 else 1
    found.pairs = [replace(pair, split="train" if n < first else "val") for n, pair in enumerate(found.pairs)]
    found.split_source = "the last fifth of the stack for validation"
    return found


def _pages(path: Path) -> int:
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            if image.width * image.height * (pages := int(getattr(image, "n_frames", 1))) > max_pixels():
                raise FileError(path, "E_TOO_LARGE", f"has more than {max_pixels()} pixels; set INTARSIA_MAX_PIXELS")
            return pages
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FileError(path, "E_CORRUPT", f"is no TIFF stack ({error}); copy it again from its source") from None


def read_stack(path: Path) -> list[NDArray[Any]]:
    """The pages of a TIFF file, each (H, W), 8-bit.

    Raises:
        FileError: it is damaged, or no 8-bit grey stack.
    """
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            pages = [
                np.asarray(page.convert("L") if page.mode == "1" else page) for page in ImageSequence.Iterator(image)
            ]
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise FileError(path, "E_CORRUPT", f"is damaged ({error}); copy it again from its source") from None
    if any(page.ndim != 2 or page.dtype != np.uint8 for page in pages):
        raise FileError(path, "E_MODE", "is no stack of 8-bit grey pages")
    return pages


def _membranes(path: Path) -> list[NDArray[Any]]:
    """1 on membranes, which the labels draw black."""
    pages = read_stack(path)
    if any(not np.isin(page, (0, 255)).all() for page in pages):
        raise FileError(path, "E_VALUE", "holds other values than 0 (membrane) and 255 (cell)")
    return [(page == 0).astype(np.uint8) for page in pages]
