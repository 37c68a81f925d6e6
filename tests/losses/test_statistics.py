"""Sums of one softmax, plain and compiled, against slow NumPy in float64; the kernel's making, and what happens without."""

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.losses import statistics
from intarsia.losses.base import Pixels
from intarsia.losses.kernel import KERNEL
from intarsia.losses.statistics import softmax_statistics

NAMES = ("nll", "weight", "intersection", "probability", "square", "truth")


@pytest.fixture(params=["plain", "kernel"])
def form(request, monkeypatch):
    """Each test runs in plain torch and with the compiled kernel."""
    if request.param == "kernel":
        needs_kernel()
    else:
        monkeypatch.setenv("INTARSIA_KERNEL", "0")
    return request.param


def needs_kernel():
    if KERNEL.load() is None:
        pytest.skip(f"no compiled kernel here: {KERNEL.state()}")


def case(num_classes, num_pixels, ignored=0.3, *, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (2, num_classes, num_pixels)).astype(np.float32)
    mask = rng.integers(0, num_classes, (2, num_pixels)).astype(np.uint8)
    mask[rng.random(mask.shape) < ignored] = 255
    return torch.tensor(logits), torch.tensor(mask), torch.tensor(rng.uniform(0, 2, mask.shape).astype(np.float32))


def oracle(logits, mask, weights):
    """Pixel by pixel, as the definitions read."""
    z, t = logits.double().numpy(), mask.numpy()
    w = np.ones(t.shape) if weights is None else weights.double().numpy()
    num_images, num_classes, num_pixels = z.shape
    sums = {name: np.zeros((num_images, num_classes)) for name in NAMES[2:]}
    sums |= {name: np.zeros(num_images) for name in NAMES[:2]}
    for n in range(num_images):
        for i in range(num_pixels):
            truth = t[n, i]
            if truth == 255:
                continue
            shifted = z[n, :, i] - z[n, :, i].max()
            p = np.exp(shifted) / np.exp(shifted).sum()
            sums["nll"][n] += w[n, i] * (np.log(np.exp(shifted).sum()) - shifted[truth])
            sums["weight"][n] += w[n, i]
            sums["intersection"][n, truth] += p[truth]
            sums["probability"][n] += p
            sums["square"][n] += p**2
            sums["truth"][n, truth] += 1
    return sums


def naive(logits, mask, weights):
    """The same in torch with a one-hot tensor, for gradients by autograd."""
    counted = mask != 255
    t = torch.nn.functional.one_hot(torch.where(counted, mask, 0).long(), logits.shape[1]).transpose(1, 2)
    t, log_p = t * counted.unsqueeze(1), logits.log_softmax(1)
    p = log_p.exp() * counted.unsqueeze(1)
    nll = -torch.where(t > 0, log_p, 0).sum(1) * (1 if weights is None else weights.to(logits.dtype))
    return nll.sum(1), (p * t).sum(2), p.sum(2), p.square().sum(2)


def gradient(sums, logits, seed=0):
    """Of a drawn sum of nll, I, P and Q."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(each.shape, generator=generator, dtype=torch.float64) for each in sums]
    total = sum((each * factor.to(each.dtype)).sum() for each, factor in zip(sums, drawn, strict=True))
    return torch.autograd.grad(total, logits)[0]


def both_gradients(logits, mask, weights, squares):
    """Ours, and autograd's in float64."""
    ours, wide = logits.detach().requires_grad_(), logits.detach().double().requires_grad_()
    nll, _, inter, prob, square, _ = softmax_statistics(ours, mask, weights, squares=squares)
    kept = [nll, inter, prob, *([square] if squares else [])]
    return gradient(kept, ours), gradient(naive(wide, mask, weights)[: len(kept)], wide)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19, 150])
@pytest.mark.parametrize("num_pixels", [1, 7, 257, 1000])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_equal_the_oracle(form, num_classes, num_pixels, ignored, weighted):
    logits, mask, weights = case(num_classes, num_pixels, ignored)
    given = logits, mask, weights if weighted else None
    expected = oracle(*given)
    for name, found in zip(NAMES, softmax_statistics(*given, squares=True), strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert softmax_statistics(*given)[4] is None


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19, 150])
@pytest.mark.parametrize("num_pixels", [1, 7, 257, 1000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("squares", [False, True])
def test_gradient_equals_autograd_and_is_0_at_ignored_pixels(form, num_classes, num_pixels, weighted, squares):
    logits, mask, weights = case(num_classes, num_pixels)
    ours, expected = both_gradients(logits, mask, weights if weighted else None, squares)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-6)
    assert (ours.transpose(1, 2)[mask == 255] == 0).all()


@pytest.mark.parametrize("piece", [1, 16, 1 << 18])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("squares", [False, True])
def test_plain_form_passes_gradcheck(monkeypatch, piece, weighted, squares):
    monkeypatch.setattr(statistics, "PIECE", {"cpu": piece, "other": piece})
    logits, mask, weights = case(3, 5)

    def sums(z):
        found = softmax_statistics(z, mask, weights.double() if weighted else None, squares=squares)
        return tuple(each for each in found if each is not None and each.requires_grad)

    assert torch.autograd.gradcheck(sums, logits.double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_precisions_and_layouts(form, dtype, layout):
    logits, mask, weights = case(5, 63 * 17)
    image = logits.to(dtype).reshape(2, 5, 63, 17).to(memory_format=layout).requires_grad_()
    pixels = Pixels(image, mask.reshape(2, 63, 17), weights.reshape(2, 63, 17))
    found = softmax_statistics(pixels.logits_NKP, pixels.mask_NP, pixels.weights_NP, squares=True)
    expected = oracle(logits.to(dtype), mask, weights)
    for name, each in zip(NAMES, found, strict=True):
        np.testing.assert_allclose(each.detach(), expected[name], rtol=1e-5, err_msg=name)
    (found[0].sum() + found[3].square().sum()).backward()
    assert image.grad.dtype == dtype
    assert image.grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("scale", [1e4, 3e38])
def test_huge_logits_stay_finite(form, scale):
    signs = torch.tensor(np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (2, 4, 301)), dtype=torch.float32)
    logits = (signs * scale).requires_grad_()
    mask = signs.argmax(1).to(torch.uint8)
    mask[:, ::7] = 255
    found = softmax_statistics(logits, mask, squares=True)
    for name, each in zip(NAMES, found, strict=True):
        np.testing.assert_allclose(each.detach(), oracle(logits.detach(), mask, None)[name], rtol=1e-5, err_msg=name)
    grad = gradient([found[0], found[2], found[3], found[4]], logits)
    assert torch.isfinite(grad).all()


def test_minus_infinity_is_a_probability_of_0_and_nan_stays_nan(form):
    logits, mask, _ = case(4, 40, ignored=0)
    mask[:] = 1
    logits[:, 2] = -torch.inf
    found = softmax_statistics(logits, mask)
    assert (found[3][:, 2] == 0).all()
    assert torch.isfinite(found[0]).all()
    logits[1, 3, 5] = torch.nan
    assert torch.isfinite(softmax_statistics(logits, mask)[0]).tolist() == [True, False]


def test_two_runs_are_equal_and_threads_change_only_rounding(form):
    logits, mask, weights = case(12, 50_001)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (2, 2, 1):
            torch.set_num_threads(count)
            z = logits.clone().requires_grad_()
            nll, weight, *sums = softmax_statistics(z, mask, weights, squares=True)
            results.append([nll, weight, *sums, gradient([nll, *sums[:3]], z)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results[:2], strict=True))
    for one, two in zip(*results[1:], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.int16, torch.int32, torch.int64])
def test_masks_of_any_whole_numbers(form, kind):
    logits, mask, _ = case(5, 257)
    for one, two in zip(softmax_statistics(logits, mask), softmax_statistics(logits, mask.to(kind)), strict=True):
        assert one is two is None or torch.equal(one, two)


def test_gradients_can_be_asked_for_twice(form):
    logits, mask, _ = case(5, 257)
    logits.requires_grad_()
    total = softmax_statistics(logits, mask)[2].square().sum()
    first, second = torch.autograd.grad(total, logits, retain_graph=True), torch.autograd.grad(total, logits)
    assert torch.equal(first[0], second[0])


def test_autocast_changes_nothing(form):
    logits, mask, weights = case(5, 257)
    expected = both_gradients(logits, mask, weights, squares=True)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = both_gradients(logits, mask, weights, squares=True)[0]
    assert torch.equal(found, expected)


def test_nothing_given():
    sums = softmax_statistics(torch.zeros(2, 3, 0), torch.zeros(2, 0, dtype=torch.uint8))
    assert all((each == 0).all() for each in sums if each is not None)


@pytest.mark.parametrize("number", [3, 200, -1, 256, 1 << 40])
def test_numbers_that_are_no_class_are_refused(form, number):
    mask = torch.zeros(1, 100, dtype=torch.uint8 if 0 <= number < 256 else torch.int64)
    mask[0, 50] = number
    with pytest.raises(ConfigError, match=f"mask: holds class {number}, but the logits have 3 classes, counted from 0"):
        softmax_statistics(torch.zeros(1, 3, 100), mask)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
def test_pixel_nll_with_and_without_the_kernel(monkeypatch, num_classes, ignored):
    generator = torch.Generator().manual_seed(num_classes)
    logits = 4 * torch.randn(2, num_classes, 257, generator=generator)
    mask = torch.randint(0, num_classes, (2, 257), generator=generator, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=generator) < ignored] = 255
    slope = torch.randn(mask.shape, generator=generator)
    found = []
    for turned_off in (False, True):
        if turned_off:
            monkeypatch.setenv("INTARSIA_KERNEL", "0")
        x = logits.clone().requires_grad_()
        nll = statistics.pixel_nll(x, mask)
        nll.backward(slope)
        found.append((nll.detach(), x.grad))
        assert not nll.detach()[mask == 255].any()
        assert not x.grad.transpose(1, 2)[mask == 255].any()
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
