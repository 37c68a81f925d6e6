"""Blur, low resolution, noise and JPEG: against SciPy and statistics, drawn within their bounds and in their order, or not."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from intarsia.errors import ConfigError
from intarsia.images.preprocess import Preprocess
from intarsia.transforms import degrade as module
from intarsia.transforms.degrade import add_noise, compress_jpeg, gaussian_blur, lower_resolution
from intarsia.transforms.pipeline import AUGMENTS, AugmentConfig, augment
from tests.transforms.alone import degrade

ALL = {"blur": 2.0, "low_resolution": 0.4, "noise": 0.1, "jpeg": 30}
EACH = [{name: value} for name, value in ALL.items()]
SHAPES = [(1, 1, 1), (3, 1, 1), (2, 1, 9), (3, 9, 1), (5, 3, 4), (1, 40, 33), (3, 33, 40)]


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def drawn(*shape, seed=0):
    return torch.from_numpy(rng(seed).random(shape, dtype=np.float32))


def smooth(*shape):
    """Something a photograph might be, within 0..1."""
    image = ndimage.gaussian_filter(rng(4).standard_normal(shape), (0, 2, 2))
    return torch.from_numpy((0.5 + 0.25 * image / image.std()).clip(0, 1).astype(np.float32))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.0, 3.7, 20.0])
def test_blur_is_scipy_s(shape, sigma):
    image = drawn(*shape)
    expected = ndimage.gaussian_filter(image.double().numpy(), (0, sigma, sigma), mode="mirror", truncate=4)
    assert np.allclose(gaussian_blur(image, sigma).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("factor", [0.5, 0.31, 0.9])
def test_low_resolution_loses_what_is_fine_and_keeps_what_is_coarse_in_its_place(factor):
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    board = ((rows + columns) % 2)[None]
    assert board.std() > 0.49
    assert lower_resolution(board, factor).std() < (0.02 if factor == 0.5 else 0.2)
    ramp = (rows / 60 + columns / 80)[None] / 2
    assert torch.allclose(lower_resolution(ramp, factor)[:, 9:-9, 9:-9], ramp[:, 9:-9, 9:-9], atol=1e-3)
    flat = torch.full((3, 60, 80), 0.3)
    assert torch.allclose(lower_resolution(flat, factor), flat, atol=1e-6)


def test_less_resolution_loses_more():
    image = drawn(3, 64, 64)
    deviations = [lower_resolution(image, factor).std().item() for factor in (1, 0.75, 0.5, 0.25, 0.1)]
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[0] > 4 * deviations[-1]


def test_noise_is_gaussian_and_by_itself_everywhere():
    image = drawn(3, 200, 200)
    noise = (
        (add_noise(image, rng(1).standard_normal(tuple(image.shape), dtype=np.float32), 0.05) - image).double().numpy()
    )
    assert abs(noise.mean()) < 5 * 0.05 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(0.05, rel=0.01)
    assert stats.kstest(noise.ravel() / 0.05, "norm").pvalue > 1e-3
    neighbours = [noise[0].ravel(), noise[1].ravel(), noise[2].ravel(), np.roll(noise[0], 1, 0).ravel()]
    assert np.abs(np.corrcoef([*neighbours, np.roll(noise[0], 1, 1).ravel()]) - np.eye(5)).max() < 0.03


def test_jpeg_loses_more_the_lower_its_quality():
    for channels in (1, 3, 5):
        image = smooth(channels, 64, 72)
        errors = [(compress_jpeg(image, quality) - image).abs().mean().item() for quality in (1, 10, 50, 80, 100)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < errors[0] / 4
    assert (compress_jpeg(smooth(1, 64, 72), 100) - smooth(1, 64, 72)).abs().max() < 2 / 255


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_jpeg_keeps_a_plain_colour(channels):
    plain = torch.linspace(0.2, 0.8, channels)[:, None, None].expand(channels, 17, 23)
    assert (compress_jpeg(plain, 90) - plain).abs().max() < 4 / 255


def test_jpeg_takes_three_channels_as_a_colour_and_others_one_by_one():
    image = drawn(5, 24, 24)
    found = compress_jpeg(image, 60)
    for number in range(5):
        assert torch.equal(found[number], compress_jpeg(image[number : number + 1], 60)[0])
    colour = compress_jpeg(image[:3], 60)
    assert not torch.equal(colour, found[:3])
    assert (colour[0] - colour[1]).std() < 0.6 * (found[0] - found[1]).std()  # colour has half the resolution


def test_jpeg_rounds_to_the_nearest_byte():
    for value in (200.4, 200.6):
        found = compress_jpeg(torch.full((1, 8, 8), value / 255), 100) * 255
        assert torch.allclose(found, torch.tensor(float(round(value))), atol=1e-3)


def test_jpeg_cuts_what_is_outside():
    image = 3 * drawn(3, 16, 16) - 1
    assert torch.equal(compress_jpeg(image, 70), compress_jpeg(image.clamp(0, 1), 70))


@pytest.mark.parametrize("settings", [*EACH, ALL])
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_type_and_the_given_image_stay(shape, settings):
    for image in (drawn(*shape), drawn(shape[1], shape[2], shape[0]).permute(2, 0, 1)):
        before = image.clone()
        for seed in range(3):
            found = degrade(image, rng(seed), **settings)
            assert found.shape == shape
            assert found.dtype == torch.float32
            assert torch.isfinite(found).all()
            assert found.min() >= 0
            assert found.max() <= 1 + 1e-6
        assert torch.equal(image, before)


def test_nothing_at_no_strength():
    image = drawn(3, 12, 13)
    assert torch.equal(gaussian_blur(image, 0.0), image)
    assert torch.equal(lower_resolution(image, 1.0), image)
    assert torch.equal(add_noise(image, np.ones(tuple(image.shape), np.float32), 0.0), image)


@pytest.mark.parametrize("settings", [{}, {**ALL, "share": 0.0}])
def test_off_draws_nothing(settings):
    image, used = drawn(3, 12, 13), rng(7)
    assert torch.equal(degrade(image, used, **settings), image)
    assert used.random() == rng(7).random()


@pytest.mark.parametrize("settings", [*EACH, ALL])
def test_the_same_generator_gives_the_same_and_another_another(settings):
    image = drawn(3, 24, 24)
    assert torch.equal(degrade(image, rng(1), **settings), degrade(image, rng(1), **settings))
    assert not torch.equal(degrade(image, rng(1), **settings), degrade(image, rng(2), **settings))


@pytest.fixture
def done(monkeypatch):
    """What `degrade` did, as (name, strength), in order."""
    seen = []
    for name in ("gaussian_blur", "lower_resolution", "add_noise", "compress_jpeg"):
        monkeypatch.setattr(module, name, lambda image, *how, name=name: seen.append((name, how[-1])) or image.clone())
    return seen


def test_blurred_before_noise_and_compressed_last(done):
    degrade(drawn(3, 4, 4), rng(), **ALL)
    assert [name for name, _ in done] == ["gaussian_blur", "lower_resolution", "add_noise", "compress_jpeg"]


def test_strengths_fill_their_ranges(done):
    for seed in range(400):
        degrade(drawn(1, 1, 1), rng(seed), **ALL)
    ranges = {"gaussian_blur": (0, 2), "lower_resolution": (0.4, 1), "add_noise": (0, 0.1), "compress_jpeg": (30, 100)}
    for name, (least, most) in ranges.items():
        strengths = [strength for found, strength in done if found == name]
        slack = 0.03 * (most - least)
        assert least <= min(strengths) < least + slack
        assert most - slack < max(strengths) <= most
        assert np.mean(strengths) == pytest.approx((least + most) / 2, abs=2 * slack)


def test_each_strikes_its_share_by_itself(done):
    struck = np.zeros((2000, 4), bool)
    names = ["gaussian_blur", "lower_resolution", "add_noise", "compress_jpeg"]
    for seed in range(len(struck)):
        done.clear()
        degrade(drawn(1, 1, 1), rng(seed), **ALL, share=0.3)
        struck[seed, [names.index(name) for name, _ in done]] = True
    assert np.abs(struck.mean(axis=0) - 0.3).max() < 0.05
    assert np.abs(np.corrcoef(struck.T) - np.eye(4)).max() < 0.1


def test_noise_beyond_0_and_1_is_cut_in_8_bit_images_alone():
    image = (drawn(3, 20, 20) > 0.5).float()
    assert degrade(image, rng(), noise=0.3).max() == 1
    free = degrade(image, rng(), noise=0.3, bounded=False)
    assert free.max() > 1
    assert free.min() < 0
    assert torch.equal(free.clamp(0, 1), degrade(image, rng(), noise=0.3))


@pytest.mark.parametrize("settings", [*EACH, ALL])
def test_a_sample_is_degraded_after_all_else_and_its_mask_is_not(settings):
    image, mask = (255 * drawn(3, 30, 34)).to(torch.uint8), (4 * drawn(30, 34)).to(torch.uint8)
    config = AugmentConfig(hue=0.1)
    for seed in range(5):
        draws = rng(seed)
        plain = augment(image, mask, (20, 24), config, Preprocess(), draws)
        found = augment(image, mask, (20, 24), config.replace(degraded=1, **settings), Preprocess(), rng(seed))
        assert torch.equal(found.mask, plain.mask)
        assert torch.equal(found.image, degrade(plain.image, draws, **settings))
        assert not torch.equal(found.image, plain.image)
        never = augment(image, mask, (20, 24), config.replace(degraded=0, **settings), Preprocess(), rng(seed))
        assert torch.equal(never.image, plain.image)


def test_presets_but_nnu_net_s_are_not_degraded():
    for name in AUGMENTS.names():
        config = AUGMENTS[name]
        settings = config.blur, config.low_resolution, config.noise, config.jpeg, config.hue, config.degraded
        assert settings == ((1, 0.5, 0.025, None, 0, 0.2) if name == "nnunet_like" else (0, 1, 0, None, 0, 0.2))


@pytest.mark.parametrize(
    "setting",
    [{"hue": 0.6}, {"blur": 21}, {"low_resolution": 0}, {"noise": 1.5}, {"jpeg": 0}, {"jpeg": 101}, {"degraded": 1.1}],
)
def test_wrong_settings_are_told(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        AugmentConfig().replace(**setting)
