"""Exported files: their cards, and what is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from intarsia.engines.card import Border, Card, card_of
from intarsia.engines.engine import open_engine
from intarsia.engines.files import read_card
from intarsia.engines.onnx_file import read_onnx
from intarsia.errors import ConfigError, IntegrityError
from tests.engines.nets import kernel, write_conv


@pytest.fixture
def path(tmp_path):
    return write_conv(tmp_path / "net.onnx", kernel())


def test_the_card_comes_back(path):
    card = read_card(path)
    assert card.classes.names == ("sky", "road", "car", "tree")
    assert Card(**card.to_dict()) == card


def test_a_flipped_bit_anywhere_is_refused(path):
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), max(1, len(content) // 97)):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        if read_somehow(path) is None:
            continue
        with pytest.raises((IntegrityError, ConfigError)):
            read_card(path)


def read_somehow(path):
    """What onnx itself reads; None where a flip changes nothing that counts, such as an unused bit of a length."""
    try:
        return onnx.load(path)
    except Exception:
        return path


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises((IntegrityError, ConfigError)):
        read_card(path)


def test_a_file_without_card_says_how_to_make_one(tmp_path, path):
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ConfigError, match=r"no card of intarsia.*intarsia export RUN"):
        read_card(tmp_path / "bare.onnx")


def test_weights_in_another_file_are_refused(tmp_path, path):
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    (tmp_path / "outside.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(IntegrityError, match="keeps weights in another file"):
        read_onnx(tmp_path / "outside.onnx")


def test_operators_of_another_set_are_refused(tmp_path):
    with pytest.raises(IntegrityError, match=r"needs operators of 'my.own'"):
        write_conv(tmp_path / "own.onnx", kernel(), opsets=("", "my.own"))


def test_a_text_named_onnx_is_refused(tmp_path):
    (tmp_path / "page.onnx").write_text("<html>not found</html>")
    with pytest.raises(IntegrityError, match=r"cut short or damaged|no ONNX"):
        read_card(tmp_path / "page.onnx")


def test_an_openvino_model_needs_both_files(tmp_path):
    (tmp_path / "net.xml").write_text("<net/>")
    with pytest.raises(IntegrityError, match=r"net.bin: is missing"):
        read_card(tmp_path / "net.xml")


def test_a_newer_card_asks_for_an_update():
    with pytest.raises(IntegrityError, match=r"format 2.*Update intarsia"):
        card_of('{"format": 2, "check": ""}', "net.onnx")


def test_bf16_needs_the_other_engine(path):
    with pytest.raises(ConfigError, match="onnxruntime computes no bf16"):
        open_engine(path, read_card(path), backend="onnxruntime", precision="bf16")


def test_an_engine_that_does_not_exist_is_named(path):
    with pytest.raises(ConfigError, match="tensorrt is no engine; there are onnxruntime, openvino"):
        open_engine(path, read_card(path), backend="tensorrt")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_take_any_size_and_batch(path, backend):
    engine = open_engine(path, read_card(path), backend=backend, threads=1)
    for shape in ((1, 3, 20, 30), (1, 3, 20, 30), (2, 3, 9, 50), (1, 3, 20, 30), *[(1, 3, 11, 12)] * 4):
        assert engine(np.ones(shape, np.float32)).shape == (shape[0], 4, *shape[2:])


@pytest.mark.parametrize("side", [1, 4, 5, 188, 189, 572])
def test_a_border_is_what_valid_convolutions_need(side):
    top, left, bottom, right = Border(stride=16, lost=184, first=188).around(side, side)
    taken = side + top + bottom
    assert (top, left) == (92, 92)
    assert bottom == right
    assert (taken - 188) % 16 == 0
    assert side <= taken - 184 < side + 16 or taken == 188
