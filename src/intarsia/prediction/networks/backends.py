"""Which engine runs a model: the one that is named, or the fastest by measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.devices import cpu_has_bf16
from intarsia.engines.card import Card, Precision
from intarsia.engines.choice import machine_key, measure, remember, remembered
from intarsia.engines.engine import BACKENDS, Engine, open_engine
from intarsia.engines.inputs import input_of_stored
from intarsia.errors import ConfigError, MissingExtra
from intarsia.optional import found

MEASURED_AT = (384, 512)
"""(height, width) of the image that engines are measured with."""
ENOUGH_AGREEMENT = 0.995
"""Share of validation pixels on which bf16 must agree with fp32 before it is chosen by measurement."""
PRECISIONS: dict[str, Precision | None] = {"auto": None, "fp32": "fp32", "bf16": "bf16"}


def open_all(paths: Sequence[Path], cards: Sequence[Card], backend: str | None, precision: str) -> list[Engine]:
    """Each exported file in the engine that the settings name.

    Args:
        backend: onnxruntime, openvino, auto, or None for the one that a file was made for.
        precision: auto, fp32 or bf16.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if backend == "torch":
        raise ConfigError("backend: an exported file does not run in torch; predict with the run itself.")
    opened = []
    for path, card in zip(paths, cards, strict=True):
        if backend == "auto":
            opened.append(fastest(path, card, precision))
        else:
            opened.append(open_engine(path, card, backend=backend, precision=PRECISIONS[precision]))
    return opened


def fastest(path: Path, card: Card, precision: str) -> Engine:
    """The engine that runs an exported file fastest on this machine."""
    choices = dict(choices_of(path, card, precision))
    if not choices:
        raise MissingExtra("no engine for exported models is installed: pip install 'intarsia[export]'")
    key = machine_key(f"{card.content} {precision}")
    chosen = remembered(key)
    if chosen not in choices:
        engines = {name: make() for name, make in choices.items()}
        chosen = remember(key, measure({name: computing(engine) for name, engine in engines.items()}))
        return engines[chosen]
    return choices[chosen]()


def choices_of(
    path: Path, card: Card, precision: str, *, trusted: bool = False
) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """Name and maker of every engine that can run the file in an allowed precision.

    Args:
        trusted: bf16 is allowed whether or not it was held against fp32, as it is in torch.
    """
    for backend in BACKENDS:
        if not found(backend) or (backend == "onnxruntime" and path.suffix.lower() == ".xml"):
            continue
        for kind in _precisions(card, precision, backend, trusted=trusted):
            yield (
                f"{backend} {kind}",
                lambda backend=backend, kind=kind: open_engine(path, card, backend=backend, precision=kind),  # type: ignore[misc]
            )


def _precisions(card: Card, precision: str, backend: str, *, trusted: bool = False) -> tuple[Precision, ...]:
    if card.precision == "int8":
        return ("int8",)
    has_bf16 = backend == "openvino" and cpu_has_bf16()
    if precision != "auto":
        return (("fp32",) if precision == "fp32" else ("bf16",)) if precision == "fp32" or has_bf16 else ()
    if card.precision == "bf16":
        return ("bf16",) if backend == "openvino" else ()
    agrees = trusted or card.agreement.get("bf16", 0) >= ENOUGH_AGREEMENT
    return ("fp32", "bf16") if has_bf16 and agrees else ("fp32",)


def drawn_planes(card: Card) -> NDArray[np.uint8]:
    """(1, C, h, w) stored values for measuring."""
    size = (1, card.preprocess.channels, *MEASURED_AT)
    return np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)


def computing(engine: Engine) -> Callable[[], Any]:
    """A call of an engine, for measuring."""
    given = input_of_stored(drawn_planes(engine.card), engine.card)
    return lambda: engine(given)
