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


def write_conv(path, weights, *, padded=True, preprocess=PLAIN, opsets=("",), **about):
    """One convolution from `image` to `logits`, or what the card says of input and output."""
    card = Card(model="conv", classes=TABLE, preprocess=preprocess, weights="0" * 64, **about)
    arrays, nodes, x = {"weights": weights}, [], "image"
    if card.input == "pixels":
        arrays["white"] = np.float32(255)
        nodes += [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Div", ["planes", "white"], ["unit"]),
        ]
        x = "unit"
    pads = [weights.shape[-1] // 2 if padded else 0] * 4
    nodes.append(
        helper.make_node("Conv", [x, "weights"], ["logits" if card.output == "logits" else "scores"], pads=pads)
    )
    if card.output == "classes":
        nodes += [
            helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["classes"], to=TensorProto.UINT8),
        ]
    save(path, card, nodes, arrays, opsets)
    return path


def save(path, card, nodes, arrays, opsets=("",)):
    """A network from `image` to what the card calls its output, with the card; the card as the file has it."""
    free, channels, normalised = ("batch", "height", "width"), card.preprocess.channels, card.input == "normalised"
    layout = [free[0], channels, *free[1:]] if normalised else [*free, channels]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT if normalised else TensorProto.UINT8, layout)
    kind, planes = (TensorProto.FLOAT, [card.classes.count]) if card.output == "logits" else (TensorProto.UINT8, [])
    output = helper.make_tensor_value_info(card.output, kind, [free[0], *planes, "h", "w"])
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in arrays.items()]
    sets = [helper.make_opsetid(domain, 1 if domain else 18) for domain in opsets]
    graph = helper.make_graph(nodes, card.model, [image], [output], tensors)
    model = helper.make_model(graph, opset_imports=sets, ir_version=9)
    onnx.save(model, path)
    card = card.replace(content=read_onnx(path)[1])
    helper.set_model_props(model, {KEY: card_text(card)})
    onnx.save(model, path)
    return card
