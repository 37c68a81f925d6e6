"""Scores against the definitions, scikit-learn, and the vectors of the paper's code."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from intarsia.metrics import confusion, overlap_scores


def case(seed, num_classes, shape=(3, 20, 30), ignored=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, shape).astype(np.uint8)
    truth[rng.random(shape) < ignored] = 255
    return rng.integers(0, num_classes, shape).astype(np.uint8), truth


@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
def test_confusion_equals_scikit_learn(num_classes):
    prediction, truth = case(num_classes, num_classes)
    counts = confusion(torch.tensor(prediction), torch.tensor(truth), num_classes).numpy()
    kept = truth != 255
    assert np.array_equal(counts, confusion_matrix(truth[kept], prediction[kept], labels=range(num_classes)))


def test_counts_add_over_images():
    prediction, truth = (torch.tensor(part) for part in case(0, 5))
    parts = sum(confusion(p, t, 5) for p, t in zip(prediction, truth, strict=True))
    assert torch.equal(parts, confusion(prediction, truth, 5))


@pytest.mark.parametrize("num_classes", [2, 5, 19])
def test_scores_equal_scikit_learn(num_classes):
    prediction, truth = case(num_classes, num_classes)
    kept = truth != 255
    scores = overlap_scores(confusion(torch.tensor(prediction), torch.tensor(truth), num_classes).numpy())
    assert scores.iou == pytest.approx(jaccard_score(truth[kept], prediction[kept], average=None))
    assert scores.dice == pytest.approx(f1_score(truth[kept], prediction[kept], average=None))
    assert scores.pixel_accuracy == pytest.approx((truth[kept] == prediction[kept]).mean())


def test_vectors_of_the_fcn_paper():
    first = overlap_scores(np.array([[50, 2], [3, 45]]))
    assert (first.pixel_accuracy, first.mean_accuracy) == pytest.approx((0.95, 0.9495192308))
    assert (first.mean_iou, first.frequency_weighted_iou) == pytest.approx((0.9045454545, 0.9047272727))
    second = overlap_scores(np.array([[50, 2, 0], [3, 40, 5], [0, 0, 0]]))
    assert (second.pixel_accuracy, second.mean_accuracy) == pytest.approx((0.9, 0.8974358974))
    assert second.iou == pytest.approx([0.9090909091, 0.8, 0.0])
    assert (second.mean_iou, second.frequency_weighted_iou) == pytest.approx((0.5696969697, 0.8567272727))


def test_class_that_is_nowhere_is_left_out_and_said():
    scores = overlap_scores(np.array([[4, 0, 0], [0, 2, 0], [0, 0, 0]]))
    assert scores.absent == [2]
    assert np.isnan(scores.iou[2])
    assert scores.mean_iou == 1.0
    assert scores.to_dict()["iou"] == [1.0, 1.0, None]


def test_nothing_counted_has_no_score():
    scores = overlap_scores(np.zeros((2, 2), np.int64))
    assert np.isnan([scores.mean_iou, scores.pixel_accuracy, scores.frequency_weighted_iou]).all()
    assert scores.absent == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_dice_and_iou_are_one_curve(seed):
    prediction, truth = case(seed, 4)
    scores = overlap_scores(confusion(torch.tensor(prediction), torch.tensor(truth), 4).numpy())
    assert scores.dice == pytest.approx(2 * scores.iou / (1 + scores.iou))
