"""Brain slices for `intarsia demo`: the ICBM 152 template with its grey and white matter, from the package nilearn.

Source: Fonov et al., "Unbiased nonlinear average age-appropriate brain templates from birth to adulthood", NeuroImage 47
(2009) S102; International Consortium for Brain Mapping, 2009 (sym) nonlinear template, 1 mm, 197 x 233 x 189.
Classes: 0 background, 1 grey matter, 2 white matter; the larger of the two tissue probabilities where it exceeds one half.
Layout: an ordinary folder, {train,val,test}/{images,masks}, 75 / 15 / 30 axial slices of 233 x 197, 8-bit grey.
Split: contiguous slabs with 5 slices left out between them, since neighbouring slices are nearly equal.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.classes import ClassTable
from intarsia.errors import DataError
from intarsia.optional import need, require

SLABS = {"train": range(22, 97), "val": range(102, 117), "test": range(122, 152)}
"""Axial slices of each split; 5 slices lie between them."""
TABLE = ClassTable(
    names=("background", "grey matter", "white matter"),
    colors=((0, 0, 0), (230, 159, 0), (86, 180, 233)),
    ignore_index=None,
)
README = """Brain slices of the ICBM 152 template, cut by intarsia.

images: axial slices of the T1-weighted average of 152 brains (1 mm).
masks: 0 background, 1 grey matter, 2 white matter: the larger of the two tissue probabilities where it exceeds one half.
Split: contiguous slabs, 5 slices left out between them, so that neighbouring slices do not leak.

Source: ICBM 2009 nonlinear symmetric template, as shipped with the Python package nilearn.
V.S. Fonov, A.C. Evans, R.C. McKinstry, C.R. Almli, D.L. Collins, "Unbiased nonlinear average age-appropriate brain
templates from birth to adulthood", NeuroImage 47, Supplement 1, S102, 2009.
Licence: nilearn's description of the template says "unknown"; the authors ask to be cited. intarsia does not distribute
the template: these slices were cut on this machine from the copy that nilearn brought.
"""


def write_brain_folder(folder: Path) -> None:
    """Write the data folder.

    Raises:
        MissingExtra: nilearn is not installed.
        DataError: this nilearn does not hold the template.
    """
    image, grey, white = (_volume(name) for name in ("t1", "gm", "wm"))
    mask = tissue_classes(grey, white)
    for split, slices in SLABS.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for z in slices:
            Image.fromarray(_upright(image[:, :, z])).save(folder / split / "images" / f"slice_{z:03d}.png")
            Image.fromarray(_upright(mask[:, :, z])).save(folder / split / "masks" / f"slice_{z:03d}.png")
    (folder / "classes.yaml").write_text(TABLE.to_text(), encoding="utf-8")
    (folder / "README.txt").write_text(README, encoding="utf-8")


def tissue_classes(grey: NDArray[np.uint8], white: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where grey matter is the larger and above one half, 2 where white matter is, else 0; 255 means certainty."""
    larger = np.where(grey >= white, 1, 2)
    return np.where(np.maximum(grey, white) > 127, larger, 0).astype(np.uint8)


def _volume(name: str) -> NDArray[np.uint8]:
    require("nilearn", extra="demo")
    nibabel = need("nibabel", extra="demo")
    spec = importlib.util.find_spec("nilearn")
    home = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    path = home / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise DataError(f"{path}: is missing in this nilearn. Install another version: pip install 'nilearn>=0.11'.")
    volume = np.asarray(nibabel.load(path).dataobj)
    if volume.shape != (197, 233, 189) or volume.dtype != np.uint8:
        raise DataError(f"{path}: is {volume.shape} of {volume.dtype}, expected (197, 233, 189) of uint8.")
    return volume


def _upright(slice_xy: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(x, y) with y to the front, as rows from front to back."""
    return np.ascontiguousarray(slice_xy.T[::-1])
