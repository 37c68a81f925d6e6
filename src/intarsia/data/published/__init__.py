"""Published data sets, one file each; its docstring is its sheet. Importing this package registers them."""

from intarsia.data.published import (  # noqa: F401
    ade20k,
    apolloscape,
    bdd100k,
    camvid,
    carvana,
    cityscapes,
    coco_stuff,
    dsb2018,
    dstl,
    isbi2012,
    mapillary,
    oxford_pet,
    voc,
)
from intarsia.data.published.base import Published
from intarsia.data.published.sheet import Archive, Sheet

__all__ = ["Archive", "Published", "Sheet"]
