"""Cross-entropy of the hardest pixels against a sort in NumPy."""

import math

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.losses import LOSSES, cross_entropy
from intarsia.losses.ohem import OhemCrossEntropyConfig, ohem_cross_entropy

SETTINGS = [
    {},
    {"min_kept": 1},
    {"min_kept": 10},
    {"threshold": 0.05, "min_kept": 12},
    {"threshold": 1.0, "min_kept": 1},
    {"share": 0.25},
    {"share": 1.0},
    {"share": 1e-9},
]


def random_case(seed, num_classes, ignored=0.3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, num_classes, 5, 7)).astype(np.float32)
    mask = rng.integers(0, max(1, num_classes - 1), (2, 5, 7)).astype(np.uint8)
    mask[rng.random(mask.shape) < ignored] = 255
    return logits, mask


def oracle(logits, mask, threshold=0.7, min_kept=100_000, share=None):
    costs = []
    for n, row, column in zip(*np.nonzero(mask != 255), strict=True):
        z = logits[n, :, row, column].astype(np.float64)
        costs.append(z.max() + np.log(np.exp(z - z.max()).sum()) - z[mask[n, row, column]])
    costs.sort(reverse=True)
    if share is not None:
        kept = math.ceil(share * len(costs))
    else:
        kept = max(sum(np.exp(-cost) < threshold for cost in costs), min(min_kept, len(costs)))
    return sum(costs[:kept]) / max(1, kept)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_the_oracle(num_classes, ignored, settings):
    logits, mask = random_case(num_classes, num_classes, ignored)
    ours = ohem_cross_entropy(torch.tensor(logits), torch.tensor(mask), **settings)
    assert ours.item() == pytest.approx(oracle(logits, mask, **settings), rel=1e-5, abs=1e-6)


def test_worked_example():
    p = torch.tensor([0.1, 0.5, 0.8, 0.9])
    logits, mask = torch.stack([p.log(), (1 - p).log()]).reshape(1, 2, 1, 4), torch.zeros(1, 1, 4)
    for settings, kept in [
        ({"min_kept": 1}, 2),
        ({"min_kept": 3}, 3),
        ({}, 4),
        ({"share": 0.5}, 2),
        ({"share": 0.3}, 2),
    ]:
        expected = -p[:kept].log().mean()
        assert float(ohem_cross_entropy(logits, mask, **settings)) == pytest.approx(float(expected), rel=1e-6)


def test_all_pixels_kept_is_cross_entropy():
    logits, mask = (torch.tensor(part) for part in random_case(0, 5))
    for settings in ({}, {"share": 1.0}):
        assert float(ohem_cross_entropy(logits, mask, **settings)) == pytest.approx(float(cross_entropy(logits, mask)))


@pytest.mark.parametrize("settings", SETTINGS)
def test_peers_row_17_only_kept_pixels_have_a_gradient(settings):
    logits, mask = random_case(2, 5)
    x = torch.tensor(logits, requires_grad=True)
    ohem_cross_entropy(x, torch.tensor(mask), **settings).backward()
    touched = (x.grad != 0).any(1).numpy()
    assert not touched[mask == 255].any()
    counted = int((mask != 255).sum())
    assert 0 < touched.sum() <= counted
    if "share" in settings:
        assert touched.sum() == math.ceil(settings["share"] * counted)


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradient_is_the_difference_quotient(settings):
    logits, mask = random_case(3, 5)
    x = torch.tensor(logits, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: ohem_cross_entropy(z, torch.tensor(mask), **settings), (x,))


@pytest.mark.parametrize("settings", [{"min_kept": 1}, {"share": 0.25}])
def test_peers_row_16_repeating_the_batch_changes_nothing_nor_does_the_order(settings):
    logits, mask = (torch.tensor(part) for part in random_case(4, 5, ignored=0.0))
    logits, mask = logits[..., :6], mask[..., :6]  # 60 pixels, of which a quarter is whole
    value = float(ohem_cross_entropy(logits, mask, **settings))
    twice = ohem_cross_entropy(torch.cat([logits] * 2), torch.cat([mask] * 2), **settings)
    assert float(twice) == pytest.approx(value, rel=1e-6)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    renamed = order.argsort()[mask.long()]
    assert float(ohem_cross_entropy(logits[:, order], renamed, **settings)) == pytest.approx(value, rel=1e-6)
    assert float(ohem_cross_entropy(logits.flip(0, 3), mask.flip(0, 2), **settings)) == pytest.approx(value, rel=1e-6)


def test_pixels_are_ranked_over_the_batch():
    logits = torch.tensor([[4.0, 4.0], [-4.0, -4.0]]).reshape(2, 1, 1, 2)
    logits = torch.cat([logits, torch.zeros_like(logits)], 1)
    mask = torch.zeros(2, 1, 2, dtype=torch.uint8)
    hardest = -torch.tensor(-4.0).sigmoid().log()
    assert float(ohem_cross_entropy(logits, mask, share=0.5)) == pytest.approx(float(hardest), rel=1e-6)


def test_equally_hard_pixels_give_one_value():
    logits, mask = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert float(ohem_cross_entropy(logits, mask, share=0.3)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits, mask = (torch.tensor(part) for part in random_case(7, 5))
    logits = logits.to(dtype).requires_grad_()
    loss = ohem_cross_entropy(logits, mask, min_kept=10)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == float(ohem_cross_entropy(logits.detach().float(), mask, min_kept=10))
    assert torch.isfinite(logits.grad).all()


def test_peers_row_14_settings_change_the_value_or_are_refused():
    logits, mask = (torch.tensor(part) for part in random_case(0, 5))
    chosen = [{"min_kept": 1}, {"min_kept": 45}, {"min_kept": 1, "threshold": 0.01}, {"share": 0.1}]
    assert len({float(ohem_cross_entropy(logits, mask, **settings)) for settings in chosen}) == 4
    with pytest.raises(ConfigError, match="share takes the place of threshold and min_kept"):
        ohem_cross_entropy(logits, mask, share=0.5, threshold=0.6)
    for wrong in ({"share": 0}, {"share": 1.1}, {"threshold": 0}, {"threshold": 2}, {"min_kept": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            OhemCrossEntropyConfig(**wrong)
    assert LOSSES["ohem_ce"] == OhemCrossEntropyConfig(name="ohem_ce")
