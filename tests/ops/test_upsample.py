"""Operators: the values of the table, and the identities that define them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from intarsia.ops.unpool import max_unpool, pool_with_indices
from intarsia.ops.upsample import (
    UPS,
    SubPixelConv,
    bed_of_nails,
    bilinear,
    bilinear_kernel,
    coverage,
    make_up,
    nearest,
    start_bilinear,
)

X = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])


def test_nearest_and_nails():
    assert nearest(X, 2)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert bed_of_nails(X, 2)[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    assert bed_of_nails(X, 3).sum() == X.sum()


def test_unpooling_puts_values_back():
    x = torch.tensor([[[[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]]])
    pooled, where = pool_with_indices(x)
    assert pooled[0, 0].tolist() == [[5, 6], [7, 8]]
    assert where[0, 0].tolist() == [[5, 2], [12, 15]]
    assert max_unpool(pooled, where, (4, 4))[0, 0].tolist() == [[0, 0, 6, 0], [0, 5, 0, 0], [0, 0, 0, 0], [7, 0, 0, 8]]


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (45, 60), (4, 6)])
def test_unpooling_of_odd_sizes_equals_pytorch_and_pools_back(size):
    x = torch.randn(2, 3, *size)
    pooled, where = pool_with_indices(x)
    assert tuple(pooled.shape[-2:]) == tuple(-(-side // 2) for side in size)
    unpooled = max_unpool(pooled, where, size)
    assert torch.equal(unpooled, F.max_unpool2d(pooled, where, 2, 2, output_size=size))
    assert torch.equal(unpooled.flatten(2).gather(2, where.flatten(2)), pooled.flatten(2))


@pytest.mark.parametrize(
    ("size", "first", "largest", "total"),
    [
        (3, [0.5, 1, 0.5], 1, 4),
        (4, [0.25, 0.75], 0.75, 4),
        (8, [0.125, 0.375, 0.625, 0.875], 0.875, 16),
        (16, [0.0625, 0.1875], 0.9375, 64),
        (32, [0.03125], 0.96875, 256),
        (64, [0.015625], 0.984375, 1024),
        (63, [0.03125], 1.0, 1024),
    ],
)
def test_bilinear_kernel_has_the_values_of_the_released_code(size, first, largest, total):
    kernel = bilinear_kernel(size)
    taps = kernel.double().sum(0) / kernel.double().sum(0).max() * largest
    assert taps[: len(first)].tolist() == pytest.approx(first)
    assert kernel.max().item() == pytest.approx(largest**2)
    assert kernel.double().sum().item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_transposed_convolution_with_that_kernel_is_bilinear_inside(stride):
    conv = nn.ConvTranspose2d(2, 2, 2 * stride, stride, padding=stride // 2, bias=False).double()
    start_bilinear(conv)
    conv.weight.data = conv.weight.data.double()
    x = torch.randn(1, 2, 5, 6, dtype=torch.double)
    inside = (..., slice(stride, -stride), slice(stride, -stride))
    assert torch.allclose(conv(x)[inside], bilinear(x, stride)[inside], atol=1e-6)


def test_diagonal_only():
    conv = nn.ConvTranspose2d(3, 3, 4, 2)
    start_bilinear(conv)
    assert torch.equal(conv.weight[0, 0], bilinear_kernel(4))
    assert conv.weight[0, 1].abs().sum() == 0
    assert conv.bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("kernel", "stride", "counts"),
    [
        (2, 2, [1]),
        (3, 2, [2, 1]),
        (4, 2, [2]),
        (5, 2, [3, 2]),
        (5, 3, [2, 2, 1]),
        (6, 3, [2]),
        (4, 4, [1]),
        (8, 4, [2]),
    ],
)
def test_coverage_of_the_interior(kernel, stride, counts):
    found = coverage(kernel, stride)
    assert sorted(set(found), reverse=True) == sorted(set(counts), reverse=True)
    assert len(set(found)) == 1 or found == counts
    assert (len(set(found)) == 1) == (kernel % stride == 0)
    ones = F.conv_transpose1d(torch.ones(1, 1, 20), torch.ones(1, 1, kernel), stride=stride)[0, 0]
    start = 3 * kernel // stride * stride
    assert ones[start : start + stride].tolist() == [float(count) for count in found]


def test_pixel_shuffle_order_and_icnr_start():
    x = torch.arange(16.0).reshape(1, 4, 2, 2)
    assert F.pixel_shuffle(x, 2)[0, 0].tolist() == [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]
    torch.manual_seed(0)
    up = SubPixelConv(3, 5)
    image = torch.randn(2, 3, 6, 7)
    small = F.conv2d(image, up.conv.weight[::4], padding=1)
    assert torch.allclose(up(image), nearest(small, 2), atol=2e-6)


@pytest.mark.parametrize("kind", UPS)
@pytest.mark.parametrize("factor", [2, 4])
def test_every_operator_gives_the_size_and_a_gradient(kind, factor):
    up = make_up(kind, 6, 3, factor)
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    out = up(x)
    assert out.shape == (2, 3, 5 * factor, 4 * factor)
    out.square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_resize_convolution_of_a_constant_is_constant_inside():
    torch.manual_seed(0)
    out = make_up("resize", 2, 2)(torch.ones(1, 2, 6, 6))[..., 1:-1, 1:-1]
    assert torch.allclose(out, out[..., :1, :1].expand_as(out), atol=1e-6)
