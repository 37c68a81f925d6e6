"""The exact CRF against a loop over all pairs, written from the paper's equations."""

import math

import numpy as np
import pytest

from intarsia.ops.crf import CRFS, exact_dense_crf
from intarsia.ops.crf.reference import exact_kernel
from tests.ops.crf.scenes import scene, small


def by_loops(logits, image, config, *, sees_itself):
    """One step, un-normalised, as equations 2 to 4 say it."""
    classes, height, width = logits.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    p = np.exp(logits) / np.exp(logits).sum(0)
    found = np.zeros_like(logits)
    for y, x in places:
        energy = [-math.log(p[k, y, x]) for k in range(classes)]
        for v, u in places:
            if (v, u) == (y, x) and not sees_itself:
                continue
            near = (y - v) ** 2 + (x - u) ** 2
            alike = sum((image[c, y, x] - image[c, v, u]) ** 2 for c in range(len(image)))
            kernel = config.bilateral_weight * math.exp(
                -near / (2 * config.position_std**2) - alike / (2 * config.colour_std**2)
            ) + config.smoothness_weight * math.exp(-near / (2 * config.smoothness_std**2))
            for k in range(classes):
                for other in range(classes):
                    energy[k] += (k != other) * kernel * p[other, v, u]
        e = np.exp(-np.array(energy))
        found[:, y, x] = e / e.sum()
    return found


@pytest.mark.parametrize("sees_itself", [True, False])
def test_one_step_on_4_by_4_equals_brute_force(sees_itself):
    logits, image = (each.double().numpy() for each in scene(4, 4))
    config = small(iterations=1, least_probability=0)
    found = exact_dense_crf(logits, image, config, normalisation="none", sees_itself=sees_itself)
    assert np.abs(np.exp(found) - by_loops(logits, image, config, sees_itself=sees_itself)).max() < 1e-12


def test_a_normalised_kernel_is_symmetric_with_the_root_of_its_sums_as_eigenvector():
    _, image = scene(5, 6)
    only = small(smoothness_weight=0, bilateral_weight=1)
    raw, kernel = (exact_kernel(image.numpy(), only, normalisation=kind) for kind in ("none", "symmetric"))
    assert np.array_equal(kernel, kernel.T)
    root = np.sqrt(raw.sum(1))
    assert np.abs(kernel @ root - root).max() < 1e-12


def test_without_kernels_it_is_the_softmax():
    logits, image = (each.numpy() for each in scene())
    found = exact_dense_crf(logits, image, small(bilateral_weight=0, smoothness_weight=0, least_probability=0))
    assert np.abs(np.exp(found) - np.exp(logits) / np.exp(logits).sum(0)).max() < 1e-6


def test_the_published_settings():
    def numbers(name):
        c = CRFS[name]
        return (c.bilateral_weight, c.position_std, c.colour_std, c.smoothness_weight, c.smoothness_std, c.iterations)

    assert numbers("deeplab") == (4, 49, 5, 3, 3, 10)
    assert numbers("deeplab_resnet101") == (4, 67, 3, 3, 1, 10)
    assert numbers("deeplab_largefov") == (5, 50, 10, 3, 3, 10)
    assert numbers("krahenbuhl_demo") == (10, 80, 13, 3, 3, 5)
    assert set(CRFS.names()) == {"deeplab", "deeplab_resnet101", "deeplab_largefov", "krahenbuhl_demo"}
