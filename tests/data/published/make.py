"""Few-pixel fakes of the published data sets: the true folders, names and file formats, and the odd cases of each.

`python -m tests.data.published.make NAME DIR` writes one to look at.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

SIZE = (24, 32)
Array = np.ndarray[Any, Any]


@dataclass
class Fake:
    """What was made: settings beside the path, and the class numbers that must come out."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, dict[str, Array]] = field(default_factory=dict)
    """Split ("" where it is drawn) to name to expected mask."""
    classes: int = 2

    def expect(self, split: str, name: str, classes: Array) -> None:
        self.masks.setdefault(split, {})[name] = classes.astype(np.uint8)


FAKES: dict[str, Callable[[Path], Fake]] = {}


def fake(name: str) -> Callable[[Callable[[Path], Fake]], Callable[[Path], Fake]]:
    def register(make: Callable[[Path], Fake]) -> Callable[[Path], Fake]:
        FAKES[name] = make
        return make

    return register


def save(path: Path, array: Array, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def photo(path: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    return save(path, np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def pick(seed: int, values: list[int], size: tuple[int, int] = SIZE) -> tuple[Array, Array]:
    """Places of a random mask: the drawn values (H, W), and which of `values` each is."""
    which = np.random.default_rng(1000 + seed).integers(0, len(values), size)
    return np.array(values, np.uint8)[which], which


def indexed(path: Path, values: Array) -> None:
    """A palette PNG whose colours mislead whoever converts them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    image.putpalette([(255 - i // 3) for i in range(768)])
    image.save(path)


@fake("voc2012")
def voc2012(root: Path) -> Fake:
    made, home = Fake(root, classes=21), root / "VOCdevkit" / "VOC2012"
    lists = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
    (home / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        (home / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n\n")
        for seed, name in enumerate(names):
            photo(home / "JPEGImages" / f"{name}.jpg", seed)
            values, which = pick(seed, [0, 1, 20, 255])
            indexed(home / "SegmentationClass" / f"{name}.png", values)
            made.expect(split, name, np.array([0, 1, 20, 255])[which])
    photo(home / "JPEGImages" / "2007_000001.jpg", 9)  # not in the segmentation lists
    return made


@fake("sbd")
def sbd(root: Path) -> Fake:
    from scipy.io import savemat

    made, home = Fake(root, classes=21), root / "benchmark_RELEASE" / "dataset"
    (home / "cls").mkdir(parents=True)
    for split, names in {"train": ["2008_000002", "2007_000039"], "val": ["2007_000033"]}.items():
        (home / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for seed, name in enumerate(names):
            photo(home / "img" / f"{name}.jpg", seed)
            values, _ = pick(seed + 5, [0, 7, 15])
            content = np.zeros((1,), [("Boundaries", "O"), ("Segmentation", "O"), ("CategoriesPresent", "O")])
            content[0] = (np.zeros((20, 1)), values, np.array([7, 15]))
            savemat(home / "cls" / f"{name}.mat", {"GTcls": content})
            made.expect(split, name, values)
    return made


@fake("coco_stuff")
def coco_stuff(root: Path) -> Fake:
    made = Fake(root, classes=171)
    for split, count in (("train", 2), ("val", 1)):
        for seed in range(count):
            name = f"{seed + 139:012d}"
            photo(root / "images" / f"{split}2017" / f"{name}.jpg", seed)
            values, which = pick(seed, [0, 12, 91, 181, 255])  # person, stop sign, banner, wood, unlabelled
            save(root / "stuffthingmaps" / f"{split}2017" / f"{name}.png", values)
            made.expect(split, f"{split}/{name}", np.array([0, 11, 80, 170, 255])[which])
    return made


@fake("bdd100k")
def bdd100k(root: Path) -> Fake:
    made, home = Fake(root, classes=19), root / "bdd100k"
    for split, names in {"train": ["0004a4c0-d4dff0ad", "00054602-3bf57337"], "val": ["7d2f7975-e0c1c5a7"]}.items():
        for seed, name in enumerate(names):
            photo(home / "images" / "10k" / split / f"{name}.jpg", seed)
            values, _ = pick(seed, [0, 13, 18, 255])
            save(home / "labels" / "sem_seg" / "masks" / split / f"{name}.png", values)
            made.expect(split, name, values)
    photo(home / "images" / "10k" / "test" / "ac6d4f42-00000000.jpg", 8)
    return made


@fake("camvid")
def camvid(root: Path) -> Fake:
    made = Fake(root, classes=11)
    for split, names in {
        "train": ["0001TP_006690", "0016E5_00390"],
        "val": ["0016E5_07959"],
        "test": ["Seq05VD_f00000"],
    }.items():
        for seed, name in enumerate(names):
            photo(root / split / f"{name}.png", seed)
            values, which = pick(seed, [0, 3, 10, 11])
            save(root / f"{split}annot" / f"{name}.png", values)
            made.expect(split, f"{split}/{name}", np.array([0, 3, 10, 255])[which])
    return made


@fake("camvid32")
def camvid32(root: Path) -> Fake:
    made = Fake(root, classes=31)
    colours = np.array(
        [(0, 0, 0), (64, 128, 64), (128, 128, 128), (64, 192, 0)], np.uint8
    )  # Void, Animal, Sky (grey), Wall
    names = {
        "train": ["0001TP_008520", "0016E5_07920"],
        "val": ["0016E5_07961"],
        "test": ["0001TP_008550", "Seq05VD_f05100"],
    }
    for split in names:
        for seed, name in enumerate(names[split]):
            photo(root / "701_StillsRaw_full" / f"{name}.png", seed)
            _, which = pick(seed, [0, 1, 2, 3])
            save(root / "LabeledApproved_full" / f"{name}_L.png", colours[which])
            made.expect(split, name, np.array([255, 0, 21, 30])[which])
    return made


@fake("cityscapes")
def cityscapes(root: Path) -> Fake:
    made = Fake(root, classes=19)
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "frankfurt"), ("test", "berlin")):
        stem = f"{city}_000000_000019"
        photo(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", len(city))
        values, which = pick(len(city), [0, 7, 18, 26, 33])  # unlabelled, road, polegroup, car, bicycle
        for kind in ("labelIds", "instanceIds", "color"):
            save(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", values)
        if split != "test":
            made.expect(split, f"{city}/{stem}_leftImg8bit", np.array([255, 0, 255, 13, 18])[which])
    return made


def mapillary(root: Path, version: str, names: list[str]) -> Fake:
    made = Fake(root, classes=len(names) - 1)
    labels = [
        {"name": f"a--{n.lower()}--{i}", "readable": n, "color": [i, 2 * i, 3 * i], "evaluate": n != "Unlabeled"}
        for i, n in enumerate(names, 1)
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / f"config_v{version}.json").write_text(json.dumps({"labels": labels, "version": version}))
    for split, folder, count in (("train", "training", 2), ("val", "validation", 1)):
        for seed in range(count):
            name = f"{split}-{seed}_AbC"
            photo(root / folder / "images" / f"{name}.jpg", seed)
            values, which = pick(seed, list(range(len(names))))
            indexed(root / folder / f"v{version}" / "labels" / f"{name}.png", values)
            made.expect(split, name, np.array([*range(len(names) - 1), 255])[which])
    photo(root / "testing" / "images" / "hidden.jpg", 7)
    return made


@fake("mapillary_vistas")
def mapillary12(root: Path) -> Fake:
    return mapillary(root, "1.2", ["Bird", "Car", "Sky", "Unlabeled"])


@fake("mapillary_vistas2")
def mapillary20(root: Path) -> Fake:
    return mapillary(root, "2.0", ["Bird", "Pole", "Pole", "Unlabeled"])  # two classes of one readable name


@fake("apolloscape")
def apolloscape(root: Path) -> Fake:
    made = Fake(root, classes=22)
    for record in ("Record001", "Record002", "Record003"):
        for camera in ("Camera 5", "Camera 6"):
            stem = f"170908_061502408_{camera.replace(' ', '_')}"
            photo(root / "road01_ins" / "ColorImage" / record / camera / f"{stem}.jpg", len(made.masks))
            values, which = pick(int(record[-1]), [0, 17, 161, 33, 113, 255])
            save(root / "road01_ins" / "Label" / record / camera / f"{stem}_bin.png", values)
            name = f"road01_ins/{record}/{camera}/{stem}"
            made.expect("", name, np.array([255, 0, 1, 1, 21, 255])[which])
    photo(root / "road01_ins" / "ColorImage" / "Record009" / "Camera 5" / "unlabelled.jpg", 3)
    return made


@fake("dsb2018")
def dsb2018(root: Path) -> Fake:
    made = Fake(root)
    for number in range(4):
        home = root / "stage1_train" / f"{number:02d}ae65c1c6"
        grey = np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)
        rgba = np.stack([grey, grey, grey, np.full(SIZE, 255, np.uint8)], axis=-1)  # grey images stored with alpha
        save(home / "images" / f"{home.name}.png", rgba)
        objects = np.zeros((3, *SIZE), np.uint8)
        objects[0, 2:8, 2:8] = objects[1, 7:12, 7:15] = objects[2, 15:22, 20:30] = (
            255  # the first two overlap in a pixel
        )
        for index, pixels in enumerate(objects):
            save(home / "masks" / f"{index}f{number}.png", pixels)
        made.expect("", home.name, objects.any(axis=0))
    return made


@fake("carvana")
def carvana(root: Path) -> Fake:
    made = Fake(root, classes=2)
    for car in ("00087a6bd4dc", "02159e548029", "03a857ce842d", "0495dcf27283"):
        for side in ("01", "02", "16"):
            photo(root / "train" / f"{car}_{side}.jpg", int(side))
            values, _ = pick(int(side), [0, 1])
            indexed_gif(root / "train_masks" / f"{car}_{side}_mask.gif", values)
            made.expect("", f"{car}_{side}", values)
    return made


def indexed_gif(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    image.putpalette([0, 0, 0, 255, 255, 255] + [0] * 762)
    image.save(path, optimize=False)


PLANAR: dict[str, dict[str, str]] = {kind: {"planarconfig": "separate"} if kind != "P" else {} for kind in "MAP"}


@fake("dstl")
def dstl(root: Path) -> Fake:
    made = Fake(root, classes=11)
    height, width = SIZE
    (root / "sixteen_band").mkdir(parents=True)
    (root / "three_band").mkdir(parents=True)
    wkt, grids = ["ImageId,ClassType,MultipolygonWKT"], ["ImageId,Xmax,Ymin"]
    for region in ("6010_1_2", "6040_2_2", "6060_2_3"):
        photo(root / "three_band" / f"{region}.tif", int(region[:4]))
        rng = np.random.default_rng(int(region[:4]))
        for kind, size in (("M", (8, height // 4, width // 4)), ("A", (8, 3, 4)), ("P", (height - 1, width + 1))):
            values = rng.integers(0, 2048, size, dtype=np.uint16)
            tifffile.imwrite(
                root / "sixteen_band" / f"{region}_{kind}.tif", values, photometric="minisblack", **PLANAR[kind]
            )
        grids.append(f"{region},0.009,-0.009")

        def box(top: float, left: float, bottom: float, right: float) -> str:
            """Corners in pixels as a ring in the competition's coordinates, y down to negative."""
            across, down = 0.009 * (width + 1) / width**2, -0.009 * (height + 1) / height**2
            places = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            return "(" + ", ".join(f"{x * across:.12f} {y * down:.12f}" for x, y in places) + ")"

        crops = f"MULTIPOLYGON (({box(2, 2, 20, 20)}, {box(5, 5, 9, 9)}), ({box(21, 25, 23, 31)}))"  # with a hole
        car = f"MULTIPOLYGON (({box(10, 10, 12, 12)}))"
        rows = {6: crops, 10: car}
        wkt += [f'{region},{number},"{rows.get(number, "MULTIPOLYGON EMPTY")}"' for number in range(1, 11)]
        expected = np.zeros(SIZE, np.uint8)
        expected[2:20, 2:20] = expected[21:23, 25:31] = 6
        expected[5:9, 5:9] = 0
        expected[10:12, 10:12] = 10
        made.expect("", region, expected)
    photo(root / "three_band" / "6120_0_0.tif", 5)  # without polygons
    (root / "train_wkt_v4.csv").write_text("\n".join(wkt))
    (root / "grid_sizes.csv").write_text("\n".join(grids))
    return made


@fake("isbi2012")
def isbi2012(root: Path) -> Fake:
    made = Fake(root)
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    volume = [rng.integers(0, 256, SIZE, dtype=np.uint8) for _ in range(5)]
    labels = [(page > 60).astype(np.uint8) * 255 for page in volume]
    for name, pages in (("train-volume", volume), ("train-labels", labels), ("test-volume", volume[:2])):
        first, *rest = (Image.fromarray(page) for page in pages)
        first.save(root / f"{name}.tif", save_all=True, append_images=rest)
    for number, page in enumerate(labels):
        made.expect("train" if number < 4 else "val", f"{number:02d}", page == 0)
    return made


@fake("oxford_pet")
def oxford_pet(root: Path) -> Fake:
    made = Fake(root)
    names = {"trainval": ["Abyssinian_100", "yorkshire_terrier_9", "Bombay_1"], "test": ["Egyptian_Mau_14"]}
    (root / "annotations").mkdir(parents=True)
    for file, listed in names.items():
        text = "#Image CLASS-ID SPECIES BREED ID\n" + "".join(f"{name} 1 1 1\n" for name in listed)
        (root / "annotations" / f"{file}.txt").write_text(text)
        for seed, name in enumerate(listed):
            photo(root / "images" / f"{name}.jpg", seed)
            values, which = pick(seed, [1, 2, 3])
            save(root / "annotations" / "trimaps" / f"{name}.png", values)
            made.expect("train" if file == "trainval" else "test", name, np.array([1, 0, 255])[which])
    (root / "annotations" / "trimaps" / "._Bombay_1.png").write_bytes(b"Mac OS X")
    (root / "images" / "Bombay_1.mat").write_bytes(b"MATLAB")
    return made


@fake("ade20k")
def ade20k(root: Path) -> Fake:
    made, home = Fake(root, classes=150), root / "ADEChallengeData2016"
    for split, folder, count in (("train", "training", 2), ("val", "validation", 1)):
        for seed in range(count):
            name = f"ADE_{split}_{seed + 1:08d}"
            photo(home / "images" / folder / f"{name}.jpg", seed)
            values, which = pick(seed, [0, 1, 150])
            save(home / "annotations" / folder / f"{name}.png", values)
            made.expect(split, name, np.array([255, 0, 149])[which])
    (home / "objectInfo150.txt").write_text("Idx\tRatio\n")
    return made


if __name__ == "__main__":
    FAKES[sys.argv[1]](Path(sys.argv[2]))
