"""Measures of an evaluation against the metrics they stand on, their intervals, and how they are asked for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from intarsia.classes import IGNORE, ClassTable
from intarsia.data.base import Item
from intarsia.data.folder import FolderConfig
from intarsia.errors import ConfigError, IntegrityError
from intarsia.evaluation.evaluate import evaluate
from intarsia.evaluation.measures import LESS_IS_BETTER, MEASURES, SHOWN, choose_measures, judge
from intarsia.evaluation.scores import read_counts, table_text
from intarsia.metrics import em_scores
from intarsia.metrics.boundary import boundary_counts, boundary_scores
from intarsia.metrics.calibration import calibration_counts, calibration_scores
from intarsia.metrics.instances import match_classes, match_objects, mean_panoptic_quality, object_scores
from intarsia.metrics.intervals import interval
from intarsia.metrics.overlap import overlap_scores
from intarsia.ops.objects import parts_of
from intarsia.progress import Silent
from intarsia.recipes.recipe import EvaluateConfig
from intarsia.training.validation import Scored
from tests.evaluation.tiny import write_data, write_run


class Folder:
    """What measures need of a data set."""

    label = "drawn"

    def __init__(self, names, instances=None):
        self.table, self.instances = ClassTable(names=names), instances

    def read_instances(self, item):
        return self.instances[int(item.name)]


def drawn(names, count=4, size=(40, 52), seed=0, instances=False):
    """Images with masks of blocks, logits near them, and objects if asked for."""
    rng = np.random.default_rng(seed)
    found, objects = [], []
    for number in range(count):
        mask = rng.integers(0, len(names), (size[0] // 4, size[1] // 4)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        objects.append(parts_of(mask > 0))
        logits = rng.normal(0, 1, (1, len(names), *size)) + 2 * np.eye(len(names))[mask].transpose(2, 0, 1)
        mask[:3, :9] = IGNORE
        logits = torch.tensor(logits, dtype=torch.float32)
        prediction = logits.argmax(1)[0].numpy().astype(np.uint8)
        counts = np.zeros((len(names),) * 2, np.int64)
        counted = mask != IGNORE
        np.add.at(counts, (mask[counted], prediction[counted]), 1)
        path = Path("x.png") if instances else None
        item = Item(str(number), Path("x.png"), Path("x.png"), *size, instances=path)
        found.append(Scored(item, prediction, mask, counts, math.nan, logits))
    return found, Folder(names, objects if instances else None)


def found_by(name, images, dataset):
    (measure,) = [each for each in choose_measures([name], dataset) if each.name == name]
    return judge(measure, np.stack([measure.count(image) for image in images]))


def test_overlap_is_of_the_summed_matrix():
    images, dataset = drawn(("a", "b", "c"))
    found = found_by("overlap", images, dataset)
    expected = overlap_scores(sum(image.counts for image in images))
    for key, value in found.scores.items():
        assert value == pytest.approx(getattr(expected, key), nan_ok=True)
    low, high = interval(np.stack([image.counts for image in images]), lambda counts: overlap_scores(counts).mean_iou)
    assert (found.low["mean_iou"], found.high["mean_iou"]) == (low, high)
    assert found.low["iou"].shape == (3,)


def test_boundary_is_of_the_summed_counts():
    images, dataset = drawn(("a", "b", "c"))
    found = found_by("boundary", images, dataset)
    first, *others = (boundary_counts(image.prediction, image.mask, 3) for image in images)
    expected = boundary_scores(sum(others, first))
    for key, value in found.scores.items():
        assert value == pytest.approx(getattr(expected, key), nan_ok=True)
    assert found.to_dict()["missed"] == expected.missed.tolist()


def test_objects_are_those_of_the_metric_with_and_without_drawn_ones():
    images, dataset = drawn(("a", "b", "c"), size=(64, 64))
    found = found_by("objects", images, dataset)
    each = [match_classes(image.mask, image.prediction, 3)[1:] for image in images]
    summed = [sum(column[1:], column[0]) for column in zip(*each, strict=True)]
    assert found.scores["panoptic_quality"][1:] == pytest.approx([object_scores(c).panoptic_quality for c in summed])
    assert float(found.scores["mean_panoptic_quality"]) == pytest.approx(mean_panoptic_quality(summed))
    assert math.isnan(found.scores["panoptic_quality"][0])
    images, dataset = drawn(("a", "cell"), size=(64, 64), instances=True)
    found = found_by("objects", images, dataset)
    counts = [
        match_objects(
            np.where(i.mask == 1, dataset.read_instances(i.item), 0), parts_of((i.prediction == 1) & (i.mask != IGNORE))
        )
        for i in images
    ]
    expected = object_scores(sum(counts[1:], counts[0]))
    assert float(found.scores["mean_average_precision"]) == pytest.approx(expected.average_precision)
    assert found.to_dict()["true_objects"] == [0, expected.true_objects]


def test_calibration_is_of_the_summed_bins():
    images, dataset = drawn(("a", "b"))
    found = found_by("calibration", images, dataset)
    logits, masks = (torch.cat([getattr(i, key) for i in images]) for key in ("logits", "mask_tensor"))
    expected = calibration_scores(calibration_counts(logits, masks)).to_dict()
    stored = found.to_dict()
    for key in ("expected_calibration_error", "brier_score", "accuracy", "bin_pixels"):
        assert stored[key] == pytest.approx(expected[key], rel=1e-6)


@pytest.mark.parametrize("names", [("cell", "membrane"), ("Membrane", "inside")])
def test_em_scores_the_inside_wherever_membrane_is(names):
    images, dataset = drawn(names, size=(32, 32), count=3)
    found = found_by("em", images, dataset)
    inside = 1 - [name.lower() for name in names].index("membrane")
    probabilities = np.stack([image.logits.softmax(1)[0, inside].numpy() for image in images])
    truth = np.stack([np.where(i.mask == IGNORE, IGNORE, i.mask == inside) for i in images])
    expected = em_scores(probabilities, truth).to_dict()
    stored = found.to_dict()
    for key in ("v_rand", "v_info", "adapted_rand_error", "warping_error", "pixel_error", "squared_error", "slices"):
        assert stored[key] == pytest.approx(expected[key], rel=1e-6)
    assert stored["v_rand_threshold"] == expected["v_rand_threshold"]


def test_every_score_has_words_and_an_interval_around_it():
    images, dataset = drawn(("cell", "membrane"), size=(32, 32), count=5)
    for name in MEASURES:
        found = found_by(name, images, dataset)
        assert set(found.scores) <= set(SHOWN)
        assert json.loads(json.dumps(found.to_dict()))
        for key, value in found.scores.items():
            there = ~np.isnan(value) & ~np.isnan(found.low[key])
            assert (found.low[key][there] <= found.high[key][there]).all()
    assert {"pixel_error", "mean_hausdorff95", "brier_score"} <= LESS_IS_BETTER
    assert not {"mean_iou", "v_rand", "mean_boundary_f1"} & LESS_IS_BETTER


def test_all_is_what_applies_and_overlap_is_always_there():
    _, dataset = drawn(("a", "b"), count=1)
    assert [each.name for each in choose_measures([], dataset)] == ["overlap"]
    assert [each.name for each in choose_measures(["all"], dataset)] == [
        "overlap",
        "boundary",
        "objects",
        "calibration",
    ]
    assert [each.name for each in choose_measures(["calibration", "boundary"], dataset)][1:] == [
        "boundary",
        "calibration",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("boundari", "there is no 'boundari'. Did you mean 'boundary'?"),
        ("em", "one is called membrane; its classes are a, b"),
    ],
)
def test_what_cannot_be_scored_is_refused(name, message):
    _, dataset = drawn(("a", "b"), count=1)
    with pytest.raises(ConfigError, match="metrics: ") as error:
        choose_measures([name], dataset)
    assert message in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("measures")
    return write_run(place / "run", write_data(place / "data"))


def test_evaluate_keeps_every_image_s_counts_and_shows_the_sections(run):
    evaluation = evaluate(run, metrics=["boundary", "objects", "calibration"], device="cpu", progress=Silent())
    stored = json.loads((run / "report" / "test.json").read_text())
    assert stored["boundary"]["mean_boundary_f1"] == pytest.approx(
        float(evaluation.found["boundary"].scores["mean_boundary_f1"])
    )
    assert stored["intervals"]["mean_iou"][0] <= stored["scores"]["mean_iou"] <= stored["intervals"]["mean_iou"][1]
    assert "too narrow" in stored["about_intervals"]
    values = [image["mean_iou"] for image in stored["images"] if image["mean_iou"] is not None]
    assert stored["mean_over_images"]["mean_iou"][0] == pytest.approx(np.mean(values))
    names, weights, counts = read_counts(run / "report" / "test.npz")
    assert names == [image["name"] for image in stored["images"]]
    assert len(weights) == 64
    assert np.array_equal(counts["overlap"].sum(0), np.array(stored["confusion"]))
    page = (run / "report" / "index.html").read_text()
    for section in ("boundary", "objects", "calibration"):
        assert f'<section id="{section}">' in page
    assert "--metrics boundary,objects,calibration" in page
    text = table_text(stored)
    assert "boundary F1" in text
    assert "IoU between" in text
    evaluate(run, device="cpu", progress=Silent())
    assert "boundary" not in json.loads((run / "report" / "test.json").read_text())


def test_the_recipe_names_every_measure_and_no_other():
    (names,) = [each for each in get_args(EvaluateConfig.model_fields["metrics"].annotation) if each is not ...]
    assert set(get_args(names)) == {*MEASURES, "all"}


def test_metrics_of_the_recipe_are_scored_without_asking(run):
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("metrics: []", "metrics: [calibration]"))
    assert "calibration" in evaluate(run, device="cpu", progress=Silent(), report=False).found
    (run / "recipe.yaml").write_text(text)


def test_damaged_counts_are_told(tmp_path):
    (tmp_path / "test.npz").write_bytes(b"PK nothing")
    with pytest.raises(IntegrityError, match="intarsia evaluate"):
        read_counts(tmp_path / "test.npz")


def test_a_membrane_model_is_scored_by_em_and_the_page_says_so(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("val", 1), ("test", 2)):
        for number in range(count):
            mask = np.ones((48, 48), np.uint8)
            mask[2:22, 3:20] = mask[2:22, 23:45] = mask[25:46, 3:45] = 0
            image = (np.where(mask, 60, 190) + rng.integers(-20, 20, mask.shape)).astype(np.uint8)
            for folder, pixels in (("images", image), ("masks", mask)):
                (tmp_path / "em" / split / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / "em" / split / folder / f"{number}.png")
    (tmp_path / "em" / "classes.yaml").write_text(ClassTable(names=("cell", "membrane")).to_text())
    run = write_run(tmp_path / "run", tmp_path / "em", names=("cell", "membrane"))
    evaluation = evaluate(run, metrics="all", device="cpu", progress=Silent())
    assert 0 <= float(evaluation.found["em"].scores["v_rand"]) <= 1
    assert "V_Rand" in (run / "report" / "index.html").read_text()
    assert FolderConfig(name="folder", path=str(tmp_path / "em")).open(Silent()).table.names == ("cell", "membrane")
