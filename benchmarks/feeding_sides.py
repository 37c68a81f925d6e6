"""The sides of feeding.py: frames as files, and what each library makes of them."""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FRAMES, BATCH, CROP = 16, 8, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOUR = 0.25
ALPHA, SIGMA = 50.0, 5.0
CLASSES = 11
SHARED = Path(os.environ.get("INTARSIA_TEST_DATA", Path(__file__).resolve().parents[2] / "shared"))
Pair = tuple[Any, Any]
Call = Callable[[], object]


def write_frames(folder: Path, count: int = FRAMES) -> str:
    """Frames as PNG in images/ and masks/ of `folder`; where they are from."""
    import numpy as np
    from PIL import Image

    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    (folder / "classes.yaml").write_text(f"names: [{', '.join(f'c{k}' for k in range(CLASSES))}]\nignore_index: 255\n")
    found = sorted((SHARED / "data/camvid/train/images").glob("*"))[:: max(1, 360 // count)][:count]
    for number, path in enumerate(found):
        Image.open(path).convert("RGB").save(folder / "images" / f"{number:03d}.png")
        mask = np.asarray(Image.open(SHARED / f"data/camvid/train/masks/{path.stem}.png"))
        Image.fromarray(np.where(mask < CLASSES, mask, 255).astype(np.uint8)).save(
            folder / "masks" / f"{number:03d}.png"
        )
    if found:
        return "CamVid"
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (45, 60, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((480, 360), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "images" / f"{number:03d}.png")
        blocks = rng.integers(0, CLASSES, (15, 20)).astype(np.uint8).repeat(24, 0).repeat(24, 1)
        Image.fromarray(blocks).save(folder / "masks" / f"{number:03d}.png")
    return "drawn"


def paths(folder: Path) -> list[tuple[Path, Path]]:
    """Image and mask files."""
    return [(path, folder / "masks" / path.name) for path in sorted((folder / "images").iterdir())]


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def reader(read: Callable[[Path, Path], Pair], folder: Path, source: str) -> Iterator[Pair]:
    """Frames without end, decoded each time or once."""
    files = paths(folder)
    kept = [read(*each) for each in files] if source == "cache" else []
    for number in itertools.count():
        yield kept[number % FRAMES] if kept else read(*files[number % FRAMES])


def per_sample(frames: Iterator[Pair], alter: Callable[[Any, Any], Pair]) -> Call:
    """A call that alters frames one by one and stacks batches of them."""
    import torch

    def call() -> None:
        for _ in range(FRAMES // BATCH):
            images, masks = zip(*(alter(*next(frames)) for _ in range(BATCH)), strict=True)
            torch.stack(images), torch.stack(masks)

    return call


def albumentations(folder: Path, source: str, *, crop_first: bool) -> Call:
    """OpenCV below, as its documentation reads files."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    one_thread()
    cv2.setNumThreads(1)
    elastic, crop = A.ElasticTransform(alpha=ALPHA, sigma=SIGMA, p=1), A.RandomCrop(CROP, CROP)
    jitter = {"brightness": COLOUR, "contrast": COLOUR, "saturation": 2 * COLOUR}
    steps = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            *([crop, elastic] if crop_first else [elastic, crop]),
            A.ColorJitter(**{key: (1 - value, 1 + value) for key, value in jitter.items()}, hue=(0, 0), p=1),
            A.Normalize(MEAN, STD),
            ToTensorV2(),
        ]
    )

    def read(image: Path, mask: Path) -> Pair:
        pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        return pixels, cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)

    def alter(image: Any, mask: Any) -> Pair:
        altered = steps(image=image, mask=mask)
        return altered["image"], altered["mask"]

    return per_sample(reader(read, folder, source), alter)


def torchvision(folder: Path, source: str, *, crop_first: bool) -> Call:
    """Transforms v2 on uint8 tensors, the quicker of its two ways."""
    import torch
    from torchvision import tv_tensors
    from torchvision.io import ImageReadMode, read_image
    from torchvision.transforms import v2

    one_thread()
    elastic, crop = v2.ElasticTransform(alpha=ALPHA, sigma=SIGMA), v2.RandomCrop(CROP)
    steps = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            *([crop, elastic] if crop_first else [elastic, crop]),
            v2.ColorJitter(COLOUR, COLOUR, 2 * COLOUR),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def read(image: Path, mask: Path) -> Pair:
        return (
            tv_tensors.Image(read_image(str(image), ImageReadMode.RGB)),
            tv_tensors.Mask(read_image(str(mask), ImageReadMode.UNCHANGED)[0]),
        )

    return per_sample(reader(read, folder, source), steps)


def kornia(folder: Path, source: str, *, crop_first: bool) -> Call:
    """On batches, as it is meant to be used; files by its own decoder."""
    import kornia.augmentation as K
    import kornia_rs
    import torch
    from kornia.constants import DataKey, Resample

    warnings.simplefilter("ignore")  # kornia's own, on align_corners
    one_thread()
    side = 2 * int(4 * SIGMA) + 1
    extent = CROP if crop_first else 480
    elastic = K.RandomElasticTransform((side, side), (SIGMA, SIGMA), (2 * ALPHA / extent,) * 2, p=1.0)
    crop = K.RandomCrop((CROP, CROP))
    steps = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        *([crop, elastic] if crop_first else [elastic, crop]),
        K.ColorJiggle(COLOUR, COLOUR, 2 * COLOUR, p=1.0),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input", "mask"],
        extra_args={DataKey.MASK: {"resample": Resample.NEAREST, "align_corners": None}},
    )

    def decode(path: Path, mode: str) -> Any:
        return torch.from_numpy(kornia_rs.read_image_png_u8(str(path), mode))

    def read(image: Path, mask: Path) -> Pair:
        return decode(image, "rgb").permute(2, 0, 1), decode(mask, "mono").permute(2, 0, 1)

    frames = reader(read, folder, source)

    def call() -> None:
        for _ in range(FRAMES // BATCH):
            images, masks = zip(*(next(frames) for _ in range(BATCH)), strict=True)
            altered, classes = steps(torch.stack(images).float() / 255, torch.stack(masks).float())
            altered, classes[:, 0].to(torch.uint8)

    return call


def feeder(folder: Path, source: str) -> Any:
    """Ours, as training has it."""
    from intarsia.data import FolderConfig
    from intarsia.images.preprocess import Preprocess
    from intarsia.progress import Silent
    from intarsia.training.feed import Feeder
    from intarsia.transforms.pipeline import AugmentConfig

    one_thread()
    dataset = FolderConfig(path=str(folder), val_share=0, test_share=0).open(Silent())
    return Feeder(
        dataset=dataset,
        items=tuple(sorted({item for items in dataset.splits.values() for item in items}, key=lambda item: item.name)),
        size=(CROP, CROP),
        augment=AugmentConfig(zoom=(1, 1), aspect=1, mirror="horizontal", elastic=10, colour=COLOUR),
        preprocess=Preprocess(mean=MEAN, std=STD),
        batch=BATCH,
        seed=0,
        workers=0,
        cache={"files": "off", "cache": "memory"}[source],
    )


def ours(folder: Path, source: str, *, compiled: bool) -> Call:
    """The training feeder; without compiled parts it is plain torch."""
    os.environ["INTARSIA_KERNEL"] = "1" if compiled else "0"
    batches = feeder(folder, source).batches(0)

    def call() -> None:
        for _ in range(FRAMES // BATCH):
            next(batches)

    return call


SIDES: dict[str, Callable[..., Call]] = {
    "albumentations": functools.partial(albumentations, crop_first=False),
    "albumentations_crop_first": functools.partial(albumentations, crop_first=True),
    "torchvision": functools.partial(torchvision, crop_first=False),
    "torchvision_crop_first": functools.partial(torchvision, crop_first=True),
    "kornia": functools.partial(kornia, crop_first=False),
    "kornia_crop_first": functools.partial(kornia, crop_first=True),
    "ours_plain": functools.partial(ours, compiled=False),
    "ours": functools.partial(ours, compiled=True),
}
