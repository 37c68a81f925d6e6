"""Connected parts of regions: objects where nobody numbered any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError


def parts_of(region_HW: NDArray[np.bool_], connectivity: int = 8) -> NDArray[np.int32]:
    """(H, W) numbers 1..n of the connected parts of a region, 0 outside it.

    Args:
        connectivity: 4 (pixels touch by a side) or 8 (by side or corner).
    """
    from scipy import ndimage

    if connectivity not in (4, 8):
        raise ConfigError(f"connectivity must be 4 (by side) or 8 (by side or corner), got {connectivity}.")
    parts: NDArray[np.int32]
    parts, _ = ndimage.label(region_HW, np.ones((3, 3)) if connectivity == 8 else None, output=np.int32)
    return parts


def objects_of(mask_HW: NDArray[Any], ignore_index: int = IGNORE) -> NDArray[np.int32]:
    """(H, W) objects 1..n of a mask: the connected parts (8) of each class but 0. Two of one class that touch are one part."""
    objects = np.zeros(mask_HW.shape, np.int32)
    found = 0
    for index in np.unique(mask_HW):
        if index not in (0, ignore_index):
            parts = parts_of(mask_HW == index)
            np.add(objects, parts + found, out=objects, where=parts > 0)
            found += int(parts.max(initial=0))
    return objects
