"""Checkpoints: directories written aside, flushed, hashed and renamed; the newest one that verifies is resumed from.

    checkpoints/step_000120/
      model.safetensors  average.safetensors    weights; their average, if one is kept
      train_state.pt                            optimiser, counters; loadable with weights_only
      meta.json                                 sha256 of each file

No state of a random generator is saved: order, augmentation and dropout are functions of the seed and the step.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from intarsia.errors import IntegrityError, SaveError
from intarsia.runs import file_sha256, replace_folder, write_json


@dataclass
class Counters:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    """Time spent in the loop, over all restarts."""
    best: float = -1.0
    """Best mean IoU on validation."""
    best_step: int = 0
    stale: int = 0
    """Validations since the best one."""
    validations: int = 0
    bad_steps: int = 0
    """Steps skipped because loss or gradient was not finite."""
    losses: list[float] = field(default_factory=list)
    """Training losses since the last line of metrics.csv."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """All weights and statistics on the CPU, contiguous."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}


def save_checkpoint(
    folder: Path,
    counters: Counters,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    *,
    keep: int = 2,
) -> Path:
    """Write `folder/step_N`; of the older ones keep the newest `keep` - 1.

    Raises:
        SaveError: the disk does not take it; older checkpoints stay as they are.
    """
    target = folder / f"step_{counters.step:08d}"
    aside = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(weights_of(model), aside / "model.safetensors")
        if average is not None:
            save_file(weights_of(average), aside / "average.safetensors")
        torch.save({"optimizer": optimizer.state_dict(), "counters": asdict(counters)}, aside / "train_state.pt")
        files = {path.name: file_sha256(path) for path in sorted(aside.iterdir())}
        write_json(aside / "meta.json", {"step": counters.step, "files": files})
        replace_folder(aside, target)
    except (OSError, RuntimeError) as error:
        raise SaveError(
            f"{target}: the checkpoint cannot be written ({error}). Free some space and --resume."
        ) from None
    for old in checkpoints(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, newest first, verified or not."""
    return sorted(folder.glob("step_*"), reverse=True) if folder.is_dir() else []


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a line on each that did not."""
    skipped: list[str] = []
    for checkpoint in checkpoints(folder):
        try:
            verify(checkpoint)
            return checkpoint, skipped
        except IntegrityError as error:
            skipped.append(f"passed over: {error}")
    return None, skipped


def verify(checkpoint: Path) -> None:
    """Raise IntegrityError unless every file is the one that was written."""
    try:
        files = json.loads((checkpoint / "meta.json").read_text())["files"]
    except (OSError, ValueError, KeyError):
        raise IntegrityError(f"{checkpoint}: meta.json is missing or damaged") from None
    for name, digest in files.items():
        path = checkpoint / name
        if not path.is_file() or file_sha256(path) != digest:
            raise IntegrityError(f"{path}: is missing or not the file that was saved")


def load_checkpoint(
    checkpoint: Path, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> Counters:
    """Put a checkpoint's state into model, average and optimiser, and return where the run stood."""
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    if average is not None:
        average.load_state_dict(load_file(checkpoint / "average.safetensors"))
    state: dict[str, Any] = torch.load(checkpoint / "train_state.pt", map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    return Counters(**state["counters"])
