"""Rare classes, windows that look at them, and samples made of several, held against slow loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from intarsia.config import InvalidSettings
from intarsia.images.preprocess import Preprocess
from intarsia.transforms.geometry import draw_window
from intarsia.transforms.mix import copy_paste, cutmix, draw_box, mosaic
from intarsia.transforms.pipeline import AUGMENTS, AugmentConfig, augment
from intarsia.transforms.rare import MOST, draw_place, find_places, rare_classes
from intarsia.transforms.sample import Sample
from intarsia.transforms.sampling import Loaded, Sampler, draw_generator

STILL = AUGMENTS["none"]
SIZE = (21, 30)


def rng(seed=0):
    return np.random.default_rng(seed)


def sample_of(number, *, weights=False, size=SIZE):
    """Image, mask and weights that tell, at each pixel, whose they are and where."""
    draw = rng(number)
    image = torch.from_numpy(draw.random((2, *size), np.float32) + 10 * number)
    mask = torch.from_numpy(draw.choice(np.array([0, 1, 2, 255], np.uint8), size))
    return Sample(image, mask, torch.from_numpy(draw.random(size, np.float32) + 10 * number) if weights else None)


def owners(mixed):
    """(H, W) number of the sample that a pixel's image came from."""
    return (mixed.image[0] // 10).numpy().astype(int)


def check_pixels(mixed, samples):
    """Every pixel has image, label and weight of one and the same sample, at the same place."""
    height, width = mixed.mask.shape
    for row, column in itertools.product(range(height), range(width)):
        whose = samples[int(mixed.image[0, row, column] // 10)]
        assert torch.equal(mixed.image[:, row, column], whose.image[:, row, column])
        assert mixed.mask[row, column] == whose.mask[row, column]
        if mixed.weights is not None:
            assert mixed.weights[row, column] == whose.weights[row, column]


@pytest.mark.parametrize(
    ("pixels", "rare"),
    [([700, 200, 0, 100], (1, 3)), ([5, 5], ()), ([0, 0], ()), ([900, 100], (1,)), ([1, 9, 0], (0,)), ([7], ())],
)
def test_rare_is_what_has_fewer_pixels_than_the_mean_of_the_classes_that_occur(pixels, rare):
    assert rare_classes(np.array(pixels)) == rare


def test_places_are_pixels_of_their_class():
    mask = torch.from_numpy(rng().choice(np.array([0, 1, 2, 255], np.uint8), (80, 90), p=(0.6, 0.3, 0.01, 0.09)))
    places = find_places(mask, (1, 2, 3))
    assert places.dtype == torch.int32
    assert all(mask[row, column] == index for index, row, column in places.tolist())
    assert len(set(map(tuple, places.tolist()))) == len(places)
    count = {index: int((places[:, 0] == index).sum()) for index in (1, 2, 3)}
    assert count == {1: MOST, 2: int((mask == 2).sum()), 3: 0}
    assert torch.equal(places, find_places(mask.clone(), (1, 2, 3)))


def test_classes_are_drawn_alike_and_so_are_the_pixels_of_one():
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[:20] = 1
    mask[39, 30:34] = 2
    places, draw = find_places(mask, (1, 2, 3)), rng(1)
    met = [draw_place(places, draw) for _ in range(4000)]
    few = [column for row, column in met if row == 39]
    assert abs(len(few) / len(met) - 0.5) < 0.03  # 4.0 sigma
    assert np.abs(np.bincount(few, minlength=34)[30:] / len(few) - 0.25).max() < 0.04
    assert draw_place(find_places(mask, (3,)), draw) is None
    assert draw_place(None, draw) is None


@pytest.mark.parametrize("size", [(8, 12), (23, 31), (24, 32)])
def test_a_window_looks_at_any_pixel_and_stays_inside(size):
    for row, column in itertools.product(range(24), range(32)):
        window = draw_window(
            (24, 32), size, rng(), zoom=(1, 1), aspect=1, mirror="none", turn=False, middle=(row, column)
        )
        assert 0 <= window.top <= row < window.top + window.height <= 24
        assert 0 <= window.left <= column < window.left + window.width <= 32


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 99), st.floats(0.3, 3))
def test_a_window_hangs_over_only_where_the_image_is_smaller(height, width, seed, zoom):
    draw = rng(seed)
    at = int(draw.integers(height)), int(draw.integers(width))
    window = draw_window(
        (height, width), (20, 25), draw, zoom=(zoom, zoom), aspect=1.3, mirror="both", turn=True, shift=3, middle=at
    )
    for side, start, part, pixel in zip(
        (height, width), (window.top, window.left), (window.height, window.width), at, strict=True
    ):
        assert start <= pixel < start + part
        assert (start >= 0 and start + part <= side) if part <= side else (start <= 0 and start + part >= side)


def test_a_sample_that_looks_at_a_rare_class_shows_it():
    """One pixel of class 2 in a corner, a few of class 1: half of the samples have the one, half the other in sight."""
    mask = torch.zeros(200, 200, dtype=torch.uint8)
    mask[0, 199], mask[100:104, 50:60] = 2, 1
    image, places = torch.zeros(1, 200, 200, dtype=torch.uint8), find_places(mask, (1, 2))
    seen = []
    for seed in range(400):
        config = STILL.replace(focus=1.0, mirror="both", zoom=(1, 1.5))
        found = augment(image, mask, (24, 30), config, Preprocess(), rng(seed), None, places).mask
        assert 255 not in found
        seen.append({1, 2} & set(found.unique().tolist()))
    assert all(len(each) == 1 for each in seen)
    assert abs(np.mean([each == {2} for each in seen]) - 0.5) < 0.1  # 4.0 sigma


def test_the_share_of_samples_that_look_is_as_asked():
    mask = torch.zeros(400, 400, dtype=torch.uint8)
    mask[200, 200] = 1
    image, places, config = (
        torch.zeros(1, 400, 400, dtype=torch.uint8),
        find_places(mask, (1,)),
        STILL.replace(focus=0.3),
    )
    hits = [
        bool((augment(image, mask, (9, 9), config, Preprocess(), rng(s), None, places).mask == 1).any())
        for s in range(600)
    ]
    assert abs(np.mean(hits) - 0.3) < 0.075  # 4 sigma


def test_without_focus_or_places_a_sample_is_what_it_was():
    image = torch.from_numpy(rng().integers(0, 256, (3, 50, 60), dtype=np.uint8))
    mask = torch.from_numpy(rng().integers(0, 3, (50, 60), dtype=np.uint8))
    for name, seed in itertools.product(("default", "unet"), range(5)):
        plain = augment(image, mask, (24, 30), AUGMENTS[name], Preprocess(), rng(seed))
        known = augment(image, mask, (24, 30), AUGMENTS[name], Preprocess(), rng(seed), None, find_places(mask, (1,)))
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(plain, known, strict=True))
    config = STILL.replace(focus=1.0)
    tops = {
        tuple(
            augment(image, mask, (24, 30), config, Preprocess(), rng(s), None, find_places(mask, (9,)))
            .image[0, 0, :3]
            .tolist()
        )
        for s in range(30)
    }
    assert len(tops) > 20  # no place to look at: anywhere


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_a_box_lies_inside_and_has_the_drawn_area(height, width, seed):
    rows, columns = draw_box((height, width), rng(seed))
    share = 1 - rng(seed).beta(1.0, 1.0)
    assert 0 <= rows.start <= rows.stop <= height
    assert 0 <= columns.start <= columns.stop <= width
    assert abs((rows.stop - rows.start) - height * share**0.5) <= 0.5
    assert abs((columns.stop - columns.start) - width * share**0.5) <= 0.5


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_cutmix_pastes_one_rectangle(seed, weights):
    pair = [sample_of(number, weights=weights) for number in range(2)]
    before = [[None if part is None else part.clone() for part in each] for each in pair]
    mixed = cutmix(*pair, rng(seed))
    check_pixels(mixed, pair)
    expected = np.zeros(SIZE, int)
    expected[draw_box(SIZE, rng(seed))] = 1
    assert np.array_equal(owners(mixed), expected)
    for each, as_it_was in zip(pair, before, strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(each, as_it_was, strict=True))


def test_areas_of_cutmix_are_uniform():
    pair = [sample_of(number, size=(100, 100)) for number in range(2)]
    areas = [owners(cutmix(*pair, rng(seed))).mean() for seed in range(400)]
    assert abs(np.mean(areas) - 0.5) < 0.06  # 4 sigma of a uniform mean
    assert np.abs(np.quantile(areas, [0.25, 0.75]) - [0.25, 0.75]).max() < 0.09


@pytest.mark.parametrize("seed", range(5))
def test_mosaic_puts_four_quarters_round_a_point(seed):
    four = [sample_of(number, weights=True) for number in range(4)]
    mixed = mosaic(four, rng(seed))
    check_pixels(mixed, four)
    whose = owners(mixed)
    row, column = (whose[:, 0] == 0).sum(), (whose[0] == 0).sum()
    assert 5 <= row <= 16
    assert 7 <= column <= 23
    expected = np.array([[2 * (r >= row) + (c >= column) for c in range(SIZE[1])] for r in range(SIZE[0])])
    assert np.array_equal(whose, expected)


@pytest.mark.parametrize("seed", range(5))
def test_copy_paste_takes_all_pixels_of_one_rare_class(seed):
    pair = [sample_of(number, weights=True) for number in range(2)]
    mixed = copy_paste(*pair, (1, 2), rng(seed))
    check_pixels(mixed, pair)
    taken = owners(mixed) == 1
    assert any(np.array_equal(taken, pair[1].mask.numpy() == index) for index in (1, 2))


def test_copy_paste_without_a_rare_class_changes_nothing():
    pair = [sample_of(number) for number in range(2)]
    for rare in ((), (7,)):
        assert copy_paste(*pair, rare, rng()) is pair[0]


def sampler_of(config, count=6, rare=(2,), loads=None):
    def load(index):
        if loads is not None:
            loads.append(index)
        image = torch.full((1, 30, 40), 40 * index, dtype=torch.uint8)
        mask = torch.full((30, 40), 10 + index, dtype=torch.uint8)
        mask[4 + index, 7] = 2
        return Loaded(image, mask, None, find_places(mask, rare))

    return Sampler(load, count, (16, 24), config, Preprocess(channels=1, mean=(0.5,), std=(0.5,)), rare)


@pytest.mark.parametrize("mix", ["cutmix", "mosaic", "copy_paste"])
def test_partners_are_other_images_and_their_labels_go_with_them(mix):
    loads = []
    sampler = sampler_of(STILL.replace({mix: 1.0}), loads=loads)
    partners = set()
    for index, epoch in itertools.product(range(6), range(12)):
        loads.clear()
        image, mask, _ = sampler.draw(index, draw_generator(5, epoch, index))
        assert loads[0] == index
        assert index not in loads[1:]
        assert len(loads) == (4 if mix == "mosaic" else 2)
        partners |= set(loads[1:])
        shown = (image[0] * 255 / 40).round().byte()
        assert set(mask.unique().tolist()) - {2} <= {10 + each for each in loads}
        assert torch.equal(shown[mask != 2] + 10, mask[mask != 2])
        if mix == "copy_paste":  # the partner's window looks at its rare pixel
            assert (shown[mask == 2] == loads[1]).any()
    assert partners == set(range(6))


def test_shares_of_mixes_are_as_asked():
    loads = []
    sampler = sampler_of(STILL.replace(cutmix=0.2, mosaic=0.3), loads=loads)
    lengths = []
    for epoch in range(800):
        loads.clear()
        sampler.draw(0, draw_generator(0, epoch, 0))
        lengths.append(len(loads))
    shares = np.bincount(lengths, minlength=5) / 800
    assert np.abs(shares[[1, 2, 4]] - [0.5, 0.2, 0.3]).max() < 0.071  # 4 sigma


def test_samples_that_are_not_mixed_are_as_without_mixes():
    plain, mixed = sampler_of(AUGMENTS["default"]), sampler_of(AUGMENTS["default"].replace(cutmix=0.4, mosaic=0.1))
    same = 0
    for epoch in range(60):
        ours, theirs = (each.draw(1, draw_generator(2, epoch, 1)) for each in (plain, mixed))
        same += torch.equal(ours.image, theirs.image) and torch.equal(ours.mask, theirs.mask)
    assert 18 <= same <= 45


def test_a_single_image_is_mixed_with_itself():
    for mix in ("cutmix", "mosaic", "copy_paste"):
        _, mask, _ = sampler_of(STILL.replace({mix: 1.0}), count=1).draw(0, draw_generator(0, 0, 0))
        assert set(mask.unique().tolist()) <= {2, 10}


def test_mixes_of_more_than_all_samples_are_refused():
    with pytest.raises(InvalidSettings, match="their sum must be at most 1"):
        AugmentConfig(cutmix=0.5, mosaic=0.3, copy_paste=0.3)
    AugmentConfig(cutmix=0.1, mosaic=0.2, copy_paste=0.7)
