"""Write a run's best model for other programs, proved equal before it is kept: `intarsia.export(run)`.

The package can be called as the function that it is named for, which is `intarsia.evaluation.exporting.export`, so that
`ia.export` means the same whether its parts have been imported before or not.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, run: Any, out: Any = None, **settings: Any) -> Any:
        return importlib.import_module("intarsia.evaluation.exporting").export(run, out, **settings)


sys.modules[__name__].__class__ = _Callable
export = sys.modules[__name__]
