"""Boundary scores against pixel-by-pixel definitions, hand-made shapes, and MONAI where it is installed."""

import functools
import operator

import numpy as np
import pytest

from intarsia.errors import ConfigError, DataError
from intarsia.metrics.boundary import BoundaryCounts, _distances, boundary_counts, boundary_scores

FIELDS = ("boundary_f1", "boundary_iou", "hausdorff95", "surface_distance")


def case(seed, num_classes, shape=(13, 17), ignored=0.0):
    """Blocks of 3 x 3 pixels, and a prediction that is wrong in a fifth of the pixels; the last class is often absent."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, num_classes, (shape[0] // 3 + 1, shape[1] // 3 + 1))
    truth = np.kron(blocks, np.ones((3, 3)))[: shape[0], : shape[1]].astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.2, rng.integers(0, max(1, num_classes - 1), shape), truth).astype(
        np.uint8
    )
    truth[rng.random(shape) < ignored] = 255
    return predicted, truth


def score(predicted, truth, num_classes=2, **settings):
    return boundary_scores(boundary_counts(predicted, truth, num_classes, **settings))


def neighbours(labels, row, column):
    for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        yield labels[r, c] if 0 <= r < labels.shape[0] and 0 <= c < labels.shape[1] else -1


def oracle(predicted, truth, index, tolerance, width, spacing):
    """F1, IoU, Hausdorff 95, surface distance of one class by the definitions, one pixel after the other."""
    rims, bands = [], []
    for labels in (truth, np.where(truth == 255, 255, predicted)):
        inside = [(int(r), int(c)) for r, c in np.argwhere(labels == index)]
        rims.append([p for p in inside if any(n not in (index, 255) for n in neighbours(labels, *p))])
        outside = np.pad((labels != index) & (labels != 255), width, constant_values=True)
        bands.append({(r, c) for r, c in inside if outside[r : r + 2 * width + 1, c : c + 2 * width + 1].any()})
    t, p = rims
    union = len(bands[0] | bands[1])
    iou = len(bands[0] & bands[1]) / union if union else np.nan
    if not t or not p:
        return (0.0 if t or p else np.nan), iou, np.nan, np.nan

    def to(points, others):
        return [min(np.hypot((r - y) * spacing[0], (c - x) * spacing[1]) for y, x in others) for r, c in points]

    extra, missing = to(p, t), to(t, p)
    precision, recall = (np.mean([d <= tolerance for d in part]) for part in (extra, missing))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return f1, iou, max(np.percentile(extra, 95), np.percentile(missing, 95)), np.mean(extra + missing)


@pytest.mark.parametrize("ignored", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
def test_scores_equal_the_definitions(num_classes, ignored):
    predicted, truth = case(num_classes, num_classes, ignored=ignored)
    settings = {"tolerance": 1.3, "width": 2, "spacing": (1.0, 1.2)}
    scores = score(predicted, truth, num_classes, **settings)
    for index in range(num_classes):
        expected = oracle(predicted, truth, index, **settings)
        assert [getattr(scores, name)[index] for name in FIELDS] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_shifted_square_has_the_distances_one_can_count(shift):
    truth, moved = np.zeros((2, 40, 40), np.uint8)
    truth[10:20, 10:20] = moved[10:20, 10 + shift : 20 + shift] = 1
    scores = score(moved, truth, tolerance=shift - 0.5, width=1)
    # The far side is `shift` away (10 pixels); on the near side each pixel is as far, or as far as the next corner of a row;
    # above and below, the pixels beyond the other square are 1, 2, ... away.
    near = sum(min(shift, row, 9 - row) for row in range(10))
    beyond = 2 * sum(range(1, shift))
    assert scores.surface_distance[1] == pytest.approx((10 * shift + near + beyond) / 36)
    assert scores.hausdorff95[1] == shift
    stretched = score(moved, truth, spacing=(9.0, 2.0), tolerance=2 * shift)
    assert stretched.hausdorff95[1] == 2 * shift
    assert (stretched.boundary_f1[1], scores.boundary_f1[1] < 1) == (1.0, True)
    # one pixel wide frames of 36: 2 (10 - shift) pixels of the two long sides are shared, and no upright one
    shared = 2 * (10 - shift)
    assert scores.boundary_iou[1] == pytest.approx(shared / (72 - shared))


def test_tolerance_is_a_share_of_the_diagonal():
    truth, moved = np.zeros((2, 300, 400), np.uint8)  # diagonal 500: 3.75 px, and a band of 10
    truth[100:160, 100:160] = 1
    for shift, expected in ((3, True), (4, False)):
        moved[:] = 0
        moved[100:160, 100 + shift : 160 + shift] = 1
        assert (score(moved, truth).boundary_f1[1] == 1) == expected
    assert score(moved, truth).boundary_iou[1] == score(moved, truth, width=10).boundary_iou[1]
    assert score(moved, truth, spacing=(0.5, 0.5)).boundary_f1[1] == score(moved, truth).boundary_f1[1]


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
def test_peers_row_18_perfect_is_best(num_classes):
    _, truth = case(3, num_classes, (40, 30))
    scores = score(truth, truth, num_classes)
    assert (scores.mean_boundary_f1, scores.mean_boundary_iou) == (1, 1)
    assert (scores.mean_hausdorff95, scores.mean_surface_distance) == (0, 0)


def test_peers_row_19_absent_class_is_left_out_and_named():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    scores = score(np.zeros_like(truth), truth, 10)
    assert scores.absent == list(range(2, 10))
    assert scores.boundary_f1[1] == scores.boundary_iou[1] == 0
    assert scores.mean_boundary_f1 == pytest.approx((scores.boundary_f1[0] + 0) / 2)
    assert np.isnan(scores.hausdorff95[1])
    assert (scores.missed[1], scores.invented[1]) == (1, 0)
    assert scores.to_dict()["boundary_f1"][2:] == [None] * 8


def test_class_that_is_only_predicted_is_counted_as_invented():
    truth, predicted = np.zeros((2, 20, 20), np.uint8)
    predicted[5:9, 5:9] = 1
    scores = score(predicted, truth)
    assert (scores.boundary_f1[1], scores.boundary_iou[1], scores.invented[1], scores.missed[1]) == (0, 0, 1, 0)
    assert np.isnan(scores.surface_distance[1])


def test_peers_row_20_ignored_pixels_change_nothing():
    predicted, truth = case(5, 4, (30, 30), ignored=0.3)
    other = np.where(truth == 255, 3 - predicted, predicted)
    assert score(other, truth, 4).to_dict() == score(predicted, truth, 4).to_dict()
    assert score(np.where(truth == 255, 200, predicted), truth, 4).to_dict() == score(predicted, truth, 4).to_dict()


def test_ignored_pixels_make_no_boundary():
    truth = np.full((20, 20), 255, np.uint8)
    truth[5:10, 5:10] = 1
    scores = score(np.ones_like(truth), truth)
    assert scores.absent == [0, 1]
    assert np.isnan(scores.mean_boundary_f1)


def test_image_border_is_a_boundary():
    full = np.zeros((20, 30), np.uint8)
    scores = score(full, full)
    assert (scores.boundary_f1[0], scores.hausdorff95[0], scores.images[0]) == (1, 0, 1)
    counts = boundary_counts(full, full, 1, width=3)
    assert counts.band_union[0] == 20 * 30 - 14 * 24


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (7, 6)])
def test_nothing_counted_has_no_score(shape):
    scores = score(np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), 3)
    assert np.isnan([scores.mean_boundary_f1, scores.mean_boundary_iou, scores.mean_hausdorff95]).all()
    assert scores.absent == [0, 1, 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3)])
def test_small_images(shape):
    mask = np.zeros(shape, np.uint8)
    assert score(mask, mask, 1, width=50).boundary_iou[0] == 1


@pytest.mark.parametrize("seed", range(3))
def test_classes_may_be_renamed_and_images_transposed(seed):
    predicted, truth = case(seed, 5, (25, 31), ignored=0.1)
    scores, order = score(predicted, truth, 5, spacing=(1.0, 2.0)), np.random.default_rng(seed).permutation(5)
    table = np.arange(256, dtype=np.uint8)
    table[:5] = order
    renamed = score(table[predicted], table[truth], 5, spacing=(1.0, 2.0))
    turned = score(predicted.T, truth.T, 5, spacing=(2.0, 1.0))
    for name in FIELDS:
        assert getattr(renamed, name)[order] == pytest.approx(getattr(scores, name), nan_ok=True)
        assert getattr(turned, name) == pytest.approx(getattr(scores, name), nan_ok=True)


def test_all_but_missed_and_invented_is_symmetric():
    predicted, truth = case(1, 4, (30, 30))
    one, other = score(predicted, truth, 4), score(truth, predicted, 4)
    for name in FIELDS:
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True)
    assert np.array_equal(one.missed, other.invented)


def test_counts_add_over_images():
    parts = [boundary_counts(*case(seed, 6, (20, 20), ignored=0.2), 6) for seed in range(4)]
    total = boundary_scores(functools.reduce(operator.add, parts, BoundaryCounts.zero(6)))
    each = [boundary_scores(part) for part in parts]
    for name in ("boundary_f1", "hausdorff95", "surface_distance"):
        values = np.array([getattr(scores, name) for scores in each])
        there = ~np.isnan(values)
        means = np.where(there, values, 0).sum(0)[there.any(0)] / there.sum(0)[there.any(0)]
        assert getattr(total, name)[there.any(0)] == pytest.approx(means)
        assert np.isnan(getattr(total, name)[~there.any(0)]).all()
    assert np.array_equal(total.images, sum(scores.images for scores in each))


@pytest.mark.parametrize("seed", range(4))
def test_tree_and_transform_agree(seed):
    rng = np.random.default_rng(seed)
    points, others = (np.argwhere(rng.random((30, 40)) < share) for share in (0.3, 0.05))
    found = [_distances(points + 3, others, (0.7, 1.9), tree=tree) for tree in (True, False, None)]
    assert found[1] == pytest.approx(found[0])
    assert found[2] == pytest.approx(found[0])


def test_wrong_arguments_are_refused():
    mask = np.zeros((4, 4), np.uint8)
    with pytest.raises(DataError, match="prediction holds 7"):
        score(mask + 7, mask)
    with pytest.raises(DataError, match="mask holds 7"):
        score(mask, mask + 7)
    with pytest.raises(DataError, match="one image at a time"):
        score(mask[None], mask[None])
    with pytest.raises(ConfigError, match="width at least 1"):
        score(mask, mask, width=0)


@pytest.mark.parametrize("seed", range(3))
def test_distances_equal_monai(seed):
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed; it is no dependency of intarsia")
    torch = pytest.importorskip("torch")
    predicted, truth = case(seed, 3, (40, 50))
    p, t = (
        torch.nn.functional.one_hot(torch.tensor(part).long(), 3).movedim(-1, 0)[None] for part in (predicted, truth)
    )
    scores = score(predicted, truth, 3)
    there = np.flatnonzero((scores.missed + scores.invented == 0) & (scores.images > 0))
    hausdorff = monai.compute_hausdorff_distance(p, t, include_background=True, percentile=95)[0].numpy()
    surface = monai.compute_average_surface_distance(p, t, include_background=True, symmetric=True)[0].numpy()
    assert scores.hausdorff95[there] == pytest.approx(hausdorff[there], rel=1e-5)
    assert scores.surface_distance[there] == pytest.approx(surface[there], rel=1e-5)
