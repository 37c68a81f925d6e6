"""A run folder and a model folder: what lies where, written so that a kill at any moment leaves something whole.

    runs/NAME-N/
      recipe.yaml        every setting, as resolved
      classes.yaml  splits.json  environment.json
      start.json         source of the start weights, normalisation
      metrics.csv  curves.png  augmented.png
      checkpoints/step_000120/   to resume from
      model/  model-last/        the best and the last model: model.safetensors, manifest.json
      report/index.html

A manifest holds the sha256 of each file beside it; reading checks it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import ConfigError, IntegrityError, SaveError

FORMAT = 1
WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"


def new_run_folder(parent: Path, name: str) -> Path:
    """Make `parent/name-N` with the least N that is free; never an existing one, also when two runs start at once."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    number = 1
    while True:
        folder = parent / f"{safe}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise SaveError(f"{folder}: cannot be made ({error.strerror}). Choose a place with --out.") from None


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, flush to disk, rename: a reader meets the old content or the new, never half.

    Raises:
        SaveError: the disk does not take it.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error.strerror}).") from None


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def replace_folder(aside: Path, folder: Path) -> None:
    """Put a finished folder in place: every file flushed, then one rename (an old folder steps back first)."""
    for path in sorted(aside.rglob("*")):
        if path.is_file():
            _flush(path)
    _flush(aside)
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    aside.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # some systems cannot open a folder
        return
    try:
        os.fsync(handle)
    except OSError:  # some file systems cannot flush a folder
        pass
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_model(folder: Path, weights: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> None:
    """Write a model folder: safetensors and manifest, no pickle.

    Raises:
        SaveError: weights that are not finite, or a disk that does not take them; an older model stays.
    """
    from safetensors.numpy import save_file

    bad = [key for key, value in weights.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        raise SaveError(f"{folder}: not saved, {len(bad)} tensors hold numbers that are not finite, first {bad[0]}.")
    aside = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(dict(weights), aside / WEIGHTS)
        files = {WEIGHTS: file_sha256(aside / WEIGHTS)}
        write_json(aside / MANIFEST, {"format": FORMAT, **manifest, "files": files, "environment": environment()})
        replace_folder(aside, folder)
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written ({error.strerror}).") from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a model folder, after its files were held against their hashes.

    Raises:
        IntegrityError: a file is missing or not the one that was written.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise IntegrityError(f"{folder / MANIFEST}: is missing or damaged.") from None
    if manifest.get("format") != FORMAT:
        raise IntegrityError(
            f"{folder / MANIFEST}: has format {manifest.get('format')}, this intarsia reads {FORMAT}. Update intarsia."
        )
    for name, digest in files.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise IntegrityError(f"{path}: is missing.")
        if file_sha256(path) != digest:
            raise IntegrityError(f"{path}: is not the file that was saved (sha256 differs). Copy it again.")
    return manifest


def find_model(path: Path) -> Path:
    """The model folder of a run folder or model folder.

    Raises:
        ConfigError: there is none.
    """
    for folder in (path, path / "model"):
        if (folder / MANIFEST).is_file():
            return folder
    if not path.exists():
        raise ConfigError(f"{path}: does not exist.")
    if (path / "recipe.yaml").is_file():
        raise ConfigError(f"{path}: this run has no model yet. Go on with  intarsia train ... --out {path} --resume")
    raise ConfigError(f"{path}: is no run and no model folder (no model/{MANIFEST} in it).")


def environment() -> dict[str, Any]:
    """Versions of what computes, for every artefact."""
    packages = {}
    for package in ("intarsia", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "-"
    return {"python": sys.version.split()[0], "system": platform.platform(), "packages": packages}
