"""Focal loss against slow NumPy, the numbers of the fact sheet, and cross-entropy."""

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.losses import LOSSES, base, cross_entropy
from intarsia.losses.focal import FocalConfig, focal

P = torch.tensor([0.9, 0.6, 0.2, 0.4], dtype=torch.double)
TRUTH = torch.tensor([1, 1, 0, 0]).reshape(1, 1, 4)
VECTOR = torch.stack([(1 - P).log(), P.log()]).reshape(1, 2, 1, 4)


def random_case(seed, num_classes, ignored=0.3):
    """Logits and a mask; the last class is absent where there are several."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, num_classes, 5, 7)).astype(np.float32)
    mask = rng.integers(0, max(1, num_classes - 1), (2, 5, 7)).astype(np.uint8)
    mask[rng.random(mask.shape) < ignored] = 255
    return logits, mask


def oracle(logits, mask, gamma, alpha):
    total, counted = 0.0, 0
    for n, row, column in zip(*np.nonzero(mask != 255), strict=True):
        z, t = logits[n, :, row, column].astype(np.float64), mask[n, row, column]
        p = np.exp(z[t] - z.max()) / np.exp(z - z.max()).sum()
        weight = 1.0 if alpha is None else alpha if np.isscalar(alpha) else alpha[t]
        total -= weight * (1 - p) ** gamma * np.log(p)
        counted += 1
    return total / max(1, counted)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7])
@pytest.mark.parametrize("alpha", [None, 0.25, "classes"])
def test_equals_the_oracle(num_classes, ignored, gamma, alpha):
    logits, mask = random_case(num_classes, num_classes, ignored)
    if alpha == "classes":
        alpha = np.random.default_rng(1).uniform(0.1, 3, num_classes).tolist()
    ours = focal(torch.tensor(logits), torch.tensor(mask), gamma=gamma, alpha=alpha)
    assert ours.item() == pytest.approx(oracle(logits, mask, gamma, alpha), rel=2e-5, abs=1e-7)


def test_published_vector():
    assert float(focal(VECTOR, TRUTH)) == pytest.approx(0.0433608867, rel=1e-8)
    weighted = focal(VECTOR, TRUTH, alpha=torch.tensor([0.75, 0.25], dtype=torch.double))
    assert float(weighted) == pytest.approx(0.0221724519, rel=1e-8)
    assert float(focal(VECTOR, TRUTH, alpha=0.5)) == pytest.approx(0.0433608867 / 2, rel=1e-8)


def test_peers_row_15_gamma_0_is_cross_entropy():
    logits, mask = (torch.tensor(part) for part in random_case(0, 5))
    assert float(focal(logits, mask, gamma=0)) == pytest.approx(float(cross_entropy(logits, mask)), rel=1e-6)


def test_peers_row_15_one_softmax_for_all_classes(monkeypatch):
    calls, original = [], base.pixel_nll
    monkeypatch.setattr(base, "pixel_nll", lambda *parts: calls.append(1) or original(*parts))
    focal(*(torch.tensor(part) for part in random_case(0, 19)), alpha=0.25)
    assert len(calls) == 1


def test_peers_row_11_ignored_pixels_are_not_in_the_mean():
    logits, mask = torch.zeros(1, 4, 2, 4), torch.zeros(1, 2, 4, dtype=torch.long)
    whole = float(focal(logits, mask))
    mask[:, 0] = 255
    assert float(focal(logits, mask)) == pytest.approx(whole)


def test_peers_row_14_every_setting_changes_the_value():
    logits, mask = (torch.tensor(part) for part in random_case(0, 3))
    values = [
        float(focal(logits, mask, **settings)) for settings in ({}, {"gamma": 1}, {"alpha": 0.3}, {"alpha": (1, 2, 3)})
    ]
    assert len(set(values)) == 4


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [0.0, 50.0, 1e4])
def test_value_and_gradient_are_finite_at_both_ends(gamma, scale):
    logits = (torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2) * scale).requires_grad_()
    loss = focal(logits, torch.tensor([[[0, 1]]]), gamma=gamma)  # one pixel is right, one is wrong
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    if scale == 1e4:
        assert loss.item() == pytest.approx(1e4)
        assert (gradient[..., 0] == 0).all()
        assert gradient[0, :, 0, 1].tolist() == pytest.approx([0.5, -0.5])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradient_is_the_difference_quotient(gamma):
    logits, mask = random_case(4, 5)
    x = torch.tensor(logits / 3, dtype=torch.double, requires_grad=True)
    alpha = (0.1, 0.2, 0.3, 0.4, 0.5)
    assert torch.autograd.gradcheck(lambda z: focal(z, torch.tensor(mask), gamma=gamma, alpha=alpha), (x,))


def test_peers_row_17_ignored_pixels_have_no_gradient():
    logits, mask = random_case(5, 5)
    x = torch.tensor(logits, requires_grad=True)
    focal(x, torch.tensor(mask), alpha=0.25).backward()
    assert (x.grad.permute(0, 2, 3, 1)[torch.tensor(mask) == 255] == 0).all()
    assert (x.grad != 0).any()


def test_peers_row_16_repeating_the_batch_changes_nothing_nor_does_the_order():
    logits, mask = (torch.tensor(part) for part in random_case(6, 5))
    value, alpha = float(focal(logits, mask, alpha=(1, 2, 3, 4, 5))), torch.tensor([1.0, 2, 3, 4, 5])
    twice = focal(torch.cat([logits, logits]), torch.cat([mask, mask]), alpha=alpha)
    assert float(twice) == pytest.approx(value, rel=1e-6)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    renamed = torch.where(mask == 255, 255, order.argsort()[mask.long() % 5])
    assert float(focal(logits[:, order], renamed, alpha=alpha[order])) == pytest.approx(value, rel=1e-6)
    assert float(focal(logits.flip(3), mask.flip(2), alpha=alpha)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits, mask = (torch.tensor(part) for part in random_case(7, 5))
    logits = logits.to(dtype).requires_grad_()
    loss = focal(logits, mask)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == float(focal(logits.detach().float(), mask))
    assert logits.grad.dtype == dtype


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="2 numbers for 3 classes"):
        focal(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), alpha=(0.5, 0.5))
    with pytest.raises(ConfigError, match="gamma"):
        FocalConfig(gamma=-1)
    with pytest.raises(ConfigError, match="alpha must not be negative"):
        FocalConfig(alpha=(1.0, -1.0))
    assert LOSSES["focal"].replace(alpha=[0.25, 0.75]) == FocalConfig(name="focal", alpha=(0.25, 0.75))
