"""`export`: a run's best model as a file that other programs run, proved equal before it is kept."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.data.base import Dataset, Item
from intarsia.devices import cores, cpu_has_bf16
from intarsia.engines.card import Card, Precision
from intarsia.engines.engine import Engine, open_engine
from intarsia.engines.inputs import input_of_stored
from intarsia.errors import ConfigError, DataError
from intarsia.evaluation.evaluate import data_for
from intarsia.export.exported import FORMATS, Exported, Format
from intarsia.export.parity import SAMPLES, made_pictures
from intarsia.export.triton import write_triton
from intarsia.export.web import check_web, write_web
from intarsia.export.write import (
    REFERENCE,
    SUFFIXES,
    Kind,
    Written,
    aside,
    card_for,
    change_card,
    check_kind,
    check_place,
    files_of,
    write_proved,
)
from intarsia.images.files import Array
from intarsia.images.preprocess import median_size
from intarsia.metrics.overlap import overlap_scores
from intarsia.models.base import SegmentationModel
from intarsia.optional import found
from intarsia.prediction.networks.engine_network import EngineNetwork
from intarsia.prediction.predictor import Predictor, load
from intarsia.progress import Progress, default_progress
from intarsia.recipes.recipe import load_recipe, recipe_of_run
from intarsia.training.validation import score_images

CALIBRATION = 64
AGREED = 20
"""Validation images on which bf16 is held against fp32."""
SCORED = 500
"""Validation images, at most, whose mean IoU says what int8 costs."""
LOSS = 0.5
"""Points of mean IoU that int8 may cost without a word."""
TIMED = 5


def export(
    run: Any,
    out: str | Path | None = None,
    *,
    format: Format = "onnx",  # noqa: A002  the word that a person types
    precision: Precision = "fp32",
    with_pre: bool = False,
    with_argmax: bool = False,
    data: str | None = None,
    images: int = CALIBRATION,
    runtime: str | Path | None = None,
    sample: str | Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a run's best model for other programs, run it at sizes other than that of the export, and compare.

    Args:
        run: a run folder or model folder, or what `train` returned.
        out: the file, or the folder of triton and web; None: RUN/export/NAME with an ending that says what it is. An exported
            model that is there is replaced, nothing else is.
        format: onnx, openvino, torch-export, triton or web.
        precision: fp32; bf16 (openvino, torch-export); int8 (all but torch-export), calibrated on training images.
        with_pre: normalisation inside: the network takes stored values (N, H, W, C).
        with_argmax: the network gives class numbers; probabilities are lost.
        data: a data folder in place of the one that the run was trained on.
        images: how many training images int8 is calibrated on.
        runtime: of web: folder or .tgz of the npm package onnxruntime-web; None: fetched once.
        sample: of web: an image that the page offers to try.
        progress: where bars go.

    Raises:
        ConfigError: no such run, a format without such a precision, or another file at its place.
        DataError: int8 without images to calibrate on, or `data` that cannot be used.
        IntegrityError: the exported network computes something else than the model; nothing is left of it.
        SaveError: weights that are not finite, or a disk that does not take the file.
    """
    progress = progress or default_progress()
    _check_choices(format, precision, images, runtime, sample)
    kind: Kind = "onnx" if format == "triton" or format == "web" else format
    check_kind(kind, precision)
    folder = Path(getattr(run, "path", run))
    predictor = load(folder, device="cpu", precision="fp32")
    model = predictor.model
    place = _place(folder, out, format, precision, with_pre=with_pre, with_argmax=with_argmax)
    if format in SUFFIXES:
        check_place(place, kind)
    source = _Source(folder, data, predictor, progress)
    card = card_for(model, predictor.table, predictor.preprocess, predictor.digest).replace(
        input="pixels" if with_pre else "normalised", output="classes" if with_argmax else "logits", precision=precision
    )
    calibration = source.calibration(card, images) if precision == "int8" else []
    job = _Job(model, card, source, calibration, progress)
    if format in SUFFIXES:
        with aside(place) as file:
            return job.told(file, place, format, job.made(file, kind))
    return _written_around(job, place, format, runtime, sample)


def _written_around(
    job: _Job,
    place: Path,
    format: Format,  # noqa: A002
    runtime: str | Path | None,
    sample: str | Path | None,
) -> Exported:
    """The folder of triton or web around a proved ONNX file."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        if format == "web":
            check_web(job.card, place)
        made, name = job.made(file, "onnx"), job.source.name
        if format == "triton":
            return job.told(file, write_triton(file, place, name=_plain(name)), format, made)
        given = {key: Path(value) if value else None for key, value in (("runtime", runtime), ("sample", sample))}
        page = write_web(file, place, title=name, progress=job.progress, **given)
        return job.told(file, page, format, made)


@dataclass(frozen=True)
class _Made:
    """What is known of a file."""

    card: Card
    milliseconds: float
    timed: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """A model that is to be written."""

    model: SegmentationModel
    card: Card
    source: _Source
    calibration: Sequence[NDArray[Any]]
    progress: Progress

    def made(self, file: Path, kind: Kind) -> _Made:
        """Written, proved and measured, still aside."""
        pictures = self.source.pictures()
        written = write_proved(self.model, self.card, file, kind=kind, pictures=pictures, images=self.calibration)
        milliseconds, timed = _time(written, pictures[0])
        card, notes = _measured(written, file, self.source, self.progress)
        return _Made(change_card(file, card), milliseconds, timed, (*self.source.notes, *notes))

    def told(self, file: Path, place: Path, format: Format, made: _Made) -> Exported:  # noqa: A002
        """What a person is told of a file that will lie, or lies, at its place."""
        size = sum(each.stat().st_size for each in files_of(file))
        return Exported(place, made.card, format, size, made.milliseconds, made.timed, made.notes)


class _Source:
    """The run's data, as far as it can be read: pictures to compare on, images to calibrate on and to score.

    Args:
        data: a folder that was asked for, which must be readable then.
    """

    def __init__(self, folder: Path, data: str | None, predictor: Predictor, progress: Progress) -> None:
        self.preprocess, self.model, self.name = predictor.preprocess, predictor.model, _name_of(folder)
        self.dataset: Dataset | None = None
        self.size: tuple[int, int] | None = None
        self.missing = ""
        try:
            if (folder / "recipe.yaml").is_file():
                recipe, self.dataset = data_for(recipe_of_run(folder), folder, data, predictor.table, progress)
                self.size = recipe.data.size
            elif data is not None:
                self.dataset = load_recipe(data).data.open(progress)
                if self.dataset.table.names != predictor.table.names:
                    raise ConfigError(
                        f"--data {data}: has other classes than the model ({', '.join(predictor.table.names)})."
                    )
            else:
                self.missing = f"{folder} is a model folder, which names no data"
        except (DataError, ConfigError) as error:
            if data is not None:
                raise
            self.missing = str(error).splitlines()[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """That data is missing."""
        return (f"compared on built-in pictures: {self.missing}",) if self.dataset is None else ()

    def validation(self, most: int) -> list[Item]:
        """Images of the validation split, else of the test split, evenly spread."""
        splits = self.dataset.splits if self.dataset else {}
        return _spread(splits.get("val") or splits.get("test") or (), most)

    def pictures(self) -> list[Array]:
        """(C, h, w) stored values of validation images, else built-in ones."""
        if self.dataset is None or not (items := self.validation(SAMPLES)):
            return made_pictures(self.preprocess)
        return [self.preprocess.resized(self.dataset.read_image(item)) for item in items]

    def calibration(self, card: Card, count: int) -> list[NDArray[Any]]:
        """Inputs of the exported network from training images, cut to the size of training samples.

        Raises:
            DataError: there are none.
        """
        items = _spread(self.dataset.splits.get("train", ()), count) if self.dataset else []
        if self.dataset is None or not items:
            reason = self.missing or "there are no training images"
            raise DataError(
                f"--precision int8: needs training images to calibrate on, but {reason} Give --data FOLDER."
            )
        sizes = [(item.height, item.width) for item in self.dataset.splits["train"]]
        size = self.size or self.model.sample_size(*median_size(sizes, self.preprocess.scale))
        cut = []
        for number, item in enumerate(items):
            planes = self.preprocess.resized(self.dataset.read_image(item))
            rng = np.random.default_rng((0, number))
            sides = [min(side, most) for side, most in zip(planes.shape[-2:], size, strict=True)]
            top, left = (
                int(rng.integers(0, whole - side + 1)) for whole, side in zip(planes.shape[-2:], sides, strict=True)
            )
            cut.append(input_of_stored(planes[None, :, top : top + sides[0], left : left + sides[1]], card))
        return cut


def _measured(written: Written, file: Path, source: _Source, progress: Progress) -> tuple[Card, tuple[str, ...]]:
    """The card with what validation images say of its precision, and what a person should know of it."""
    card = written.card
    if file.suffix == ".pt2" or not source.validation(1):
        return card, (("no validation images: what int8 costs was not measured",) if card.precision == "int8" else ())
    if card.precision == "int8":
        reference = card.replace(precision="fp32")
        first = open_engine(file.with_name(REFERENCE), reference, backend=written.engine.name)
        items = source.validation(SCORED)
        share, before, after = _side_by_side(first, written.engine, source, items, progress)
        if not np.isfinite([before, after]).all():
            return card, ("validation images have no truth: what int8 costs was not measured",)
        card = card.replace(agreement={"int8": share}, mean_iou={"fp32": before, "int8": after})
        lost = 100 * (before - after)
        told = (
            f"int8 loses {lost:.1f} points of mean IoU, more than {LOSS}; more --images may help, --precision fp32 does"
        )
        return card, ((told,) if lost > LOSS else ())
    if not found("openvino") or not cpu_has_bf16():
        return card, ()
    engines = [open_engine(file, card, backend="openvino", precision=each) for each in ("fp32", "bf16")]
    share, _, _ = _side_by_side(engines[0], engines[1], source, source.validation(AGREED), progress)
    return card.replace(agreement={"bf16": share}), ()


def _side_by_side(
    first: Engine, second: Engine, source: _Source, items: Sequence[Item], progress: Progress
) -> tuple[float, float, float]:
    """Share of pixels of equal class, and the mean IoU of each."""
    assert source.dataset is not None
    counts: list[Any] = [0, 0]
    equal = pixels = 0
    both = (score_images(EngineNetwork([engine]), source.dataset, items) for engine in (first, second))
    with progress.task("compare", len(items)) as task:
        for number, (one, other) in enumerate(zip(*both, strict=True), 1):
            equal, pixels = equal + int((one.prediction == other.prediction).sum()), pixels + one.prediction.size
            counts = [total + each.counts for total, each in zip(counts, (one, other), strict=True)]
            task.update(number, f"{second.words}, {number} of {len(items)} images")
    before, after = (float(overlap_scores(each).mean_iou) for each in counts)
    return equal / pixels, before, after


def _time(written: Written, picture: Array) -> tuple[float, str]:
    """Best milliseconds of some runs on one picture, and what that was."""
    image, seconds = input_of_stored(picture[None], written.card), []
    for _ in range(1 + TIMED):
        start = time.perf_counter()
        written.engine(image)
        seconds.append(time.perf_counter() - start)
    size = " x ".join(str(side) for side in picture.shape[-2:])
    return 1000 * min(seconds[1:]), f"an image of {size} in {written.engine.words}, {cores()} cores"


def _check_choices(
    format: str,  # noqa: A002
    precision: str,
    images: int,
    runtime: object,
    sample: object,
) -> None:
    """Raise ConfigError for what goes with nothing."""
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: there is no such format; there are {', '.join(FORMATS)}.")
    if precision not in ("fp32", "bf16", "int8"):
        raise ConfigError(f"--precision {precision}: must be fp32, bf16 or int8.")
    if images < 1:
        raise ConfigError(f"--images {images}: must be at least 1.")
    for name, value in (("runtime", runtime), ("sample", sample)):
        if value and format != "web":
            raise ConfigError(f"--{name}: goes with --format web alone.")


def _place(
    folder: Path,
    out: str | Path | None,
    format: Format,  # noqa: A002
    precision: str,
    *,
    with_pre: bool,
    with_argmax: bool,
) -> Path:
    """Where it is written: as asked for, else RUN/export/NAME-int8-pixels-classes.onnx and the like."""
    name = "-".join(
        [_name_of(folder), *[precision] * (precision != "fp32"), *["pixels"] * with_pre, *["classes"] * with_argmax]
    )
    file = name + SUFFIXES[format] if format in SUFFIXES else {"web": f"{name}-web"}.get(format, format)
    if out is None:
        return folder / "export" / file
    place = Path(out).expanduser()
    return place / file if format in SUFFIXES and place.is_dir() else place


def _plain(name: str) -> str:
    """A name of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "model"


def _name_of(folder: Path) -> str:
    """Of the run."""
    whole = folder.resolve()
    return whole.parent.name if whole.name == "model" else whole.name


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly spread."""
    places = np.linspace(0, max(0, len(items) - 1), min(most, len(items))).round()
    return [items[int(place)] for place in places]
