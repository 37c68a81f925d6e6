"""Mapillary Vistas, versions 1.2 and 2.0.

Source: https://www.mapillary.com/dataset/vistas . Licence: CC BY-NC-SA 4.0, after registration. Classes: 66 (1.2) or 124
(2.0) in the file of classes; those that it does not evaluate (unlabelled) are ignored. Images: 18,000 training, 2000
validation; the 5000 test masks are kept. Sizes: varied, at least 1080 x 1920.
Layout: {training,validation}/images/ID.jpg with {training,validation}/v1.2/labels/ID.png (palette, the index is the class) and
config_v1.2.json, or the same with v2.0; also the older package of 1.2 alone, {training,validation}/labels/ID.png and
config.json. Names, colours and what is evaluated are read from the file of classes; `readable` names a class, and where two
have the same, `name` does. instances/ (class * 256 + object) is not read.
Citation: Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes", ICCV 2017.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from intarsia.classes import ClassTable
from intarsia.config import read_yaml
from intarsia.data.base import DATASETS
from intarsia.data.published.base import Found, Published, images_below, pairs_of, png_in, value_table
from intarsia.data.published.sheet import Sheet
from intarsia.errors import ConfigError, DataError
from intarsia.progress import Progress


@DATASETS.family("mapillary_vistas")
class MapillaryConfig(Published):
    """Mapillary Vistas: streets of the world, 66 (1.2) or 124 (2.0) classes."""

    sheet: ClassVar[Sheet] = Sheet(
        title="Mapillary Vistas",
        source="https://www.mapillary.com/dataset/vistas",
        licence="CC BY-NC-SA 4.0, after registration",
        classes="66 (1.2), 124 (2.0)",
        images="18,000 training, 2000 validation",
        sizes="at least 1080 x 1920",
        layout="{training,validation}/images/ID.jpg, {training,validation}/vX/labels/ID.png and config_vX.json (X: 1.2 or 2.0)",
        citation='Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes", ICCV 2017',
        steps=(
            "Register at https://www.mapillary.com/dataset/vistas and ask for the research edition; links come by e-mail.",
            "Download and unpack the package (about 30 GB).",
            "The folder wanted holds training/, validation/ and config_v1.2.json or config_v2.0.json.",
        ),
    )

    version: Literal["1.2", "2.0"] = "1.2"
    """Which classes."""

    def find(self, root: Path, progress: Progress) -> Found:
        found = Found(self._table(root))
        for split, names in (("train", ("training", "train")), ("val", ("validation", "val"))):
            part = self.folder(root, *names)
            images = self.folder(part, "images")
            labels = self.folder(part, f"v{self.version}/labels", *(["labels"] if self.version == "1.2" else []))
            there = images_below(images)
            found.pairs += pairs_of(there, images, split, partial(png_in, labels))
        return found

    def _table(self, root: Path) -> ClassTable:
        """The classes of the configuration file."""
        names = [f"config_v{self.version}.json", *(["config.json"] if self.version == "1.2" else [])]
        file = next((root / name for name in names if (root / name).is_file()), None)
        if file is None:
            raise self.other(root, f"there is no file {' or '.join(names)}")
        try:
            return _read_table(read_yaml(file))
        except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as error:
            raise DataError(f"{file}: is no file of Mapillary's classes ({error}). Unpack the package again.") from None


DATASETS.preset("mapillary_vistas2", MapillaryConfig(version="2.0"))


def _read_table(content: Any) -> ClassTable:
    labels = content["labels"]
    readable = [str(label["readable"]) for label in labels]
    names = [
        own if readable.count(own) == 1 else str(label["name"]) for own, label in zip(readable, labels, strict=True)
    ]
    scored = [bool(label.get("evaluate", True)) for label in labels]
    values = {index: name if scored[index] else "ignore" for index, name in enumerate(names)}
    kept = [index for index, score in enumerate(scored) if score]
    colours = [labels[index]["color"] for index in kept]
    return value_table([names[i] for i in kept], values | {255: "ignore"}, [(c[0], c[1], c[2]) for c in colours])
