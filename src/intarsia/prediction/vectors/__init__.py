"""Class maps as areas and polygons, and the files that hold them."""
