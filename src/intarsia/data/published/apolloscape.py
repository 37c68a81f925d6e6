"""ApolloScape, scene parsing.

Source: https://apolloscape.auto/scene.html , https://github.com/ApolloScapeAuto/dataset-api . Licence: education only, no
commercial use. Classes: 22 train ids; others, rover, bridge, tunnel, overpass and unlabelled are ignored, groups of objects
count as their objects. Images: 146,997 frames. Sizes: 2710 x 3384.
Layout: roadNN_{ins,seg}/ColorImage/RECORD/CAMERA/STAMP_CAMERA.jpg with roadNN_{ins,seg}/Label/RECORD/CAMERA/
STAMP_CAMERA_bin.png; also ColorImage/roadNN_.../ and Label/roadNN_.../, as the authors' page writes it.
Ids and train ids are those of the authors' page (scene_parsing/README.md); names are mended where it misspells them
(motorcycle, sidewalk, vegetation). Colours are our own: theirs are in an archive that was not seen. The authors' lists of the
split are another archive, whose form was not seen: the split is drawn, with the frames of one record together (`group`).
Citation: Huang et al., "The ApolloScape Dataset for Autonomous Driving", arXiv:1803.06184.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from intarsia.data.base import DATASETS
from intarsia.data.layout import Pair
from intarsia.data.published.base import Found, Published, images_below, value_table
from intarsia.data.published.sheet import Archive, Sheet
from intarsia.progress import Progress

# name: ids, in the order of the train ids 0..21; the second id is that of a group
CLASSES: dict[str, tuple[int, ...]] = {
    "sky": (17,),
    "car": (33, 161),
    "motorcycle": (34, 162),
    "bicycle": (35, 163),
    "person": (36, 164),
    "rider": (37, 165),
    "truck": (38, 166),
    "bus": (39, 167),
    "tricycle": (40, 168),
    "road": (49,),
    "sidewalk": (50,),
    "traffic cone": (65,),
    "road pile": (66,),
    "fence": (67,),
    "traffic light": (81,),
    "pole": (82,),
    "traffic sign": (83,),
    "wall": (84,),
    "dustbin": (85,),
    "billboard": (86,),
    "building": (97,),
    "vegetation": (113,),
}
IGNORED = (0, 1, 98, 99, 100, 255)
TABLE = value_table(
    CLASSES, {value: name for name, ids in CLASSES.items() for value in ids} | dict.fromkeys(IGNORED, "ignore")
)


@DATASETS.family("apolloscape")
class ApolloScapeConfig(Published):
    """ApolloScape: streets of China, 22 classes, 2710 x 3384."""

    sheet: ClassVar[Sheet] = Sheet(
        title="ApolloScape",
        source="https://apolloscape.auto/scene.html",
        licence="education only, no commercial use",
        classes="22 (of 35 ids)",
        images="146,997, no split",
        sizes="2710 x 3384",
        layout="roadNN_ins/ColorImage/RECORD/CAMERA/*.jpg and roadNN_ins/Label/RECORD/CAMERA/*_bin.png",
        citation='Huang et al., "The ApolloScape Dataset for Autonomous Driving", arXiv:1803.06184',
        archives=tuple(
            Archive(f"https://ad-apolloscape.cdn.bcebos.com/road{part}.tar.gz", 0)
            for part in ("01_ins", "02_ins", "03_ins", "04_ins", "02_seg", "03_seg", "04_seg")
        ),
    )

    group: str | None = r"^(.*/)?(?=[^/]+/[^/]+$)"
    """Regular expression on the images' names; the frames of one record stay on one side of the split."""

    def find(self, root: Path, progress: Progress) -> Found:
        found, unlabelled = Found(TABLE), 0
        places = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
        for images in (place / "ColorImage" for place in places if (place / "ColorImage").is_dir()):
            masks = images.parent / "Label"
            for path in images_below(images, "**/*.jpg"):
                inner = path.relative_to(images).with_suffix("")
                mask = masks / inner.parent / f"{inner.name}_bin.png"
                if mask.is_file():
                    name = (images.parent.relative_to(root) / inner).as_posix()
                    found.pairs.append(Pair(name, None, path, mask))
                else:
                    unlabelled += 1
        if unlabelled:
            found.notes.append(f"{unlabelled} images without published labels are left out")
        return found
