"""Runs that are predicted by an engine for exported files: exported once, kept in the cache, or found beside the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from intarsia import __version__
from intarsia.downloads import cache_folder
from intarsia.engines.card import Card
from intarsia.engines.choice import machine_key, measure, remember, remembered
from intarsia.engines.files import is_exported, read_card
from intarsia.errors import ConfigError, IntegrityError, MissingExtra, reason_of
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.backends import choices_of, computing, drawn_planes
from intarsia.prediction.networks.windows import Prepared
from intarsia.prediction.predictor import Predictor, of_exported
from intarsia.progress import default_progress
from intarsia.runs import WEIGHTS, find_model, read_manifest

TORCH = "torch"
DRIVER = Path("/proc/driver/nvidia")
"""There where a CUDA device is: engines compute on the processor, so torch is not raced against them."""


def load_for_engine(paths: Sequence[Path], config: PredictConfig, device: str, precision: str) -> Predictor:
    """`load` of run folders whose network an engine is to compute, or whatever is the fastest."""
    if config.backend == "auto":
        return _fastest(paths, config, device, precision)
    return _of_files([exported_of(path) for path in paths], paths, config, device, precision)


def _of_files(
    files: Sequence[Path], runs: Sequence[Path], config: PredictConfig, device: str, precision: str
) -> Predictor:
    """Exported files that stand for runs."""
    named = of_exported(files, config, device, precision)
    return Predictor(named.network, named.table, find_model(runs[0]), digest=named.digest, words=named.words)


def exported_of(path: Path) -> Path:
    """The network of a run in float32 as a file for engines: one that lies in its folder `export`, else one in the cache,
    which is written and held against the model the first time.

    Raises:
        MissingExtra: what writes it is not installed.
        IntegrityError: the file would compute something else than the model.
    """
    folder = find_model(path)
    weights: str = read_manifest(folder)["files"][WEIGHTS]
    kept = cache_folder() / "exports" / f"{weights[:16]}-{__version__}.onnx"
    for file in (*_beside(path), *_beside(folder.parent), kept):
        if file.is_file() and _fits(file, weights):
            return file
    _write(folder, kept)
    return kept


def _beside(path: Path) -> Iterator[Path]:
    folder = path / "export"
    yield from sorted(filter(is_exported, folder.glob("*")))


def _fits(file: Path, weights: str) -> bool:
    """Whether a file is a run's network as it is: in float32, from normalised images to logits."""
    try:
        return read_card(file).stands_for(weights)
    except (ConfigError, IntegrityError):
        return False


def _write(folder: Path, file: Path) -> None:
    from intarsia.export.parity import made_pictures
    from intarsia.export.write import aside, card_for, check_kind, write_proved
    from intarsia.models.saved import load_saved

    check_kind("onnx", "fp32")
    saved = load_saved(folder)
    card = card_for(saved.model, saved.table, saved.preprocess, saved.digest)
    with aside(file) as place:
        write_proved(saved.model, card, place, kind="onnx", pictures=made_pictures(saved.preprocess))


def _fastest(paths: Sequence[Path], config: PredictConfig, device: str, precision: str) -> Predictor:
    """Torch, or the engine that is faster on this machine by measurement."""
    if device not in ("auto", "cpu") or (device == "auto" and DRIVER.exists()):
        return _in_torch(paths, config, device, precision)
    try:
        files = [exported_of(path) for path in paths]
    except (ConfigError, IntegrityError, MissingExtra) as error:
        default_progress().note(f"backend=auto: torch, since the run cannot be exported here ({reason_of(error)})")
        return _in_torch(paths, config, device, precision)
    card = read_card(files[0])
    choices = dict(choices_of(files[0], card, precision, trusted=True))
    key = machine_key(f"run {card.weights} {precision}")
    chosen = remembered(key)
    if chosen not in (TORCH, *choices):
        calls = {name: computing(make()) for name, make in choices.items()}
        calls[TORCH] = _torch_computing(paths[0], card, precision)
        chosen = remember(key, measure(calls))
    if chosen == TORCH:
        return _in_torch(paths, config, "cpu", precision)
    backend, kind = chosen.split()
    return _of_files(files, paths, config.replace(backend=backend), device, kind)


def _torch_computing(path: Path, card: Card, precision: str) -> Callable[[], Any]:
    """A call of a run in torch, for measuring."""
    import torch

    network = _in_torch([path], PredictConfig(), "cpu", precision).network
    planes = card.preprocess.normalise(drawn_planes(card)[0])
    given = [Prepared((torch.from_numpy(planes),), None)]
    return lambda: network(given, (planes.shape[-2], planes.shape[-1]))


def _in_torch(paths: Sequence[Path], config: PredictConfig, device: str, precision: str) -> Predictor:
    from intarsia.prediction.saved_models import load_models

    return load_models(paths, config, device, precision)
