"""Small networks as ONNX files, written node by node, with a card."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from intarsia.classes import ClassTable
from intarsia.engines.card import KEY, Card, card_text
from intarsia.engines.onnx_file import read_onnx
from intarsia.images.preprocess import Preprocess

PLAIN = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
TABLE = ClassTable(names=("sky", "road", "car", "tree"))


def kernel(size=3, seed=0):
    """(4, 3, size, size)"""
    return np.random.default_rng(seed).normal(size=(4, 3, size, size)).astype(np.float32)


def write_conv(path, weights, *, padded=True, preprocess=PLAIN, opsets=("",), **card):
    """One convolution from `image` to `logits`, or what the card says of input and output."""
    nodes, pad = [], [weights.shape[-1] // 2] * 4 if padded else [0] * 4
    before, after = "image", "logits"
    if card.get("input") == "pixels":
        nodes += [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Div", ["planes", "white"], ["unit"]),
        ]
        before = "unit"
    if card.get("output") == "classes":
        after = "scores"
    nodes.append(helper.make_node("Conv", [before, "weights"], [after], pads=pad))
    if card.get("output") == "classes":
        nodes += [
            helper.make_node("ArgMax", [after], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["classes"], to=TensorProto.UINT8),
        ]
    kind = TensorProto.UINT8 if before == "unit" else TensorProto.FLOAT
    shape = ["N", "H", "W", 3] if before == "unit" else ["N", 3, "H", "W"]
    out = (
        ("classes", TensorProto.UINT8, ["N", "h", "w"])
        if after == "scores"
        else (after, TensorProto.FLOAT, ["N", 4, "h", "w"])
    )
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.float32(255), "white"),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(*out)],
        constants if before == "unit" else constants[:1],
    )
    sets = [helper.make_opsetid(domain, 18 if not domain else 1) for domain in opsets]
    model = helper.make_model(graph, opset_imports=sets, ir_version=9)
    onnx.save(model, path)
    content = read_onnx(path)[1]
    found = Card(model="conv", classes=TABLE, preprocess=preprocess, weights="0" * 64, content=content, **card)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, card_text(found)
    onnx.save(model, path)
    return path
