"""BDD100K, semantic segmentation (the 10K images).

Source: https://www.vis.xyz/bdd100k/ , https://doc.bdd100k.com/ . Licence: like BSD, for education, research and non-profit.
Classes: the 19 of Cityscapes, as train ids; 255 ignored. Images: 7000 train, 1000 val; the 2000 test masks are kept by the
organisers. Most of them are not among the 100K. Sizes: 720 x 1280.
Layout: images/10k/{train,val}/ID.jpg, labels/sem_seg/masks/{train,val}/ID.png; also the older release,
seg/images/{train,val}/ID.jpg with seg/labels/{train,val}/ID_train_id.png. An image without mask is refused.
Citation: Yu et al., "BDD100K: A Diverse Driving Dataset for Heterogeneous Multitask Learning", CVPR 2020.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from intarsia.data.base import DATASETS
from intarsia.data.published.base import Found, Published, images_below, pairs_of
from intarsia.data.published.cityscapes import TRAIN_IDS
from intarsia.data.published.sheet import Sheet
from intarsia.progress import Progress


@DATASETS.family("bdd100k")
class Bdd100kConfig(Published):
    """BDD100K: streets of the United States, Cityscapes' 19 classes, 720 x 1280."""

    sheet: ClassVar[Sheet] = Sheet(
        title="BDD100K",
        source="https://www.vis.xyz/bdd100k/",
        licence="like BSD: education, research, non-profit",
        classes="19",
        images="7000 train, 1000 val",
        sizes="720 x 1280",
        layout="images/10k/{train,val}/ID.jpg and labels/sem_seg/masks/{train,val}/ID.png",
        citation='Yu et al., "BDD100K: A Diverse Driving Dataset for Heterogeneous Multitask Learning", CVPR 2020',
        steps=(
            "Read the licence at https://doc.bdd100k.com/license.html and accept it.",
            (
                "Download bdd100k_images_10k.zip (1.1 GB, md5 08f26aecceda982568063d3d5873378e) and "
                "bdd100k_sem_seg_labels_trainval.zip (419 MB, md5 9a2968dde3345eeb689cffb1e26f9c78); "
                "https://doc.bdd100k.com/download.html links both."
            ),
            "Unpack both; the folder wanted is bdd100k/, which holds images/10k/ and labels/sem_seg/.",
        ),
        folder="bdd100k",
    )

    def find(self, root: Path, progress: Progress) -> Found:
        images = self.folder(root, "images/10k", "seg/images")
        old = images.parent.name == "seg"
        masks = self.folder(root, "seg/labels" if old else "labels/sem_seg/masks")
        ending = "_train_id.png" if old else ".png"
        found = Found(TRAIN_IDS)
        for split in ("train", "val"):
            there = images_below(images / split, "*.jpg")
            found.pairs += pairs_of(there, images / split, split, lambda p: masks / p.parent.name / f"{p.stem}{ending}")
        return found
