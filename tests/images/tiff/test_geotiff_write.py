"""Class maps and numbers as TIFFs: bit by bit what was given, with coordinates, names and colours, equal bytes each time."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from intarsia.classes import ClassTable
from intarsia.errors import DataError, SaveError
from intarsia.images.files import read_mask
from intarsia.images.tiff.geotiff import GeoSource, is_geotiff
from intarsia.images.tiff.geotiff_write import write_class_geotiff, write_float_geotiff
from intarsia.images.tiff.write import write_class_tiff
from tests.images.rasters import PLACES, UTM, opened, raster, rasterio

TABLE = ClassTable(names=("sky", "sea & <land>", "tree, high"))
RNG = np.random.default_rng(0)


def numbers(shape):
    return RNG.integers(1, 200, shape).astype("uint8")


@pytest.mark.parametrize("place", PLACES)
def test_coordinates_are_kept(tmp_path, place):
    path = raster(tmp_path / "image.tif", numbers((20, 30)), **PLACES[place])
    classes = RNG.integers(0, 3, (20, 30)).astype(np.uint8)
    with GeoSource(path) as source:
        write_class_geotiff(tmp_path / "classes.tif", classes, TABLE, source)
        write_float_geotiff(tmp_path / "p.tif", classes[None].astype(np.float16) / 3, ["p"], source)
    with opened(path) as before:
        for name in ("classes.tif", "p.tif"):
            with opened(tmp_path / name) as after:
                assert after.crs == before.crs
                assert after.transform == before.transform
                assert [point.asdict() | {"id": 0} for point in after.gcps[0]] == [
                    point.asdict() | {"id": 0} for point in before.gcps[0]
                ]
                assert after.gcps[1] == before.gcps[1]
                assert (after.rpcs and after.rpcs.to_dict()) == (before.rpcs and before.rpcs.to_dict())


def test_pixel_is_point_moves_nothing(tmp_path):
    path = raster(tmp_path / "image.tif", numbers((20, 30)), **UTM)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    with GeoSource(path) as source:
        write_class_geotiff(tmp_path / "c.tif", np.zeros((20, 30), np.uint8), TABLE, source)
    with rasterio.open(path) as before, rasterio.open(tmp_path / "c.tif") as after:
        assert after.transform == before.transform


@pytest.mark.parametrize("name", ["sample_geotiff.tif", "sample_geotiff_custom_proj.tif"])
def test_real_images_keep_their_coordinates(shared, tmp_path, name):
    path = shared("data/geotiff_sample") / name
    assert is_geotiff(path)
    with GeoSource(path) as source:
        classes = RNG.integers(0, 3, source.size).astype(np.uint8)
        write_class_geotiff(tmp_path / "c.tif", classes, TABLE, source)
        side = 0.5 if name == "sample_geotiff.tif" else 30
        assert source.metres == pytest.approx((side, side))
        stored = tifffile.imread(path)
        np.testing.assert_array_equal(source.read(0, 0, *source.size).pixels, stored)
    with rasterio.open(path) as before, rasterio.open(tmp_path / "c.tif") as after:
        assert (after.crs, after.transform) == (before.crs, before.transform)
        assert (after.crs.to_epsg() is None) == ("custom" in name)
        np.testing.assert_array_equal(after.read(1), classes)


def map_of(height=700, width=900):
    classes = np.kron(RNG.integers(0, 3, (height // 20, width // 20)), np.ones((20, 20))).astype(np.uint8)
    classes[:90, :110] = 255
    return classes


def test_a_class_map_comes_back_with_names_colours_and_tags(tmp_path):
    classes = map_of()
    write_class_geotiff(tmp_path / "c.tif", classes, TABLE, tags={"MODEL_SHA256": "ab12"})
    with opened(tmp_path / "c.tif") as file:
        np.testing.assert_array_equal(file.read(1), classes)
        assert file.nodata == 255
        assert (file.profile["tiled"], file.profile["compress"], file.block_shapes[0]) == (True, "deflate", (512, 512))
        assert [kind.name for kind in file.colorinterp] == ["palette"]
        assert [file.colormap(1)[index][:3] for index in range(3)] == list(TABLE.colors)
        assert {key: file.tags()[key] for key in ("CLASS_0", "CLASS_1", "CLASS_2", "MODEL_SHA256")} == {
            "CLASS_0": "sky", "CLASS_1": "sea & <land>", "CLASS_2": "tree, high", "MODEL_SHA256": "ab12",
        }  # fmt: skip
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        small = file.read(1, out_shape=(350, 450))
    assert set(np.unique(small)) <= {0, 1, 2, 255}
    np.testing.assert_array_equal(small, classes[::2, ::2])  # blocks of even sides: the most frequent is the only one
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "c.tif")), classes)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "c.tif"), classes)
    np.testing.assert_array_equal(read_mask(tmp_path / "c.tif").pixels, classes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.tif", "c.tif.aux.xml"]


def test_the_attribute_table_is_read_by_gdal(tmp_path):
    import rasterio.shutil

    write_class_geotiff(tmp_path / "c.tif", map_of(), TABLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rasterio.shutil.copy(tmp_path / "c.tif", tmp_path / "c.vrt", driver="VRT")
    text = (tmp_path / "c.vrt").read_text()
    assert "<F>sea &amp; &lt;land&gt;</F>" in text
    assert text.count("<Row index=") == 3


@pytest.mark.parametrize("write", [write_class_geotiff, write_class_tiff])
def test_equal_maps_are_equal_bytes(tmp_path, write):
    classes = map_of()
    for name in ("a.tif", "b.tif"):
        write(tmp_path / name, classes, TABLE, tags={"MODEL": "x"})
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_nothing_of_the_source_but_coordinates_gets_into_the_map(tmp_path):
    photo = numbers((3, 512, 512))
    path = raster(
        tmp_path / "j.tif",
        photo,
        compress="jpeg",
        photometric="ycbcr",
        tiled=True,
        blockxsize=256,
        blockysize=256,
        nodata=0,
        **UTM,
    )
    classes = RNG.integers(0, 3, (512, 512)).astype(np.uint8)
    with GeoSource(path) as source:
        write_class_geotiff(tmp_path / "c.tif", classes, TABLE, source)
    with rasterio.open(tmp_path / "c.tif") as file:
        np.testing.assert_array_equal(file.read(1), classes)
        assert (file.profile["compress"], file.nodata, file.count) == ("deflate", 255, 1)
        assert (file.read_masks(1) == 255).all()  # class 0 is not hidden


def test_a_mapped_map_is_written(tmp_path):
    classes = np.lib.format.open_memmap(tmp_path / "m.npy", "w+", np.uint8, (1100, 300))
    classes[:] = np.arange(1100)[:, None] % 3
    write_class_geotiff(tmp_path / "c.tif", classes, TABLE)
    write_class_tiff(tmp_path / "p.tif", classes, TABLE)
    for name in ("c.tif", "p.tif"):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / name), classes)


@pytest.mark.parametrize("size", [(1, 1), (1, 600), (513, 7), (512, 512), (700, 900)])
def test_a_plain_class_tiff_opens_everywhere(tmp_path, size):
    classes = RNG.integers(0, 4, size).astype(np.uint8)
    classes[classes == 3] = 255
    write_class_tiff(tmp_path / "p.tif", classes, TABLE, tags={"MODEL": "x < y & z"})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p.tif").reshape(size), classes)
    image = Image.open(tmp_path / "p.tif")
    assert image.mode == "P"
    assert image.getpalette()[:9] == [channel for colour in TABLE.colors for channel in colour]
    np.testing.assert_array_equal(np.asarray(image), classes)
    np.testing.assert_array_equal(read_mask(tmp_path / "p.tif").pixels, classes)
    with opened(tmp_path / "p.tif") as file:
        np.testing.assert_array_equal(file.read(1), classes)
        assert (file.nodata, file.tags()["CLASS_1"], file.tags()["MODEL"]) == (255, "sea & <land>", "x < y & z")


def test_large_plain_maps_are_bigtiffs(tmp_path, monkeypatch):
    from intarsia.images.tiff import write

    monkeypatch.setattr(write, "_CLASSIC", 512 * 512)
    for width, magic in ((512, b"II*\0"), (513, b"II+\0")):
        write_class_tiff(tmp_path / "p.tif", np.zeros((512, width), np.uint8), TABLE)
        assert (tmp_path / "p.tif").read_bytes()[:4] == magic


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_numbers_come_back(tmp_path, dtype):
    values = RNG.random((3, 600, 520))
    stored = (values * 255).astype(dtype) if dtype == "uint8" else values.astype(dtype)
    write_float_geotiff(tmp_path / "f.tif", stored, ["a", "b", "c"], tags={"OF": "softmax"})
    with opened(tmp_path / "f.tif") as file:
        np.testing.assert_array_equal(file.read(), stored.astype("uint8" if dtype == "uint8" else "float32"))
        assert file.descriptions == ("a", "b", "c")
        assert file.tags()["OF"] == "softmax"
        assert file.scales == ((1 / 255,) * 3 if dtype == "uint8" else (1.0,) * 3)
        assert file.nodata is None if dtype == "uint8" else math.isnan(file.nodata)


def test_what_cannot_be_written_is_told(tmp_path):
    with pytest.raises(SaveError, match="cannot be written"):
        write_class_geotiff(tmp_path / "no" / "c.tif", map_of(), TABLE)
    with pytest.raises(SaveError, match="cannot be written"):
        write_class_tiff(tmp_path / "no" / "c.tif", map_of(), TABLE)
    path = raster(tmp_path / "image.tif", numbers((20, 30)), **UTM)
    with GeoSource(path) as source, pytest.raises(DataError, match="700 x 900"):
        write_class_geotiff(tmp_path / "c.tif", map_of(), TABLE, source)
    assert [each.name for each in tmp_path.iterdir()] == ["image.tif"]
