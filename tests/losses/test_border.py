"""U-Net's border weights against the formula, one distance transform an object."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from intarsia.errors import ConfigError, DataError
from intarsia.losses import border
from intarsia.losses.border import border_weight_map, weight_at
from intarsia.ops.objects import objects_of
from tests.both_forms import both_forms

form = both_forms(border.LIBRARY)


def by_definition(instances, w0=10.0, sigma=5.0):
    """Distances to every object, stacked and sorted."""
    numbers = [number for number in np.unique(instances) if number]
    if len(numbers) < 2:
        return np.zeros(instances.shape)
    distances = np.sort(np.stack([ndimage.distance_transform_edt(instances != number) for number in numbers]), axis=0)
    return w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))


def discs(count, size=(96, 120), seed=0, radius=(1, 12)):
    """Objects that touch, hide each other and are cut by the border."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: size[0], : size[1]]
    instances = np.zeros(size, np.uint16)
    for number in range(1, count + 1):
        row, column, r = rng.uniform(-2, size[0] + 2), rng.uniform(-2, size[1] + 2), rng.uniform(*radius)
        instances[((rows - row) ** 2 + (columns - column) ** 2 < r * r) & (instances == 0)] = number
    return instances


@pytest.mark.parametrize(
    ("distance", "weight"),
    [(0, 10), (1, 9.801987), (2, 9.231163), (4, 7.261490), (5, 6.065307), (10, 1.353353), (20, 0.003355)],
)
def test_the_values_of_the_paper_s_formula(form, distance, weight):
    assert weight_at(np.array([distance]))[0] == pytest.approx(weight, abs=1e-6)
    if distance:  # the pixel of one object that is nearest to the other: d1 = 0, d2 = distance
        row = np.zeros((1, 40), np.uint8)
        row[0, :3], row[0, 2 + distance :] = 1, 2
        assert border_weight_map(row)[0, 2] == pytest.approx(weight, abs=1e-6)


def test_between_two_objects_every_pixel_counts_both_distances(form):
    row = np.array([[1, 0, 0, 0, 2]])
    expected = [weight_at(np.array(float(d))) for d in (4, 1 + 3, 2 + 2, 3 + 1, 4)]
    assert border_weight_map(row)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("w0", "sigma"), [(10, 5), (10, 0.3), (3, 1.5), (50, 12), (10, 60), (1e4, 400)])
@pytest.mark.parametrize("count", [2, 3, 9, 40])
def test_equal_to_the_definition(form, count, w0, sigma):
    instances = discs(count, seed=count)
    result = border_weight_map(instances, w0=w0, sigma=sigma)
    assert result.dtype == np.float32
    assert result == pytest.approx(by_definition(instances, w0, sigma), abs=1e-6, rel=1e-7)


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_the_definition_for_scattered_pixels(form, seed):
    rng = np.random.default_rng(seed)
    size, count = rng.integers(1, 75, 2), int(rng.choice([2, 3, 40]))
    drawn = np.where(rng.random(size) < rng.choice([0.004, 0.05, 0.5, 1.0]), rng.integers(1, count + 1, size), 0)
    sigma = float(rng.choice([1, 5, 30]))
    assert border_weight_map(drawn, sigma=sigma) == pytest.approx(by_definition(drawn, 10, sigma), abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 33])
def test_both_plain_ways_of_finding_the_two_nearest_agree(count):
    numbers = discs(count, seed=count).astype(np.int32)
    present = list(border._windows(numbers))
    whole = dict.fromkeys(present, (slice(0, 96), slice(0, 120)))
    by_bits = border._nearest_by_bits(numbers, present, (len(present) - 1).bit_length())
    for ours, theirs in zip(border._nearest_by_windows(numbers, whole), by_bits, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_long_map_beyond_16_thousand_rows(form):
    numbers = np.zeros((40000, 3), np.uint8)
    numbers[5, 0], numbers[39985, 1], numbers[39990, 1] = 1, 2, 3
    weights = border_weight_map(numbers)
    assert weights[39988, 1] == weight_at(np.array(5.0)).astype(np.float32)
    assert not weights[:39000].any()
    far = border_weight_map(numbers, sigma=9000)  # reaches further than the compiled form counts
    assert far[20000, 0] == pytest.approx(weight_at(np.hypot(19985, 1) + np.hypot(19990, 1), sigma=9000), abs=1e-6)


def test_numbers_types_and_layout_of_the_array_change_nothing(form):
    instances = discs(12)
    expected = border_weight_map(instances)
    wide = np.zeros((2 * 96, 3 * 120), np.int64)
    wide[::2, ::3] = instances
    numbers = np.random.default_rng(1).integers(1, 1 << 60, 13)
    numbers[0] = 0
    for other in (
        instances.astype(np.int64),
        instances.astype(np.uint8),
        wide[::2, ::3],
        np.asfortranarray(instances),
        numbers[instances],
        instances * np.uint16(5000),
    ):
        assert np.array_equal(border_weight_map(other), expected)
    assert np.array_equal(border_weight_map(instances.T), expected.T)
    assert np.array_equal(border_weight_map(instances[::-1]), expected[::-1])


def test_large_numbers_without_background(form):
    instances = np.full((6, 8), 1 << 40)
    instances[:, 4:] = 1 << 41
    assert border_weight_map(instances) == pytest.approx(by_definition(instances), abs=1e-6)


def test_single_pixels_at_the_border_of_the_image(form):
    instances = np.zeros((30, 40), np.int32)
    instances[0, 0], instances[29, 39], instances[0, 39], instances[15, 0] = 1, 2, 3, 4
    assert border_weight_map(instances) == pytest.approx(by_definition(instances), abs=1e-6)


def test_an_object_of_two_parts_is_one(form):
    row = np.array([[1, 0, 0, 0, 1, 0, 0, 0, 0, 2]])
    assert border_weight_map(row) == pytest.approx(by_definition(row), abs=1e-6)
    assert border_weight_map(row)[0, 2] < 6


@pytest.mark.parametrize("instances", [np.zeros((5, 6), int), np.ones((5, 6), int), np.zeros((0, 4), int), discs(1)])
def test_fewer_than_two_objects_have_no_border(form, instances):
    result = border_weight_map(instances)
    assert result.shape == instances.shape
    assert not result.any()


def test_far_apart_or_without_weight_is_zero(form):
    row = np.zeros((1, 200), int)
    row[0, 0], row[0, -1] = 1, 2
    assert not border_weight_map(row).any()
    assert not border_weight_map(discs(9), w0=0).any()


@pytest.mark.parametrize("settings", [{"w0": -1}, {"sigma": 0}, {"sigma": float("nan")}, {"w0": float("inf")}])
def test_wrong_settings_are_told(settings):
    with pytest.raises(ConfigError, match="border weights need w0 >= 0 and sigma > 0, both finite, got"):
        border_weight_map(discs(3), **settings)


def test_wrong_arrays_are_told():
    with pytest.raises(DataError, match=r"must be \(height, width\) integers, got \(4, 5\) of float32"):
        border_weight_map(np.zeros((4, 5), np.float32))
    with pytest.raises(DataError, match=r"got \(2, 4, 5\) of int64"):
        border_weight_map(np.zeros((2, 4, 5), int))
    with pytest.raises(DataError, match="instances hold -1"):
        border_weight_map(np.array([[0, -1]]))


def test_objects_are_the_connected_parts_of_each_class_but_0():
    mask = np.array(
        [
            [1, 1, 0, 0, 2, 255],
            [0, 0, 1, 0, 2, 255],
            [0, 0, 0, 0, 0, 255],
            [1, 2, 0, 255, 1, 1],
        ],
        np.uint8,
    )
    objects = objects_of(mask)
    assert objects.dtype == np.int32
    assert objects[0, 0] == objects[1, 2]  # by the corner
    assert objects[0, 0] != objects[3, 0] != objects[3, 4]
    assert objects[3, 0] != objects[3, 1]  # two classes that touch are two objects
    assert np.array_equal(objects == 0, (mask == 0) | (mask == 255))
    assert sorted(np.unique(objects)) == [0, 1, 2, 3, 4, 5]
    assert objects_of(mask, ignore_index=2)[0, 4] == 0


def test_real_nuclei(shared):
    folder: Path = shared("data/dsb2018") / "instances"
    for path in sorted(folder.glob("*.png"))[::20]:
        with Image.open(path) as picture:
            instances = np.asarray(picture).astype(np.uint16)[:256, :256]
        assert border_weight_map(instances) == pytest.approx(by_definition(instances), abs=1e-6)
