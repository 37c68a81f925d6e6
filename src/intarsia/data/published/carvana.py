"""Carvana Image Masking Challenge (Kaggle, 2017).

Source: https://www.kaggle.com/c/carvana-image-masking-challenge . Licence: the competition's rules. Classes: background, car.
Images: 5088 train, 318 cars seen from 16 sides; the 100,064 test masks are not published. Sizes: 1280 x 1918.
Layout: train/CAR_NN.jpg, train_masks/CAR_NN_mask.gif (index 1 is the car); also train_hq/. The sides of one car stay together
(`group`), since they are nearly the same picture. No split is published: it is drawn.
Citation: Shaler et al., "Carvana Image Masking Challenge", Kaggle, 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from intarsia.data.base import DATASETS
from intarsia.data.published.base import Found, Published, images_below, pairs_of, value_table
from intarsia.data.published.sheet import Sheet
from intarsia.progress import Progress

TABLE = value_table(("background", "car"), {0: "background", 1: "car", 255: "car"}, ((0, 0, 0), (0, 114, 178)))


@DATASETS.family("carvana")
class CarvanaConfig(Published):
    """Carvana: cars before a studio wall, 318 cars from 16 sides, 1280 x 1918."""

    sheet: ClassVar[Sheet] = Sheet(
        title="Carvana",
        source="https://www.kaggle.com/c/carvana-image-masking-challenge",
        licence="the competition's rules",
        classes="2",
        images="5088, no split",
        sizes="1280 x 1918",
        layout="train/CAR_NN.jpg and train_masks/CAR_NN_mask.gif",
        citation='Shaler et al., "Carvana Image Masking Challenge", Kaggle, 2017',
        steps=(
            "Accept the rules at https://www.kaggle.com/c/carvana-image-masking-challenge/rules (an account is needed).",
            (
                "Download train.zip and train_masks.zip, on the page or with "
                "`kaggle competitions download -c carvana-image-masking-challenge`."
            ),
            "Unpack both into one folder, so that train/ and train_masks/ lie side by side.",
        ),
    )

    group: str | None = r"^([^_]+)_"
    """Regular expression on the images' names; the sides of one car stay on one side of the split."""

    def find(self, root: Path, progress: Progress) -> Found:
        images, masks = self.folder(root, "train", "train_hq"), self.folder(root, "train_masks")
        there = images_below(images, "*.jpg")
        return Found(TABLE, pairs_of(there, images, None, lambda path: masks / f"{path.stem}_mask.gif"))
