"""Losses against slow, obviously right NumPy, and against PyTorch where it has the same loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from intarsia.errors import ConfigError
from intarsia.losses import (
    LOSSES,
    CrossEntropyConfig,
    CrossEntropyDiceConfig,
    cross_entropy,
    focal_tversky,
    generalized_dice,
    jaccard,
    soft_dice,
    tversky,
)
from intarsia.losses.base import Occurrence
from intarsia.losses.class_weights import class_weights
from intarsia.losses.sum import SumConfig

P = torch.tensor([0.9, 0.6, 0.2, 0.4], dtype=torch.double)
TRUTH = torch.tensor([1, 1, 0, 0])


def vector_case():
    """The test vector as two-class logits: class 1 has probability P."""
    logits = torch.stack([(1 - P).log(), P.log()]).reshape(1, 2, 1, 4).float()
    return logits, TRUTH.reshape(1, 1, 4)


def random_case(seed, num_classes, ignored=0.3, absent=True):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, num_classes, 5, 7)).astype(np.float32)
    mask = rng.integers(0, max(1, num_classes - absent), (2, 5, 7)).astype(np.uint8)
    mask[rng.random(mask.shape) < ignored] = 255
    return logits, mask


def oracle_softmax(logits):
    wide = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return wide / wide.sum(1, keepdims=True)


def oracle_cross_entropy(logits, mask, weights=None):
    p, total, norm = oracle_softmax(logits), 0.0, 0.0
    for n in range(mask.shape[0]):
        for row in range(mask.shape[1]):
            for column in range(mask.shape[2]):
                truth = mask[n, row, column]
                if truth != 255:
                    w = 1.0 if weights is None else weights[truth]
                    total -= w * np.log(p[n, truth, row, column])
                    norm += w
    return total / norm if norm else 0.0


def oracle_regions(logits, mask, cost, *, squared=False, per_image=False, background=True, absent="count", smooth=1.0):
    """Mean of cost(I, P, T, s) over groups and classes, each sum a loop."""
    p = oracle_softmax(logits)
    groups = [[n] for n in range(len(mask))] if per_image else [list(range(len(mask)))]
    costs = []
    for group in groups:
        for k in range(0 if background or logits.shape[1] == 1 else 1, logits.shape[1]):
            inter = prob = truth = 0.0
            for n in group:
                kept = mask[n] != 255
                t = (mask[n] == k) & kept
                inter += p[n, k][t].sum()
                prob += (p[n, k][kept] ** 2).sum() if squared else p[n, k][kept].sum()
                truth += t.sum()
            if truth or absent == "count":
                costs.append(cost(inter, prob, truth, smooth))
    return np.mean(costs) if costs else 0.0


def dice_cost(i, p, t, s):
    return 1 - (2 * i + s) / (p + t + s)


def jaccard_cost(i, p, t, s):
    return 1 - (i + s) / (p + t - i + s)


def tversky_cost(alpha, beta, gamma=1.0):
    return lambda i, p, t, s: max(1 - (i + s) / (i + alpha * (p - i) + beta * (t - i) + s), 1e-7) ** gamma


def oracle_generalized_dice(logits, mask, *, per_image=False):
    p = oracle_softmax(logits)
    groups = [[n] for n in range(len(mask))] if per_image else [list(range(len(mask)))]
    costs = []
    for group in groups:
        sums = []
        for k in range(logits.shape[1]):
            inter = prob = truth = 0.0
            for n in group:
                kept = mask[n] != 255
                t = (mask[n] == k) & kept
                inter, prob, truth = inter + p[n, k][t].sum(), prob + p[n, k][kept].sum(), truth + t.sum()
            sums.append((inter, prob, truth))
        if not any(truth for *_, truth in sums):
            continue
        largest = max(1 / truth**2 for *_, truth in sums if truth)
        weights = [1 / truth**2 if truth else largest for *_, truth in sums]
        above = sum(w * i for w, (i, _, _) in zip(weights, sums, strict=True))
        below = sum(w * (q + t) for w, (_, q, t) in zip(weights, sums, strict=True))
        costs.append(1 - 2 * above / below)
    return np.mean(costs) if costs else 0.0


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
def test_cross_entropy_equals_the_oracle_and_pytorch(num_classes, ignored):
    logits, mask = random_case(num_classes, num_classes, ignored)
    weights = np.random.default_rng(1).uniform(0.1, 3, num_classes)
    ours = cross_entropy(torch.tensor(logits), torch.tensor(mask))
    assert float(ours) == pytest.approx(oracle_cross_entropy(logits, mask), rel=1e-5, abs=1e-7)
    weighted = cross_entropy(torch.tensor(logits), torch.tensor(mask), class_weights=torch.tensor(weights))
    assert float(weighted) == pytest.approx(oracle_cross_entropy(logits, mask, weights), rel=1e-5, abs=1e-7)
    if ignored < 1:
        theirs = F.cross_entropy(torch.tensor(logits), torch.tensor(mask).long(), ignore_index=255)
        assert float(ours) == pytest.approx(float(theirs), rel=1e-5, abs=1e-7)


CASES = [
    (soft_dice, {}, dice_cost),
    (soft_dice, {"squared": True}, dice_cost),
    (jaccard, {}, jaccard_cost),
    (tversky, {}, tversky_cost(0.3, 0.7)),
    (tversky, {"alpha": 0.9, "beta": 0.1}, tversky_cost(0.9, 0.1)),
    (focal_tversky, {}, tversky_cost(0.3, 0.7, 0.75)),
]
SETTINGS = [
    {},
    {"per_image": True},
    {"background": False, "smooth": 0.1},
    {"absent": "skip"},
    {"absent": "skip", "per_image": True},
]


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("loss", "own", "cost"), CASES)
def test_losses_of_regions_equal_the_oracle(loss, own, cost, settings, ignored, num_classes):
    logits, mask = random_case(num_classes, num_classes, ignored)
    ours = loss(torch.tensor(logits), torch.tensor(mask), **own, **settings)
    expected = oracle_regions(logits, mask, cost, squared=own.get("squared", False), **settings)
    assert float(ours) == pytest.approx(expected, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("per_image", [True, False])
def test_generalized_dice_equals_the_oracle(num_classes, ignored, per_image):
    logits, mask = random_case(num_classes, num_classes, ignored)
    ours = generalized_dice(torch.tensor(logits), torch.tensor(mask), per_image=per_image)
    assert float(ours) == pytest.approx(oracle_generalized_dice(logits, mask, per_image=per_image), rel=1e-5, abs=2e-6)


@pytest.mark.parametrize(
    ("loss", "settings", "value"),
    [
        (jaccard, {}, 1 - 0.5769230769),
        (tversky, {"alpha": 0.5, "beta": 0.5}, 1 - 0.7317073),
        (tversky, {"alpha": 0.3, "beta": 0.7}, 1 - 0.7389162562),
        (tversky, {"alpha": 0.7, "beta": 0.3}, 1 - 0.7246376812),
        (tversky, {"alpha": 1.0, "beta": 1.0}, 1 - 0.5769231),
        (focal_tversky, {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}, 0.3652454999),
    ],
)
def test_published_values_of_other_overlaps(loss, settings, value):
    logits, mask = vector_case()
    found = loss(logits, mask, background=False, smooth=1e-9, **settings)
    assert float(found) == pytest.approx(value, rel=1e-5)


def test_published_values_of_generalized_dice():
    logits, mask = vector_case()
    assert float(generalized_dice(logits, mask)) == pytest.approx(0.275, rel=1e-6)
    one = torch.tensor([1, 0, 0, 0]).reshape(1, 1, 4)
    assert float(generalized_dice(logits, one)) == pytest.approx(0.3963414634, rel=1e-6)
    assert float(soft_dice(logits, one, smooth=1e-9)) == pytest.approx(0.3423304806, rel=1e-6)


def test_published_vector():
    logits, mask = vector_case()
    p, g = P.numpy(), TRUTH.numpy()
    assert float(cross_entropy(logits, mask)) == pytest.approx(0.3375388286, rel=1e-6)
    foreground = soft_dice(logits, mask, background=False, smooth=1e-9)
    assert float(foreground) == pytest.approx(0.2682926829, rel=1e-6)
    squared = soft_dice(logits, mask, background=False, squared=True, smooth=1e-9)
    assert float(squared) == pytest.approx(0.1097922849, rel=1e-6)
    both = soft_dice(logits, mask, smooth=1e-9)
    assert float(both) == pytest.approx(0.2751719825, rel=1e-6)
    assert 2 * (p * g).sum() / (p.sum() + g.sum()) == pytest.approx(0.7317073171)


def test_gradient_of_squared_dice_is_the_one_of_v_net():
    probability = P.clone().requires_grad_()
    logits = torch.stack([(1 - probability).log(), probability.log()]).reshape(1, 2, 1, 4)
    (gradient,) = torch.autograd.grad(
        1 - soft_dice(logits, TRUTH.reshape(1, 1, 4), background=False, squared=True, smooth=1e-12), probability
    )
    expected = [0.1179899444, 0.2764838997, -0.1056626368, -0.2113252736]
    assert gradient.tolist() == pytest.approx(expected, rel=1e-5)


NAMES = [name for name in LOSSES.names() if name != "lovasz_hinge"]  # which is for two classes; see test_lovasz.py


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
def test_ignored_pixels_change_nothing_and_get_no_gradient(name, num_classes):
    logits, mask = random_case(3, num_classes)
    other = logits.copy()
    np.copyto(other, 77.0, where=(mask == 255)[:, None])
    x, y = torch.tensor(logits, requires_grad=True), torch.tensor(other)
    loss = LOSSES[name](x, torch.tensor(mask))
    assert loss.item() == pytest.approx(float(LOSSES[name](y, torch.tensor(mask))), rel=1e-6, abs=1e-7)
    loss.backward()
    assert x.grad is not None
    assert (x.grad.permute(0, 2, 3, 1)[torch.tensor(mask) == 255] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_counted_gives_zero_gradient_and_a_finite_loss(name):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_huge_logits_stay_finite_in_every_precision(name, dtype):
    logits = torch.tensor([1e4, -1e4, 3e4]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8).to(dtype).clone().requires_grad_()
    loss = LOSSES[name](logits, torch.ones(1, 8, 8, dtype=torch.uint8))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_sums_in_float32(name):
    logits = torch.randn(1, 4, 128, 128, generator=torch.Generator().manual_seed(0)).half()
    mask = torch.zeros(1, 128, 128, dtype=torch.uint8)
    assert float(LOSSES[name](logits, mask)) == pytest.approx(float(LOSSES[name](logits.float(), mask)), rel=1e-6)


def test_sum_is_the_weighted_sum_with_one_softmax(monkeypatch):
    from intarsia.losses import base

    logits, mask = (torch.tensor(part) for part in random_case(0, 5))
    expected = 0.3 * cross_entropy(logits, mask) + 2.0 * soft_dice(logits, mask)
    calls, original = [], base.softmax_statistics
    monkeypatch.setattr(base, "softmax_statistics", lambda *parts, **more: calls.append(1) or original(*parts, **more))
    monkeypatch.setattr(base, "pixel_nll", lambda *_parts: pytest.fail("a second softmax"))
    total = CrossEntropyDiceConfig(ce_weight=0.3, dice_weight=2.0)(logits, mask)
    assert len(calls) == 1
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


def test_weights_of_the_wrong_number_are_refused():
    with pytest.raises(ConfigError, match="2 numbers for 3 classes"):
        CrossEntropyConfig(class_weights=(1.0, 2.0))(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(ConfigError, match="not be negative"):
        CrossEntropyConfig(class_weights=(1.0, -2.0))


@pytest.mark.parametrize("reduction", ["mean", "mean_pixels", "sum"])
@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
def test_weights_of_classes_and_pixels_add(reduction, ignored):
    logits, mask = random_case(4, 5, ignored)
    rng = np.random.default_rng(2)
    weights, border = rng.uniform(0.1, 3, 5), rng.uniform(0, 10, mask.shape)
    p, total, norm, count = oracle_softmax(logits), 0.0, 0.0, 0
    for place in np.argwhere(mask != 255):
        n, row, column = place
        w = weights[mask[n, row, column]] + border[n, row, column]
        total -= w * np.log(p[n, mask[n, row, column], row, column])
        norm, count = norm + w, count + 1
    expected = {"mean": total / (norm or 1), "mean_pixels": total / (count or 1), "sum": total}[reduction]
    found = cross_entropy(
        torch.tensor(logits),
        torch.tensor(mask),
        class_weights=weights.tolist(),
        border=torch.tensor(border),
        reduction=reduction,
    )
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_label_smoothing_equals_pytorch_s(num_classes, share):
    logits, mask = (torch.tensor(part) for part in random_case(num_classes, num_classes, 0.3))
    ours = cross_entropy(logits, mask, label_smoothing=share)
    theirs = F.cross_entropy(logits, mask.long(), ignore_index=255, label_smoothing=share)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_differences(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.double, requires_grad=True)
    mask = torch.tensor([[[0, 1, 2], [255, 1, 0]], [[2, 2, 0], [1, 255, 1]]], dtype=torch.uint8)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, mask), (logits,), eps=1e-6, atol=1e-6)
    assert LOSSES[name](logits, mask).dtype == torch.double


@pytest.mark.parametrize("border", [False, True])
def test_sum_equals_its_parts_forward_and_backward(border):
    logits, mask = (torch.tensor(part) for part in random_case(7, 5, 0.3))
    weights = torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) * 10 if border else None
    ce = CrossEntropyConfig(class_weights=(1.0, 2.0, 0.5, 0.0, 3.0), border_w0=10.0 if border else 0.0)
    together, apart = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total = CrossEntropyDiceConfig(ce=ce, ce_weight=0.3, dice_weight=2.0, dice={"squared": True})(
        together, mask, weights
    )
    expected = 0.3 * ce(apart, mask, weights) + 2.0 * soft_dice(apart, mask, squared=True)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    total.backward()
    expected.backward()
    assert torch.allclose(together.grad, apart.grad, atol=1e-6)


def test_schedule_moves_factors_linearly():
    loss = SumConfig(terms=({"loss": "ce", "weight": 1.0, "final": 0.0}, {"loss": "dice", "weight": 0.0, "final": 1.0}))
    logits, mask = (torch.tensor(part) for part in random_case(0, 3))
    ce, dice = float(cross_entropy(logits, mask)), float(soft_dice(logits, mask))
    for share, expected in ((0.0, ce), (0.25, 0.75 * ce + 0.25 * dice), (1.0, dice)):
        assert float(loss.at(share)(logits, mask)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_pixels_and_names_of_classes_do_not_matter(name):
    logits, mask = random_case(5, 4, 0.2)
    order = np.random.default_rng(0).permutation(4)
    renamed = np.append(np.argsort(order), np.full(252, 255)).astype(np.uint8)
    value = float(LOSSES[name](torch.tensor(logits), torch.tensor(mask)))
    other = LOSSES[name](torch.tensor(logits[:, order]), torch.tensor(renamed[mask]))
    if name not in (
        "boundary",
        "gdl_boundary",
    ):  # whose background, class 0, is left out, and whose distances are places
        assert float(other) == pytest.approx(value, rel=1e-5)
        moved = np.random.default_rng(1).permutation(35)
        flat = LOSSES[name](
            torch.tensor(logits.reshape(2, 4, 35)[..., moved].reshape(logits.shape)),
            torch.tensor(mask.reshape(2, 35)[:, moved].reshape(mask.shape)),
        )
        assert float(flat) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", [n for n in LOSSES.names() if n not in ("lovasz_hinge", "boundary", "gdl_boundary")])
def test_a_repeated_batch_has_the_same_loss_and_the_truth_the_least(name):
    logits, mask = (torch.tensor(part) for part in random_case(6, 4, 0.2, absent=False))
    value = float(LOSSES[name](logits, mask))
    tolerance = (
        0.05 if "dice" in name or name in ("jaccard", "tversky", "focal_tversky", "sum") else 1e-5
    )  # s weighs less
    assert float(LOSSES[name](torch.cat([logits] * 2), torch.cat([mask] * 2))) == pytest.approx(value, rel=tolerance)
    truth = torch.where(mask == 255, 0, mask).long()
    perfect = F.one_hot(truth, 4).permute(0, 3, 1, 2) * 100.0
    assert float(LOSSES[name](perfect, mask)) < 1e-4
    assert value > 0.1


@pytest.mark.parametrize("loss", [soft_dice, jaccard, tversky, focal_tversky, generalized_dice])
def test_peers_row_12_false_positives_on_an_absent_class_cost_and_are_pushed_down(loss):
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 1] = 3.0  # class 1 is nowhere in the truth and predicted everywhere
    logits.requires_grad_()
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    value = loss(logits, mask)
    value.backward()
    assert float(value.detach()) > 0.3
    assert (logits.grad[:, 0] < 0).all()
    assert (logits.grad[:, 1] > 0).all()
    if loss is not generalized_dice:
        skipped = loss(logits.detach(), mask, absent="skip")
        assert float(skipped) != pytest.approx(float(value.detach()))


@pytest.mark.parametrize("ignored", [0.0, 0.5, 0.9])
def test_peers_row_11_ignored_pixels_are_not_in_the_denominator(ignored):
    logits, mask = random_case(0, 3, ignored)
    assert float(cross_entropy(torch.tensor(logits), torch.tensor(mask))) == pytest.approx(
        oracle_cross_entropy(logits, mask), rel=1e-5
    )


def test_agreement_with_monai_and_smp_where_they_are_right():
    smp = pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError, reason="the peer is not installed")
    logits, mask = (torch.tensor(part) for part in random_case(8, 5, 0.0, absent=False))
    target = mask.long()
    theirs = smp.losses.DiceLoss("multiclass", smooth=0.5)(logits, target)  # their s is added to halves, ours to wholes
    assert float(soft_dice(logits, mask, smooth=1.0)) == pytest.approx(float(theirs), rel=1e-5)
    theirs = smp.losses.TverskyLoss("multiclass", alpha=0.3, beta=0.7, smooth=1.0)(logits, target)
    assert float(tversky(logits, mask, smooth=1.0)) == pytest.approx(float(theirs), rel=1e-5)
    theirs = smp.losses.JaccardLoss("multiclass", smooth=1.0)(logits, target)
    assert float(jaccard(logits, mask, smooth=1.0)) == pytest.approx(float(theirs), rel=1e-5)


COUNTS = [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967]
HOLDING = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("median_frequency", [0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]),
        (
            "median_frequency_global",
            [0.2663, 0.1929, 4.5642, 0.1417, 1.0, 0.4614, 3.8248, 3.9814, 0.7648, 7.0182, 15.3816],
        ),
    ],
)
def test_both_median_frequencies_of_camvid(how, expected):
    found = class_weights(how, COUNTS, [172_800 * images for images in HOLDING])
    assert found == pytest.approx(expected, abs=5.1e-5)


def test_inverse_and_enet_weights_and_absent_classes():
    assert class_weights("inverse", [30, 10, 0], [0, 0, 0]) == pytest.approx((40 / 90, 40 / 30, 0.0), abs=1e-6)
    assert class_weights("enet", [30, 10], [0, 0]) == pytest.approx((1 / np.log(1.77), 1 / np.log(1.27)), abs=1e-6)
    assert class_weights("median_frequency", [6, 0, 2], [10, 0, 4]) == pytest.approx((0.55 / 0.6, 0.0, 1.1), abs=1e-6)


def test_weights_by_name_are_filled_in_from_the_data():
    occurrence = Occurrence(pixels=[30, 10], image_pixels=[40, 40])
    loss = CrossEntropyDiceConfig(ce={"class_weights": "inverse"})
    with pytest.raises(ConfigError, match=r"inverse needs the training set's counts"):
        loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2))
    assert loss.resolved(occurrence).ce.class_weights == (0.666667, 2.0)
    nested = SumConfig(terms=({"loss": {"name": "ce", "class_weights": "inverse"}},))
    assert nested.resolved(occurrence).terms[0].loss.class_weights == (0.666667, 2.0)
    with pytest.raises(ConfigError, match="class_weights"):
        CrossEntropyConfig(class_weights="medium")
