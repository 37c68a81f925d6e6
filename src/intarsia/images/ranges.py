"""Which stored values are black and white: for all bands, or for each."""

from __future__ import annotations

ValueRange = tuple[float | tuple[float, ...], float | tuple[float, ...]]
"""(low, high): stored values that become 0 and 1; two numbers, or one pair of tuples with a number for each band."""
BYTES: ValueRange = (0.0, 255.0)
"""That of 8-bit images."""


def range_in_words(value_range: ValueRange) -> str:
    """ "0 to 255", or the widest of the bands."""
    low, high = value_range
    if isinstance(low, tuple) and isinstance(high, tuple):
        return f"{min(low):g} to {max(high):g}, each band by its own range"
    return f"{low:g} to {high:g}"


def kind_in_words(channels: int) -> str:
    """ "grey", "colour" or "5 bands" """
    return {1: "grey", 3: "colour"}.get(channels, f"{channels} bands")
