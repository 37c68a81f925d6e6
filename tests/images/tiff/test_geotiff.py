"""TIFFs with coordinates, read: what is read equals what training reads, metres and areas, faults by their code."""

from __future__ import annotations

import math
import os
import threading

import numpy as np
import pytest
import tifffile
from PIL import Image

from intarsia.errors import FileError, MissingExtra
from intarsia.images.files import read_image
from intarsia.images.tiff import geotiff
from intarsia.images.tiff.geotiff import GeoSource, is_geotiff
from intarsia.images.tiff.ground import Ellipsoid, ground_of
from tests.images.rasters import CRS, DEGREES, PLACES, TILES, UTM, Affine, raster, rasterio

RNG = np.random.default_rng(0)


def numbers(shape, dtype="uint8", high=200):
    return RNG.integers(1, high, shape).astype(dtype)


@pytest.mark.parametrize(
    ("values", "profile"),
    [
        (numbers((3, 20, 30)), {"photometric": "rgb"}),
        (numbers((20, 30)), {}),
        (numbers((1, 30)), {}),
        (numbers((20, 1)), {}),
        (numbers((5, 20, 30), "uint16", 60000), {"interleave": "band"}),
        (numbers((20, 30), "uint16", 4095), {"nbits": 12}),
        (numbers((2, 20, 30), "int16", 3000) - 1500, {"nodata": -9999}),
        (numbers((4, 20, 30), "uint8"), {"photometric": "rgb", "alpha": "yes"}),
        (numbers((2, 20, 30), "float64"), {}),
        (numbers((20, 30), "int32", 70000), {}),
        (numbers((20, 30), "uint8", 2) % 2, {"nbits": 1}),
        (numbers((20, 30), "uint8", 16) % 16, {"nbits": 4}),
        (numbers((20, 30)), {"photometric": "miniswhite"}),
        (numbers((20, 30), "uint8", 2) % 2, {"nbits": 1, "photometric": "miniswhite"}),
    ],
    ids=lambda value: (
        f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else "-".join(map(str, value.values()))
    ),
)
def test_values_are_those_that_training_reads(tmp_path, values, profile):
    path = raster(tmp_path / "image.tif", values, **profile, **UTM)
    trained = read_image(path)
    with GeoSource(path) as source:
        window = source.read(0, 0, *source.size)
        np.testing.assert_array_equal(window.pixels, trained.pixels)
        assert window.pixels.dtype == trained.pixels.dtype
        assert source.bands == (1 if trained.pixels.ndim == 2 else trained.pixels.shape[2])
        assert window.nodata is None


def test_palettes_become_rgb_as_in_training(tmp_path):
    colours = {index: (index, 255 - index, (7 * index) % 256, 255) for index in range(256)}
    path = raster(tmp_path / "p.tif", numbers((20, 30)), photometric="palette", colormap=colours, **UTM)
    for bands in (None, (3, 1)):
        with GeoSource(path, bands) as source:
            got = source.read(0, 0, 20, 30).pixels
        np.testing.assert_array_equal(got, read_image(path, bands).pixels)


def test_jpeg_in_a_tiff_is_nearly_what_training_reads(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)[None].repeat(3, 0)
    path = raster(tmp_path / "j.tif", smooth, compress="jpeg", photometric="ycbcr", **TILES, **UTM)
    with GeoSource(path) as source:
        got = source.read(0, 0, 64, 96).pixels.astype(int)
    assert np.abs(got - read_image(path).pixels).max() <= 2


def test_cmyk_is_nearly_what_training_reads(tmp_path):
    path = raster(tmp_path / "c.tif", numbers((4, 20, 30)), photometric="cmyk", **UTM)
    with GeoSource(path) as source:
        got = source.read(0, 0, 20, 30).pixels.astype(int)
        assert source.notes == read_image(path).notes
    assert np.abs(got - read_image(path).pixels).max() <= 1  # GDAL rounds otherwise


@pytest.mark.parametrize("bands", [(3,), (2, 1), (4, 1, 2)])
def test_bands_are_taken_in_the_order_asked_for(tmp_path, bands):
    values = numbers((4, 20, 30))
    path = raster(tmp_path / "image.tif", values, photometric="rgb", alpha="yes", **UTM)
    with GeoSource(path, bands) as source:
        got = source.read(2, 3, 10, 20).pixels
    expected = np.moveaxis(values[[band - 1 for band in bands]], 0, -1)[2:12, 3:23]
    np.testing.assert_array_equal(got, expected[..., 0] if len(bands) == 1 else expected)
    np.testing.assert_array_equal(got, read_image(path, bands).pixels[2:12, 3:23])


def test_bands_that_are_not_there_are_told(tmp_path):
    path = raster(tmp_path / "image.tif", numbers((3, 5, 5)), **UTM)
    with pytest.raises(FileError, match=r"has 3 bands, but band 4 is asked for .*E_BANDS"):
        GeoSource(path, (1, 4))


def test_windows_are_parts_of_the_whole(tmp_path):
    values = numbers((3, 70, 90))
    values[:, 10:30, 20:50] = 0
    path = raster(tmp_path / "image.tif", values, nodata=0, tiled=True, blockxsize=32, blockysize=16, **UTM)
    with GeoSource(path) as source:
        whole = source.read(0, 0, 70, 90)
        for top, left, height, width in ((0, 0, 1, 1), (9, 17, 30, 40), (60, 80, 10, 10), (12, 22, 5, 5)):
            window = source.read(top, left, height, width)
            where = np.s_[top : top + height, left : left + width]
            np.testing.assert_array_equal(window.pixels, whole.pixels[where])
            nodata = np.zeros((height, width), bool) if window.nodata is None else window.nodata
            np.testing.assert_array_equal(nodata, whole.nodata[where])


def test_pixels_without_value_are_those_whose_bands_all_are(tmp_path):
    values = numbers((2, 20, 30), "int16", 100)
    values[:, :5] = -7
    values[0, 10] = -7
    path = raster(tmp_path / "image.tif", values, nodata=-7, **UTM)
    trained = read_image(path)
    with GeoSource(path) as source:
        window = source.read(0, 0, 20, 30)
    assert window.nodata[:5].all()
    assert not window.nodata[5:].any()
    np.testing.assert_array_equal(window.nodata, trained.nodata)
    np.testing.assert_allclose(window.pixels, trained.pixels, rtol=1e-6)  # filled with the mean of the others


def test_nan_in_one_band_is_no_value(tmp_path):
    values = numbers((2, 20, 30), "float32")
    values[1, 3, 4], values[0, 5, 6] = np.nan, np.inf
    path = raster(tmp_path / "image.tif", values, nodata=np.nan, **UTM)
    with GeoSource(path) as source:
        window = source.read(0, 0, 20, 30)
    assert sorted(map(tuple, np.argwhere(window.nodata).tolist())) == [(3, 4), (5, 6)]
    assert np.isfinite(window.pixels).all()


def test_each_band_has_its_own_nodata_number(tmp_path):
    values = np.full((20, 30), 5, np.uint8)
    values[:4] = 1
    raster(tmp_path / "a.tif", values, nodata=1, **UTM)
    other = np.full((20, 30), 6, np.uint8)
    other[:2], other[10] = 2, 1
    raster(tmp_path / "b.tif", other, nodata=2, **UTM)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{at}"><NoDataValue>{at}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{name}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for at, name in ((1, "a"), (2, "b"))
    )
    path = tmp_path / "both.vrt"
    path.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>')
    with GeoSource(path) as source:
        window = source.read(0, 0, 20, 30)
    assert window.nodata[:2].all()
    assert not window.nodata[2:].any()


def test_what_a_mask_hides_has_no_value(tmp_path):
    mask = np.full((20, 30), 255, np.uint8)
    mask[:, :7] = 0
    values = numbers((3, 20, 30))
    path = raster(tmp_path / "image.tif", values, mask=mask, photometric="rgb", **UTM)
    with GeoSource(path) as source:
        window = source.read(0, 0, 20, 30)
    np.testing.assert_array_equal(window.nodata, mask == 0)
    np.testing.assert_array_equal(window.pixels[:, 7:], np.moveaxis(values, 0, -1)[:, 7:])


def test_alpha_is_dropped_and_hides_unless_it_is_asked_for(tmp_path):
    values = numbers((4, 20, 30))
    values[3, :6] = 0
    path = raster(tmp_path / "image.tif", values, photometric="rgb", alpha="yes", **UTM)
    with GeoSource(path) as source:
        assert source.bands == 3
        assert source.notes == ("alpha channel dropped",)
        np.testing.assert_array_equal(source.read(0, 0, 20, 30).nodata, values[3] == 0)
    with GeoSource(path, (1, 2, 3, 4)) as source:  # near infrared that the file calls alpha
        window = source.read(0, 0, 20, 30)
    assert window.nodata is None
    np.testing.assert_array_equal(window.pixels, np.moveaxis(values, 0, -1))


def test_an_image_without_any_value_is_zero(tmp_path):
    path = raster(tmp_path / "image.tif", np.full((20, 30), 9, np.uint8), nodata=9, **UTM)
    with GeoSource(path) as source:
        window = source.read(0, 0, 20, 30)
    assert window.nodata.all()
    assert (window.pixels == 0).all()


def test_scale_is_not_applied_and_said(tmp_path):
    path = raster(tmp_path / "image.tif", numbers((20, 30), "uint16", 9000), **UTM)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.0001,), (-0.1,)
    with GeoSource(path) as source:
        assert any("scale and offset" in note for note in source.notes)
        np.testing.assert_array_equal(source.read(0, 0, 20, 30).pixels, read_image(path).pixels)


def test_metres_of_a_plane():
    def metres(**place):
        ground = ground_of(CRS.from_user_input(place["crs"]), place["transform"])
        return ground and ground.metres(20, 30), ground and ground.pixel_areas(0, 2, 30).tolist()

    assert metres(**UTM) == ((0.5, 0.5), [[0.25], [0.25]])
    turned, areas = metres(crs="EPSG:32616", transform=Affine(0.4, 0.3, 0, 0.3, -0.4, 0))
    assert turned == pytest.approx((0.5, 0.5))
    assert areas == [[pytest.approx(0.25)], [pytest.approx(0.25)]]
    foot = 1200 / 3937  # US survey
    (height, width), areas = metres(crs="EPSG:2263", transform=Affine(2, 0, 0, 0, -3, 0))
    assert (height, width) == pytest.approx((3 * foot, 2 * foot))
    assert areas[0][0] == pytest.approx(6 * foot**2)


def test_degrees_have_metres_and_areas_of_the_ellipsoid(tmp_path):
    path = raster(tmp_path / "image.tif", numbers((2000, 30)), **DEGREES)
    a, f = 6378137.0, 1 / 298.257223563
    with GeoSource(path) as source:
        height, width = source.metres
        assert height == pytest.approx(111.4, abs=0.05)  # at 59 degrees north, known tables
        assert width == pytest.approx(57.48, abs=0.02)
        areas = source.pixel_area_m2(0, 2000)
    e2 = f * (2 - f)
    phi = np.radians(60 - 0.001 * (np.arange(2000) + 0.5))
    w2 = 1 - e2 * np.sin(phi) ** 2
    slow = a * (1 - e2) / w2**1.5 * a / np.sqrt(w2) * np.cos(phi) * math.radians(0.001) ** 2  # the middle of each pixel
    np.testing.assert_allclose(areas[:, 0], slow, rtol=1e-7)
    assert areas[0] < areas[-1]


def test_zones_of_the_ellipsoid_add_to_its_surface():
    wgs84 = Ellipsoid(6378137.0, 0.0066943799901413165)
    assert 4 * math.pi * wgs84.zone(math.pi / 2) == pytest.approx(510_065_621_724_000, rel=1e-9)  # published
    ball = Ellipsoid(1.0, 0.0)
    assert 4 * math.pi * ball.zone(math.pi / 2) == pytest.approx(4 * math.pi)


def test_a_stretched_projection_is_told(tmp_path):
    web = {"crs": "EPSG:3857", "transform": Affine(1, 0, 0, 0, -1, 8399737.9)}  # 60 degrees north
    with GeoSource(raster(tmp_path / "web.tif", numbers((20, 30)), **web)) as source:
        assert any("areas 4." in note or "areas 3.9" in note for note in source.notes)
    with GeoSource(raster(tmp_path / "utm.tif", numbers((20, 30)), **UTM)) as source:
        assert source.notes == ()


def test_without_a_coordinate_system_nothing_is_guessed(tmp_path):
    for place in ("no crs", "gcps", "rpcs", "nothing"):
        with GeoSource(raster(tmp_path / "image.tif", numbers((20, 30)), **PLACES[place])) as source:
            assert source.crs is None
            assert source.metres is None
            assert source.pixel_area_m2(0, 20) is None


def test_geotiffs_are_told_without_rasterio(tmp_path, monkeypatch):
    for place, kept in PLACES.items():
        path = raster(tmp_path / "image.tif", numbers((20, 30)), **kept)
        (tmp_path / "image.tif.aux.xml").unlink(missing_ok=True)
        assert is_geotiff(path) == (place != "nothing"), place
    assert is_geotiff(raster(tmp_path / "n.tif", numbers((20, 30)), nodata=3))
    plain = raster(tmp_path / "world.tif", numbers((20, 30)))
    assert not is_geotiff(plain)
    (tmp_path / "world.tfw").write_text("1\n0\n0\n-1\n0.5\n0.5\n")
    assert is_geotiff(plain)
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    (tmp_path / "cut.tif").write_bytes(b"II*\0\x08")
    assert not any(is_geotiff(tmp_path / name) for name in ("a.png", "cut.tif", "absent.tif"))


def test_what_cannot_be_read_is_told_by_code(tmp_path):
    good = raster(tmp_path / "good.tif", numbers((3, 300, 300), high=256), **UTM).read_bytes()
    (tmp_path / "cut.tif").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "stub.tif").write_bytes(good[:40])
    tifffile.imwrite(tmp_path / "pages.tif", numbers((2, 20, 30)), photometric="minisblack")
    raster(tmp_path / "complex.tif", numbers((20, 30)).astype(np.complex64))
    codes = {
        "absent.tif": "E_MISSING", "cut.tif": "E_TRUNCATED", "empty.tif": "E_EMPTY", "text.tif": "E_NOT_IMAGE",
        "pages.tif": "E_PAGES", "complex.tif": "E_MODE", "stub.tif": "E_CORRUPT", ".": "E_NOT_FILE",
    }  # fmt: skip
    for name, code in codes.items():
        with pytest.raises(FileError) as met:
            GeoSource(tmp_path / name)
        assert met.value.code == code, name


def test_damage_within_pixels_is_told(tmp_path):
    path = raster(tmp_path / "image.tif", numbers((300, 300), high=256), compress="deflate", **UTM)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with GeoSource(path) as source, pytest.raises(FileError, match="E_CORRUPT"):
        source.read(0, 0, 300, 300)


def test_a_file_that_changes_is_told(tmp_path):
    path = raster(tmp_path / "image.tif", numbers((20, 30)), **UTM)
    with GeoSource(path) as source:
        source.read(0, 0, 20, 30)
        source.check_unchanged()
        os.utime(path, ns=(1, 1))
        with pytest.raises(FileError, match="E_CHANGED"):
            source.read(0, 0, 20, 30)
    with GeoSource(path) as source:
        raster(tmp_path / "other.tif", numbers((40, 30)), **UTM).replace(path)
        with pytest.raises(FileError, match="E_CHANGED"):
            source.check_unchanged()


def test_threads_read_the_same(tmp_path):
    values = numbers((3, 200, 200))
    path = raster(tmp_path / "image.tif", values, tiled=True, blockxsize=64, blockysize=64, compress="deflate", **UTM)
    wrong = []
    with GeoSource(path) as source:

        def look(seed):
            rng = np.random.default_rng(seed)
            for top, left in rng.integers(0, 150, (20, 2)).tolist():
                got = source.read(top, left, 50, 50).pixels
                if not np.array_equal(got, np.moveaxis(values, 0, -1)[top : top + 50, left : left + 50]):
                    wrong.append((top, left))

        threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert wrong == []


def test_a_bigtiff_beyond_4_gb_is_read_by_windows(tmp_path):
    path = tmp_path / "big.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, height=70_000, width=70_000, tiled=True, blockxsize=512,
        blockysize=512, sparse_ok=True, bigtiff="yes", nodata=0, **UTM,
    ) as file:  # fmt: skip
        file.write(np.full((512, 512), 7, np.uint8), 1, window=rasterio.windows.Window(69_120, 69_120, 512, 512))
    assert 70_000 * 70_000 > 1 << 32
    with GeoSource(path) as source:
        window = source.read(69_100, 69_100, 100, 100)
    assert (window.pixels[~window.nodata] == 7).all()
    assert window.nodata.sum() == 100 * 100 - 80 * 80


def test_without_rasterio_the_extra_is_named(tmp_path, monkeypatch):
    path = raster(tmp_path / "image.tif", numbers((20, 30)), **UTM)
    monkeypatch.setattr("intarsia.optional.found", lambda _: False)
    assert is_geotiff(path)
    with pytest.raises(MissingExtra, match=r"intarsia\[geo\]"):
        GeoSource(path)


def test_gdal_keeps_a_bounded_cache(tmp_path):
    assert geotiff.CACHE <= 128
    from rasterio.env import getenv

    with geotiff.environment():
        assert getenv()["GDAL_CACHEMAX"] == geotiff.CACHE
