"""Cityscapes, fine annotations.

Source: https://www.cityscapes-dataset.com/ . Licence: its own, for non-commercial research, after registration. Classes: 34
ids (and license plate, -1, which is not drawn), of which 19 are trained and scored; the others are ignored. Images: 2975
train, 500 val; the 1525 test masks are kept by the organisers. Sizes: 1024 x 2048.
Layout: leftImg8bit/{train,val}/CITY/CITY_SEQ_FRAME_leftImg8bit.png, gtFine/{train,val}/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png.
Where labelIds are missing, labelTrainIds (0..18, 255 ignored) are read. Names, ids and colours are those of the authors'
cityscapesScripts (helpers/labels.py). gtCoarse, and instanceIds (they mix ids of classes and of objects), are not read.
Citation: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from intarsia.classes import ClassTable, Colour
from intarsia.data.base import DATASETS
from intarsia.data.published.base import Found, Published, images_below, pairs_of, value_table
from intarsia.data.published.sheet import Sheet
from intarsia.progress import Progress

# id, name, colour; in the order of the train ids 0..18
CLASSES: tuple[tuple[int, str, Colour], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
NAMES = tuple(name for _, name, _ in CLASSES)
COLORS = tuple(colour for _, _, colour in CLASSES)
LABEL_IDS = value_table(NAMES, dict.fromkeys((*range(34), 255), "ignore") | {i: name for i, name, _ in CLASSES}, COLORS)
TRAIN_IDS = ClassTable(names=NAMES, colors=COLORS, ignore_index=255)


@DATASETS.family("cityscapes")
class CityscapesConfig(Published):
    """Cityscapes: streets of 50 cities, 19 classes, 1024 x 2048."""

    sheet: ClassVar[Sheet] = Sheet(
        title="Cityscapes",
        source="https://www.cityscapes-dataset.com/",
        licence="its own: non-commercial research, after registration",
        classes="19 (of 34 ids)",
        images="2975 train, 500 val",
        sizes="1024 x 2048",
        layout="leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and gtFine/{train,val}/CITY/*_gtFine_labelIds.png",
        citation='Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016',
        steps=(
            "Register at https://www.cityscapes-dataset.com/register/ and accept the licence.",
            "Download leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB).",
            "Unpack both into one folder, so that leftImg8bit/ and gtFine/ lie side by side.",
        ),
    )

    def find(self, root: Path, progress: Progress) -> Found:
        images, masks = self.folder(root, "leftImg8bit"), self.folder(root, "gtFine")
        kind = "labelIds" if any(masks.glob("*/*/*_gtFine_labelIds.png")) else "labelTrainIds"
        found = Found(LABEL_IDS if kind == "labelIds" else TRAIN_IDS)

        def mask_of(image: Path) -> Path:
            stem = image.name.removesuffix("_leftImg8bit.png")
            return masks / image.parent.relative_to(images) / f"{stem}_gtFine_{kind}.png"

        for split in ("train", "val"):
            found.pairs += pairs_of(images_below(images / split, "*/*_leftImg8bit.png"), images / split, split, mask_of)
        if kind == "labelTrainIds":
            found.notes.append("gtFine has no labelIds; labelTrainIds are read")
        return found
