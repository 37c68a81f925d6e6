"""A saved model that predicts: `load(run).predict(image)`."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from intarsia.classes import ClassTable
from intarsia.devices import Device, choose_device
from intarsia.errors import DataError, IntegrityError
from intarsia.images.files import Array, as_stored, read_image
from intarsia.images.overlay import colorize, overlay, to_rgb8, with_legend
from intarsia.images.ranges import BYTES
from intarsia.models.base import MODELS, SegmentationModel, build_model, class_map, logits_for, resize_logits
from intarsia.ops.depthwise import depthwise_in_float32
from intarsia.runs import WEIGHTS, find_model, read_manifest
from intarsia.transforms.preprocess import Preprocess


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image; NumPy takes it for its class map."""

    image: NDArray[np.uint8]
    """(H, W, 3), for the eye."""
    classes: NDArray[np.uint8]
    """(H, W) class numbers, of the image's own size."""
    table: ClassTable
    probabilities: NDArray[np.float32] | None = None
    """(K, H, W), if asked for."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.classes, dtype=dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)"""
        return self.classes.shape[0], self.classes.shape[1]

    @property
    def shares(self) -> dict[str, float]:
        """Class name to share of the image's pixels, for the classes that occur."""
        counts = np.bincount(self.classes.ravel(), minlength=self.table.count)
        return {self.table.names[i]: float(counts[i] / counts.sum()) for i in np.flatnonzero(counts)}

    def one_hot(self) -> NDArray[np.uint8]:
        """(K, H, W), 1 where the class is predicted."""
        planes: NDArray[np.uint8] = (self.classes[None] == np.arange(self.table.count)[:, None, None]).astype(np.uint8)
        return planes

    def class_image(self) -> Image.Image:
        """The class map in the class colours."""
        return Image.fromarray(colorize(self.classes, self.table))

    def overlay(self, *, opacity: float = 0.5, legend: bool = True) -> Image.Image:
        """The image with the classes over it, and a legend below."""
        picture = overlay(self.image, self.classes, self.table, opacity=opacity)
        if legend:
            picture = with_legend(picture, self.table, [int(index) for index in np.unique(self.classes)])
        return Image.fromarray(picture)

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        text = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shares.items())
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return (
            f'<figure><img src="data:image/png;base64,{encoded}" alt="{text}"><figcaption>{text}</figcaption></figure>'
        )


class Predictor:
    """A model with everything that prediction needs: classes, preparation, device."""

    def __init__(
        self, model: SegmentationModel, table: ClassTable, preprocess: Preprocess, device: Device, folder: Path
    ) -> None:
        self.model, self.table, self.preprocess, self.device, self.folder = model, table, preprocess, device, folder

    def logits(self, image: Array) -> torch.Tensor:
        """(K, H, W) logits of a decoded image, at its own size, float32."""
        prepared = self.preprocess(image).unsqueeze(0).to(self.device.torch_name)
        prepared = prepared.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            with self.device.autocast():
                logits = logits_for(self.model, prepared)
            return resize_logits(logits.float(), (image.shape[0], image.shape[1]))[0]

    def predict(
        self, image: str | Path | Image.Image | NDArray[Any], *, probabilities: bool = False, stored_frame: bool = False
    ) -> Prediction:
        """The class map of an image, of the image's own size.

        Args:
            image: a path; or (H, W) or (H, W, bands): uint8 or uint16, or floating-point for a model trained on such.
            probabilities: also keep the softmax, (K, H, W) float32.
            stored_frame: of a file whose EXIF orientation turns it: results as its pixels are stored, not upright.

        Raises:
            FileError, DataError: the image cannot be read or used.
        """
        decoded = read_image(image, self.preprocess.bands) if isinstance(image, (str, Path)) else None
        pixels = decoded.pixels if decoded else as_pixels(image, self.preprocess)
        logits_KHW = self.logits(pixels)
        classes = class_map(logits_KHW.unsqueeze(0))[0].cpu().numpy()
        softmax = logits_KHW.softmax(dim=0).cpu().numpy() if probabilities else None
        picture = to_rgb8(pixels, self.preprocess.value_range)
        if decoded and stored_frame:
            picture, classes = (as_stored(each, decoded.orientation) for each in (picture, classes))
            if softmax is not None:
                softmax = np.moveaxis(as_stored(np.moveaxis(softmax, 0, -1), decoded.orientation), -1, 0)
        return Prediction(picture, classes, self.table, softmax)


def as_pixels(image: Any, preprocess: Preprocess) -> Array:
    """Pixels of a Pillow image or an array.

    Raises:
        DataError: it is not what the network takes.
    """
    array = np.asarray(
        image.convert("RGB") if isinstance(image, Image.Image) and image.mode not in ("L", "RGB") else image
    )
    if array.dtype.kind == "f" and preprocess.value_range != BYTES:
        array = array.astype(np.float32)
    elif array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"an image array must be uint8 or uint16, got {array.dtype}. Its range cannot be guessed.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 4 and preprocess.channels in (1, 3):
        array = array[..., :3]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"an image must be (height, width) or (height, width, bands), got {array.shape}.")
    return array


def load(run: Any, *, device: str = "auto", precision: str = "auto") -> Predictor:
    """The model of a run, a run folder or a model folder, ready to predict; files are held against their hashes.

    Args:
        run: a path, or what `train` returned.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.

    Raises:
        ConfigError: there is no model.
        IntegrityError: a file is missing, damaged, or does not fit the manifest.
    """
    folder = find_model(Path(getattr(run, "path", run)))
    manifest = read_manifest(folder)
    place = choose_device(device, precision)
    model, table, preprocess = _rebuilt(manifest, folder)
    if place.is_cpu_in_bf16:
        depthwise_in_float32(model)
    model = model.to(place.torch_name).to(memory_format=torch.channels_last).eval()
    return Predictor(model, table, preprocess, place, folder)


def _rebuilt(manifest: Mapping[str, Any], folder: Path) -> tuple[SegmentationModel, ClassTable, Preprocess]:
    config = MODELS.resolve(manifest["model"]).without_start_weights()
    model = build_model(config)
    weights = load_file(folder / WEIGHTS)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    wrong = [key for key, shape in expected.items() if key not in weights or tuple(weights[key].shape) != shape]
    wrong += [key for key in weights if key not in expected]
    if wrong:
        raise IntegrityError(
            f"{folder}: the weights do not fit the network of the manifest: {len(wrong)} tensors differ, first {wrong[0]}."
        )
    model.load_state_dict(weights)
    return model, ClassTable(**manifest["classes"]), Preprocess(**manifest["preprocess"])
