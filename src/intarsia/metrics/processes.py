"""Counts of several processes of torch.distributed: what one process would have found. Without them, all of it is nothing."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def process_count() -> int:
    """How many processes share the work; 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Which of them this is, from 0 on."""
    return dist.get_rank() if process_count() > 1 else 0


def gathered(mine: list[T]) -> list[T]:
    """What all processes found, in the order of the items: process r of n had items r, r + n, r + 2 n, ...

    Every process gets the whole list. What is sent is pickled: counts are small, logits and images are not.
    """
    count = process_count()
    if count == 1:
        return mine
    parts: list[list[T]] = [[] for _ in range(count)]
    dist.all_gather_object(parts, mine)
    total = sum(len(part) for part in parts)
    return [parts[index % count][index // count] for index in range(total)]
