"""Every preset at full width in ONNX and OpenVINO, run at two other sizes beside PyTorch: results/export_parity.json.

python scripts/export_parity.py [--only NAME ...]      presets that were measured with the same versions are left as they are

Weights are drawn (seed 0), pictures are smooth. Where an engine is further from PyTorch than an export may be, PyTorch in
float64 is compared with PyTorch in float32 as well: what the order of a sum alone does to that network.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from intarsia.classes import ClassTable
from intarsia.devices import describe_machine
from intarsia.engines.card import Card
from intarsia.engines.engine import open_engine
from intarsia.engines.inputs import input_of_stored
from intarsia.errors import IntarsiaError
from intarsia.export.onnx_write import EXAMPLE, write_onnx
from intarsia.export.openvino_write import write_openvino
from intarsia.export.parity import LARGEST_DIFFERENCE, LEAST_AGREEMENT, made_pictures
from intarsia.images.files import Array
from intarsia.images.preprocess import Preprocess
from intarsia.models import MODELS, SegmentationModel, create_model
from intarsia.runs import write_json

FILE = Path(__file__).resolve().parents[1] / "results" / "export_parity.json"
PACKAGES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino")
CLASSES = 21
SIZES = ((1, 256, 320), (2, 193, 231))
"""(N, H, W) of the pictures."""
FEWER = ((1, 128, 160), (2, 65, 99))
"""Of the networks whose margins are wider than these pictures."""
LARGE = ("dilat", "context_")
"""How the names of those begin."""
Run = Callable[[NDArray[Any]], NDArray[Any]]


def drawn(name: str) -> SegmentationModel:
    """The preset with drawn weights, also where it starts at zero."""
    torch.manual_seed(0)
    none = {"pretrained": "none"} if "pretrained" in type(MODELS[name]).model_fields else {}
    model = create_model(name, num_classes=CLASSES, in_channels=3, **none).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def compared(run: Run, inputs: list[NDArray[Any]], outputs: list[NDArray[Any]]) -> dict[str, float | bool]:
    """The largest difference of logits, the share of pixels of equal class, and whether that is equal as exports are."""
    difference, equal, pixels = 0.0, 0, 0
    for image, expected in zip(inputs, outputs, strict=True):
        found = run(image)
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise RuntimeError(f"{found.shape} numbers come out, not all finite, where {expected.shape} should")
        difference = max(difference, float(np.abs(found - expected).max()))
        same = found.argmax(1) == expected.argmax(1)
        equal, pixels = equal + int(same.sum()), pixels + same.size
    largest = max(float(np.abs(each).max()) for each in outputs)
    passes = difference <= LARGEST_DIFFERENCE * largest and equal / pixels >= LEAST_AGREEMENT["fp32"]
    return {"max_difference": difference, "largest_logit": largest, "agreement": equal / pixels, "passes": passes}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One row of the table; `reason` where there is none of an engine."""
    model = drawn(name)
    sizes = FEWER if name.startswith(LARGE) else SIZES
    card = Card(
        model=name,
        classes=ClassTable(names=tuple(f"class {number}" for number in range(CLASSES))),
        preprocess=Preprocess(),
        weights="drawn",
    )
    row: dict[str, Any] = {"parameters": model.count_parameters(), "sizes": sizes, "engines": {}}
    onnx, xml = folder / "model.onnx", folder / "model.xml"
    begun = time.process_time()
    try:
        card = write_onnx(model, card, onnx)
    except IntarsiaError as error:
        return {**row, "reason": str(error)}
    row |= {"seconds": round(time.process_time() - begun, 1), "megabytes": round(onnx.stat().st_size / 1e6, 1)}
    pictures = [np.stack(made_pictures(card.preprocess, (h, w), count=num)) for num, h, w in sizes]
    inputs = [input_of_stored(cast(Array, each), card) for each in pictures]
    with torch.no_grad():
        outputs = [model(torch.from_numpy(image)).numpy() for image in inputs]
    for engine, path in (("onnxruntime", onnx), ("openvino", xml)):
        try:
            made = card if path == onnx else write_openvino(onnx, card, xml)
            row["engines"][engine] = compared(open_engine(path, made, threads=1), inputs, outputs)
        except (IntarsiaError, RuntimeError) as error:
            row["engines"][engine] = {"reason": str(error).splitlines()[0][:300]}
        gc.collect()
    if not all(found.get("passes") for found in row["engines"].values()):
        row["float64"] = compared(in_float64(model), inputs, outputs)
    return row


def in_float64(model: SegmentationModel) -> Run:
    """The same weights and network, computed in float64."""
    doubled = copy.deepcopy(model).double()

    @torch.no_grad()
    def run(image: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = doubled(torch.from_numpy(image).double()).numpy()
        return found

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="presets, measured anew")
    given = parser.parse_args()
    torch.set_num_threads(1)
    versions = {package: version(package) for package in PACKAGES}
    for name in given.only or MODELS.names():
        stored = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
        rows = stored.get("presets", {})
        if not given.only and rows.get(name, {}).get("versions") == versions:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = measure(name, Path(folder))
        rows[name] = {**row, "date": date.today().isoformat(), "versions": versions}
        facts = {
            "date": date.today().isoformat(),
            "command": "python scripts/export_parity.py",
            "machine": describe_machine(),
            "versions": versions,
            "example": EXAMPLE,
            "sizes": SIZES,
            "fewer": FEWER,
        }
        write_json(FILE, {**facts, "presets": {each: rows[each] for each in MODELS.names() if each in rows}})
        print(name, json.dumps({key: row.get(key) for key in ("seconds", "reason", "engines", "float64")}), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
