"""Scores against the definitions, scikit-learn, and the vectors of the paper's code."""

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

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


def score(prediction, truth, num_classes):
    return overlap_scores(confusion(torch.tensor(prediction), torch.tensor(truth), num_classes).numpy())


@pytest.mark.parametrize("num_classes", [2, 5, 19])
def test_kappa_precision_and_recall_equal_scikit_learn(num_classes):
    prediction, truth = case(num_classes, num_classes)
    prediction[prediction == 1], truth[truth == 0] = 0, 1  # one class is never predicted, one never there
    kept, scores, labels = truth != 255, score(prediction, truth, num_classes), range(num_classes)
    settings = {"average": None, "labels": labels, "zero_division": np.nan}
    assert scores.kappa == pytest.approx(cohen_kappa_score(truth[kept], prediction[kept], labels=labels))
    assert scores.precision == pytest.approx(precision_score(truth[kept], prediction[kept], **settings), nan_ok=True)
    assert scores.recall == pytest.approx(recall_score(truth[kept], prediction[kept], **settings), nan_ok=True)


def test_kappa_of_a_hand_made_table():
    scores = overlap_scores(np.array([[20, 5], [10, 15]]))  # p_o 0.7, p_e 0.5
    assert scores.kappa == pytest.approx(0.4)
    assert scores.precision == pytest.approx([2 / 3, 0.75])
    assert scores.recall == pytest.approx([0.8, 0.6])


def test_dice_is_the_harmonic_mean_of_precision_and_recall():
    scores = score(*case(3, 5), 5)
    assert scores.dice == pytest.approx(2 / (1 / scores.precision + 1 / scores.recall))
    assert scores.mean_accuracy == pytest.approx(scores.recall.mean())


def test_kappa_has_no_value_where_chance_alone_is_right():
    for counts in ([[7]], [[7, 0], [0, 0]], [[0, 0], [0, 0]]):
        assert np.isnan(overlap_scores(np.array(counts)).kappa)
    assert overlap_scores(np.array([[0, 7], [0, 0]])).kappa == 0
    assert overlap_scores(np.array([[7, 0], [0, 1]])).kappa == 1


def test_kappa_of_very_many_pixels_does_not_overflow():
    many = np.array([[20, 5], [10, 15]]) * 10**12
    assert overlap_scores(many).kappa == pytest.approx(0.4)


@pytest.mark.parametrize("num_classes", [2, 5, 19])
def test_peers_row_18_perfect_is_one_in_every_score(num_classes):
    scores = overlap_scores(np.diag(np.arange(1, num_classes + 1)))
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iou", "mean_dice", "frequency_weighted_iou", "kappa"):
        assert getattr(scores, name) == pytest.approx(1)
    for name in ("iou", "dice", "precision", "recall"):
        assert getattr(scores, name) == pytest.approx(np.ones(num_classes))


def test_peers_row_19_absent_classes_are_left_out_of_every_mean():
    counts = np.zeros((10, 10), np.int64)
    counts[0, 0] = counts[1, 0] = 50  # all is called background
    scores = overlap_scores(counts)
    assert scores.mean_iou == 0.25
    assert scores.mean_dice == pytest.approx(1 / 3)
    assert scores.absent == list(range(2, 10))  # named: row 22
    assert scores.precision[:2] == pytest.approx([0.5, np.nan], nan_ok=True)
    assert scores.recall[:2].tolist() == [1, 0]


def test_peers_rows_20_and_21_each_pixel_is_counted_or_ignored():
    prediction, truth = case(7, 5)
    scores = score(prediction, truth, 5)
    assert scores.truth_pixels.sum() + (truth == 255).sum() == truth.size


def test_new_scores_stand_at_the_end_of_the_values():
    assert list(overlap_scores(np.eye(2, dtype=np.int64)).to_dict())[-3:] == ["kappa", "precision", "recall"]
