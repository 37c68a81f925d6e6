"""A run folder and a model folder: what lies where, written so that a kill at any moment leaves something whole.

    runs/NAME-N/
      recipe.yaml        every setting, as resolved
      classes.yaml  splits.json  environment.json
      start.json         source of the start weights, normalisation
      metrics.csv  curves.png  augmented.png
      checkpoints/step_000120/   to resume from
      model/  model-last/        the best and the last model: model.safetensors, manifest.json
      report/index.html

A manifest holds sha256 and length of each file beside it; reading checks them. `models/saved.py` writes and reads all of a
model folder.
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
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import ConfigError, HashMismatch, IntegrityError, PickleRefused, SaveError, TruncatedFile

FORMAT = 1
WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings of files that are pickles, as a rule."""
_SAFETENSORS = ".safetensors"
_LONGEST_HEADER = 100_000_000
"""Bytes that the header of a safetensors file may have, by its definition."""
_ROW = re.compile(r"\[\n\s*([-+.\deE]+(?:,\n\s*[-+.\deE]+)*)\n\s*\]")


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
        about = {
            "files": {WEIGHTS: file_sha256(aside / WEIGHTS)},
            "bytes": {WEIGHTS: (aside / WEIGHTS).stat().st_size},
            "environment": environment(),
        }
        text = json.dumps({"format": FORMAT, **manifest, **about}, indent=1, ensure_ascii=False)
        write_text(aside / MANIFEST, _ROW.sub(_in_one_line, text) + "\n")
        replace_folder(aside, folder)
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written ({error.strerror}).") from None


def _in_one_line(numbers: re.Match[str]) -> str:
    return "[" + re.sub(r"\s+", " ", numbers[1]) + "]"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a model folder, after its files were held against it.

    Raises:
        PickleRefused, TruncatedFile, HashMismatch: a file is not the one that was written.
        IntegrityError: a file is missing, or the manifest is damaged or of another format.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        sizes = {name: int(size) for name, size in manifest.get("bytes", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(f"{folder / MANIFEST}: is missing or damaged.") from None
    if manifest.get("format") != FORMAT:
        raise IntegrityError(
            f"{folder / MANIFEST}: has format {manifest.get('format')}, this intarsia reads {FORMAT}. Update intarsia."
        )
    if WEIGHTS not in files:
        raise IntegrityError(f"{folder / MANIFEST}: is damaged, it has no sha256 of {WEIGHTS}. Copy the folder again.")
    for name, digest in files.items():
        check_file(folder / Path(name).name, digest, sizes.get(name))
    return manifest


def check_file(path: Path, digest: str, size: int | None = None) -> None:
    """Hold a file against what was noted when it was written.

    Args:
        digest: its sha256, in hexadecimal.
        size: its bytes; None: nobody noted them.

    Raises:
        PickleRefused: it is a pickle in truth.
        TruncatedFile: its end is missing.
        HashMismatch: it has another content.
        IntegrityError: it is missing or cannot be read.
    """
    if not path.is_file():
        raise IntegrityError(f"{path}: is missing.")
    try:
        if is_pickle(path):
            raise _no_pickle(path)
        met = path.stat().st_size
        right = size in (None, met) and file_sha256(path) == digest
        if (size is not None and met < size) or ((right or size is None) and is_cut(path)):
            whole = f" of {size}" if size is not None else ""
            raise TruncatedFile(f"{path}: is cut short, it has {met}{whole} bytes. Copy it again.")
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read ({error.strerror}).") from None
    if not right:
        raise HashMismatch(f"{path}: is not the file that was saved (sha256 differs). Copy it again.")


def is_cut(path: Path) -> bool:
    """Whether a safetensors file is shorter than its header says; False for other files and for headers that make no sense."""
    if path.suffix != _SAFETENSORS:
        return False
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or size - 8 < length <= _LONGEST_HEADER:
            return True
        if length > _LONGEST_HEADER:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
            return bool(8 + length + max(ends, default=0) > size)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return False


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle of any protocol, or a zip archive with one, as torch.save writes; nothing is unpickled."""
    import pickletools
    import zipfile

    try:
        with path.open("rb") as file:
            head = file.read(9)
            if (
                head[4:] == b"\0\0\0\0{"
            ):  # safetensors: its header's length in 8 bytes, then JSON; it may well begin with 0x80
                return False
            if head.startswith(b"PK\x03\x04"):
                with zipfile.ZipFile(file) as archive:
                    return any(name.endswith(".pkl") for name in archive.namelist())
            file.seek(0)
            first = [code.name for code, _, _ in islice(pickletools.genops(file), 16)]
            file.seek(-1, os.SEEK_END)
            return len(first) > 1 and (first[0] == "PROTO" or file.read(1) == b".")
    except zipfile.BadZipFile:  # its end is missing; it may have held one
        return True
    except Exception:  # what cannot be read or parsed is no pickle
        return False


def _no_pickle(path: Path) -> PickleRefused:
    return PickleRefused(
        f"{path}: is a pickle, which could run code when it is opened, so it is not opened. To use its weights, load them by "
        "torch.load(FILE, weights_only=True) into a model of intarsia.create_model; intarsia.models.saved.save_model makes a "
        "model folder of it."
    )


def find_model(path: Path) -> Path:
    """The model folder of a run folder or model folder.

    Raises:
        ConfigError: there is none.
        PickleRefused: the path is that of a pickle, such as a .pt file.
    """
    for folder in (path, path / "model"):
        if (folder / MANIFEST).is_file():
            return folder
    if not path.exists():
        raise ConfigError(f"{path}: does not exist.")
    if path.is_file() and (path.suffix.lower() in PICKLES or is_pickle(path)):
        raise _no_pickle(path)
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
