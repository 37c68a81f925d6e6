"""The dense CRF, compiled and plain, against the exact one, and what must hold of any."""

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError, DataError, UnknownName
from intarsia.ops.crf import CRFS, CrfConfig, dense_crf, exact_dense_crf
from intarsia.ops.crf.compiled_field import FIELD
from intarsia.ops.crf.compiled_lattice import LATTICE
from tests.both_forms import both_forms
from tests.ops.crf.scenes import scene, small

form = both_forms(FIELD, autouse=True)


def plain_and_found(logits, image, config, monkeypatch):
    found = dense_crf(logits, image, config)
    with monkeypatch.context() as patch:
        patch.setenv("INTARSIA_KERNEL", "0")
        return dense_crf(logits, image, config), found


@pytest.mark.parametrize("num_classes", [1, 2, 4, 5, 8, 12, 16, 19, 21, 24, 30, 33, 70, 255, 257])
def test_both_forms_give_the_same(num_classes, monkeypatch):
    logits, image = scene(41, 53, num_classes, images=1)
    plain, found = plain_and_found(logits, image, small(), monkeypatch)
    assert found.shape == logits.shape
    assert found.dtype == torch.float32
    assert (plain.exp() - found.exp()).abs().max() < 1e-4
    assert (plain - found).abs().max() < 1e-2
    assert torch.allclose(found.exp().sum(1), torch.ones(1, 41, 53), atol=1e-5)


@pytest.mark.parametrize("name", ["deeplab", "deeplab_resnet101", "deeplab_largefov", "krahenbuhl_demo"])
def test_both_forms_give_the_same_with_published_settings(name, monkeypatch):
    logits, image = scene(120, 161, 12, images=1)
    plain, found = plain_and_found(logits, image.to(torch.uint8), name, monkeypatch)
    assert (plain.exp() - found.exp()).abs().max() < 1e-4


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 12, 31])
def test_any_number_of_channels(channels, monkeypatch):
    logits, image = scene(40, 33, 3, channels, images=1)
    plain, found = plain_and_found(logits, image, small(colour_std=60), monkeypatch)
    assert (plain.exp() - found.exp()).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 50), (50, 1), (3, 7), (130, 5), (5, 1300), (97, 103)])
def test_any_size(shape, monkeypatch):
    logits, image = scene(*shape, 5, images=1)
    plain, found = plain_and_found(logits, image, small(iterations=4), monkeypatch)
    assert (plain.exp() - found.exp()).abs().max() < 1e-4


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads(threads, monkeypatch):
    logits, image = scene(150, 211, 6, images=1)
    before = torch.get_num_threads()
    expected = dense_crf(logits, image, small())
    torch.set_num_threads(threads)
    try:
        found = dense_crf(logits, image, small())
    finally:
        torch.set_num_threads(before)
    assert (found.exp() - expected.exp()).abs().max() < 2e-5


def test_it_is_near_the_exact_one():
    logits, image = scene(40, 48, 4)
    config = small()
    exact = exact_dense_crf(logits.numpy(), image.numpy(), config)
    found = dense_crf(logits[None], image[None], config)[0].numpy()
    assert (exact.argmax(0) == found.argmax(0)).mean() > 0.99
    assert np.abs(np.exp(exact) - np.exp(found)).mean() < 0.01
    assert (exact.argmax(0) != logits.numpy().argmax(0)).mean() > 0.2  # there was something to do


def test_smoothness_alone_equals_the_exact_one():
    logits, image = scene(30, 40, 4)
    config = small(bilateral_weight=0, smoothness_std=3)
    exact = exact_dense_crf(logits.numpy(), image.numpy(), config)
    found = dense_crf(logits[None], image[None], config)[0].numpy()
    assert np.abs(np.exp(exact) - np.exp(found)).max() < 2e-3  # what lies beyond 4 sigma


def test_it_mends_specks():
    mask = (torch.arange(40) >= 20).long().expand(30, 40)
    image = (60 + 120 * mask).expand(1, 3, 30, 40)
    logits = 2.0 * torch.nn.functional.one_hot(mask, 2).permute(2, 0, 1).unsqueeze(0)
    logits[:, :, 10, 5] = logits[:, :, 10, 5].flip(1)
    assert torch.equal(dense_crf(logits, image, "deeplab").argmax(1)[0], mask)


def test_without_kernels_it_is_the_softmax():
    logits, image = scene(images=2)
    none = small(bilateral_weight=0, smoothness_weight=0)
    assert (dense_crf(logits, image, none).exp() - logits.softmax(1)).abs().max() < 1e-4
    exact = none.replace(least_probability=0)
    assert (dense_crf(20 * logits, image, exact).exp() - (20 * logits).softmax(1)).abs().max() < 1e-6


def test_a_uniform_unary_stays_uniform():
    _, image = scene(images=1)
    found = dense_crf(torch.zeros(1, 5, *image.shape[2:]), image, small())
    assert (found.exp() - 0.2).abs().max() < 1e-5


def test_one_class_is_sure():
    logits, image = scene(num_classes=1, images=1)
    assert (dense_crf(logits, image, small()).abs() < 1e-6).all()


def test_classes_may_be_renumbered():
    logits, image = scene(num_classes=7, images=1)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    found = dense_crf(logits, image, small())
    assert torch.allclose(dense_crf(logits[:, order], image, small()).exp(), found[:, order].exp(), atol=1e-5)


def test_a_batch_equals_its_images():
    logits, image = scene(images=3)
    found = dense_crf(logits, image, small())
    for n in range(3):
        assert torch.equal(found[n : n + 1], dense_crf(logits[n : n + 1], image[n : n + 1], small()))
    assert dense_crf(logits[:0], image[:0], small()).shape == (0, *logits.shape[1:])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_of_logits(kind):
    logits, image = scene(images=1)
    found = dense_crf(logits.to(kind), image.to(torch.uint8), small())
    assert found.dtype == torch.float32
    assert torch.equal(found, dense_crf(logits.to(kind).float(), image.to(torch.uint8).float(), small()))


def test_memory_in_another_order():
    logits, image = scene(images=2)
    expected = dense_crf(logits, image, small())
    for turn in (
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4))[:, :, 1:-4, 3:-2],
        lambda x: x.repeat_interleave(2, 3)[..., ::2],
    ):
        assert torch.allclose(dense_crf(turn(logits), turn(image), small()), expected, atol=1e-5)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_only_smooths(value, monkeypatch):
    logits, _ = scene(40, 50, images=1)
    image = torch.full((1, 3, 40, 50), value, dtype=torch.uint8)
    plain, found = plain_and_found(logits, image, small(), monkeypatch)
    assert torch.isfinite(found).all()
    assert (plain.exp() - found.exp()).abs().max() < 1e-4


def test_inputs_are_left_as_they_were_and_need_no_gradient():
    logits, image = scene(images=1)
    before = logits.clone(), image.clone()
    found = dense_crf(logits.requires_grad_(), image.requires_grad_(), small())
    assert not found.requires_grad
    assert torch.equal(logits, before[0])
    assert torch.equal(image, before[1])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_refused(value):
    logits, image = scene(images=1)
    for shape in ((0, 1, 3, 4), (0, 2, 23, 30)):
        spoilt = logits.clone()
        spoilt[shape] = value
        with pytest.raises(DataError, match="logits: hold NaN, infinity"):
            dense_crf(spoilt, image, small())
        spoilt = image.clone()
        spoilt[shape] = value
        with pytest.raises(DataError, match="image: holds NaN or infinity"):
            dense_crf(logits, spoilt, small())


def test_a_class_without_any_probability():
    logits, image = scene(images=1)
    logits[:, 1] = -torch.inf
    assert (dense_crf(logits, image, small(least_probability=0)).exp()[:, 1] == 0).all()
    clipped = dense_crf(logits, image, small()).exp()[:, 1]
    assert torch.isfinite(clipped).all()
    assert (clipped > 0).all()
    logits[:, :, 2, 2] = -torch.inf
    with pytest.raises(DataError, match="no finite class"):
        dense_crf(logits, image, small())


def test_logits_of_any_size(monkeypatch):
    logits, image = scene(images=1)
    for scale in (50, 1e4):
        for least in (0, 1e-5):
            plain, found = plain_and_found(scale * logits, image, small(least_probability=least), monkeypatch)
            assert (plain.exp() - found.exp()).abs().max() < 1e-4
    heavy = small(bilateral_weight=300, smoothness_weight=200)
    plain, found = plain_and_found(logits, image, heavy, monkeypatch)
    assert (plain.argmax(1) == found.argmax(1)).float().mean() > 0.99


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((1, 3, 8, 9), (1, 3, 9, 9)), "image: is 9 x 9, but the logits are 8 x 9; resize the logits to the image."),
        (((2, 3, 8, 9), (1, 3, 8, 9)), "there are 1 images for the logits of 2"),
        (((3, 8, 9), (1, 3, 8, 9)), r"logits: a CRF takes \(N, K, H, W\), got \(3, 8, 9\)"),
        (((1, 3, 8, 9), (3, 8, 9)), r"image: a CRF takes \(N, C, H, W\), got \(3, 8, 9\)"),
        (((1, 3, 8, 9), (1, 0, 8, 9)), "image: has no channels"),
        (((1, 3, 0, 9), (1, 3, 0, 9)), "logits: has no pixels"),
    ],
)
def test_maps_that_do_not_fit_are_refused(shapes, words):
    with pytest.raises(DataError, match=words) as caught:
        dense_crf(*map(torch.zeros, shapes), "deeplab")
    assert "\n" not in str(caught.value)


def test_wrong_settings_are_refused():
    logits, image = scene(images=1)
    with pytest.raises(UnknownName, match="Did you mean 'deeplab'"):
        dense_crf(logits, image, "deeplap")
    with pytest.raises(ConfigError, match="greater than 0"):
        CrfConfig(position_std=0)
    with pytest.raises(ConfigError, match="too small for an image"):
        dense_crf(logits, image, small(colour_std=1e-6))
    changed = dense_crf(logits, image, {"name": "deeplab", "iterations": 2})
    assert torch.equal(changed, dense_crf(logits, image, CRFS["deeplab"].replace(iterations=2)))


def test_narrow_settings_use_coarser_integers(monkeypatch):
    logits, image = scene(20, 900, images=1)
    plain, found = plain_and_found(logits, image, small(position_std=0.05, colour_std=0.05), monkeypatch)
    assert (plain.exp() - found.exp()).abs().max() < 1e-4


def test_the_compiled_form_says_what_it_is(form):
    for library in (LATTICE, FIELD):
        assert ("compiled by" if form == "compiled" else "turned off by INTARSIA_KERNEL=0") in library.state()
