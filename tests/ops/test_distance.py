"""Distances on a grid, compiled and plain, against every pair of pixels."""

import numpy as np
import pytest

from intarsia.ops import distance as module
from intarsia.ops.distance import distance
from tests.both_forms import both_forms

form = both_forms(module.LIBRARY)


def squared_to(region):
    """Squared distance of every pixel to the nearest of a region, pair by pair."""
    rows, columns = np.indices(region.shape)
    found = [np.square(rows - r) + np.square(columns - c) for r, c in np.argwhere(region)]
    return np.min(found, axis=0) if found else np.full(region.shape, np.inf)


def drawn(seed):
    """A map of a few objects, of one pixel, of parts, touching, or none."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 45, 2)
    share = rng.choice([0.004, 0.05, 0.5, 1.0])
    count = int(rng.choice([1, 2, 3, 40]))
    return np.where(rng.random((height, width)) < share, rng.integers(1, count + 1, (height, width)), 0).astype(
        np.int32
    )


@pytest.mark.parametrize("seed", range(60))
def test_distance_equals_brute_force(form, seed):
    outside = drawn(seed) == 0
    expected = np.sqrt(squared_to(~outside))
    assert distance(outside) == pytest.approx(expected, rel=1e-6)
    assert distance(np.asfortranarray(outside)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (3, 5)])
def test_distance_to_nothing_is_infinite(form, shape):
    assert np.isinf(distance(np.ones(shape, bool))).all()
    assert not distance(np.zeros(shape, bool)).any()


def test_a_long_map(form):
    outside = np.ones((40000, 3), bool)
    outside[5, 0] = outside[39990, 2] = False
    assert distance(outside)[20000, 1] == pytest.approx(np.hypot(19990, 1), rel=1e-6)
