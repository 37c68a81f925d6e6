"""UNet++: Zhou, Siddiquee, Tajbakhsh, Liang, arXiv:1807.10165, figure 1a.

A triangle of nodes in place of each skip: node j of a row takes the up-sampled node j - 1 of the row below and all earlier
nodes of its own row, of which the encoder's map is the first. The last nodes of all rows form the decoder.

Differs from the paper: inner nodes have the width of their row's encoder map, last nodes the decoder's (as smp has it; the
paper has one width a row); nearest up-sampling; the encoder's own stride-2 start asks for one more step up, without skips.
Deep supervision classifies the nodes of the finest row, as in section 3.2; pruning is left out.

Shapes: features (N, channels[i], H / strides[i], W / strides[i]); out (N, widths[-1], H / s, W / s), s = 1 for enough widths.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from intarsia.models.decoders.base import Attention, Decoder, MergeBlock, steps_of
from intarsia.ops.norm import Norm
from intarsia.ops.upsample import Up


class UNetPlusPlusDecoder(Decoder):
    """`rows[r][j - 1]` is node j of the r-th row, deepest row first; `last` goes on where there are no maps to merge."""

    kernel = 3

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        widths: Sequence[int],
        *,
        up: Up = "nearest",
        attention: Attention = "none",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.rows, self.last = nn.ModuleList(), nn.ModuleList()
        below, beside = [channels[-1]], list(channels[:-1])  # channels of all nodes of the row below
        for width, deep, fine in steps_of(widths, strides):
            own = beside.pop() if beside else 0
            outs = [own] * (len(below) - 1) + [width] if own else [width]
            row = nn.ModuleList()
            for node, out in enumerate(outs):
                source = below[node] if own else below[-1]
                block = MergeBlock(
                    source, (node + 1) * own, out, factor=deep // fine, up=up, attention=attention, norm=norm
                )
                row.append(block)
            if own:
                self.rows.append(row)
                below = [own, *outs]
                self.taps = {f"rows.{len(self.rows) - 1}.{node}": (out, fine) for node, out in enumerate(outs[:-1])}
            else:
                self.last.extend(row)
                below = outs
        self.width = below[-1]

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, deepest = features
        below = [deepest]
        for row in self.rows:
            nodes = [skips.pop()]
            for block, source in zip(row, below, strict=True):  # type: ignore[call-overload]
                nodes.append(block(source, torch.cat(nodes[::-1], dim=1)))
            below = nodes
        x = below[-1]
        for block in self.last:
            x = block(x, None)
        return x
