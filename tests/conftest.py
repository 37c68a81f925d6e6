"""Fixtures: a private cache, small folders of drawn cells, a tiny trained run, and the real data where it is present."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from intarsia.data.cells import write_cells_folder
from intarsia.progress import Silent

settings.register_profile("repeatable", derandomize=True)  # HYPOTHESIS_PROFILE=default draws anew in each run
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("INTARSIA_TEST_DATA", ROOT.parent / "shared"))
TINY = {"name": "unet_same", "width": 4, "depth": 2}


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["INTARSIA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of real data by name, such as "data/camvid-mini"; skips where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"real data {name} is not on this machine (INTARSIA_TEST_DATA names its folder)")
        return path

    return find


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn cells: 6 train, 2 val, 3 test images of 160 x 160."""
    folder = tmp_path_factory.mktemp("data") / "cells"
    write_cells_folder(folder, counts={"train": 6, "val": 2, "test": 3}, seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny_run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny network on the drawn cells, evaluated."""
    from intarsia.evaluation.experiment import train

    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(
        cells,
        out=out,
        progress=Silent(),
        model=TINY,
        train={"steps": 12, "batch": 4, "validations": 3, "lr": 0.01, "memory_format": "contiguous"},
        data={"size": (64, 64)},
    )
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a data folder of images and masks from arrays."""

    def make(
        count: int = 4, size: tuple[int, int] = (24, 32), values: tuple[int, ...] = (0, 1), name: str = "set"
    ) -> Path:
        root = tmp_path / name
        rng = np.random.default_rng(0)
        for index in range(count):
            write(root / "images" / f"i{index}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            write(root / "masks" / f"i{index}.png", rng.choice(np.array(values, np.uint8), size))
        return root

    return make


def write(path: Path, array: np.ndarray) -> Path:  # type: ignore[type-arg]
    """Save an array as an image file, folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def intarsia(monkeypatch, capsys):
    """Runs a command in this process: exit code, output, errors."""
    from intarsia.cli.main import main

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["intarsia", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run
