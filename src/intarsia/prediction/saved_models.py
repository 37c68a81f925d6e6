"""Models of run and model folders, on torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from intarsia.classes import ClassTable
from intarsia.devices import choose_device
from intarsia.errors import IntegrityError
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import MODELS, SegmentationModel, build_model
from intarsia.ops.depthwise import depthwise_in_float32
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.network import Member, Network
from intarsia.prediction.predictor import Predictor, check_alike
from intarsia.runs import WEIGHTS, find_model, read_manifest


def load_models(paths: Sequence[Path], config: PredictConfig, device: str, precision: str) -> Predictor:
    """`load` of folders."""
    place = choose_device(device, precision)
    folders = [find_model(path) for path in paths]
    members, tables, digests = [], [], []
    for folder in folders:
        manifest = read_manifest(folder)
        model, table, preprocess = _rebuilt(manifest, folder)
        if place.is_cpu_in_bf16:
            depthwise_in_float32(model)
        model = model.to(place.torch_name).to(memory_format=torch.channels_last).eval()
        members.append(Member(model, preprocess))
        tables.append(table)
        digests.append(manifest["files"][WEIGHTS])
    check_alike(folders, tables, [member.preprocess for member in members])
    network = Network(members, place, config)
    return Predictor(network, tables[0], folders[0], digest="+".join(digests), words=place.describe())


def _rebuilt(manifest: Mapping[str, Any], folder: Path) -> tuple[SegmentationModel, ClassTable, Preprocess]:
    config = MODELS.resolve(manifest["model"]).without_start_weights()
    model = build_model(config)
    weights = load_file(folder / WEIGHTS)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    wrong = [key for key, shape in expected.items() if key not in weights or tuple(weights[key].shape) != shape]
    wrong += [key for key in weights if key not in expected]
    if wrong:
        raise IntegrityError(
            f"{folder}: the weights do not fit the network of the manifest: {len(wrong)} tensors differ, first {wrong[0]}."
        )
    model.load_state_dict(weights)
    return model, ClassTable(**manifest["classes"]), Preprocess(**manifest["preprocess"])
