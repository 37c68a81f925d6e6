"""What every engine is: an exported network that maps an array to an array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from intarsia.devices import cores
from intarsia.engines.card import Card, Precision
from intarsia.errors import ConfigError

BACKENDS = ("onnxruntime", "openvino")
"""Engines by name; an ONNX file runs in both, an OpenVINO file in its own."""


class Engine(ABC):
    """A network file that is loaded and ready to run; several threads may call it at once.

    Args:
        path: .onnx or .xml.
        card: of that file.
        precision: in which it computes; None: the card's.
        threads: processor cores that it takes; None: all that this process may use.
        streams: calls that are computed at the same time, on a share of the cores each: more images a second, each of
            them later.
    """

    name: ClassVar[str]

    def __init__(
        self,
        path: Path,
        card: Card,
        precision: Precision | None = None,
        threads: int | None = None,
        streams: int = 1,
    ) -> None:
        self.path, self.card, self.threads, self.streams = path, card, threads or cores(), streams
        self.precision: Precision = precision or card.precision
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Load the file.

        Raises:
            ConfigError: the engine does not compute in this precision.
            MissingExtra: its package is not installed.
            IntegrityError: it cannot read the file.
        """

    def with_streams(self, streams: int) -> Self:
        """The same file in the same engine, for so many calls at once."""
        return type(self)(self.path, self.card, self.precision, self.threads, streams)

    @abstractmethod
    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """(N, K, h, w) float32 logits, or (N, h, w) uint8 classes, of a batch as the card says it is taken."""

    @contextmanager
    def lend(self, image: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The same in the engine's own memory, where it has such, until the end of the block: large results are not copied."""
        yield self(image)

    @property
    def words(self) -> str:
        """ "openvino bf16" """
        return f"{self.name} {self.precision}"


def open_engine(
    path: Path,
    card: Card,
    *,
    backend: str | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
) -> Engine:
    """An exported file in an engine.

    Args:
        backend: onnxruntime or openvino; None: the one that the file was made for.
        precision: fp32 or bf16 for a file of fp32; None: the card's.

    Raises:
        ConfigError: there is no such engine, or it does not run such a file.
        MissingExtra: its package is not installed.
        IntegrityError: the engine cannot read the file.
    """
    name = backend or ("openvino" if path.suffix.lower() == ".xml" else "onnxruntime")
    if name not in BACKENDS:
        raise ConfigError(f"backend: {name} is no engine; there are {', '.join(BACKENDS)}.")
    if name == "onnxruntime":
        if path.suffix.lower() == ".xml":
            raise ConfigError(f"backend: {path.name} is an OpenVINO model; onnxruntime runs .onnx files.")
        from intarsia.engines.onnx_runtime import OnnxRuntime

        return OnnxRuntime(path, card, precision, threads)
    from intarsia.engines.open_vino import OpenVino

    return OpenVino(path, card, precision, threads)
