"""Label Studio's run lengths of brush regions: a stream of bits, highest first, that holds bytes.

| field | bits |
|---|---|
| number of bytes | 32 |
| bits of a value, less one | 5 |
| bits of each of four lengths, less one | 4 each |
| then blocks: whether it repeats, which length, the length less one, | 1, 2, as that length has |
| and one value if it repeats, else as many as its length | bits of a value each |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTHS = (3, 4, 8, 16)


def decode_bytes(stream: bytes, expected: int) -> NDArray[np.uint8]:
    """The bytes of a stream.

    Args:
        expected: how many they must be.

    Raises:
        ValueError: they are not so many, the stream ends too early, or values are wider than a byte.
    """
    bits = _Bits(stream)
    count, width = bits.take(32), bits.take(5) + 1
    lengths = [bits.take(4) + 1 for _ in range(4)]
    if count != expected:
        raise ValueError(f"holds {count} values, {expected} belong there")
    if width > 8:
        raise ValueError(f"has values of {width} bits, not of 8 at most")
    found = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        repeats, which = bits.take(1), bits.take(2)
        run = bits.take(lengths[which]) + 1
        if run > count - done:
            raise ValueError(f"holds more than {count} values")
        found[done : done + run] = bits.take(width) if repeats else bits.values(run, width)
        done += run
    return found


class _Bits:
    """Numbers of any width, one after the other."""

    def __init__(self, stream: bytes) -> None:
        self.stream, self.at, self.end = stream, 0, 8 * len(stream)

    def _forward(self, bits: int) -> int:
        start, self.at = self.at, self.at + bits
        if self.at > self.end:
            raise ValueError("ends too early")
        return start

    def take(self, width: int) -> int:
        start = self._forward(width)
        last = (self.at + 7) // 8
        return int.from_bytes(self.stream[start // 8 : last], "big") >> (8 * last - self.at) & ((1 << width) - 1)

    def values(self, count: int, width: int) -> NDArray[np.uint8]:
        start = self._forward(count * width)
        bits = np.unpackbits(np.frombuffer(self.stream[start // 8 : (self.at + 7) // 8], np.uint8))
        here = bits[start % 8 : start % 8 + count * width].reshape(count, width)
        weights = 1 << np.arange(width - 1, -1, -1, dtype=np.uint8)
        found: NDArray[np.uint8] = (here * weights).sum(axis=1, dtype=np.uint8)
        return found


def encode_bytes(values: NDArray[np.uint8]) -> bytes:
    """A stream that holds the bytes, every run of equal ones as repeating blocks."""
    header = f"{len(values):032b}{7:05b}" + "".join(f"{length - 1:04b}" for length in LENGTHS)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1)) if len(values) else np.zeros(0, np.int64)
    runs = np.diff(np.concatenate((starts, [len(values)])))
    blocks = [header]
    for value, run in zip(values[starts].tolist(), runs.tolist(), strict=True):
        left = run
        while left:
            here = min(left, 1 << LENGTHS[-1])
            which = next(index for index, length in enumerate(LENGTHS) if here <= 1 << length)
            blocks.append(f"1{which:02b}{here - 1:0{LENGTHS[which]}b}{value:08b}")
            left -= here
    bits = np.frombuffer("".join(blocks).encode(), np.uint8) - ord("0")
    return np.packbits(bits).tobytes()


def decode_brush(stream: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) what a brush covers: its opacity is at least half.

    Raises:
        ValueError: the stream is damaged or belongs to another size.
    """
    alpha = decode_bytes(stream, 4 * size[0] * size[1])[3::4]
    return (alpha >= 128).reshape(size)


def encode_brush(inside: NDArray[np.bool_]) -> bytes:
    """The stream of a region: white and opaque inside, all zeros outside."""
    return encode_bytes(np.repeat(inside.ravel().astype(np.uint8) * np.uint8(255), 4))
