"""ONNX files by onnxruntime, on the processor."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from intarsia.engines.engine import Engine
from intarsia.errors import ConfigError, IntegrityError, reason_of
from intarsia.optional import need

FATAL = 4
"""The one severity that onnxruntime is to print; its errors come as exceptions."""


class OnnxRuntime(Engine):
    """onnxruntime, whose threads sleep between images so that reading and writing have the cores."""

    name = "onnxruntime"

    def _open(self) -> None:
        if self.precision == "bf16":
            raise ConfigError(
                f"{self.path.name}: onnxruntime computes no bf16 on processors; use backend=openvino for that."
            )
        onnxruntime = need("onnxruntime", extra="export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, self.threads // self.streams)
        options.log_severity_level = FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each kind of its errors is a class of its own
            raise IntegrityError(f"{self.path}: onnxruntime cannot read it ({reason_of(error)}).") from None

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = self._session.run(None, {"image": image})[0]
        return found
