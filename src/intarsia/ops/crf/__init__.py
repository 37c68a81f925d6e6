"""Fully connected CRFs with Gaussian edges: class maps sharpened at borders of colour.

Names are loaded at first use, so that settings can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from intarsia.ops.crf.config import CRFS, CrfConfig

if TYPE_CHECKING:
    from intarsia.ops.crf.dense import dense_crf
    from intarsia.ops.crf.layer import CrfLayer
    from intarsia.ops.crf.reference import exact_dense_crf
    from intarsia.ops.crf.search import CrfGrid, search_crf

__all__ = ["CRFS", "CrfConfig", "CrfGrid", "CrfLayer", "dense_crf", "exact_dense_crf", "search_crf"]

_PLACES = {
    "CrfGrid": "search",
    "CrfLayer": "layer",
    "dense_crf": "dense",
    "exact_dense_crf": "reference",
    "search_crf": "search",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
