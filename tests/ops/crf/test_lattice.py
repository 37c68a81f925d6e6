"""The permutohedral lattice: barycentric weights, the kernel that it makes, and the transposed filter."""

import numpy as np
import pytest
import torch

from intarsia.ops.crf.compiled_field import FIELD
from intarsia.ops.crf.dense import lattice_of
from intarsia.ops.crf.embedding import Embedding
from intarsia.ops.crf.lattice import PlainLattice, simplices
from intarsia.ops.crf.reference import exact_kernel
from tests.both_forms import both_forms
from tests.ops.crf.scenes import scene, small

form = both_forms(FIELD)


def test_weights_are_barycentric():
    _, image = scene()
    embedding = Embedding.of(image, 7, 25)
    keys, shares = simplices(image, embedding)
    assert (shares >= 0).all()
    assert (shares.sum(1) == 1 << embedding.bits).all()
    assert all(len(set(row.tolist())) == 6 for row in keys)


def test_corners_surround_the_pixel():
    """Weights times coordinates give the position back, seen through the key, which is linear in coordinates."""
    _, image = scene(9, 8)
    embedding = Embedding.of(image, 7, 25)
    keys, shares = simplices(image, embedding)
    steps = torch.tensor(embedding.steps).double()
    features = torch.stack([torch.arange(8.0).repeat(9), torch.arange(9.0).repeat_interleave(8), *image.flatten(1)])
    cells = torch.tensor(embedding.factors).double().unsqueeze(1) * features.double() / (1 << embedding.bits)
    position = torch.cat([cells.flip(0).cumsum(0).flip(0), torch.zeros(1, 72)])
    position[1:] -= torch.arange(1.0, 6).unsqueeze(1) * cells
    assert position.sum(0).abs().max() < 1e-9  # in the hyperplane
    found = (keys.double() * shares.double()).sum(1) / (1 << embedding.bits)
    expected = 6 * (position * steps.unsqueeze(1)).sum(0)
    assert (found - expected).abs().max() < 1e-4 * float(steps.sum())


def test_many_channels_get_keys_without_pattern_and_the_same_filter():
    _, image = scene(12, 13, channels=2)
    doubled = torch.cat([image, torch.zeros(14, 12, 13)])
    assert Embedding.of(doubled, 7, 1).steps[0] != 1
    assert Embedding.of(image, 7, 1).steps[0] == 1
    keys, _ = simplices(doubled, Embedding.of(doubled, 7, 25))
    assert all(len(set(row.tolist())) == 19 for row in keys)


def test_the_filter_is_near_the_exact_kernel(form):
    logits, image = scene(36, 40, 4)
    config = small(bilateral_weight=1, smoothness_weight=0)
    exact = logits.flatten(1).double().softmax(0).numpy() @ exact_kernel(image.numpy(), config)
    lattice = lattice_of(image, config, image.device)
    found = lattice.filter(logits.flatten(1).softmax(0).T).T.numpy()
    assert np.abs(found - exact).mean() < 0.05
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.98


def test_a_filter_of_the_root_of_its_sums_changes_nothing(form):
    """D^-1/2 K D^-1/2 has sqrt(D 1) as eigenvector, with eigenvalue 1, for any K."""
    _, image = scene(36, 40)
    raw = PlainLattice.of(image, 7, 25)
    weights = raw.weights.sum(1, keepdim=True)  # (sum of barycentric weights = 1) / sqrt(D)
    lattice = lattice_of(image, small(), image.device)
    assert torch.allclose(lattice.filter(1 / weights), 1 / weights, rtol=1e-4)


@pytest.mark.parametrize("num_classes", [1, 3, 21])
def test_the_transposed_filter_is_the_transpose(form, num_classes):
    generator = torch.Generator().manual_seed(1)
    _, image = scene(60, 80)
    a, b = torch.randn(2, 4800, num_classes, generator=generator).unbind()
    lattice = lattice_of(image, small(), image.device)
    left, right = (lattice.filter(a) * b).sum(), (a * lattice.filter(b, transposed=True)).sum()
    assert torch.allclose(left, right, rtol=1e-3, atol=1e-2)
    assert not torch.equal(lattice.filter(a), lattice.filter(a, transposed=True))
