"""Lovász losses against the definition by sets, the numbers of the fact sheet, and a peer where it is right."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.losses import LOSSES
from intarsia.losses.lovasz import LovaszHingeConfig, LovaszSoftmaxConfig, lovasz_hinge, lovasz_softmax

P = torch.tensor([0.9, 0.6, 0.2, 0.4], dtype=torch.double)
TRUTH = torch.tensor([1, 1, 0, 0]).reshape(1, 1, 4)
VECTOR = torch.stack([(1 - P).log(), P.log()]).reshape(1, 2, 1, 4)
SETTINGS = [{}, {"classes": "all"}, {"per_image": True}, {"classes": "all", "per_image": True}, {"classes": (0,)}]


def random_case(seed, num_classes, ignored=0.3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (3, num_classes, 5, 7)).astype(np.float32)
    mask = rng.integers(0, max(1, num_classes - 1), (3, 5, 7)).astype(np.uint8)
    mask[rng.random(mask.shape) < ignored] = 255
    return logits, mask


def oracle_extension(errors, truth):
    """Sum over levels of (level - next level) |M| / |M ∪ T|: M the pixels at or above the level, T those of the class."""
    levels = sorted({float(error) for error in errors if error > 0}, reverse=True)
    members = {i for i, inside in enumerate(truth) if inside}
    value = 0.0
    for level, following in pairwise([*levels, 0.0]):
        wrong = {i for i, error in enumerate(errors) if error >= level}
        value += (level - following) * len(wrong) / len(wrong | members)
    return value


def groups_of(mask, per_image):
    groups = [[n] for n in range(len(mask))] if per_image else [list(range(len(mask)))]
    return [group for group in groups if (mask[group] != 255).any()]


def oracle_softmax(logits, mask, classes="present", per_image=False):
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    values = []
    for group in groups_of(mask, per_image):
        kept = mask[group] != 255
        t = mask[group][kept]
        taken = range(logits.shape[1]) if isinstance(classes, str) else classes
        taken = [k for k in taken if classes != "present" or (t == k).any()]
        values.append(np.mean([oracle_extension(np.abs((t == k) - p[group][:, k][kept]), t == k) for k in taken]))
    return np.mean(values) if values else 0.0


def oracle_hinge(z, mask, per_image=True):
    values = []
    for group in groups_of(mask, per_image):
        kept = mask[group] != 255
        t = mask[group][kept] == 1
        values.append(oracle_extension(np.maximum(0, 1 - z[group][kept].astype(np.float64) * np.where(t, 1, -1)), t))
    return np.mean(values) if values else 0.0


def binary_case(seed, ignored=0.3):
    logits, mask = random_case(seed, 3, ignored)
    return logits[:, 0], mask


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_peers_row_13_softmax_equals_the_oracle(num_classes, ignored, settings, dtype):
    logits, mask = random_case(num_classes, num_classes, ignored)
    ours = lovasz_softmax(torch.tensor(logits, dtype=dtype), torch.tensor(mask), **settings)
    assert ours.dtype == dtype
    assert ours.item() == pytest.approx(oracle_softmax(logits, mask, **settings), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("form", ["NHW", "N1HW", "N2HW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_peers_row_13_hinge_equals_the_oracle(ignored, per_image, form, dtype):
    z, mask = binary_case(1, ignored)
    mask[0][mask[0] == 1] = 0  # one image without the class
    logits = torch.tensor(z, dtype=dtype)
    if form != "NHW":
        logits = logits.unsqueeze(1) if form == "N1HW" else torch.stack([logits * 0.25, logits * 1.25], 1)
    ours = lovasz_hinge(logits, torch.tensor(mask), per_image=per_image)
    assert ours.item() == pytest.approx(oracle_hinge(z, mask, per_image), rel=1e-5, abs=1e-6)


def test_published_vector():
    assert float(lovasz_softmax(VECTOR, TRUTH)) == pytest.approx(0.3208333333, rel=1e-8)
    assert float(lovasz_softmax(VECTOR, TRUTH, classes=[0])) == pytest.approx(0.3333333333, rel=1e-8)
    assert float(lovasz_softmax(VECTOR, TRUTH, classes=[1])) == pytest.approx(0.3083333333, rel=1e-8)
    assert float(lovasz_softmax(VECTOR.float(), TRUTH)) == pytest.approx(0.3208333333, rel=1e-6)
    assert float(lovasz_hinge(torch.tensor([2.0, -1.0, 0.5, -3.0]).reshape(1, 1, 4), TRUTH)) == pytest.approx(1.25)


def test_of_decided_predictions_it_is_1_minus_jaccard():
    logits = torch.tensor([[-99.0, -99, 99, 99], [99, 99, -99, -99]]).reshape(1, 2, 1, 4)
    mask = torch.tensor([[[1, 0, 0, 0]]])
    assert float(lovasz_softmax(logits, mask, classes=(1,))) == pytest.approx(1 / 2)
    assert float(lovasz_softmax(logits, mask, classes=(0,))) == pytest.approx(1 / 3)


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradient_of_softmax_is_the_difference_quotient(settings):
    logits, mask = random_case(4, 4)
    x = torch.tensor(logits / 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: lovasz_softmax(z, torch.tensor(mask), **settings), (x,))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_gradient_of_hinge_is_the_difference_quotient(per_image, channels):
    logits, mask = random_case(5, 3)
    x = torch.tensor(logits[:, :channels], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: lovasz_hinge(z, torch.tensor(mask), per_image=per_image), (x,))


@pytest.mark.parametrize("settings", SETTINGS)
def test_sorting_packed_integers_gives_the_gradient_of_the_plain_sort(settings):
    logits, mask = random_case(6, 5)
    narrow, wide = (torch.tensor(logits, dtype=kind, requires_grad=True) for kind in (torch.float32, torch.float64))
    for x in (narrow, wide):
        lovasz_softmax(x, torch.tensor(mask), **settings).backward()
    assert narrow.grad.numpy() == pytest.approx(wide.grad.numpy(), rel=1e-4, abs=1e-7)
    narrow, wide = (
        torch.tensor(logits[:, 0], dtype=kind, requires_grad=True) for kind in (torch.float32, torch.float64)
    )
    for x in (narrow, wide):
        lovasz_hinge(x, torch.tensor(np.where(mask > 1, 255, mask))).backward()
    assert narrow.grad.numpy() == pytest.approx(wide.grad.numpy(), rel=1e-4, abs=1e-7)


def test_equal_errors_have_one_value():
    logits, mask = torch.zeros(1, 2, 1, 6), torch.tensor([[[0, 1, 1, 0, 1, 0]]])
    values = [float(lovasz_softmax(logits, mask[..., torch.randperm(6)])) for _ in range(5)]
    assert values == pytest.approx([oracle_softmax(logits.numpy(), mask.numpy())] * 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_counted_is_0_with_zero_gradient(dtype):
    for loss, shape in [(lovasz_softmax, (2, 3, 4, 4)), (lovasz_hinge, (2, 4, 4))]:
        logits = torch.randn(shape, dtype=dtype, requires_grad=True)
        value = loss(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
        value.backward()
        assert value.item() == 0
        assert (logits.grad == 0).all()


def test_peers_row_17_ignored_pixels_have_no_gradient_and_no_say():
    logits, mask = random_case(7, 5)
    other = np.where((mask == 255)[:, None], 77, logits).astype(np.float32)
    x = torch.tensor(logits, requires_grad=True)
    for settings in SETTINGS:
        loss = lovasz_softmax(x, torch.tensor(mask), **settings)
        assert loss.item() == float(lovasz_softmax(torch.tensor(other), torch.tensor(mask), **settings))
        (gradient,) = torch.autograd.grad(loss, x)
        assert (gradient.permute(0, 2, 3, 1)[torch.tensor(mask) == 255] == 0).all()
    z, mask = binary_case(7)
    x = torch.tensor(z, requires_grad=True)
    lovasz_hinge(x, torch.tensor(mask)).backward()
    assert (x.grad[torch.tensor(mask) == 255] == 0).all()
    assert (x.grad != 0).any()


def test_peers_row_12_false_positives_on_an_empty_mask_cost_and_are_pushed_down():
    logits = torch.tensor([-3.0, 3.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4).clone().requires_grad_()
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    for loss in (lovasz_softmax, lovasz_hinge):
        value = loss(logits, mask)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.item() > 0.9
        assert float(gradient[0, 1].sum()) > 0
    value = lovasz_softmax(logits, mask, classes=(1,))  # the absent class alone
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(float(logits.detach().softmax(1)[0, 1, 0, 0]))
    assert float(gradient[0, 1].sum()) > 0


@pytest.mark.parametrize("classes", ["present", "all"])
def test_peers_row_16_repeating_the_batch_changes_nothing_nor_does_the_order(classes):
    logits, mask = (torch.tensor(part) for part in random_case(8, 5))
    value = float(lovasz_softmax(logits, mask, classes=classes))
    twice = lovasz_softmax(torch.cat([logits] * 2), torch.cat([mask] * 2), classes=classes)
    assert float(twice) == pytest.approx(value, rel=1e-5)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    renamed = torch.where(mask == 255, 255, order.argsort()[mask.long() % 5])
    assert float(lovasz_softmax(logits[:, order], renamed, classes=classes)) == pytest.approx(value, rel=1e-5)
    assert float(lovasz_softmax(logits.flip(0, 3), mask.flip(0, 2), classes=classes)) == pytest.approx(value, rel=1e-5)


def test_per_image_is_the_mean_of_images_that_count():
    logits, mask = (torch.tensor(part) for part in random_case(9, 4))
    mask[1] = 255
    single = [float(lovasz_softmax(logits[n : n + 1], mask[n : n + 1])) for n in (0, 2)]
    assert float(lovasz_softmax(logits, mask, per_image=True)) == pytest.approx(np.mean(single), rel=1e-6)


def test_the_truth_is_the_best_prediction():
    _, mask = random_case(10, 4)
    perfect = torch.tensor(np.eye(4, dtype=np.float32)[np.where(mask == 255, 0, mask)] * 100).permute(0, 3, 1, 2)
    for settings in SETTINGS:
        assert float(lovasz_softmax(perfect, torch.tensor(mask), **settings)) == pytest.approx(0, abs=1e-7)
    _, mask = binary_case(10)
    assert float(lovasz_hinge(torch.tensor(np.where(mask == 1, 2.0, -2.0)), torch.tensor(mask))) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, mask = (torch.tensor(part) for part in random_case(11, 5))
    logits = logits.to(dtype).requires_grad_()
    loss = lovasz_softmax(logits, mask)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == float(lovasz_softmax(logits.detach().float(), mask))
    assert logits.grad.dtype == dtype


@pytest.mark.parametrize("scale", [50.0, 1e4])
def test_peers_row_14_large_logits_stay_finite_and_nan_is_not_hidden(scale):
    logits, mask = (torch.tensor(part) for part in random_case(12, 3))
    x = (logits.sign() * scale).requires_grad_()
    loss = lovasz_softmax(x, mask) + lovasz_hinge(x[:, 0], torch.where(mask == 255, 255, mask % 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()
    place = tuple((mask != 255).nonzero()[0].tolist())
    broken = logits.clone()
    broken[place[0], :, place[1], place[2]] = torch.nan
    for settings in SETTINGS:
        assert torch.isnan(lovasz_softmax(broken, mask, **settings))
    assert torch.isnan(lovasz_hinge(broken[:, 0], torch.where(mask == 255, 255, mask % 2)))


def test_peers_row_14_settings_change_the_value_or_are_refused():
    logits, mask = (torch.tensor(part) for part in random_case(13, 5))
    assert len({round(float(lovasz_softmax(logits, mask, **settings)), 6) for settings in SETTINGS}) == 5
    for wrong in ((), (0, 0), (-1,)):
        with pytest.raises(ConfigError, match="different class numbers"):
            lovasz_softmax(logits, mask, classes=wrong)
    with pytest.raises(ConfigError, match="holds 5, but there are 5 classes"):
        lovasz_softmax(logits, mask, classes=(0, 5))
    with pytest.raises(ConfigError, match="mask: holds class 7, but the logits have 5 classes"):
        lovasz_softmax(logits, torch.full_like(mask, 7))
    assert LOSSES["lovasz_softmax"].replace(classes=[0, 2]) == LovaszSoftmaxConfig(
        name="lovasz_softmax", classes=(0, 2)
    )


def test_hinge_of_more_than_two_classes_is_refused():
    with pytest.raises(ConfigError, match=r"with 1 or 2 channels of logits, got 3\. Use lovasz_softmax"):
        LOSSES["lovasz_hinge"](torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))
    for shape in ((1, 3, 2, 2), (1, 2, 3), (2, 2)):
        with pytest.raises(ConfigError, match=r"a mask \(N, H, W\), got"):
            lovasz_hinge(torch.zeros(shape), torch.zeros(1, 2, 2))
    with pytest.raises(ConfigError, match="mask: holds 2"):
        lovasz_hinge(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 2))
    assert LOSSES["lovasz_hinge"] == LovaszHingeConfig(name="lovasz_hinge")


def test_agrees_with_segmentation_models_pytorch():
    peer = pytest.importorskip("segmentation_models_pytorch", reason="the peer is not installed").losses
    for per_image in (False, True):
        logits, mask = (torch.tensor(part) for part in random_case(14, 5))
        x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        ours = lovasz_softmax(x, mask, per_image=per_image)
        theirs = peer.LovaszLoss("multiclass", per_image=per_image, ignore_index=255)(y, mask.long())
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        ours.backward()
        theirs.backward()
        assert x.grad.numpy() == pytest.approx(y.grad.numpy(), rel=1e-3, abs=1e-6)
        z, mask = (torch.tensor(part) for part in binary_case(14))
        theirs = peer.LovaszLoss("binary", per_image=per_image, ignore_index=255)(z, mask.long())
        assert float(lovasz_hinge(z, mask, per_image=per_image)) == pytest.approx(theirs.item(), rel=1e-5)
