"""An image file to a class-map file: our `predict` against segmentation_models.pytorch's U-Net with the same encoder.

Both: tf_efficientnet_lite0, decoder 256-128-64-32-16, random weights, the same drawn 360 x 480 PNG, written as PNG of the
image's own size. `smp` is what its users write: eager float32, the image padded to a multiple of 32, because that network
takes no other size. `ours` is `intarsia predict` (bf16 where the processor computes it); `ours_fp32` the same in float32.

    pip install -c constraints.txt '.[bench]' && python benchmarks/predict.py
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from side_by_side import compare

ENCODER, CLASSES = "tf_efficientnet_lite0", 11


def draw(path: Path, height: int, width: int) -> None:
    """A picture with shapes and grain, so that decoding costs what a photograph's does."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(rows / (9 + k) + columns / (17 - k)) for k in range(3)]
    picture = np.stack(waves, -1) + rng.normal(0, 6, (height, width, 3))
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path)


def smp_side(image: Path, out: Path) -> Callable[[], object]:
    """The peer: decode, normalise, pad, network, argmax, crop, write."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    model = smp.Unet(f"tu-{ENCODER}", encoder_weights=None, classes=CLASSES).eval()

    @torch.inference_mode()
    def call() -> None:
        pixels = np.asarray(Image.open(image).convert("RGB"))
        x = (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
        height, width = pixels.shape[:2]
        x = torch.nn.functional.pad(x[None], (0, -width % 32, 0, -height % 32))
        classes = model(x).argmax(1)[0, :height, :width].to(torch.uint8).numpy()
        Image.fromarray(classes).save(out / "smp.png")

    return call


def our_side(image: Path, out: Path, *, precision: str) -> Callable[[], object]:
    """`load` and `predict` of a saved model."""
    from intarsia.classes import ClassTable
    from intarsia.images.files import write_class_map
    from intarsia.images.preprocess import Preprocess
    from intarsia.models import create_model
    from intarsia.prediction.predictor import load
    from intarsia.runs import write_model

    torch.manual_seed(0)
    table = ClassTable(names=tuple(f"class {index}" for index in range(CLASSES)))
    model = create_model("encdec", num_classes=CLASSES, encoder=ENCODER, pretrained="none")
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    parts = {"model": model.config.to_dict(), "classes": table.to_dict(), "preprocess": Preprocess().to_dict()}
    write_model(out / precision, weights, {**parts, "start": "", "trained": {}})
    predictor = load(out / precision, device="cpu", precision=precision)

    def call() -> None:
        write_class_map(out / f"{precision}.png", predictor.predict(image).classes, table)

    return call


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        draw(home / "image.png", *given.size)
        sides = {
            "smp": functools.partial(smp_side, home / "image.png", home),
            "ours": functools.partial(our_side, home / "image.png", home, precision="auto"),
            "ours_fp32": functools.partial(our_side, home / "image.png", home, precision="fp32"),
        }
        about = {"encoder": ENCODER, "size": list(given.size), "classes": CLASSES}
        compare("predict", sides, rounds=given.rounds, images=1, about=about)


if __name__ == "__main__":
    main()
