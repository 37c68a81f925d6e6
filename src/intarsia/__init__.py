"""intarsia: semantic segmentation, from a folder of images to a model one can look at.

Public names are loaded on first use, so that `import intarsia` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "ClassTable": "intarsia.classes",
    "IntarsiaError": "intarsia.errors",
    "Recipe": "intarsia.recipes.recipe",
    "anatomy": "intarsia.anatomy",
    "compare": "intarsia.evaluation.compare",
    "create_model": "intarsia.models.base",
    "evaluate": "intarsia.evaluation.evaluate",
    "export": "intarsia.export",
    "load": "intarsia.prediction.predictor",
    "predict": "intarsia.prediction.predict",
    "train": "intarsia.evaluation.experiment",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'intarsia' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
