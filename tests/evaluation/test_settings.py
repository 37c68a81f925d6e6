"""Evaluation with settings of prediction: the same network as `predict`, a report beside the one without them."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from intarsia.errors import ConfigError
from intarsia.evaluation import crf
from intarsia.evaluation.crf import search_on_validation
from intarsia.evaluation.evaluate import evaluate
from intarsia.ops.crf import CrfGrid
from intarsia.prediction.config import PredictConfig, changed_settings, in_words, report_name
from intarsia.progress import Silent


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def test_a_report_with_settings_lies_beside_the_one_without(run):
    before = (run / "report" / "test.json").read_text()
    scored = evaluate(run, "test", progress=Silent(), settings={"mirrors": "both", "crf": "deeplab"}, device="cpu")
    assert (run / "report" / "test.json").read_text() == before
    assert scored.report == run / "report_mirrors-both_crf-deeplab" / "index.html"
    stored = json.loads((scored.report.parent / "test.json").read_text())
    assert stored["prediction"]["mirrors"] == "both"
    assert "crf=deeplab" in scored.report.read_text()
    plain = evaluate(run, "test", progress=Silent(), report=False, device="cpu")
    assert not np.array_equal(plain.counts, scored.counts)


def test_tiles_are_scored_as_they_are_predicted(run):
    import intarsia as ia

    settings = {"tile": 64, "halo": 0}
    scored = evaluate(run, "test", progress=Silent(), report=False, settings=settings, device="cpu")
    model = ia.load(run, device="cpu", settings=settings)
    item = scored.images[0].item
    classes = model.predict(item.image).classes
    whole = ia.load(run, device="cpu").predict(item.image).classes
    assert not np.array_equal(classes, whole)
    counts = np.bincount(classes.ravel(), minlength=3)
    assert np.array_equal(np.nansum(scored.found["overlap"].counts[0], axis=0), counts)


def test_words_of_settings():
    config = PredictConfig().replace({"crf": {"name": "deeplab", "position_std": 30}, "scales": [0.5, 1.0], "batch": 4})
    words = in_words(changed_settings(config))
    assert words == ["scales=[0.5,1.0]", "crf=deeplab", "crf.position_std=30.0"]
    assert report_name(changed_settings(config)) == "report_scales-0.5-1.0-_crf-deeplab_crf.position_std-30.0"
    assert report_name({}) == "report"


def test_the_crf_is_searched_on_validation_images(run):
    grid = CrfGrid((0.5, 3), (20,), (5, 40), rounds=0)
    found = search_on_validation(run, progress=Silent(), device="cpu", grid=grid)
    assert (found.images, len(found.tried)) == (2, 5)
    best = max(each.mean_iou for each in found.tried[1:])
    assert [each.mean_iou for each in found.tried if each.config == found.config] == [best]
    assert "4 settings tried on 2 validation images" in found.text()
    again = evaluate(run, "val", progress=Silent(), report=False, settings={"crf": found.config}, device="cpu")
    assert again.mean_iou == pytest.approx(best, abs=1e-9)


def test_search_needs_validation_images(run, monkeypatch):
    none = SimpleNamespace(items=lambda split: [])
    monkeypatch.setattr(crf, "opened_for", lambda *given: (None, None, none))
    with pytest.raises(ConfigError, match="there are no validation images"):
        search_on_validation(run, progress=Silent(), device="cpu")
