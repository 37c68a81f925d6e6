"""PASCAL VOC 2012, and the Semantic Boundaries Dataset (SBD) that adds masks to it.

PASCAL VOC 2012. Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ . Licence: none stated; the photographs are under
Flickr's terms, and the authors ask to be cited. Classes: background and 20, value 255 (borders, difficult) ignored. Images:
1464 train, 1449 val; the 1456 test masks are kept by the organisers. Sizes: at most 500 x 500, varied.
Layout: JPEGImages/ID.jpg, SegmentationClass/ID.png (palette, the index is the class), ImageSets/Segmentation/{train,val}.txt.
Citation: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 111 (2015).

SBD. Source: http://home.bharathh.info/pubs/codes/SBD/download.html . Licence: none stated, for research. Classes: as above,
nothing ignored. Images: 8498 train, 2857 val of PASCAL VOC 2011. Layout: dataset/img/ID.jpg, dataset/cls/ID.mat (GTcls.
Segmentation), dataset/{train,val}.txt. Citation: Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.

With `sbd`, training is the set that papers call trainaug: the union of VOC's train and all of SBD without VOC's val, 10,582
images; an image that both have keeps VOC's mask. SegmentationObject/ is not read: its 255 is no object.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from intarsia.classes import ClassTable, Colour
from intarsia.data.base import DATASETS
from intarsia.data.layout import Pair
from intarsia.data.published.base import Found, Published
from intarsia.data.published.convert import Converter
from intarsia.data.published.sheet import Archive, Sheet
from intarsia.errors import DataError, FileError
from intarsia.progress import Progress

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def voc_colour(index: int) -> Colour:
    """VOC's colour of a class: bits 0, 1, 2 of the index go to red, green, blue, the next three one place lower, ..."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


TABLE = ClassTable(names=NAMES, colors=tuple(voc_colour(index) for index in range(len(NAMES))), ignore_index=255)


@DATASETS.family("voc2012")
class VocConfig(Published):
    """PASCAL VOC 2012: 20 classes of things and background; with SBD, 10,582 training images."""

    sheet: ClassVar[Sheet] = Sheet(
        title="PASCAL VOC 2012",
        source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        licence="none stated; Flickr's terms hold for the photographs",
        classes="21",
        images="1464 train, 1449 val",
        sizes="at most 500 x 500",
        layout="JPEGImages/, SegmentationClass/, ImageSets/Segmentation/{train,val}.txt",
        citation='Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015',
        archives=(
            Archive(
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                2000,
                md5="6cd6e144f989b92b3379bac3b3de84fd",
            ),
        ),
        folder="VOCdevkit/VOC2012",
    )

    sbd: str = ""
    """Folder of SBD, whose masks are added to training; empty: VOC alone."""

    @field_validator("sbd")
    @classmethod
    def _whole_path(cls, sbd: str) -> str:
        """So that a run's recipe can be read from anywhere."""
        return os.path.abspath(os.path.expanduser(sbd)) if sbd else sbd

    def find(self, root: Path, progress: Progress) -> Found:
        self.folder(root, "JPEGImages")
        self.folder(root, "SegmentationClass")
        lists = {split: self.list_of(root, f"ImageSets/Segmentation/{split}.txt") for split in ("train", "val")}
        found = Found(TABLE)
        for split, names in lists.items():
            found.pairs += [
                Pair(name, split, root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png")
                for name in names
            ]
        if self.sbd:
            known = {name for names in lists.values() for name in names}
            more = [pair for pair in sbd_pairs(Path(self.sbd), progress) if pair.name not in known]
            found.pairs += [Pair(pair.name, "train", pair.image, pair.mask) for pair in more]
            found.notes.append(f"{len(more)} training masks are SBD's")
            found.split_source = "VOC's lists, and SBD without VOC's val"
        return found


@DATASETS.family("sbd")
class SbdConfig(Published):
    """SBD: masks of VOC's 20 classes for 11,355 images of PASCAL VOC 2011."""

    sheet: ClassVar[Sheet] = Sheet(
        title="SBD",
        source="http://home.bharathh.info/pubs/codes/SBD/download.html",
        licence="none stated; for research",
        classes="21",
        images="8498 train, 2857 val",
        sizes="at most 500 x 500",
        layout="img/ID.jpg, cls/ID.mat, train.txt, val.txt",
        citation='Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011',
        archives=(
            Archive(
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
                1400,
                md5="82b4d87ceb2ed10f6038a1cba92111cb",
            ),
        ),
        folder="benchmark_RELEASE/dataset",
    )

    def find(self, root: Path, progress: Progress) -> Found:
        self.folder(root, "img", "dataset", "benchmark_RELEASE")
        return Found(TABLE, sbd_pairs(root, progress))


def sbd_pairs(root: Path, progress: Progress) -> list[Pair]:
    """Every image of SBD with its mask, converted.

    Raises:
        DataError: this is not SBD's folder.
    """
    below = (root, root / "dataset", root / "benchmark_RELEASE" / "dataset")
    folder = next((path for path in below if (path / "cls").is_dir() and (path / "train.txt").is_file()), None)
    if folder is None:
        raise DataError(
            f"{root}: is not SBD. Expected img/, cls/, train.txt and val.txt, there or in dataset/ or "
            "benchmark_RELEASE/dataset/. `intarsia data download sbd` fetches it."
        )
    converter, pairs = Converter("sbd"), []
    for split in ("train", "val"):
        for name in (folder / f"{split}.txt").read_text().split() if (folder / f"{split}.txt").is_file() else ():
            source = folder / "cls" / f"{name}.mat"
            if not source.is_file():
                raise DataError(f"{source}: does not exist, but {split}.txt lists it. Unpack SBD again.")
            (mask,) = converter.ask(name, [source], ["mask"], partial(_read_mat, source))
            pairs.append(Pair(name, split, folder / "img" / f"{name}.jpg", mask))
    converter.run(progress)
    return pairs


def _read_mat(path: Path) -> list[NDArray[np.uint8]]:
    """The mask (H, W) of a file: GTcls.Segmentation."""
    from scipy.io import loadmat

    try:
        segmentation: Any = loadmat(path)["GTcls"][0]["Segmentation"][0]
        return [np.asarray(segmentation).astype(np.uint8)]
    except Exception as error:  # SciPy raises many kinds
        raise FileError(path, "E_CORRUPT", f"is no mask of SBD ({error}); unpack it again") from None
