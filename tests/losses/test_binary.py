"""Losses by sigmoid against slow NumPy, the numbers of the fact sheet, and a peer where it is right."""

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.losses import LOSSES
from intarsia.losses.binary import (
    BinaryCrossEntropyConfig,
    BinaryDiceConfig,
    BinaryFocalConfig,
    MultilabelCrossEntropyConfig,
    MultilabelDiceConfig,
    SigmoidLossConfig,
    binary_cross_entropy,
    binary_focal,
    binary_soft_dice,
    multilabel_cross_entropy,
    multilabel_soft_dice,
)

P = torch.tensor([0.9, 0.6, 0.2, 0.4], dtype=torch.double)
VECTOR = P.logit().reshape(1, 1, 4)
TRUTH = torch.tensor([1, 1, 0, 0]).reshape(1, 1, 4)
DICE = [{}, {"squared": True}, {"per_image": True}, {"smooth": 0.01}]
FOCAL = [{}, {"gamma": 0.0}, {"gamma": 0.5}, {"alpha": 0.25}, {"gamma": 3.0, "alpha": 0.9}]
EVERY = [
    *((binary_cross_entropy, {}), (multilabel_cross_entropy, {})),
    *((binary_focal, settings) for settings in FOCAL),
    *((loss, settings) for loss in (binary_soft_dice, multilabel_soft_dice) for settings in DICE),
]


def random_case(seed, loss, ignored=0.3, num_classes=3):
    """Logits and targets of 0, 1 and 255; classes overlap in the multilabel form, and the last one is absent."""
    rng = np.random.default_rng(seed)
    shape = (3, num_classes, 5, 7) if loss.__name__.startswith("multilabel") else (3, 5, 7)
    logits = rng.normal(0, 3, shape).astype(np.float32)
    targets = rng.integers(0, 2, shape).astype(np.uint8)
    if len(shape) == 4 and num_classes > 1:
        targets[:, -1] = 0
    targets[rng.random(shape) < ignored] = 255
    return logits, targets


def oracle_pixels(logits, targets, gamma=0.0, alpha=None):
    costs = []
    for z, t in zip(logits.ravel().astype(np.float64), targets.ravel(), strict=True):
        if t != 255:
            p = 1 / (1 + np.exp(-z if t else z))
            weight = 1 if alpha is None else alpha if t else 1 - alpha
            costs.append(-weight * (1 - p) ** gamma * np.log(p))
    return np.mean(costs) if costs else 0.0


def oracle_dice(logits, targets, squared=False, smooth=1.0, per_image=False):
    if logits.ndim == 3:
        logits, targets = logits[:, None], targets[:, None]
    groups = [[n] for n in range(len(logits))] if per_image else [list(range(len(logits)))]
    costs = []
    for group in groups:
        for k in range(logits.shape[1]):
            kept = targets[group][:, k] != 255
            t = (targets[group][:, k][kept] == 1).astype(np.float64)
            p = 1 / (1 + np.exp(-logits[group][:, k][kept].astype(np.float64)))
            costs.append(1 - (2 * (p * t).sum() + smooth) / ((p**2 if squared else p).sum() + t.sum() + smooth))
    return np.mean(costs)


def oracle(loss, *parts, **settings):
    return (oracle_dice if "dice" in loss.__name__ else oracle_pixels)(*parts, **{**defaults(loss), **settings})


def defaults(loss):
    return {"gamma": 2.0} if loss is binary_focal else {}


@pytest.mark.parametrize(("loss", "settings"), EVERY)
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
def test_equals_the_oracle(loss, settings, ignored, num_classes):
    logits, targets = random_case(num_classes, loss, ignored, num_classes)
    ours = loss(torch.tensor(logits), torch.tensor(targets), **settings)
    assert ours.item() == pytest.approx(oracle(loss, logits, targets, **settings), rel=1e-5, abs=1e-6)


def test_published_vector():
    assert float(binary_cross_entropy(VECTOR, TRUTH)) == pytest.approx(0.3375388286, rel=1e-8)
    assert 1 - float(binary_soft_dice(VECTOR, TRUTH, smooth=1e-12)) == pytest.approx(0.7317073171, rel=1e-8)
    assert float(binary_soft_dice(VECTOR, TRUTH, smooth=1e-12)) == pytest.approx(0.2682926829, rel=1e-8)
    assert 1 - float(binary_soft_dice(VECTOR, TRUTH, squared=True, smooth=1e-12)) == pytest.approx(
        0.8902077151, rel=1e-8
    )
    assert -float(1 - binary_soft_dice(VECTOR, TRUTH)) == pytest.approx(-0.7843137255, rel=1e-8)
    assert float(binary_focal(VECTOR, TRUTH)) == pytest.approx(0.0433608867, rel=1e-8)
    assert float(binary_focal(VECTOR, TRUTH, alpha=0.25)) == pytest.approx(0.0221724519, rel=1e-8)
    both = torch.stack([-VECTOR, VECTOR], 1), torch.stack([1 - TRUTH, TRUTH], 1)
    assert float(multilabel_cross_entropy(*both)) == pytest.approx(0.3375388286, rel=1e-8)
    assert float(multilabel_soft_dice(*both, smooth=1e-12)) == pytest.approx(0.2751719825, rel=1e-8)


@pytest.mark.parametrize(("squared", "expected"), [(True, (0.1179899444, 0.2764838997, -0.1056626368, -0.2113252736))])
def test_gradient_of_squared_dice_is_the_one_of_v_net(squared, expected):
    p = P.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        1 - binary_soft_dice(p.logit().reshape(1, 1, 4), TRUTH, squared=squared, smooth=1e-14), p
    )
    assert gradient.tolist() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("loss", [binary_cross_entropy, binary_focal, binary_soft_dice])
def test_peers_row_11_both_documented_shapes_with_defaults(loss):
    logits, targets = (torch.tensor(part) for part in random_case(0, loss))
    assert float(loss(logits.unsqueeze(1), targets)) == float(loss(logits, targets))
    for kind in (torch.long, torch.float32):
        assert float(loss(logits, targets.to(kind))) == float(loss(logits, targets))


@pytest.mark.parametrize("loss", [binary_soft_dice, multilabel_soft_dice])
def test_peers_row_12_false_positives_on_an_empty_mask_cost_and_are_pushed_down(loss):
    logits = torch.full((1, 2, 4, 4) if loss is multilabel_soft_dice else (1, 4, 4), 3.0, requires_grad=True)
    value = loss(logits, torch.zeros(logits.shape))
    value.backward()
    assert value.item() > 0.5
    assert (logits.grad > 0).all()


@pytest.mark.parametrize(("loss", "settings"), EVERY)
def test_gradient_is_the_difference_quotient(loss, settings):
    logits, targets = random_case(4, loss)
    x = torch.tensor(logits / 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.tensor(targets), **settings), (x,))


@pytest.mark.parametrize(("loss", "settings"), EVERY)
def test_peers_row_17_ignored_pixels_have_no_gradient_and_no_say(loss, settings):
    logits, targets = random_case(5, loss)
    x = torch.tensor(logits, requires_grad=True)
    value = loss(x, torch.tensor(targets), **settings)
    value.backward()
    assert (x.grad[torch.tensor(targets) == 255] == 0).all()
    assert (x.grad[torch.tensor(targets) != 255] != 0).all()
    other = torch.tensor(np.where(targets == 255, np.nan, logits))
    assert float(loss(other, torch.tensor(targets), **settings)) == pytest.approx(value.item())


@pytest.mark.parametrize(("loss", "settings"), EVERY)
@pytest.mark.parametrize("scale", [50.0, 1e4])
def test_peers_row_14_large_logits_stay_finite(loss, settings, scale):
    logits, targets = random_case(6, loss)
    x = torch.tensor(np.sign(logits) * scale, requires_grad=True)
    value = loss(x, torch.tensor(targets), **settings)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("choices", [DICE, FOCAL])
def test_peers_row_14_every_setting_changes_the_value(choices):
    loss = binary_soft_dice if choices is DICE else binary_focal
    logits, targets = (torch.tensor(part) for part in random_case(7, loss))
    assert len({float(loss(logits, targets, **settings)) for settings in choices}) == len(choices)


@pytest.mark.parametrize(("loss", "settings"), EVERY)
def test_peers_row_16_repeating_the_batch_changes_nothing_nor_does_the_order(loss, settings):
    if "dice" in loss.__name__:
        settings = {**settings, "smooth": 1e-6}  # s is added once, however large the batch
    logits, targets = (torch.tensor(part) for part in random_case(8, loss, num_classes=1))
    value = float(loss(logits, targets, **settings))
    assert float(loss(torch.cat([logits] * 2), torch.cat([targets] * 2), **settings)) == pytest.approx(value, rel=1e-5)
    assert float(loss(logits.flip(-1, 0), targets.flip(-1, 0), **settings)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("loss", [multilabel_cross_entropy, multilabel_soft_dice])
def test_order_of_classes_does_not_matter(loss):
    logits, targets = (torch.tensor(part) for part in random_case(9, loss))
    assert float(loss(logits.flip(1), targets.flip(1))) == pytest.approx(float(loss(logits, targets)), rel=1e-6)


@pytest.mark.parametrize(("loss", "settings"), EVERY)
def test_the_truth_is_the_best_prediction(loss, settings):
    _, targets = random_case(10, loss)
    perfect = torch.tensor(np.where(targets == 1, 100.0, -100.0))
    assert float(loss(perfect, torch.tensor(targets), **settings)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("loss", "settings"), EVERY)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(loss, settings, dtype):
    logits, targets = (torch.tensor(part) for part in random_case(11, loss))
    logits = logits.to(dtype).requires_grad_()
    value = loss(logits, targets, **settings)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == float(loss(logits.detach().float(), targets, **settings))
    assert logits.grad.dtype == dtype


def test_wrong_shapes_and_values_are_refused_in_one_line():
    for shape in ((2, 2, 4, 4), (2, 4, 5), (4, 4)):
        with pytest.raises(ConfigError) as caught:
            binary_cross_entropy(torch.zeros(shape), torch.zeros(2, 4, 4))
        expected = "takes logits (N, 1, H, W) or (N, H, W) and a mask (N, H, W), got "
        assert str(caught.value) == f"loss binary_ce: {expected}{shape} and (2, 4, 4)."
    with pytest.raises(ConfigError, match=r"logits and targets \(N, K, H, W\), got \(2, 3, 4, 4\) and \(2, 4, 4\)"):
        multilabel_soft_dice(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ConfigError, match=r"mask: holds 2; this loss takes 0, 1 and 255 \(ignored\)"):
        binary_soft_dice(torch.zeros(2, 4, 4), torch.full((2, 4, 4), 2))
    with pytest.raises(ConfigError, match="alpha"):
        binary_focal(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), alpha=1.5)


def test_types_say_what_they_take_and_are_no_names_for_recipes():
    kinds = (BinaryCrossEntropyConfig, BinaryDiceConfig, BinaryFocalConfig)
    for kind in (*kinds, MultilabelCrossEntropyConfig, MultilabelDiceConfig):
        with pytest.raises(ConfigError, match=f"loss {kind.__name__}: takes"):
            kind()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4))
    assert not [name for name in LOSSES.names() if isinstance(LOSSES[name], SigmoidLossConfig)]


def test_agrees_with_segmentation_models_pytorch():
    peer = pytest.importorskip("segmentation_models_pytorch", reason="the peer is not installed").losses
    logits, targets = (torch.tensor(part) for part in random_case(12, binary_focal, ignored=0.0))
    for gamma, alpha in [(2.0, None), (2.0, 0.25), (1.5, 0.9)]:
        theirs = peer.FocalLoss("binary", gamma=gamma, alpha=alpha)(logits, targets.long())
        assert float(binary_focal(logits, targets, gamma=gamma, alpha=alpha)) == pytest.approx(theirs.item(), rel=1e-5)
    theirs = peer.DiceLoss("binary", smooth=0.0)(logits.unsqueeze(1), targets.long().unsqueeze(1))
    assert float(binary_soft_dice(logits, targets, smooth=1e-12)) == pytest.approx(theirs.item(), rel=1e-5)
