"""The bilateral kernel exp(-|f_i - f_j|² / 2) by the permutohedral lattice, in plain torch, on any device.

Every pixel lies in a simplex of the lattice; its values are spread over the d + 1 corners (splat), the vertices are blurred
by 1/2, 1, 1/2 along each of d + 1 directions, and the result is read at the pixel with the same weights (slice): Adams,
Baek, Davis, Eurographics 2010. Vertices exist only where a pixel has a corner; others count as 0.

F = D^-1/2 S B_d ... B_0 S^T D^-1/2, with D = diag(S B_d ... B_0 S^T 1): the symmetric normalisation of Krähenbühl and Koltun's
code, with its 1e-20. The lattice's constant factor, 1 / (1 + 2^-d), cancels. A pixel sees itself, as in that code; the paper's
sum over j != i would take one constant off at each pixel.

P: pixels, row by row; D: corners, d + 1; M: vertices; K: classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from intarsia.ops.crf.embedding import Embedding

TINY = 1e-20
"""Added to sums of the kernel before their root is taken."""


class BilateralFilter(Protocol):
    """What plain and compiled lattices are for a layer."""

    def filter(self, values_PK: Tensor, *, transposed: bool = False) -> Tensor:
        """F values; transposed: F^T values."""
        ...


@dataclass(frozen=True)
class PlainLattice:
    """An image's lattice as tensors."""

    corners: Tensor
    """(P, D) int64; vertices are counted from 1."""
    weights: Tensor
    """(P, D), times D^-1/2."""
    neighbours: Tensor
    """(D, 2, M) int64; 0: there is none."""

    @staticmethod
    def of(
        image_CHW: Tensor, position_std: float, colour_std: float, *, dtype: torch.dtype = torch.float32
    ) -> PlainLattice:
        """The lattice of an image on its device.

        Args:
            image_CHW: any number of channels, 0..255.
            dtype: of the weights.
        """
        home = image_CHW.device
        if home.type == "mps":  # it has no float64
            image_CHW = image_CHW.cpu()
        embedding = Embedding.of(image_CHW, position_std, colour_std)
        keys_PD, shares_PD = simplices(image_CHW, embedding)
        vertices_M, rows = torch.unique(keys_PD, return_inverse=True)
        weights_PD = shares_PD.to(dtype) / (1 << embedding.bits)
        plain = PlainLattice(rows + 1, weights_PD, _neighbours(vertices_M, embedding))
        sums_P1 = plain.filter(weights_PD.new_ones(len(weights_PD), 1))
        scaled_PD = weights_PD * (sums_P1 + TINY).rsqrt()
        return PlainLattice(plain.corners.to(home), scaled_PD.to(home), plain.neighbours.to(home))

    def filter(self, values_PK: Tensor, *, transposed: bool = False) -> Tensor:
        values_PK = values_PK.contiguous()  # rows are added and gathered, which is slow across memory
        x = values_PK.new_zeros(self.neighbours.shape[2] + 1, values_PK.shape[1])
        pairs = list(zip(self.corners.unbind(1), self.weights.to(values_PK.dtype).unbind(1), strict=True))
        for corner_P, weight_P in pairs:
            x.index_add_(0, corner_P, values_PK * weight_P.unsqueeze(1))
        for plus_M, minus_M in reversed(self.neighbours) if transposed else self.neighbours:
            x[1:] += 0.5 * (x.index_select(0, plus_M) + x.index_select(0, minus_M))
        out_PK = torch.zeros_like(values_PK)
        for corner_P, weight_P in pairs:
            out_PK.addcmul_(x.index_select(0, corner_P), weight_P.unsqueeze(1))
        return out_PK


def simplices(image_CHW: Tensor, embedding: Embedding) -> tuple[Tensor, Tensor]:
    """Of every pixel the keys of its corners and their weights in 2^-bits, (P, D) int64 each.

    The simplex: the nearest point whose coordinates are multiples of d + 1, then the order of what is left (Adams, section
    3.2). All of it in cells, so that a multiple of d + 1 is a whole number.
    """
    d, size, unit = embedding.dimensions, embedding.dimensions + 1, 1 << embedding.bits
    steps = torch.tensor(embedding.steps, device=image_CHW.device)
    at_DP = _positions(image_CHW, embedding)
    nearest_DP = (at_DP + unit // 2) >> embedding.bits
    left_DP = at_DP - nearest_DP * unit
    rank_DP = nearest_DP.sum(0).expand_as(left_DP).clone()
    for i in range(d):
        for j in range(i + 1, size):
            less_P = (left_DP[i] < left_DP[j]).long()
            rank_DP[i] += less_P
            rank_DP[j] += 1 - less_P
    up_DP = (rank_DP < 0).long() - (rank_DP > d).long()
    rank_DP, nearest_DP, left_DP = rank_DP + up_DP * size, nearest_DP + up_DP, left_DP - up_DP * unit
    whole_DP = (size * steps).unsqueeze(1).expand_as(left_DP)
    by_rank_DP = torch.empty_like(left_DP).scatter_(0, rank_DP, left_DP).flip(0)
    turn_DP = torch.empty_like(left_DP).scatter_(0, rank_DP, whole_DP).flip(0)
    shares_DP = by_rank_DP - by_rank_DP.roll(1, 0)
    shares_DP[0] += unit
    first_P = (nearest_DP * whole_DP).sum(0)
    further_DP = (steps.sum() - turn_DP[:d]).cumsum(0) + first_P
    return torch.cat([first_P.unsqueeze(0), further_DP]).T.contiguous(), shares_DP.T.contiguous()


def _positions(image_CHW: Tensor, embedding: Embedding) -> Tensor:
    """(D, P) int64 positions in the hyperplane, in 2^-bits of a cell; they sum to 0 exactly (Adams, section 3.1)."""
    channels, height, width = image_CHW.shape
    factors = torch.tensor(embedding.factors, dtype=torch.float64, device=image_CHW.device)
    rows, columns = (torch.arange(n, dtype=torch.float64, device=image_CHW.device) for n in (height, width))
    values = [columns.expand(height, width), rows.unsqueeze(1).expand(height, width), *image_CHW.double()]
    features_dP = torch.stack([(v * f).round().long().flatten() for v, f in zip(values, factors, strict=True)])
    above_DP = torch.cat([features_dP.flip(0).cumsum(0).flip(0), features_dP.new_zeros(1, height * width)])
    own = torch.arange(1, channels + 3, device=image_CHW.device).unsqueeze(1) * features_dP
    above_DP[1:] -= own
    return above_DP


def _neighbours(vertices_M: Tensor, embedding: Embedding) -> Tensor:
    """(D, 2, M): the vertices one step further and back in each direction, from 1; 0: there is none."""
    found = []
    for step in embedding.neighbour_steps():
        for wanted_M in (vertices_M + step, vertices_M - step):
            place_M = torch.searchsorted(vertices_M, wanted_M).clamp_(max=len(vertices_M) - 1)
            found.append(torch.where(vertices_M[place_M] == wanted_M, place_M + 1, 0))
    return torch.stack(found).reshape(embedding.dimensions + 1, 2, len(vertices_M))
