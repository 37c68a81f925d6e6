"""Exported files of two convolutions with weights of chance, made by onnx itself, and what onnxruntime makes of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch.nn import functional as F

from intarsia.classes import ClassTable
from intarsia.engines.card import Card
from intarsia.images.preprocess import Preprocess, resize_planes, to_channels
from tests.engines.nets import save

CLASSES = ClassTable(
    names=("ground", "tree <b>", "water", "roof"), colors=((20, 20, 20), (0, 160, 60), (30, 90, 220), (230, 80, 40))
)


def small_card(channels: int = 3, *, scale: float = 1.0, **settings: Any) -> Card:
    """A card of four classes."""
    mean, std = (0.45, 0.5, 0.4)[:channels], (0.25, 0.2, 0.3)[:channels]
    preprocess = Preprocess(channels=channels, mean=mean, std=std, scale=scale)
    return Card(model="small", classes=CLASSES, preprocess=preprocess, weights="ab" * 32, **settings)


def write_small(path: Path, card: Card, *, width: int = 8, side: int = 3, seed: int = 0) -> Card:
    """image -> (normalisation) -> two convolutions -> logits -> (classes), as the card says it."""
    rng, channels, count = np.random.default_rng(seed), card.preprocess.channels, card.classes.count
    pads = [0] * 4 if card.border else [side // 2] * 4
    nodes, weights, x = [], {}, "image"

    def add(kind: str, *names: str, **settings: Any) -> str:
        nodes.append(helper.make_node(kind, list(names), [f"x{len(nodes)}"], **settings))
        return f"x{len(nodes) - 1}"

    def constant(values: Any, kind: type = np.float32) -> str:
        weights[f"w{len(weights)}"] = np.asarray(values, kind)
        return f"w{len(weights) - 1}"

    if card.input == "pixels":
        x = add("Transpose", add("Cast", x, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
        mean, std = (np.reshape(each, (1, -1, 1, 1)) for each in (card.preprocess.mean, card.preprocess.std))
        x = add("Div", add("Sub", add("Div", x, constant(255.0)), constant(mean)), constant(std))
    for into, out in ((channels, width), (width, count)):
        kernel = rng.normal(0, (into * side**2) ** -0.5, (out, into, side, side))
        bias = rng.normal(0, 0.1, out)
        x = add("Conv", x, constant(kernel), constant(bias), kernel_shape=[side, side], pads=pads)
        x = add("Tanh", x) if out == width else x
    if card.output == "classes":
        x = add("Cast", add("ArgMax", x, axis=1, keepdims=0), to=TensorProto.UINT8)
    nodes[-1].output[0] = card.output
    return save(path, card, nodes, weights)


def classes_of(path: Path, card: Card, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) classes of an image that is computed whole, by onnxruntime."""
    size = pixels.shape[0], pixels.shape[1]
    inner = card.preprocess.scaled_size(*size)
    planes = resize_planes(to_channels(pixels, card.preprocess.channels), inner)
    if card.border:
        top, left, bottom, right = card.border.around(*inner)
        planes = np.pad(planes, ((0, 0), (top, bottom), (left, right)), mode="reflect")
    image = np.moveaxis(planes, 0, 2)[None] if card.input == "pixels" else card.preprocess.normalise(planes)[None]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": np.ascontiguousarray(image)})[0]
    if card.output == "classes":  # votes, where they must be resized
        found = (found[:, None] == np.arange(card.classes.count)[:, None, None]).astype(np.float32)
    logits = torch.from_numpy(found)[..., : inner[0], : inner[1]]
    logits = F.interpolate(logits, size, mode="bilinear") if inner != size else logits
    return logits.argmax(1)[0].numpy().astype(np.uint8)
