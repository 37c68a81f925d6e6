"""COCO-Stuff 164k: every pixel of COCO 2017, things and stuff.

Source: https://github.com/nightrome/cocostuff . Licence: annotations CC BY 4.0; the photographs are under Flickr's terms.
Classes: 171 (80 things, 91 stuff); 255, unlabelled, is ignored. Images: 118,287 train, 5000 val. Sizes: at most 640 x 640.
Layout: images/{train,val}2017/ID.jpg (or {train,val}2017/ directly) with stuffthingmaps/{train,val}2017/ID.png (or
annotations/, or beside the images' folder); the value is the class's id in labels.txt - 1, so 0..181; the ids 12, 26, 29, 30,
45, 66, 68, 69, 71, 83 and 91 are never drawn. The `pixelmaps` variant (92..183) is another format and is refused by its values.
Names are those of the authors' labels.txt; colours are our own.
Citation: Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

from intarsia.data.base import DATASETS
from intarsia.data.published.base import Found, Published, images_below, pairs_of, png_in, value_table
from intarsia.data.published.sheet import Archive, Sheet
from intarsia.progress import Progress

_LABELS = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign, stop
sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat, backpack,
umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl,
banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush,
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile,
cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other,
hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow,
plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea,
shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other,
towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-
other, waterdrops, window-blind, window-other, wood
"""
"""labels.txt from id 1 on."""
NOT_DRAWN = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
"""Ids that COCO gave and never used."""
IDS = {number: " ".join(name.split()) for number, name in enumerate(_LABELS.split(","), 1) if number not in NOT_DRAWN}
TABLE = value_table(IDS.values(), {number - 1: name for number, name in IDS.items()} | {255: "ignore"})


@DATASETS.family("coco_stuff")
class CocoStuffConfig(Published):
    """COCO-Stuff 164k: photographs of everyday scenes, 80 things and 91 stuff classes."""

    sheet: ClassVar[Sheet] = Sheet(
        title="COCO-Stuff 164k",
        source="https://github.com/nightrome/cocostuff",
        licence="annotations CC BY 4.0; Flickr's terms hold for the photographs",
        classes="171",
        images="118,287 train, 5000 val",
        sizes="at most 640 x 640",
        layout="images/{train,val}2017/ID.jpg and stuffthingmaps/{train,val}2017/ID.png",
        citation='Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018',
        archives=(
            Archive("http://images.cocodataset.org/zips/train2017.zip", 18000, into="images"),
            Archive("http://images.cocodataset.org/zips/val2017.zip", 1000, into="images"),
            Archive(
                "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
                659,
                into="stuffthingmaps",
            ),
        ),
    )

    def find(self, root: Path, progress: Progress) -> Found:
        found = Found(TABLE)
        for split in ("train", "val"):
            part = f"{split}2017"
            images = self.folder(root, f"images/{part}", part)
            masks = self.folder(
                root, f"stuffthingmaps/{part}", f"stuffthingmaps_trainval2017/{part}", f"annotations/{part}"
            )
            there = images_below(images, "*.jpg")
            found.pairs += pairs_of(there, images, split, partial(png_in, masks))
        return found
