"""Boundary loss against distances measured pair by pair, and the numbers of the fact sheet."""

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.losses import LOSSES
from intarsia.losses.boundary import BoundaryConfig, boundary, signed_distance

LINE = np.array([[0, 0, 1, 1, 1, 0, 0]], np.uint8)


def random_case(seed, num_classes, ignored=0.3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, num_classes, 5, 7)).astype(np.float32)
    mask = rng.integers(0, max(1, num_classes - 1), (2, 5, 7)).astype(np.uint8)
    mask[rng.random(mask.shape) < ignored] = 255
    return logits, mask


def oracle_distance(mask, num_classes):
    """Each pixel against every pixel of the other kind."""
    phi = np.zeros((num_classes, *mask.shape))
    for k in range(num_classes):
        inside, outside = np.argwhere(mask == k), np.argwhere(mask != k)
        if len(inside) and len(outside):
            for row, column in np.argwhere(mask != 255):
                others = outside if mask[row, column] == k else inside
                nearest = np.sqrt(((others - (row, column)) ** 2).sum(1)).min()
                phi[k, row, column] = 1 - nearest if mask[row, column] == k else nearest
    return phi


def oracle(logits, mask, background=False):
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    first = 0 if background or logits.shape[1] == 1 else 1
    costs = []
    for n in range(len(mask)):
        phi = oracle_distance(mask[n], logits.shape[1])
        costs += [(p[n, k] * phi[k])[mask[n] != 255] for k in range(first, logits.shape[1])]
    costs = np.concatenate(costs)
    return costs.mean() if len(costs) else 0.0


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("background", [False, True])
def test_equals_the_oracle(num_classes, ignored, background):
    logits, mask = random_case(num_classes, num_classes, ignored)
    expected = oracle(logits, mask, background)
    ours = boundary(torch.tensor(logits), torch.tensor(mask), background=background)
    assert ours.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    distance = torch.tensor(np.stack([signed_distance(one, num_classes) for one in mask]))
    given = boundary(torch.tensor(logits), torch.tensor(mask), distance=distance, background=background)
    assert float(given) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_distance_equals_the_oracle_for_blobs_at_every_edge(seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 4, (4, 5)), np.ones((4, 3))).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.05] = 255
    assert signed_distance(mask, 5) == pytest.approx(oracle_distance(mask, 5), abs=1e-5)


def test_distance_of_a_line_and_of_a_square():
    assert signed_distance(LINE, 2)[1, 0].tolist() == [2, 1, 0, -1, 0, 1, 2]
    mask = np.zeros((7, 7), np.uint8)
    mask[2:5, 2:5] = 1
    phi = signed_distance(mask, 2)[1]
    assert phi.dtype == np.float32
    assert phi[3, 3] == -1
    assert (phi[2:5, 2:5] == 0).sum() == 8
    assert phi[1, 3] == phi[3, 5] == 1
    assert phi[0, 0] == pytest.approx(2.828427, rel=1e-6)


def test_loss_of_a_line_for_three_predictions():
    mask = torch.tensor(LINE)[None]
    for predicted, expected in [(mask, -1 / 7), (torch.ones_like(mask), 5 / 7), (torch.zeros_like(mask), 0)]:
        logits = torch.stack([-200.0 * predicted, 200.0 * predicted - 100], 1)
        assert float(boundary(logits, mask)) == pytest.approx(expected, abs=1e-6)


def test_a_class_that_is_absent_or_fills_the_image_has_no_outline():
    phi = signed_distance(np.zeros((4, 6), np.uint8), 3)
    assert phi.shape == (3, 4, 6)
    assert (phi == 0).all()


def test_ignored_pixels_are_outside_while_distances_are_measured_and_0_themselves():
    mask = np.array([[1, 1, 1, 255, 255, 0, 0]], np.uint8)
    phi = signed_distance(mask, 2)
    assert phi[1, 0].tolist() == [-2, -1, 0, 0, 0, 3, 4]
    assert phi[0, 0].tolist() == [5, 4, 3, 0, 0, 0, -1]


def test_peers_row_17_ignored_pixels_have_no_gradient():
    logits, mask = random_case(5, 5)
    x = torch.tensor(logits, requires_grad=True)
    boundary(x, torch.tensor(mask), background=True).backward()
    assert (x.grad.permute(0, 2, 3, 1)[torch.tensor(mask) == 255] == 0).all()
    assert (x.grad != 0).any()
    x = torch.tensor(logits, requires_grad=True)  # nor where the distances given are not 0 there
    boundary(x, torch.tensor(mask), distance=torch.ones(logits.shape)).backward()
    assert (x.grad.permute(0, 2, 3, 1)[torch.tensor(mask) == 255] == 0).all()


@pytest.mark.parametrize("background", [False, True])
def test_gradient_is_the_difference_quotient(background):
    logits, mask = random_case(4, 5)
    x = torch.tensor(logits, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: boundary(z, torch.tensor(mask), background=background), (x,))


def test_peers_row_16_repeating_the_batch_changes_nothing_nor_do_class_numbers_and_mirrors():
    logits, mask = (torch.tensor(part) for part in random_case(6, 5))
    value = float(boundary(logits, mask, background=True))
    assert float(boundary(torch.cat([logits] * 2), torch.cat([mask] * 2), background=True)) == pytest.approx(
        value, rel=1e-5
    )
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    renamed = torch.where(mask == 255, 255, order.argsort()[mask.long() % 5])
    assert float(boundary(logits[:, order], renamed, background=True)) == pytest.approx(value, rel=1e-5)
    assert float(boundary(logits.flip(2, 3), mask.flip(1, 2), background=True)) == pytest.approx(value, rel=1e-5)


def test_the_truth_is_the_best_prediction():
    _, mask = random_case(8, 4, ignored=0.1)
    classes = np.where(mask == 255, 0, mask)
    perfect = torch.tensor(np.eye(4, dtype=np.float32)[classes] * 100).permute(0, 3, 1, 2)
    best = float(boundary(perfect, torch.tensor(mask), background=True))
    for seed in range(5):
        other = torch.randn(perfect.shape, generator=torch.Generator().manual_seed(seed)) * 5
        assert float(boundary(other, torch.tensor(mask), background=True)) > best


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits, mask = (torch.tensor(part) for part in random_case(7, 5))
    logits = logits.to(dtype).requires_grad_()
    loss = boundary(logits, mask)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == float(boundary(logits.detach().float(), mask))
    assert torch.isfinite(logits.grad).all()


def test_distances_of_the_wrong_shape_are_refused():
    with pytest.raises(ConfigError, match=r"shape of the logits, \(1, 2, 1, 7\), got \(1, 1, 7\)"):
        boundary(torch.zeros(1, 2, 1, 7), torch.tensor(LINE)[None], distance=torch.zeros(1, 1, 7))
    assert LOSSES["boundary"] == BoundaryConfig(name="boundary")
