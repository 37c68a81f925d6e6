"""int8: one file that two engines compute alike, with logits that keep their digits."""

import numpy as np
import onnx
import pytest

from intarsia.engines.engine import open_engine
from intarsia.engines.files import read_card
from intarsia.errors import ConfigError
from intarsia.export.openvino_write import write_openvino
from intarsia.export.quantise import FIRST, left_out, quantise
from tests.export.small_nets import small_card, write_small


def images(card, count=8):
    rng = np.random.default_rng(1)
    if card.input == "pixels":
        return [rng.integers(0, 256, (1, 24, 40, 3), dtype=np.uint8) for _ in range(count)]
    return [rng.normal(size=(1, 3, 24, 40)).astype(np.float32) for _ in range(count)]


@pytest.fixture(scope="module", params=[("normalised", "logits"), ("pixels", "classes")], ids=lambda each: each[0])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    card = write_small(folder / "fp32.onnx", small_card(input=request.param[0], output=request.param[1]))
    int8 = quantise(folder / "fp32.onnx", card.replace(precision="int8"), folder / "int8.onnx", images(card))
    return folder, card, int8


def test_convolutions_compute_on_bytes(made):
    folder, _, card = made
    graph = onnx.load(folder / "int8.onnx").graph
    made_by = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {made_by[name].op_type for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}
    kinds = {each.name: each.data_type for each in graph.initializer}
    assert onnx.TensorProto.INT8 in kinds.values()
    assert read_card(folder / "int8.onnx") == card


def test_both_engines_find_nearly_the_classes_of_fp32(made):
    folder, card, int8 = made
    (image,) = images(card, 1)
    expected = open_engine(folder / "fp32.onnx", card)(image)
    of_openvino = write_openvino(folder / "int8.onnx", int8, folder / "int8.xml")
    for path, each in ((folder / "int8.onnx", int8), (folder / "int8.xml", of_openvino)):
        found = open_engine(path, each)(image)
        same = found == expected if card.output == "classes" else found.argmax(1) == expected.argmax(1)
        assert same.mean() > 0.93
        assert not np.array_equal(found, expected)


def test_logits_are_sums_and_not_bytes(made):
    folder, card, int8 = made
    if card.output == "classes":
        pytest.skip("this file has no logits")
    found = open_engine(folder / "int8.onnx", int8)(images(card, 1)[0])
    assert len(np.unique(found)) > 256


def test_what_lies_around_the_network_stays_as_it_is(made):
    folder, card, _ = made
    nodes = onnx.load(folder / "int8.onnx").graph.node
    names = [node.op_type for node in nodes]
    if card.input == "pixels":
        before = names[: names.index("QuantizeLinear")]
        assert {"Transpose", "Div", "Sub"} <= set(before)
        assert names[-2:] == ["ArgMax", "Cast"]
    graph = onnx.load(folder / "fp32.onnx").graph
    around, kinds = left_out(graph, 0), {node.name or place: node.op_type for place, node in enumerate(graph.node)}
    assert "Conv" in kinds.values()
    assert len(around) == (7 if card.input == "pixels" else 0)
    assert len(left_out(graph, 1)) > len(around)


def test_where_int8_changes_classes_the_first_convolutions_stay_in_float(tmp_path, monkeypatch):
    card = write_small(tmp_path / "fp32.onnx", small_card())
    many = []
    for enough in (0.0, 1.1):
        monkeypatch.setattr("intarsia.export.quantise.ENOUGH", enough)
        monkeypatch.setattr("intarsia.export.quantise.FIRST", (FIRST[0], 1))
        quantise(tmp_path / "fp32.onnx", card.replace(precision="int8"), tmp_path / "q.onnx", images(card))
        many.append(sum(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / "q.onnx").graph.node))
    assert many[1] < many[0]


def test_without_images_it_is_refused(tmp_path):
    card = write_small(tmp_path / "m.onnx", small_card())
    with pytest.raises(ConfigError, match="no images to calibrate on"):
        quantise(tmp_path / "m.onnx", card, tmp_path / "q.onnx", [])
