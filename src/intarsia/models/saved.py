"""A model folder written and read: weights, and a manifest with everything that prediction needs.

    model.safetensors
    manifest.json       model, classes, preprocess    how the network is built, names and colours, how images are prepared
                        sizes                         samples it was trained on, smallest input
                        golden                        what it computes of a built-in image (models/golden.py)
                        files, bytes, environment     sha256 and length of each file, versions of what computed

`load_saved` refuses what is not what was saved, each kind of damage with an exception of its own (`intarsia.errors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from intarsia.classes import ClassTable
from intarsia.devices import Device
from intarsia.errors import (
    ConfigError,
    HashMismatch,
    IntarsiaError,
    IntegrityError,
    NonFiniteWeights,
    TruncatedFile,
    WrongClassCount,
    WrongWeights,
)
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import MODELS, ModelConfig, SegmentationModel, build_model
from intarsia.models.golden import CPU, check_golden, golden_of
from intarsia.ops.depthwise import depthwise_in_float32
from intarsia.runs import MANIFEST, WEIGHTS, find_model, is_cut, read_manifest, write_model


@dataclass(frozen=True)
class Saved:
    """A model folder that was read and found whole."""

    model: SegmentationModel
    """In evaluation."""
    table: ClassTable
    preprocess: Preprocess
    manifest: Mapping[str, Any]
    folder: Path
    digest: str
    """sha256 of the weights."""


def save_model(
    folder: Path,
    model: SegmentationModel,
    table: ClassTable,
    preprocess: Preprocess,
    *,
    size: tuple[int, int] | None = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """Write a model folder that `load_saved` and `intarsia.load` read.

    Args:
        size: (height, width) of the samples it was trained on, after the resize by `preprocess.scale`.
        about: more for the manifest, such as where it started and how it was trained.

    Returns:
        Why there is no golden output in it, in words; "" if there is one, as there should be.

    Raises:
        SaveError: weights that are not finite, or a disk that does not take them; an older model stays.
    """
    manifest = {
        "model": model.config.to_dict(),
        "classes": table.to_dict(),
        "preprocess": preprocess.to_dict(),
        "sizes": _sizes(model, size),
        **(about or {}),
    }
    reason = ""
    try:
        manifest["golden"] = golden_of(model, preprocess)
    except (
        IntarsiaError,
        RuntimeError,
        MemoryError,
        ValueError,
    ) as error:  # no memory, or a plug-in that fails on 64 x 64
        reason = "no golden output was kept: " + str(error).partition("\n")[0]
    weights = {key: value.detach().cpu().contiguous().numpy() for key, value in model.state_dict().items()}
    write_model(folder, weights, manifest)
    return reason


def load_saved(path: str | Path, *, device: Device | None = None, golden: bool = True) -> Saved:
    """The model of a run folder or model folder, in evaluation, after everything about it was checked.

    Args:
        device: where it is to lie and compute; None: on the CPU in fp32.
        golden: compute the golden output again (on the CPU in fp32, wherever the model will lie); folders of earlier versions
            have none and are taken as they are.

    Raises:
        ConfigError: there is no model.
        PickleRefused: the path is, or the folder holds, a pickle.
        TruncatedFile, HashMismatch: the weights are cut short, or another file than was saved.
        NonFiniteWeights: there are NaN or infinite weights.
        WrongClassCount: the class table and the network differ in the number of classes.
        WrongWeights: the weights are those of another network.
        GoldenMismatch: the network computes something else than when it was saved.
        IntegrityError: a file is missing, or the manifest is damaged or of another format.
    """
    folder = find_model(Path(path))
    manifest = read_manifest(folder)
    config, table, preprocess = _described(manifest, folder)
    weights = stored_weights(folder)
    model = build_model(config)
    _check_fit(model, weights, folder)
    model.load_state_dict(weights)
    place = device or CPU
    model = model.to(memory_format=torch.channels_last).eval()
    if golden and isinstance(manifest.get("golden"), Mapping):
        check_golden(model, preprocess, manifest["golden"], folder, packages=_packages(manifest))
    if place.is_cpu_in_bf16:
        depthwise_in_float32(model)
    return Saved(model.to(place.torch_name), table, preprocess, manifest, folder, manifest["files"][WEIGHTS])


def stored_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of a model folder by name, on the CPU; `read_manifest` has held the file against its hash before.

    Raises:
        TruncatedFile, HashMismatch: the file is cut short, or no safetensors file.
        NonFiniteWeights: there are NaN or infinite weights.
    """
    path = folder / WEIGHTS
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        if path.is_file() and is_cut(path):
            raise TruncatedFile(f"{path}: is cut short. Copy it again.") from None
        raise HashMismatch(f"{path}: is not the file that was saved, it is no safetensors file ({error}).") from None
    bad = [key for key, value in weights.items() if not _is_finite(value)]
    if bad:
        raise NonFiniteWeights(
            f"{path}: {len(bad)} tensors hold numbers that are not finite, first {bad[0]}. Take another "
            "model of the run, such as model-last, or train again."
        )
    return weights


def _is_finite(value: Tensor) -> bool:
    """By the extremes, which NaN passes into: a third of the time of looking at each number."""
    if not value.is_floating_point() or value.numel() == 0:
        return True
    low, high = torch.aminmax(value if value.itemsize > 1 else value.float())
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _described(manifest: Mapping[str, Any], folder: Path) -> tuple[ModelConfig, ClassTable, Preprocess]:
    """What the manifest says, held against itself."""
    path = folder / MANIFEST
    try:
        config = MODELS.resolve(manifest["model"]).without_start_weights()
        table, preprocess = ClassTable(**manifest["classes"]), Preprocess(**manifest["preprocess"])
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path}: is damaged ({error}). Copy the folder again.") from None
    except ConfigError as error:
        raise IntegrityError(f"{path}: {error} Copy the folder again, or update intarsia.") from None
    if config.num_classes != table.count:
        raise WrongClassCount(
            f"{path}: names {table.count} classes, its network has {config.num_classes}. Copy the folder again."
        )
    if config.in_channels != preprocess.channels:
        raise IntegrityError(
            f"{path}: prepares {preprocess.channels} channels, its network takes {config.in_channels}. Copy the folder again."
        )
    return config, table, preprocess


def _check_fit(model: SegmentationModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Names and shapes of the weights against those of the network."""
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = [key for key in (expected | found) if expected.get(key) != found.get(key)]
    if not wrong:
        return
    classes = model.config.classes
    others = {_classes_met(expected.get(key, ()), found.get(key, ()), classes) for key in wrong}
    if len(others) == 1 and (other := others.pop()) is not None:
        raise WrongClassCount(
            f"{folder}: the network of the manifest has {classes} classes, that of the weights {other} ({wrong[0]}). "
            "Copy the folder again."
        )
    raise WrongWeights(
        f"{folder}: the weights do not fit the network of the manifest: {len(wrong)} tensors differ, first {wrong[0]}. "
        "Copy the folder again."
    )


def _classes_met(expected: tuple[int, ...], found: tuple[int, ...], classes: int) -> int | None:
    """The other number of classes that explains why two shapes differ; None if it does not."""
    if len(expected) != len(found):
        return None
    pairs = {(ours, theirs) for ours, theirs in zip(expected, found, strict=True) if ours != theirs}
    return pairs.pop()[1] if len(pairs) == 1 and next(iter(pairs))[0] == classes else None


def _sizes(model: SegmentationModel, size: tuple[int, int] | None) -> dict[str, list[int]]:
    """Input sizes (height, width): of training samples and their logits, and the smallest that has logits."""
    told = {"smallest": list(model.input_size(1, 1))}
    return told if size is None else {"trained": list(size), "logits": list(model.output_size(*size)), **told}


def _packages(manifest: Mapping[str, Any]) -> dict[str, str]:
    environment = manifest.get("environment")
    packages = environment.get("packages") if isinstance(environment, Mapping) else None
    return {str(name): str(each) for name, each in packages.items()} if isinstance(packages, Mapping) else {}
