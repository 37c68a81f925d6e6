"""A saved model that predicts: `load(run).predict(image)`."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from intarsia.classes import IGNORE, ClassTable
from intarsia.devices import Device, choose_device
from intarsia.errors import ConfigError, DataError, IntegrityError
from intarsia.images.files import Array, as_stored, filled, read_image
from intarsia.images.overlay import colorize, overlay, to_rgb8, with_legend
from intarsia.images.preprocess import Preprocess
from intarsia.images.ranges import BYTES
from intarsia.images.source import ArraySource, Source
from intarsia.models.base import MODELS, SegmentationModel, build_model, resize_logits
from intarsia.ops.depthwise import depthwise_in_float32
from intarsia.prediction.canvas import Canvas, canvas_in_memory
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.network import Member, Network
from intarsia.prediction.tiled import segment
from intarsia.runs import WEIGHTS, find_model, read_manifest


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image; NumPy takes it for its class map."""

    image: NDArray[np.uint8]
    """(H, W, 3), for the eye."""
    classes: NDArray[np.uint8]
    """(H, W) class numbers, of the image's own size; 255 where the image has no value."""
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
        counts = np.bincount(self.classes.ravel(), minlength=self.table.count)[: self.table.count]
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
            present = [int(index) for index in np.unique(self.classes) if index != IGNORE]
            picture = with_legend(picture, self.table, present)
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
    """A model, or several of the same classes, with all that prediction needs: classes, preparation, device, settings."""

    def __init__(
        self,
        members: Sequence[Member],
        table: ClassTable,
        device: Device,
        folder: Path,
        config: PredictConfig | None = None,
        digest: str = "",
    ) -> None:
        self.table, self.device, self.folder, self.digest = table, device, folder, digest
        self.network = Network(members, device, config)

    def with_settings(self, settings: Mapping[str, Any]) -> Predictor:
        """The same models with other settings."""
        config = self.config.replace(settings)
        if config.ensemble != self.config.ensemble:
            raise ConfigError("ensemble: is set when models are loaded; give several runs to load().")
        return Predictor(self.network.members, self.table, self.device, self.folder, config, self.digest)

    @property
    def config(self) -> PredictConfig:
        """How images are predicted."""
        return self.network.config

    @property
    def preprocess(self) -> Preprocess:
        """How images are prepared; that of the first model, if there are several."""
        return self.network.members[0].preprocess

    @property
    def model(self) -> SegmentationModel:
        """The first model."""
        return self.network.members[0].net

    def logits(self, image: Array) -> torch.Tensor:
        """(K, H, W) logits of a decoded image, at its own size, float32."""
        return resize_logits(self.network.of_image(image), (image.shape[0], image.shape[1]))[0]

    def predict(
        self,
        image: str | Path | Image.Image | NDArray[Any] | Source,
        *,
        probabilities: bool = False,
        stored_frame: bool = False,
    ) -> Prediction:
        """The class map of an image, of the image's own size.

        Args:
            image: a path; or (H, W) or (H, W, bands): uint8 or uint16, or floating-point for a model trained on such.
            probabilities: also keep the softmax, (K, H, W) float32.
            stored_frame: of a file whose EXIF orientation turns it: results as its pixels are stored, not upright.

        Raises:
            FileError, DataError: the image cannot be read or used.
        """
        with self.open(image) as source:
            canvas = canvas_in_memory(source.size, self.table.count, ("probabilities",) * probabilities, "float32")
            segment(self.network, source, canvas, self.table.count)
            whole = source.read(0, 0, *source.size)
            return self.prediction(source, whole.pixels, canvas, stored_frame=stored_frame)

    def open(self, image: str | Path | Image.Image | NDArray[Any] | Source) -> Source:
        """An image of any kind as a source.

        Raises:
            FileError, DataError: it cannot be read or used.
        """
        if isinstance(image, Source):
            return image
        if isinstance(image, (str, Path)):
            decoded = read_image(image, self.preprocess.bands)
            return ArraySource(
                decoded.pixels, decoded.nodata, path=Path(image), orientation=decoded.orientation, notes=decoded.notes
            )
        return ArraySource(*filled(as_pixels(image, self.preprocess).copy(), None))

    def prediction(self, source: Source, pixels: Array, canvas: Canvas, *, stored_frame: bool = False) -> Prediction:
        """What a filled canvas says of an image, for the eye too."""
        picture = to_rgb8(pixels, self.preprocess.value_range)
        if stored_frame:
            picture, canvas = as_stored(picture, source.orientation), canvas.as_stored(source.orientation)
        return Prediction(picture, canvas.classes, self.table, canvas.probabilities)


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


def load(
    run: Any,
    *,
    device: str = "auto",
    precision: str = "auto",
    settings: PredictConfig | Mapping[str, Any] | None = None,
) -> Predictor:
    """The model of a run, a run folder or a model folder, ready to predict; files are held against their hashes.

    Args:
        run: a path, or what `train` returned; or several of the same classes, whose predictions are averaged.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.
        settings: how images are predicted, such as `{"tile": 512, "mirrors": "both", "crf": "deeplab"}`.

    Raises:
        ConfigError: there is no model, or models differ in their classes.
        IntegrityError: a file is missing, damaged, or does not fit the manifest.
    """
    config = settings if isinstance(settings, PredictConfig) else PredictConfig().replace(settings)
    runs = [*(run if isinstance(run, (list, tuple)) else [run]), *config.ensemble]
    place = choose_device(device, precision)
    folders = [find_model(Path(getattr(each, "path", each))) for each in runs]
    members, tables, digests = [], [], []
    for folder in folders:
        manifest = read_manifest(folder)
        model, table, preprocess = _rebuilt(manifest, folder)
        if place.is_cpu_in_bf16:
            depthwise_in_float32(model)
        model = model.to(place.torch_name).to(memory_format=torch.channels_last).eval()
        members.append(Member(model, preprocess))
        tables.append(table)
        digests.append(manifest["files"][WEIGHTS])
    _same(folders, tables, members)
    return Predictor(members, tables[0], place, folders[0], config, "+".join(digests))


def _same(folders: Sequence[Path], tables: Sequence[ClassTable], members: Sequence[Member]) -> None:
    first = members[0].preprocess
    for folder, table, member in zip(folders[1:], tables[1:], members[1:], strict=True):
        if table.names != tables[0].names:
            raise ConfigError(
                f"{folder}: knows the classes {', '.join(table.names)}; {folders[0]} knows {', '.join(tables[0].names)}. "
                "Only models of the same classes are averaged."
            )
        if member.preprocess.bands != first.bands:
            raise ConfigError(f"{folder}: takes other bands of an image than {folders[0]}; they cannot be averaged.")


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
