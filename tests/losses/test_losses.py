"""Losses against slow, obviously right NumPy, and against PyTorch where it has the same loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from intarsia.errors import ConfigError
from intarsia.losses import LOSSES, CrossEntropyConfig, CrossEntropyDiceConfig, cross_entropy, soft_dice

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


def oracle_dice(logits, mask, *, squared=False, per_image=False, background=True, smooth=1.0):
    p = oracle_softmax(logits)
    groups = [[n] for n in range(len(mask))] if per_image else [list(range(len(mask)))]
    scores = []
    for group in groups:
        for k in range(0 if background or logits.shape[1] == 1 else 1, logits.shape[1]):
            inter = prob = truth = 0.0
            for n in group:
                kept = mask[n] != 255
                t = (mask[n] == k) & kept
                inter += p[n, k][t].sum()
                prob += (p[n, k][kept] ** 2).sum() if squared else p[n, k][kept].sum()
                truth += t.sum()
            scores.append((2 * inter + smooth) / (prob + truth + smooth))
    return 1 - np.mean(scores)


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


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("settings", [{}, {"squared": True}, {"per_image": True}, {"background": False, "smooth": 0.1}])
def test_dice_equals_the_oracle(num_classes, ignored, settings):
    logits, mask = random_case(num_classes, num_classes, ignored)
    ours = soft_dice(torch.tensor(logits), torch.tensor(mask), **settings)
    assert float(ours) == pytest.approx(oracle_dice(logits, mask, **settings), rel=1e-5, abs=1e-6)


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


@pytest.mark.parametrize("name", LOSSES.names())
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


@pytest.mark.parametrize("name", LOSSES.names())
def test_nothing_counted_gives_zero_gradient_and_a_finite_loss(name):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = LOSSES[name](logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES.names())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_huge_logits_stay_finite_in_every_precision(name, dtype):
    logits = torch.tensor([1e4, -1e4, 3e4]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8).to(dtype).clone().requires_grad_()
    loss = LOSSES[name](logits, torch.ones(1, 8, 8, dtype=torch.uint8))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES.names())
def test_half_precision_sums_in_float32(name):
    logits = torch.randn(1, 4, 128, 128, generator=torch.Generator().manual_seed(0)).half()
    mask = torch.zeros(1, 128, 128, dtype=torch.uint8)
    assert float(LOSSES[name](logits, mask)) == pytest.approx(float(LOSSES[name](logits.float(), mask)), rel=1e-6)


def test_sum_is_the_weighted_sum_with_one_softmax(monkeypatch):
    logits, mask = (torch.tensor(part) for part in random_case(0, 5))
    calls = []
    original = torch.Tensor.log_softmax
    monkeypatch.setattr(torch.Tensor, "log_softmax", lambda self, dim: calls.append(1) or original(self, dim))
    total = CrossEntropyDiceConfig(ce_weight=0.3, dice_weight=2.0)(logits, mask)
    assert len(calls) == 1
    expected = 0.3 * cross_entropy(logits, mask) + 2.0 * soft_dice(logits, mask)
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


def test_weights_of_the_wrong_number_are_refused():
    with pytest.raises(ConfigError, match="2 numbers for 3 classes"):
        CrossEntropyConfig(class_weights=(1.0, 2.0))(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(ConfigError, match="not be negative"):
        CrossEntropyConfig(class_weights=(1.0, -2.0))
