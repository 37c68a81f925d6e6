"""A saved model that predicts: `load(run).predict(image)`."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.classes import IGNORE, ClassTable
from intarsia.engines.files import is_exported, read_card
from intarsia.errors import ConfigError, DataError
from intarsia.images.files import Array, as_stored, filled, read_image
from intarsia.images.overlay import colorize, overlay, to_rgb8, with_legend
from intarsia.images.preprocess import Preprocess
from intarsia.images.ranges import BYTES
from intarsia.images.source import ArraySource, Source
from intarsia.prediction.canvas import Canvas, canvas_in_memory
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.windows import WindowNetwork
from intarsia.prediction.tiled import segment

if TYPE_CHECKING:
    from intarsia.models.base import SegmentationModel


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
    """A model, or several of the same classes, with all that prediction needs: classes, preparation, settings.

    Args:
        network: of the models, on whatever they run.
        table: their classes.
        folder: of the first model, or its exported file.
        digest: sha256 of the weights of all of them, joined by +.
        words: on what they run, such as "CPU, 2 cores, bf16".
    """

    def __init__(
        self, network: WindowNetwork, table: ClassTable, folder: Path, *, digest: str = "", words: str = ""
    ) -> None:
        self.network, self.table, self.folder, self.digest, self.words = network, table, folder, digest, words

    def with_settings(self, settings: Mapping[str, Any]) -> Predictor:
        """The same models with other settings."""
        config = self.config.replace(settings)
        for name in ("ensemble", "backend"):
            if getattr(config, name) != getattr(self.config, name):
                raise ConfigError(f"{name}: is set when models are loaded; give it to load().")
        return self._with(self.network.with_config(config))

    def for_many(self, count: int) -> Predictor:
        """The same models, ready to compute so many images."""
        network = self.network.for_many(count)
        return self if network is self.network else self._with(network)

    def _with(self, network: WindowNetwork) -> Predictor:
        """The same models in another network."""
        return Predictor(network, self.table, self.folder, digest=self.digest, words=self.words)

    @property
    def config(self) -> PredictConfig:
        """How images are predicted."""
        return self.network.config

    @property
    def preprocess(self) -> Preprocess:
        """How images are prepared; that of the first model, if there are several."""
        return self.network.preprocesses[0]

    @property
    def model(self) -> SegmentationModel:
        """The first model, a torch module.

        Raises:
            ConfigError: an exported file has none.
        """
        from intarsia.prediction.networks.torch_network import Network

        if not isinstance(self.network, Network):
            raise ConfigError(f"{self.folder}: is an exported file, which has no torch module. Load the run itself.")
        return self.network.members[0].net

    @property
    def size_in_words(self) -> str:
        """ "5.2 M parameters", or of an exported file what runs it."""
        from intarsia.prediction.networks.engine_network import EngineNetwork

        return f"run by {self.words}" if isinstance(self.network, EngineNetwork) else self.model.size_in_words()

    def logits(self, image: Array) -> NDArray[np.float32]:
        """(K, H, W) logits of a decoded image, at its own size."""
        logits = self.network.fit(self.network.of_image(image), (image.shape[0], image.shape[1]))[0]
        found: NDArray[np.float32] = logits if isinstance(logits, np.ndarray) else logits.cpu().numpy()
        return found

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
    """The model of a run, a run folder, a model folder or an exported file, ready to predict; files are held against their
    hashes. Exported files run without torch.

    Args:
        run: a path, or what `train` returned; or several of the same classes, whose predictions are averaged.
        device: auto, cpu, cuda, cuda:N or mps; exported files run on the processor.
        precision: auto, fp32 or bf16; exported files run in that of their card, or in bf16 where the engine can.
        settings: how images are predicted, such as `{"tile": 512, "mirrors": "both", "crf": "deeplab"}`.

    Raises:
        ConfigError: there is no model, or models differ in their classes.
        IntegrityError: a file is missing, damaged, or does not fit the manifest.
    """
    config = settings if isinstance(settings, PredictConfig) else PredictConfig().replace(settings)
    runs = [*(run if isinstance(run, (list, tuple)) else [run]), *config.ensemble]
    paths = [Path(getattr(each, "path", each)) for each in runs]
    exported = [is_exported(path) for path in paths]
    if all(exported):
        return of_exported(paths, config, device, precision)
    if any(exported):
        raise ConfigError("exported files and runs cannot be averaged with each other; export all of them, or none.")
    if config.backend in (None, "torch"):
        from intarsia.prediction.saved_models import load_models

        return load_models(paths, config, device, precision)
    from intarsia.prediction.exported_runs import load_for_engine

    return load_for_engine(paths, config, device, precision)


def of_exported(paths: Sequence[Path], config: PredictConfig, device: str, precision: str) -> Predictor:
    """`load` of exported files."""
    from intarsia.prediction.networks.backends import open_all
    from intarsia.prediction.networks.engine_network import EngineNetwork

    if device not in ("auto", "cpu"):
        raise ConfigError(f"--device {device}: exported files run on the processor; predict with the run itself.")
    cards = [read_card(path) for path in paths]
    check_alike(paths, [card.classes for card in cards], [card.preprocess for card in cards])
    engines = open_all(paths, cards, config.backend, precision)
    digest = "+".join(f"{card.weights}:{engine.words}" for card, engine in zip(cards, engines, strict=True))
    words = " and ".join(dict.fromkeys(engine.words for engine in engines))
    return Predictor(EngineNetwork(engines, config), cards[0].classes, paths[0], digest=digest, words=words)


def check_alike(paths: Sequence[Path], tables: Sequence[ClassTable], preprocesses: Sequence[Preprocess]) -> None:
    """Whether models can be averaged.

    Raises:
        ConfigError: their classes or bands differ.
    """
    for path, table, preprocess in zip(paths[1:], tables[1:], preprocesses[1:], strict=True):
        if table.names != tables[0].names:
            raise ConfigError(
                f"{path}: knows the classes {', '.join(table.names)}; {paths[0]} knows {', '.join(tables[0].names)}. "
                "Only models of the same classes are averaged."
            )
        if preprocess.bands != preprocesses[0].bands:
            raise ConfigError(f"{path}: takes other bands of an image than {paths[0]}; they cannot be averaged.")
