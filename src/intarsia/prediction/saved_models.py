"""Models of run and model folders, on torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from intarsia.devices import choose_device
from intarsia.models.saved import load_saved
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.torch_network import Member, Network
from intarsia.prediction.predictor import Predictor, check_alike


def load_models(paths: Sequence[Path], config: PredictConfig, device: str, precision: str) -> Predictor:
    """`load` of folders."""
    place = choose_device(device, precision)
    saved = [load_saved(path, device=place) for path in paths]
    folders = [each.folder for each in saved]
    check_alike(folders, [each.table for each in saved], [each.preprocess for each in saved])
    network = Network([Member(each.model, each.preprocess) for each in saved], place, config)
    digest = "+".join(each.digest for each in saved)
    return Predictor(network, saved[0].table, folders[0], digest=digest, words=place.describe())
