"""What an engine is given, against the card's own words, pixel by pixel."""

import numpy as np
import pytest

import intarsia as ia
from intarsia.engines.card import Border, Card
from intarsia.engines.inputs import input_of, input_of_stored
from intarsia.errors import DataError
from intarsia.images.preprocess import Preprocess
from tests.engines.nets import TABLE, kernel, write_conv

BYTES = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
DEEP = Preprocess(value_range=(100.0, 4000.0))
RNG = np.random.default_rng(0)


def card(preprocess, **about):
    return Card(model="conv", classes=TABLE, preprocess=preprocess, weights="0", **about)


def test_normalised_and_mirrored():
    stored = RNG.integers(0, 256, (2, 3, 9, 14)).astype(np.uint8)
    about = card(BYTES, border=Border(stride=4, lost=6, first=12))
    found = input_of_stored(stored, about)
    top, left, bottom, right = about.border.around(9, 14)
    assert found.shape == (2, 3, top + 9 + bottom, left + 14 + right)
    assert found.dtype == np.float32
    for n, c, y, x in np.ndindex(found.shape):
        row, column = abs(y - top), abs(x - left)
        row, column = (min(at, 2 * (side - 1) - at) for at, side in ((row, 9), (column, 14)))
        value = (stored[n, c, row, column] / 255 - BYTES.mean[c]) / BYTES.std[c]
        assert found[n, c, y, x] == pytest.approx(value, abs=1e-6)
    assert np.array_equal(input_of(found, about, framed=True), found)


@pytest.mark.parametrize("preprocess", [BYTES, DEEP])
def test_stored_values_for_a_network_that_normalises(preprocess):
    stored = RNG.integers(0, 256, (2, 3, 5, 6)).astype(np.uint8)
    found = input_of_stored(stored, card(preprocess, input="pixels"))
    assert found.dtype == (np.uint8 if preprocess is BYTES else np.float32)
    assert np.array_equal(found, stored.transpose(0, 2, 3, 1))
    assert found.flags.c_contiguous


def test_deep_images_are_not_cut_to_8_bits(tmp_path):
    path = write_conv(tmp_path / "net.onnx", kernel(), input="pixels")
    model = ia.load(path)
    with pytest.raises(DataError, match="exported with --with-pre for 8-bit images, this one has float32 numbers"):
        model.predict(RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16))
