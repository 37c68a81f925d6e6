"""Many images through one model, results as files; one bad image never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from intarsia.errors import ConfigError, DataError, PartialFailure, SaveError
from intarsia.images.files import IMAGE_SUFFIXES, write_class_map
from intarsia.prediction.predictor import Prediction, Predictor, load


@dataclass(frozen=True)
class Written:
    """What was written for one image."""

    image: Path
    classes: Path
    size: tuple[int, int]
    shares: dict[str, float]

    def line(self) -> str:
        """One line for a person."""
        top = sorted(self.shares.items(), key=lambda item: -item[1])[:4]
        shares = " · ".join(f"{name} {100 * share:.1f} %" for name, share in top)
        return f"{self.image} -> {self.classes}   {self.size[0]} x {self.size[1]}   {shares}"


def predict(
    run: Any,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    overlays: bool = True,
    probabilities: bool = False,
    binary: bool = False,
    stored_frame: bool = False,
    device: str = "auto",
    done: Callable[[Written], None] | None = None,
) -> list[Written]:
    """Predict images and write, for each, NAME.png (palette PNG of class numbers, the image's own size) and more.

    Args:
        run: a run, a run folder, a model folder, or a loaded Predictor.
        images: files or folders.
        out: folder of the results; made if need be.
        overlays: also NAME_overlay.png, the image with the classes over it and a legend.
        probabilities: also NAME_probabilities.npz, `probabilities` (K, H, W) float16 and `names`.
        binary: also NAME_CLASS.png, 255 where the class is predicted, for every class.
        stored_frame: results of images that EXIF turns, as their pixels are stored, not upright.
        device: auto, cpu, cuda, cuda:N or mps.
        done: handed each result as it is written.

    Raises:
        PartialFailure: some images could not be read; all others are done. It lists each with its reason.
    """
    predictor = run if isinstance(run, Predictor) else load(run, device=device)
    paths = find_images([images] if isinstance(images, (str, Path)) else images)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"--out {folder}: cannot be made ({error.strerror}).") from None
    written, failed = [], []
    for path, name in zip(paths, unique_names(paths), strict=True):
        try:
            prediction = predictor.predict(path, probabilities=probabilities, stored_frame=stored_frame)
        except DataError as error:
            failed.append(str(error))
            continue
        target = folder / f"{name}.png"
        if target.exists() and target.samefile(path):
            raise ConfigError(f"--out {folder}: holds the image {path.name} itself; choose another folder.")
        _write(prediction, folder, name, overlays=overlays, binary=binary)
        written.append(Written(path, target, prediction.shape, prediction.shares))
        if done:
            done(written[-1])
    if failed:
        lines = "\n".join(failed)
        raise PartialFailure(
            f"{len(failed)} of {len(paths)} images could not be predicted, the others are done:\n{lines}"
        )
    return written


def find_images(given: Iterable[str | Path]) -> list[Path]:
    """Files as they are, folders as the images in them, each once.

    Raises:
        ConfigError: nothing to predict.
    """
    found: dict[Path, None] = {}
    for entry in map(Path, given):
        if entry.is_dir():
            inside = sorted(p for p in entry.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                raise ConfigError(f"{entry}: holds no images. Read are {', '.join(sorted(IMAGE_SUFFIXES))}.")
            found.update(dict.fromkeys(inside))
        else:
            found[entry] = None
    if not found:
        raise ConfigError("no image given. Name files or folders.")
    return list(found)


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A name for each result: the stem, with folders in front where two stems are equal, with a number if all else is."""
    names: list[str] = []
    for depth in range(1, 9):
        names = ["_".join(part.strip("/.") for part in (*path.parts[-depth:-1], path.stem)) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name}_{index}" for index, name in enumerate(names, 1)]


def _write(prediction: Prediction, folder: Path, name: str, *, overlays: bool, binary: bool) -> None:
    table = prediction.table
    try:
        write_class_map(folder / f"{name}.png", prediction.classes, table)
        if overlays:
            prediction.overlay().save(folder / f"{name}_overlay.png")
        if binary:
            for index, class_name in enumerate(table.names):
                safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in class_name)
                mask = np.where(prediction.classes == index, 255, 0).astype(np.uint8)
                Image.fromarray(mask).save(folder / f"{name}_{safe}.png")
        if prediction.probabilities is not None:
            np.savez_compressed(
                folder / f"{name}_probabilities.npz",
                probabilities=prediction.probabilities.astype(np.float16),
                names=np.asarray(table.names),
            )
    except OSError as error:
        raise SaveError(f"{folder / name}: cannot be written ({error.strerror}).") from None
