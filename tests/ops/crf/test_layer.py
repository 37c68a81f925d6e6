"""The CRF that learns: gradients against finite differences and against autograd through the exact CRF."""

import pytest
import torch

from intarsia.errors import ConfigError, DataError
from intarsia.ops.crf import CrfLayer, dense_crf
from intarsia.ops.crf.compiled_field import FIELD
from intarsia.ops.crf.gaussian import smoothed
from intarsia.ops.crf.reference import exact_kernel
from tests.both_forms import both_forms
from tests.ops.crf.scenes import scene, small

form = both_forms(FIELD)


def drawn_layer(num_classes, *, seed=0, **settings):
    layer = CrfLayer(num_classes, small(), **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in layer.parameters():
            each.add_(0.3 * torch.randn(each.shape, generator=generator))
    return layer


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_those_of_finite_differences(channels):
    logits, image = scene(3, 4, 2, channels, images=2)
    layer = drawn_layer(2, iterations=2).double()
    names = [name for name, _ in layer.named_parameters()]

    def call(z, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (z, image))

    assert torch.autograd.gradcheck(call, (logits.double().requires_grad_(), *layer.parameters()))


def test_gradients_are_near_those_through_the_exact_one():
    logits, image = scene(24, 26, 3, images=1)
    layer = drawn_layer(3, iterations=3).double()
    config = small()
    near, alike = (
        torch.from_numpy(exact_kernel(image[0].numpy(), config.replace(bilateral_weight=a, smoothness_weight=b)))
        for a, b in ((0, 1), (1, 0))
    )

    def exact(z):
        out = z
        for _ in range(3):
            q = out.softmax(0)
            weighted = layer.smoothness_weight[:, None] * (q @ near) + layer.bilateral_weight[:, None] * (q @ alike)
            out = z - layer.compatibility @ weighted
        return out

    target = torch.randint(0, 3, (24 * 26,), generator=torch.Generator().manual_seed(2))
    gradients = []
    for call in (lambda z: layer(z, image)[0].flatten(1), lambda z: exact(z[0].flatten(1))):
        z = logits.double().requires_grad_()
        loss = torch.nn.functional.cross_entropy(call(z).T, target)
        gradients.append(torch.autograd.grad(loss, [z, *layer.parameters()]))
    for found, expected in zip(*gradients, strict=True):
        likeness = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
        assert likeness > 0.98


def test_float32_has_the_gradients_of_float64(form):
    logits, image = scene(40, 50, 5, images=2)
    layer, found = drawn_layer(5, iterations=3), []
    for kind in (torch.float32, torch.float64):
        z = logits.to(kind).requires_grad_()
        layer = layer.to(kind)
        loss = layer(z, image).log_softmax(1)[:, 0].mean()
        found.append([each.double() for each in torch.autograd.grad(loss, [z, *layer.parameters()])])
    for narrow, wide in zip(*found, strict=True):
        assert torch.allclose(narrow, wide, rtol=1e-3, atol=1e-4 * float(wide.abs().max()))


def test_at_the_start_it_is_the_dense_crf(form):
    logits, image = scene(40, 50, 4, images=2)
    config = small(least_probability=0)
    found = CrfLayer(4, config, iterations=config.iterations)(logits, image)
    assert (found.softmax(1) - dense_crf(logits, image, config).exp()).abs().max() < 1e-4


def test_the_image_has_no_gradient(form):
    logits, image = scene(images=1)
    z, image = logits.requires_grad_(), image.requires_grad_()
    CrfLayer(3, small())(z, image).sum().backward()
    assert image.grad is None
    assert z.grad is not None


def test_it_learns(form):
    logits, image = scene(30, 40, 3, images=1)
    truth = dense_crf(logits, image, small(iterations=2)).argmax(1)
    layer = CrfLayer(3, small(bilateral_weight=0.1, smoothness_weight=0.1), iterations=2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(layer(logits, image), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_half_precision_logits(form):
    logits, image = scene(images=1)
    layer = CrfLayer(3, small())
    z = logits.half().requires_grad_()
    layer(z, image).sum().backward()
    assert z.grad.dtype == torch.float16


def test_what_does_not_fit_is_refused():
    logits, image = scene(num_classes=4, images=1)
    with pytest.raises(ConfigError, match="built for 3 classes, got 4"):
        CrfLayer(3)(logits, image)
    with pytest.raises(DataError, match="resize the logits"):
        CrfLayer(4)(logits[..., 1:], image)
    with pytest.raises(ConfigError, match="at least 1, got 0 and 5"):
        CrfLayer(0)


def test_smoothed_is_its_own_transpose():
    a, b = torch.randn(2, 1, 9, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    assert torch.allclose((smoothed(a, 1.5) * b).sum(), (a * smoothed(b, 1.5)).sum())
