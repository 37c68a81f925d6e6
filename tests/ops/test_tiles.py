"""Tiles: an identity comes back to the bit, a convolution equals the whole image's, whatever the cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intarsia.errors import ConfigError
from intarsia.ops.tiles import assemble, blend, plan_axis, plan_tiles


def windows(image_CHW, part, network=lambda window: window.clone()):
    for row, column in part.tiles():
        (top, bottom), (left, right) = part.plan.rows.spans[row], part.plan.columns.spans[column]
        yield network(image_CHW[:, top:bottom, left:right])


@st.composite
def plans(draw):
    size = draw(st.tuples(st.integers(1, 230), st.integers(1, 230)))
    tile, align = draw(st.sampled_from([16, 33, 64])), draw(st.sampled_from([1, 4, 16]))
    overlap = draw(st.sampled_from([0.0, 0.25, 0.5, 0.8]))
    step = max(align, int(tile * (1 - overlap)) // align * align)
    halo = draw(st.integers(0, max(0, (tile - step) // 2)))
    return plan_tiles(size, tile=tile, overlap=overlap, align=align, halo=halo)


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(0, 9))
def test_an_identity_comes_back_to_the_bit(plan, seed):
    image = torch.randn(2, *plan.size, generator=torch.Generator().manual_seed(seed)) * 10**seed
    assert torch.equal(assemble(plan.part(), windows(image, plan.part())), image)


@settings(max_examples=60, deadline=None)
@given(plans(), st.randoms())
def test_a_part_is_what_the_whole_has_there(plan, random):
    noise = np.random.default_rng(0)
    whole_part = plan.part()
    tiles = {place: noise.normal(size=(1, *_size(plan, place))) for place in whole_part.tiles()}
    whole = assemble(whole_part, (torch.tensor(tiles[place]) for place in whole_part.tiles()))
    row, column = random.randrange(plan.rows.count), random.randrange(plan.columns.count)
    part = plan.part(range(row, plan.rows.count), range(column, plan.columns.count))
    for piece in blend(part, (torch.tensor(tiles[place]) for place in part.tiles())):
        height, width = piece.logits.shape[1:]
        there = whole[:, piece.top : piece.top + height, piece.left : piece.left + width]
        assert torch.equal(piece.logits, there)


def _size(plan, place):
    (top, bottom), (left, right) = plan.rows.spans[place[0]], plan.columns.spans[place[1]]
    return bottom - top, right - left


@settings(max_examples=30, deadline=None)
@given(plans())
def test_blending_is_the_weighted_mean_of_all_tiles(plan):
    noise = np.random.default_rng(1)
    tiles = {place: noise.normal(size=_size(plan, place)) for place in plan.part().tiles()}
    total, weight = np.zeros(plan.size), np.zeros(plan.size)
    for (row, column), values in tiles.items():
        windows_of = []
        for axis, index in ((plan.rows, row), (plan.columns, column)):
            start, stop = axis.spans[index]
            begin = start + axis.halo * (index > 0)
            end = stop - axis.halo * (index < axis.count - 1)
            hann = np.zeros(stop - start)
            hann[begin - start : end - start] = np.sin(np.pi * (np.arange(end - begin) + 0.5) / (end - begin)) ** 2
            windows_of.append(hann)
        w = np.outer(*windows_of)
        where = np.s_[slice(*plan.rows.spans[row]), slice(*plan.columns.spans[column])]
        total[where] += w * values
        weight[where] += w
    found = assemble(plan.part(), (torch.tensor(tiles[place])[None] for place in plan.part().tiles()))
    assert np.allclose(found[0].numpy(), total / weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("size", [(100, 131), (64, 200), (40, 40)])
def test_a_convolution_within_the_halo_equals_the_whole_image(size, overlap):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5, padding=2), torch.nn.Conv2d(4, 2, 3, padding=1)).double()
    image = torch.randn(3, *size, dtype=torch.double)
    plan = plan_tiles(size, tile=32, overlap=overlap, halo=3)
    with torch.no_grad():
        whole = network(image[None])[0]
        tiled = assemble(plan.part(), windows(image, plan.part(), lambda window: network(window[None])[0]))
        narrow = plan_tiles(size, tile=32, overlap=overlap, halo=0)
        seen = assemble(narrow.part(), windows(image, narrow.part(), lambda window: network(window[None])[0]))
    assert torch.allclose(tiled, whole, atol=1e-12)
    if plan.count > 1:
        assert not torch.allclose(seen, whole, atol=1e-6)  # without the halo the borders of tiles are seen


def test_starts_fit_the_stride_and_overlap_is_kept():
    for length in range(1, 900, 7):
        axis = plan_axis(length, tile=128, overlap=0.25, align=16, halo=8)
        assert axis.spans[0][0] == 0
        assert axis.spans[-1][1] == length
        assert all(start % 16 == 0 for start, _ in axis.spans)
        assert all(stop - start == 128 for start, stop in axis.spans[:-1])
        assert all(a[1] - b[0] >= 32 for a, b in zip(axis.spans, axis.spans[1:], strict=False))
        last = axis.spans[-1]
        assert last[1] - last[0] < 128 + 16


def test_a_halo_that_eats_the_overlap_is_refused():
    with pytest.raises(ConfigError, match="twice 20 pixels do not fit into the overlap of 32"):
        plan_axis(500, tile=128, overlap=0.25, halo=20)
