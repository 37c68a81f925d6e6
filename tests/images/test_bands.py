"""Images of any number of bands and any kind of number: every value as stored, and never a band left out in silence."""

from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from intarsia.errors import FileError
from intarsia.images.files import read_image, read_mask
from tests.images.png import png_bytes

RNG = np.random.default_rng(0)
FIVE = RNG.integers(0, 256, (20, 30, 5), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (20, 30, 4), dtype=np.uint16)
FLOATS = RNG.normal(size=(20, 30, 2)).astype(np.float32)


def saved(path, pixels, **options):
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return path


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (FIVE, {"planarconfig": "contig"}),
        (np.moveaxis(FIVE, 2, 0), {"planarconfig": "separate"}),
        (FIVE, {"planarconfig": "contig", "compression": "lzw", "predictor": True}),
        (FIVE, {"planarconfig": "contig", "compression": "zlib", "tile": (16, 16)}),
        (FIVE, {"planarconfig": "contig", "compression": "zstd", "bigtiff": True}),
        (FIVE[..., :2], {"planarconfig": "contig"}),
        (FIVE[..., :4], {"photometric": "rgb", "extrasamples": [0]}),
        (DEEP[..., :3], {"photometric": "rgb"}),
        (DEEP, {"photometric": "rgb", "extrasamples": [0], "byteorder": ">"}),
        (FLOATS, {"planarconfig": "contig"}),
        (FLOATS[..., 0], {"compression": "lzw"}),
        (DEEP[..., 0], {}),
        (FIVE[..., 0], {}),
        (FIVE[..., :3], {"photometric": "rgb"}),
    ],
)
def test_tiffs_keep_every_value_and_every_band(tmp_path, pixels, options):
    decoded = read_image(saved(tmp_path / "x.tif", pixels, **options))
    upright = np.moveaxis(pixels, 0, 2) if options.get("planarconfig") == "separate" else pixels
    assert decoded.pixels.dtype == upright.dtype
    assert np.array_equal(decoded.pixels, upright)
    assert decoded.pixels.flags.c_contiguous
    assert decoded.nodata is None


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint32", "float16", "float64"])
def test_other_numbers_become_float32(tmp_path, kind):
    low = -100 if np.dtype(kind).kind != "u" else 0
    pixels = RNG.integers(low, 100, (20, 30)).astype(kind)
    decoded = read_image(saved(tmp_path / "x.tif", pixels))
    assert decoded.pixels.dtype == np.float32
    assert np.array_equal(decoded.pixels, pixels.astype(np.float32))


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"complex64 numbers, which are no pixels.*E_MODE"):
        read_image(saved(tmp_path / "x.tif", FLOATS[..., 0].astype(np.complex64)))


def test_bands_are_chosen_in_order_and_transparency_is_one_of_them(tmp_path):
    path = saved(tmp_path / "x.tif", FIVE, planarconfig="contig")
    assert np.array_equal(read_image(path, (4, 1)).pixels, FIVE[..., [3, 0]])
    assert np.array_equal(read_image(path, (5,)).pixels, FIVE[..., 4])
    with pytest.raises(FileError, match=r"has 5 bands, but band 6 is asked for \(data.bands\).*E_BANDS"):
        read_image(path, (6,))
    four = FIVE[..., :4]
    for name, save in (
        ("x.png", lambda path: Image.fromarray(four).save(path)),
        ("y.tif", lambda path: saved(path, four, photometric="rgb", extrasamples=["unassalpha"])),
    ):
        save(tmp_path / name)
        dropped = read_image(tmp_path / name)
        assert np.array_equal(dropped.pixels, four[..., :3])
        assert "alpha channel dropped" in dropped.notes
        kept = read_image(tmp_path / name, (1, 2, 3, 4))
        assert np.array_equal(kept.pixels, four)
        assert "alpha channel dropped" not in kept.notes
    Image.fromarray(FIVE[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(FileError, match="has 1 band, but band 2"):
        read_image(tmp_path / "grey.png", (1, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_of_many_bands_are_turned_as_others_are(tmp_path, orientation):
    tag = [(274, "H", 1, orientation, True)]
    many = read_image(saved(tmp_path / "x.tif", FIVE, planarconfig="contig", extratags=tag))
    three = read_image(saved(tmp_path / "y.tif", FIVE[..., :3], photometric="rgb", extratags=tag))
    assert np.array_equal(many.pixels[..., :3], three.pixels)
    assert (many.turned, many.swapped) == (three.turned, three.swapped) == (orientation > 1, orientation > 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_in_tiffs_are_never_turned(tmp_path, orientation):
    path = saved(tmp_path / "x.tif", FIVE[..., 0], extratags=[(274, "H", 1, orientation, True)])
    assert np.array_equal(read_mask(path).pixels, FIVE[..., 0])


@pytest.mark.parametrize("pixels", [FIVE, FIVE[..., :3]])
def test_overviews_are_no_pages(tmp_path, pixels):
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        photometric = "rgb" if pixels.shape[2] == 3 else "minisblack"
        file.write(pixels, photometric=photometric, planarconfig="contig")
        small = np.ascontiguousarray(pixels[::2, ::2])
        file.write(small, photometric=photometric, planarconfig="contig", subfiletype=1)
    assert np.array_equal(read_image(tmp_path / "x.tif").pixels, pixels)


def test_pages_of_full_size_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"holds 5 pages.*E_PAGES"):
        read_image(saved(tmp_path / "x.tif", np.moveaxis(DEEP, 2, 0).repeat(2, 0)[:5]))


@pytest.mark.parametrize(
    ("pixels", "without"),
    [
        (np.where(FIVE[..., :1] > 200, np.uint8(7), FIVE), "7"),
        (np.where(FLOATS > 1, np.float32(-9999), FLOATS), "-9999"),
        (np.where(FLOATS > 1, np.float32(np.nan), FLOATS), "nan"),
        (np.where(FLOATS[..., 0] > 1, np.float32(np.inf), FLOATS[..., 0]), ""),
        (np.where(FIVE[..., 0] > 200, np.uint8(0), FIVE[..., 0] | 1), "0"),
        (DEEP, "70000"),
    ],
)
def test_pixels_without_value_are_told_and_filled_by_the_mean_of_the_others(tmp_path, pixels, without):
    tags = [(42113, "s", 0, without, True)] if without else []
    options = {"planarconfig": "contig"} if pixels.ndim == 3 else {}
    decoded = read_image(saved(tmp_path / "x.tif", pixels, extratags=tags, **options))
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    expected = ~np.isfinite(planes.astype(float)).all(2)
    if without not in ("", "nan"):
        expected |= (planes.astype(float) == float(without)).all(2)
    if not expected.any():
        assert decoded.nodata is None
        return
    assert np.array_equal(decoded.nodata, expected)
    found = decoded.pixels if pixels.ndim == 3 else decoded.pixels[..., None]
    assert np.array_equal(found[~expected], planes[~expected])
    means = planes[~expected].mean(0, dtype=np.float64)
    assert np.abs(found[expected] - means).max() <= (1 if found.dtype != np.float32 else 1e-3)


def test_an_image_without_any_value_is_read(tmp_path):
    decoded = read_image(saved(tmp_path / "x.tif", np.full((4, 5), np.nan, np.float32)))
    assert decoded.nodata.all()
    assert (decoded.pixels == 0).all()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_with_sixteen_bits_a_channel(tmp_path, channels):
    pixels = DEEP[..., :channels]
    (tmp_path / "x.png").write_bytes(png_bytes(pixels))
    decoded = read_image(tmp_path / "x.png")
    assert decoded.pixels.dtype == np.uint16
    assert np.array_equal(decoded.pixels, pixels[..., 0] if channels == 2 else pixels[..., :3])
    assert np.array_equal(read_image(tmp_path / "x.png", tuple(range(1, channels + 1))).pixels, pixels)
    (tmp_path / "cut.png").write_bytes(png_bytes(pixels)[:400])
    with pytest.raises(FileError, match=r"E_TRUNCATED|E_CORRUPT"):
        read_image(tmp_path / "cut.png")


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float32", "float64"])
def test_masks_of_whole_numbers_are_read_whatever_holds_them(tmp_path, kind):
    mask = RNG.integers(0, 300, (20, 30))
    assert np.array_equal(read_mask(saved(tmp_path / "x.tif", mask.astype(kind))).pixels, mask)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (FLOATS[..., 0], "numbers that are not whole"),
        (np.full((4, 5), np.nan, np.float32), "numbers that are not whole"),
        (np.full((4, 5), -1, np.int16), "holds values -1 to -1; those of a mask lie within 0..65535"),
        (np.full((4, 5), 70_000, np.int32), "holds values 70000 to 70000"),
        (FIVE, "holds 5 bands of uint8; a mask has one number a pixel"),
    ],
)
def test_masks_that_are_none_are_refused(tmp_path, mask, words):
    options = {"planarconfig": "contig"} if mask.ndim == 3 else {}
    with pytest.raises(FileError, match=rf"{words}.*E_MODE"):
        read_mask(saved(tmp_path / "x.tif", mask, **options))


def test_a_claim_of_many_values_is_refused_before_they_are_made(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.tif", FIVE, planarconfig="contig")
    monkeypatch.setenv("INTARSIA_MAX_PIXELS", "599")
    with pytest.raises(FileError, match="E_TOO_LARGE"):
        read_image(path)
    monkeypatch.setenv("INTARSIA_MAX_PIXELS", "600")
    with pytest.raises(FileError, match=r"more values than are read.*E_TOO_LARGE"):
        read_image(path)
    monkeypatch.setenv("INTARSIA_MAX_PIXELS", "750")
    assert read_image(path).pixels.shape == FIVE.shape


@given(st.data())
def test_damage_is_told_or_does_not_matter(tmp_path_factory, data):
    """No damage of a file ends in anything but pixels or a `FileError`."""
    path = tmp_path_factory.mktemp("damaged") / "x.tif"
    saved(path, FIVE, planarconfig="contig", compression=data.draw(st.sampled_from([None, "lzw", "zlib"])))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    for read in (read_image, read_mask):
        with suppress(FileError):
            assert read(path).pixels.size
