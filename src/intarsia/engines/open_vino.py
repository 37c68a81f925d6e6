"""ONNX files and OpenVINO's own by OpenVINO, on the processor."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from intarsia.devices import cores
from intarsia.engines.card import Card, Precision
from intarsia.engines.engine import Engine
from intarsia.errors import IntegrityError
from intarsia.optional import need

Shape = tuple[int, ...]
MOST_SHAPES = 4
"""Networks compiled for one size that are kept."""
OFTEN = 3
"""Images of a size that are worth a network compiled for it."""


class OpenVino(Engine):
    """OpenVINO, with a network compiled for the first size it meets and for those that come often; one for all others."""

    name = "openvino"

    def __init__(self, path: Path, card: Card, precision: Precision | None = None, threads: int | None = None) -> None:
        super().__init__(path, card, precision, threads)
        openvino = need("openvino", extra="export")
        self._core = openvino.Core()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads or cores(),
        }
        self._seen: Counter[Shape] = Counter()
        self._requests: dict[Shape | None, Any] = {}
        try:
            self._read()
        except Exception as error:  # RuntimeError of many words
            raise IntegrityError(f"{path}: OpenVINO cannot read it ({_short(error)}).") from None

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        request = self._request(image.shape)
        found: NDArray[Any] = request.infer([image], share_inputs=True)[0]
        return found

    def _request(self, shape: Shape) -> Any:
        self._seen[shape] += 1
        if shape in self._requests:
            return self._requests[shape]
        fixed = sum(1 for kept in self._requests if kept is not None)
        if not fixed or (self._seen[shape] >= OFTEN and fixed < MOST_SHAPES):
            return self._compiled(shape)
        return self._requests.get(None) or self._compiled(None)

    def _compiled(self, shape: Shape | None) -> Any:
        """A network for one shape, or for any."""
        network = self._read()
        if shape is not None:
            network.reshape(list(shape))
        self._requests[shape] = self._core.compile_model(network, "CPU", self._settings).create_infer_request()
        return self._requests[shape]

    def _read(self) -> Any:
        return self._core.read_model(str(self.path))


def _short(error: Exception) -> str:
    """The last line of an engine's complaint, which says what it was."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
