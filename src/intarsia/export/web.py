"""A folder with one page that runs an exported network in the browser, and everything that it needs to do so.

    index.html                  the page: script and style inside
    model.onnx                  the network
    runtime/                    onnxruntime-web and its licence
    sample.png (.jpg, ...)      an image to try, if one was given

Any server of plain files serves it; the page asks no other host for anything, and its Content-Security-Policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from intarsia import __version__
from intarsia.engines.card import Card
from intarsia.engines.files import read_card
from intarsia.errors import ConfigError, IntegrityError, SaveError
from intarsia.export.runtime import FILES, LICENCE, fetch_runtime
from intarsia.images.ranges import BYTES
from intarsia.progress import Progress
from intarsia.runs import write_bytes, write_text

PAGE = Path(__file__).parent / "page"
WHOLE, TILE = 1 << 21, 1024
"""Pixels that the network sees at once, and the side of a tile beyond: as `intarsia predict` has them."""
SAMPLES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
"""Images that browsers read."""
RUNTIME = "runtime"


def write_web(
    onnx: Path,
    folder: Path,
    *,
    title: str = "",
    sample: Path | None = None,
    runtime: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """A page that segments images in the browser, with the network and onnxruntime-web beside it.

    Args:
        onnx: an exported model with its card.
        folder: new, empty, or one that this function wrote before.
        title: of the page; the model's name by default.
        sample: an image that the page offers to try.
        runtime: folder or .tgz of the npm package onnxruntime-web; None: fetched once.
        progress: where the download is shown.

    Returns:
        The page's file, folder/index.html.

    Raises:
        ConfigError: the model takes what a browser does not give, or the folder holds other files.
        DownloadError: the runtime could not be fetched.
        SaveError: the disk does not take it.
    """
    card = read_card(onnx)
    check_web(card, onnx)
    if sample is not None and (sample.suffix.lower() not in SAMPLES or not sample.is_file()):
        met = "is no image that browsers read" if sample.is_file() else "does not exist"
        raise ConfigError(f"--sample {sample}: {met}. Give one of {', '.join(SAMPLES)}.")
    _check_folder(folder)
    source = fetch_runtime(runtime, progress)
    try:
        (folder / RUNTIME).mkdir(parents=True, exist_ok=True)
        for name, beside in FILES.items():
            shutil.copyfile(source / name, folder / RUNTIME / beside)
        write_text(folder / RUNTIME / "LICENSE.txt", LICENCE)
        for old in folder.glob("sample.*"):
            old.unlink()
        if sample is not None:
            shutil.copyfile(sample, folder / _sample_name(sample))
        if onnx.resolve() != (folder / "model.onnx").resolve():
            shutil.copyfile(onnx, folder / "model.onnx")
    except OSError as error:
        raise SaveError(
            f"{folder}: cannot be written ({error.strerror or error}). Make room, or choose another."
        ) from None
    place = folder / "index.html"
    write_bytes(place, _render(card, folder, title or card.model, sample).encode())
    return place


def check_web(card: Card, name: Path) -> None:
    """Whether a page can feed a network.

    Raises:
        ConfigError: it takes other channels, another range or another precision than a browser has.
    """
    preprocess = card.preprocess
    if preprocess.channels not in (1, 3):
        raise ConfigError(
            f"{name}: takes images of {preprocess.channels} channels, browsers decode grey and RGB ones. "
            "Serve it by  --format triton"
        )
    if preprocess.bands is not None and preprocess.bands != tuple(range(1, preprocess.channels + 1)):
        raise ConfigError(
            f"{name}: takes the bands {list(preprocess.bands)} of an image, browsers give grey or RGB. "
            "Serve it by  --format triton"
        )
    if preprocess.value_range != BYTES:
        raise ConfigError(
            f"{name}: takes values of the range {preprocess.value_range}, browsers decode to 0..255. "
            "Serve it by  --format triton"
        )
    if card.precision == "bf16":
        raise ConfigError(
            f"{name}: is of bf16, in which no browser computes. Export it with  --precision fp32  or int8."
        )


def _check_folder(folder: Path) -> None:
    """Only what an earlier export wrote may be written over."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder}: is a file; the page and what it needs are a folder. Choose another name.")
    known = {"index.html", "model.onnx", RUNTIME}
    met = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others := [name for name in met if name not in known and not name.startswith("sample.")]:
        raise ConfigError(f"--out {folder}: holds other files ({', '.join(others[:3])}). Choose a new or empty folder.")


def _sample_name(sample: Path) -> str:
    return f"sample{sample.suffix.lower()}"


def _render(card: Card, folder: Path, title: str, sample: Path | None) -> str:
    """The page, with the hashes of its script and style in its policy."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        inside = {
            kind: (PAGE / name).read_text(encoding="utf-8")
            for kind, name in (("script", "app.js"), ("style", "page.css"), ("worker", "worker.js"))
        }
    except OSError as error:
        raise IntegrityError(
            f"{error.filename}: is missing; intarsia is not wholly installed. Install it again."
        ) from None
    size = (folder / "model.onnx").stat().st_size
    return templates.get_template("index.html").render(
        title=title,
        count=card.classes.count,
        sample=sample is not None,
        about=f"{card.model} · {card.precision} · {size / 1e6:.1f} MB · weights {card.weights[:12]} · intarsia {__version__}",
        hashes={kind: _hash(text) for kind, text in inside.items()},
        data=_data(card, folder, sample),
        **inside,
    )


def _hash(text: str) -> str:
    """sha256 as a Content-Security-Policy writes it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(card: Card, folder: Path, sample: Path | None) -> str:
    """What the script reads, as JSON that cannot end a script element."""

    def file(name: str) -> dict[str, Any]:
        return {"name": name, "bytes": (folder / name).stat().st_size}

    interface, start, wasm = (f"{RUNTIME}/{name}" for name in FILES.values())
    preprocess, table = card.preprocess, card.classes
    values = {
        "classes": [{"name": name, "colour": colour} for name, colour in zip(table.names, table.colors, strict=True)],
        "card": {
            "classes": table.count,
            "channels": preprocess.channels,
            "mean": preprocess.mean,
            "std": preprocess.std,
            "scale": preprocess.scale,
            "input": card.input,
            "output": card.output,
            "border": card.border.model_dump() if card.border else None,
        },
        "limits": {"whole": WHOLE, "tile": TILE},
        "model": file("model.onnx"),
        "wasm": file(wasm),
        "runtime": {"interface": interface, "start": start},
        "sample": _sample_name(sample) if sample is not None else None,
    }
    return json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")
