"""Oxford-IIIT Pet, the trimaps.

Source: https://www.robots.ox.ac.uk/~vgg/data/pets/ . Licence: CC BY-SA 4.0. Classes: background, pet; the border that the
trimap leaves open (3) is ignored, a class of its own, or pet, by `border`. Images: 3680 trainval, 3669 test; validation is
drawn from trainval. Sizes: varied, about 500 x 400.
Layout: images/NAME.jpg, annotations/trimaps/NAME.png (1 pet, 2 background, 3 border), annotations/{trainval,test}.txt.
The archives also hold .mat files and hidden ._NAME.png files, which the lists leave out.
Citation: Parkhi et al., "Cats and Dogs", CVPR 2012.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from intarsia.data.base import DATASETS
from intarsia.data.layout import Pair
from intarsia.data.published.base import Found, Published, value_table
from intarsia.data.published.sheet import Archive, Sheet
from intarsia.progress import Progress

_PLACE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"


@DATASETS.family("oxford_pet")
class OxfordPetConfig(Published):
    """Oxford-IIIT Pet: cats and dogs, trimaps."""

    sheet: ClassVar[Sheet] = Sheet(
        title="Oxford-IIIT Pet",
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        licence="CC BY-SA 4.0",
        classes="2 (3 with the border)",
        images="3680 trainval, 3669 test",
        sizes="varied",
        layout="images/NAME.jpg, annotations/trimaps/NAME.png, annotations/{trainval,test}.txt",
        citation='Parkhi et al., "Cats and Dogs", CVPR 2012',
        archives=(
            Archive(f"{_PLACE}images.tar.gz", 790, md5="5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            Archive(f"{_PLACE}annotations.tar.gz", 19, md5="95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
    )

    border: Literal["ignore", "border", "pet"] = "ignore"
    """What the trimap's open border is: not counted, a class of its own, or part of the pet."""

    def find(self, root: Path, progress: Progress) -> Found:
        self.folder(root, "images")
        self.folder(root, "annotations/trimaps")
        names = ("background", "pet", "border") if self.border == "border" else ("background", "pet")
        colors = ((0, 0, 0), (0, 114, 178), (230, 159, 0))[: len(names)]
        found = Found(value_table(names, {1: "pet", 2: "background", 3: self.border}, colors))
        for split, file in (("train", "trainval"), ("test", "test")):
            for name in self.list_of(root, f"annotations/{file}.txt"):
                image, mask = root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png"
                found.pairs.append(Pair(name, split, image, mask))
        return found
