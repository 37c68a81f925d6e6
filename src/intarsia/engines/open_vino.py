"""ONNX files and OpenVINO's own by OpenVINO, on the processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any

from numpy.typing import NDArray

from intarsia.engines.engine import Engine
from intarsia.errors import IntegrityError, reason_of
from intarsia.optional import need

Shape = tuple[int, ...]
MOST_SHAPES = 4
"""Networks compiled for one size that are kept."""
OFTEN = 3
"""Images of a size that are worth a network compiled for it."""
_first, _once = Lock(), Event()


class OpenVino(Engine):
    """OpenVINO, with a network compiled for the first size it meets and for those that come often; one for all others."""

    name = "openvino"

    def _open(self) -> None:
        openvino = need("openvino", extra="export")
        self._core = openvino.Core()
        self._settings = {
            "NUM_STREAMS": self.streams,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": self.threads,
        }
        self._seen: Counter[Shape] = Counter()
        self._idle: dict[Shape | None, SimpleQueue[Any]] = {}
        self._lock = Lock()
        try:
            self._fresh: Any = self._read()
        except Exception as error:  # RuntimeError of many words
            raise IntegrityError(f"{self.path}: OpenVINO cannot read it ({reason_of(error, line=-1)}).") from None

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        with self.lend(image) as found:
            return found.copy()

    @contextmanager
    def lend(self, image: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The result in OpenVINO's memory, until the end of the block."""
        # two first calls at once wait for each other for ever (2026.4)
        with nullcontext() if _once.is_set() else _first, self._result(image) as found:
            _once.set()
            yield found

    @contextmanager
    def _result(self, image: NDArray[Any]) -> Iterator[NDArray[Any]]:
        with self._lock:
            idle = self._requests(image.shape)
        request = idle.get()
        try:
            yield request.infer([image], share_inputs=True, share_outputs=True)[0]
        finally:
            idle.put(request)

    def _requests(self, shape: Shape) -> SimpleQueue[Any]:
        """Requests of the network that a shape is given to."""
        self._seen[shape] += 1
        if shape in self._idle:
            return self._idle[shape]
        fixed = sum(1 for kept in self._idle if kept is not None)
        if not fixed or (self._seen[shape] >= OFTEN and fixed < MOST_SHAPES):
            return self._compiled(shape)
        return self._idle.get(None) or self._compiled(None)

    def _compiled(self, shape: Shape | None) -> SimpleQueue[Any]:
        """Requests of a network for one shape, or for any."""
        network, self._fresh = self._fresh or self._read(), None
        if shape is not None:
            network.reshape(list(shape))
        compiled = self._core.compile_model(network, "CPU", self._settings)
        idle = self._idle[shape] = SimpleQueue()
        for _ in range(self.streams):
            idle.put(compiled.create_infer_request())
        return idle

    def _read(self) -> Any:
        return self._core.read_model(str(self.path))
