"""Label Studio's brush stream: bits made by hand from its table, and the way there and back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from intarsia.importers.brush import decode_brush, decode_bytes, encode_brush, encode_bytes


def bits(*fields: tuple[int, int]) -> bytes:
    """Numbers, each with as many bits, highest first."""
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    return bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


HEADER = ((7, 5), (2, 4), (3, 4), (7, 4), (15, 4))
"""Values of 8 bits, lengths of 3, 4, 8 and 16 bits."""
TWO_PIXELS = bits(
    (8, 32), *HEADER, *((0, 1), (0, 2), (3, 3), (1, 8), (2, 8), (3, 8), (127, 8)), *((1, 1), (1, 2), (3, 4), (255, 8))
)
"""Four single bytes, the last a pixel's opacity of just less than half; then 255 four times."""


def test_brush_stream_made_by_hand():
    assert decode_bytes(TWO_PIXELS, 8).tolist() == [1, 2, 3, 127, 255, 255, 255, 255]
    assert decode_brush(TWO_PIXELS, (1, 2)).tolist() == [[False, True]]


def test_values_may_be_narrower_than_a_byte():
    assert decode_bytes(
        bits((5, 32), (1, 5), *HEADER[1:], (0, 1), (0, 2), (4, 3), *((n, 2) for n in (3, 0, 1, 2, 3))), 5
    ).tolist() == [
        3,
        0,
        1,
        2,
        3,
    ]


@given(st.binary(max_size=300), st.integers(1, 40))
def test_bytes_survive_the_stream(content, times):
    values = np.repeat(np.frombuffer(content, np.uint8), times)
    np.testing.assert_array_equal(decode_bytes(encode_bytes(values), len(values)), values)


def test_long_runs_are_several_blocks():
    values = np.zeros(200_001, np.uint8)
    stream = encode_bytes(values)
    assert len(stream) < 25
    np.testing.assert_array_equal(decode_bytes(stream, len(values)), values)


@given(st.binary(max_size=60))
def test_any_stream_is_read_or_refused(stream):
    try:
        said = str(decode_bytes(stream, 16).shape)
    except ValueError as error:
        said = str(error)
    assert said


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**20))
def test_brush_regions_return(height, width, seed):
    region_ = np.random.default_rng(seed).random((height, width)) < 0.5
    np.testing.assert_array_equal(decode_brush(encode_brush(region_), region_.shape), region_)
