"""Settings of a prediction: how an image is cut into tiles, which views are averaged, what is refined and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from intarsia.config import Config
from intarsia.ops.crf.config import CRFS, CrfConfig
from intarsia.ops.tiles import TilePlan, plan_tiles

WHOLE = 1 << 21
"""Pixels that the network sees at once where nobody says how large a tile is: 2048 x 1024, Full HD."""
TILE = 1024
STRIDE = 32
"""Starts of tiles are multiples of it, so that each lies on the network's own grid."""

Output = Literal["classes", "overlay", "probabilities", "entropy", "binary", "polygons", "areas"]


def _crf(value: Any) -> Any:
    return None if value in (None, "none", "") else CRFS.resolve(value)


class TileConfig(Config):
    """How large images are cut."""

    tile: int | None = Field(None, ge=32, le=1 << 15)
    """Pixels a side of a tile, as the network sees it; null: the whole image up to 2 million pixels, else tiles of 1024."""
    overlap: float = Field(0.25, ge=0, lt=0.95)
    """Least share of a tile that the next one covers too."""
    halo: int | None = Field(None, ge=0)
    """Pixels at inner edges of a tile that are thrown away, as the network sees them; null: a quarter of the overlap."""
    batch: int = Field(1, ge=1)
    """Tiles that the network computes at once; more than one pays on a GPU only."""

    def plan(self, size: tuple[int, int], scale: float = 1.0, *, valid: bool = False) -> TilePlan:
        """The tiles of an image of (height, width).

        Args:
            scale: factor on the image's sides before the network.
            valid: the network loses its border, which it is given from around the tile: tiles need no overlap.
        """
        whole = self.tile is None and size[0] * size[1] * scale**2 <= WHOLE
        side = max(size) if whole else self.tile or TILE
        overlap = 0.0 if valid else self.overlap
        halo = 0 if valid else int(side * overlap / 4) if self.halo is None else self.halo
        unit = STRIDE / scale
        align = round(unit) if abs(unit - round(unit)) < 1e-9 else STRIDE
        if whole:
            return plan_tiles(size, tile=side, overlap=0, align=1)
        tile = max(align, round(side / scale) // align * align) if side >= STRIDE else side
        return plan_tiles(size, tile=tile, overlap=overlap, align=align, halo=round(halo / scale))


class PredictConfig(TileConfig):
    """How images are predicted, and what is written."""

    mirrors: Literal["none", "horizontal", "vertical", "both"] = "none"
    """Test-time augmentation: mirrored views of every image; horizontal: left and right change sides."""
    rotations: bool = False
    """Test-time augmentation: views turned by 90, 180 and 270 degrees."""
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = (1.0,)
    """Test-time augmentation: factors on the size of what the network sees."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over views and models."""
    ensemble: tuple[str, ...] = ()
    """More runs whose predictions are averaged with the first one's, such as those of other folds."""
    backend: Literal["torch", "onnxruntime", "openvino", "auto"] | None = None
    """What computes the network; null: torch for a run, for an exported file the engine it was made for; auto: the fastest,
    measured once on each machine."""
    crf: Annotated[SerializeAsAny[CrfConfig] | None, BeforeValidator(_crf)] = None
    """Dense CRF that refines the result; `intarsia list crfs` shows them. In tiles, each is refined before it is blended."""
    outputs: tuple[Output, ...] = ("classes", "overlay")
    """What is written of each image: classes, overlay, probabilities, entropy, binary, polygons, areas."""
    numbers: Literal["float16", "uint8"] = "float16"
    """How probabilities are stored; uint8: 255 p, rounded."""
    polygons: Literal["geojson", "gpkg", "coco", "labelme"] = "geojson"
    """File format of polygons."""
    min_area: float = Field(0, ge=0)
    """Regions of fewer pixels are given to their neighbour before polygons are drawn."""
    simplify: float = Field(0, ge=0)
    """Pixels by which the polygons' common borders may be moved to have fewer corners."""
    stored_frame: bool = False
    """Results of images that EXIF turns, as their pixels are stored, not upright."""
    slices: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    """Along which axis a volume is cut; auto: across its coarsest."""


def changed_settings(config: PredictConfig) -> dict[str, Any]:
    """What differs from the defaults and bears on the classes found, as plain values."""
    usual, given = PredictConfig().to_dict(), config.to_dict()
    written = {"outputs", "numbers", "polygons", "min_area", "simplify", "stored_frame", "slices", "batch"}
    return {key: value for key, value in given.items() if key not in written and value != usual[key]}


def in_words(changed: Mapping[str, Any]) -> list[str]:
    """ "crf=deeplab", "mirrors=both"; a CRF of other settings than its preset's with those that differ."""
    words = []
    for key, value in changed.items():
        if key == "crf":
            preset = CRFS[value["name"]].to_dict() if value.get("name") in CRFS else {}
            words.append(f"crf={value.get('name') or 'custom'}")
            words += [f"crf.{name}={one}" for name, one in value.items() if preset.get(name) != one and name != "name"]
        else:
            text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
            words.append(f"{key}={text}")
    return words


def report_name(changed: Mapping[str, Any]) -> str:
    """Folder of a report: report, or report_crf-deeplab_mirrors-both."""
    return re.sub(r"[^\w.-]+", "-", "_".join(["report", *in_words(changed)]))[:150]
