"""What any model sees, costs and holds in memory, told before it is trained: `intarsia.anatomy(model)`.

The package can be called as the function that it is named for, so that `ia.anatomy` means the same whether its parts have been
imported before or not.
"""

import sys
from types import ModuleType
from typing import Any

from torch import nn

from intarsia.anatomy.checkerboard import Coverage, checkerboard
from intarsia.anatomy.describe import SIZE, Anatomy
from intarsia.anatomy.describe import anatomy as _anatomy
from intarsia.anatomy.effective import EffectiveField, effective_field

__all__ = ["Anatomy", "Coverage", "EffectiveField", "anatomy", "checkerboard", "effective_field"]


class _Callable(ModuleType):
    def __call__(self, model: nn.Module | str, size: tuple[int, int] = SIZE, **settings: Any) -> Anatomy:
        return _anatomy(model, size, **settings)

    __call__.__doc__ = _anatomy.__doc__


sys.modules[__name__].__class__ = _Callable
anatomy = sys.modules[__name__]
