"""Runs whose network an engine computes: exported once, found again, replaced when damaged."""

import subprocess
import sys

import numpy as np
import pytest

import intarsia as ia
from intarsia.engines.choice import choice_file
from intarsia.engines.files import read_card
from intarsia.errors import ConfigError, IntegrityError
from intarsia.prediction.exported_runs import exported_of
from intarsia.prediction.networks.torch_network import Network
from intarsia.progress import Silent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image(cells):
    return cells / "test" / "images" / "cells_000.png"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_engine_says_what_torch_says(tiny_run, image, backend):
    right = ia.load(tiny_run, precision="fp32").predict(image, probabilities=True)
    predictor = ia.load(tiny_run, settings={"backend": backend})
    found = predictor.predict(image, probabilities=True)
    assert predictor.words == f"{backend} fp32"
    assert (found.classes == right.classes).mean() >= 0.9999
    np.testing.assert_allclose(found.probabilities, right.probabilities, atol=1e-4)


def test_the_second_time_needs_no_torch(tiny_run, image, cache):
    first = ia.load(tiny_run, settings={"backend": "openvino"}).predict(image)
    code = (
        "import sys, intarsia as ia\n"
        f"found = ia.load({str(tiny_run)!r}, settings={{'backend': 'openvino'}}).predict({str(image)!r})\n"
        "assert 'torch' not in sys.modules\n"
        "print(found.classes.sum())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == [str(first.classes.sum())], ended.stderr


def test_a_damaged_file_in_the_cache_is_written_again(tiny_run):
    kept = exported_of(tiny_run)
    kept.write_bytes(kept.read_bytes()[:-100])
    assert exported_of(tiny_run) == kept
    assert read_card(kept).parity.agreement >= 0.9999


def test_a_file_beside_the_run_is_taken(tiny_run, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "export").mkdir()
    shutil.copy(exported_of(tiny_run), run / "export" / "mine.onnx")
    assert exported_of(run) == run / "export" / "mine.onnx"
    assert exported_of(run / "model") == run / "export" / "mine.onnx"


def test_the_fastest_is_measured_once_and_torch_takes_part(tiny_run, image):
    predictor = ia.load(tiny_run, settings={"backend": "auto"})
    written = choice_file().read_text()
    assert '"torch"' in written
    assert '"openvino fp32"' in written
    again = ia.load(tiny_run, settings={"backend": "auto"})
    assert again.words == predictor.words
    assert choice_file().read_text() == written
    assert np.array_equal(again.predict(image).classes, predictor.predict(image).classes)


def test_runs_and_files_are_not_averaged(tiny_run):
    with pytest.raises(ConfigError, match="export all of them, or none"):
        ia.load([tiny_run, exported_of(tiny_run)])


def test_several_runs_are_averaged_by_an_engine(tiny_run, image):
    right = ia.load([tiny_run, tiny_run], precision="fp32").predict(image)
    found = ia.load([tiny_run, tiny_run], settings={"backend": "onnxruntime"}).predict(image)
    assert (found.classes == right.classes).mean() >= 0.999


def test_a_run_that_cannot_be_exported_runs_in_torch_and_says_why(tiny_run, monkeypatch):
    def refuse(path):
        raise IntegrityError("of another planet\nand more")

    told = []
    monkeypatch.setattr("intarsia.prediction.exported_runs.exported_of", refuse)
    monkeypatch.setattr(Silent, "note", lambda self, text: told.append(text))
    monkeypatch.setattr("intarsia.prediction.exported_runs.default_progress", Silent)
    assert isinstance(ia.load(tiny_run, settings={"backend": "auto"}).network, Network)
    assert told == ["backend=auto: torch, since the run cannot be exported here (of another planet)"]
