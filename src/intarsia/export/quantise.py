"""An ONNX file in int8: weights and maps as bytes, their ranges taken from training images.

Weights are symmetric int8, a scale for each output channel; maps are uint8 with the least and largest value that they had on
the images as range (MinMax; percentiles and entropy gave equal scores in more time on CamVid). If too many pixels change their
class by that, the first convolutions stay in float32. The file says it by pairs of
QuantizeLinear and DequantizeLinear, which onnxruntime and OpenVINO both compute in integers.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.devices import cpu_flags
from intarsia.engines.card import KEY, Card, card_text
from intarsia.engines.onnx_file import read_onnx
from intarsia.engines.onnx_runtime import OnnxRuntime
from intarsia.errors import ConfigError, reason_of
from intarsia.export.onnx_write import change_card
from intarsia.optional import need

AT_ONCE = 4
"""Images whose maps are held in memory together."""
WHOLE_NUMBERS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
"""Instructions without which sums of 8-bit products can overflow, so that weights take 7 bits."""

NETWORK = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Operators of the network proper; normalisation lies before the first, the choice of a class behind the last."""

FIRST = (0, 3)
"""Convolutions at the start that stay in float32, tried in this order: where channels of few filters differ much in range, as
in networks of depthwise convolutions, the first of them cost the most."""
ENOUGH = 0.99
"""Share of the calibration images' pixels that keep their class with which no more is tried."""


def quantise(source: Path, card: Card, path: Path, images: Sequence[NDArray[Any]]) -> Card:
    """Write a file of `write_onnx` anew, in int8.

    Args:
        card: of the new file.
        images: batches as the network takes them, of training images; their maps give the ranges.

    Returns:
        The card, with `content`.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ConfigError: there are no images, or the network cannot be quantised.
    """
    if not images:
        raise ConfigError("int8: there are no images to calibrate on. Give --images 64.")
    onnx = need("onnx", extra="export")
    expected = _classes(source, card.replace(precision="fp32"), images)
    best = -1.0
    with tempfile.TemporaryDirectory() as folder:
        count = sum(node.op_type in NETWORK for node in onnx.load(source).graph.node)
        for number in [each for each in FIRST if 2 * each <= count]:
            trial = Path(folder) / f"{number}.onnx"
            try:
                _quantise(source, trial, images, number)
            except Exception as error:  # onnxruntime has no exceptions of its own here
                reason = reason_of(error)
                raise ConfigError(f"{card.model} cannot be quantised: {reason} Take --precision fp32.") from None
            made = _finished(trial, card)
            pairs = zip(expected, _classes(trial, card, images), strict=True)
            agreement = float(np.mean([(one == other).mean() for one, other in pairs]))
            if agreement > best:
                best, kept = agreement, made
                shutil.copyfile(trial, path)
            if agreement >= ENOUGH:
                break
    return kept


def _quantise(source: Path, path: Path, images: Sequence[NDArray[Any]], first: int) -> None:
    """By onnxruntime's tool; the `first` convolutions stay in float32."""
    onnx, tool = need("onnx", extra="export"), need("onnxruntime.quantization", extra="export")
    shapes = need("onnxruntime.quantization.shape_inference", extra="export")
    prepared = path.with_suffix(".prepared")
    with _silence():
        shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        network = onnx.load(prepared)
        for number, node in enumerate(network.graph.node):
            node.name = f"{node.op_type}_{number}"  # some have none, and what is left out is told by name
        onnx.save(network, prepared)
        tool.quantize_static(
            prepared,
            path,
            _reader(tool, images),
            quant_format=tool.QuantFormat.QDQ,
            calibrate_method=tool.CalibrationMethod.MinMax,
            per_channel=True,
            reduce_range=not WHOLE_NUMBERS & cpu_flags(),
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            nodes_to_exclude=left_out(network.graph, first),
            extra_options={"CalibStridedMinMax": AT_ONCE, "WeightSymmetric": True, "ActivationSymmetric": False},
        )


def _finished(path: Path, card: Card) -> Card:
    """The file as it is kept, with its card."""
    onnx = need("onnx", extra="export")
    network = onnx.load(path)
    _keep_last_sums(network.graph)
    used = {node.domain for node in network.graph.node}
    for names in [each for each in network.opset_import if each.domain not in used]:
        network.opset_import.remove(names)  # onnxruntime names all that it knows
    onnx.helper.set_model_props(network, {KEY: card_text(card)})
    onnx.save(network, path)
    change_card(path, card)
    return card.replace(content=read_onnx(path)[1])


def _classes(path: Path, card: Card, images: Sequence[NDArray[Any]]) -> list[NDArray[np.uint8]]:
    """What a network says of the images."""
    engine = OnnxRuntime(path, card)
    found = (engine(image) for image in images)
    return [(each.argmax(1) if card.output == "logits" else each).astype(np.uint8) for each in found]


def left_out(graph: Any, first: int) -> list[str]:
    """Names of the nodes that stay as they are: before and within the first convolutions, and behind the last.

    That is normalisation, the choice of a class, and `first` convolutions with what lies between them.

    Raises:
        ConfigError: there is no convolution.
    """
    nodes = list(graph.node)
    places = [place for place, node in enumerate(nodes) if node.op_type in NETWORK]
    if not places:
        raise ConfigError("it has no convolution.")
    start = places[min(first, len(places)) - 1] + 1 if first else places[0]
    return [node.name for node in [*nodes[:start], *nodes[places[-1] + 1 :]]]


def _keep_last_sums(graph: Any) -> None:
    """Leave what the last convolution gives as it is: in bytes, logits of several classes would be equal."""
    last = [node for node in graph.node if node.op_type in NETWORK][-1]
    sums, ends = last.output[0], {output.name for output in graph.output}
    for rounded in [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == sums]:
        back = [
            node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] == rounded.output[0]
        ]
        for node in (rounded, *back):
            graph.node.remove(node)
        names = {node.output[0] for node in back}
        last.output[0] = next(iter(names & ends), last.output[0])  # of a network that ends with its last convolution
        for node in graph.node:
            node.input[:] = [last.output[0] if name in (names | {sums}) else name for name in node.input]


def _reader(tool: Any, images: Sequence[NDArray[Any]]) -> Any:
    """The images, as onnxruntime asks for them: in ranges, one after the other."""

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[NDArray[Any]] = iter(images)

        def __len__(self) -> int:
            return len(images)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(images[start_index:end_index])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image}

    return Reader()


@contextmanager
def _silence() -> Iterator[None]:
    """Inside, onnxruntime's tool neither prints nor logs; it does both, on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
