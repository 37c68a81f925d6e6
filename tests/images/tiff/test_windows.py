"""Windows of a TIFF: the numbers that reading it whole gives, in bounded memory; stacks by their metadata."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from intarsia.errors import FileError
from intarsia.images.files import read_image
from intarsia.images.tiff.segments import CACHE_BYTES
from intarsia.images.tiff.windows import TiffSource, tiff_frames, tiff_pages

RNG = np.random.default_rng(0)
H, W = 75, 100


def values(dtype, bands):
    shape = (H, W) if bands == 1 else (H, W, bands)
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    if np.dtype(dtype) == bool:
        return RNG.random(shape) > 0.5
    top = min(np.iinfo(dtype).max, 60000)
    return RNG.integers(0, top, shape).astype(dtype)


def write(path, pixels, **how):
    how.setdefault("photometric", "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack")
    how.setdefault("planarconfig", "contig" if pixels.ndim == 3 else None)
    if how["planarconfig"] == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(path, pixels, metadata=None, **how)
    return path


def assert_same(path, bands=None):
    whole = read_image(path, bands)
    with TiffSource(path, bands=bands) as source:
        assert source.size == whole.pixels.shape[:2]
        assert source.bands == (whole.pixels.shape[2] if whole.pixels.ndim == 3 else 1)
        assert source.notes == whole.notes
        for _ in range(4):
            top, left = int(RNG.integers(source.height)), int(RNG.integers(source.width))
            height, width = int(RNG.integers(1, source.height - top + 1)), int(RNG.integers(1, source.width - left + 1))
            window = source.read(top, left, height, width)
            where = np.s_[top : top + height, left : left + width]
            assert window.pixels.dtype == whole.pixels.dtype
            assert np.array_equal(window.pixels, whole.pixels[where])
        window = source.read(0, 0, *source.size)
        assert np.array_equal(window.pixels, whole.pixels)


LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "deflated strips": {"rowsperstrip": 8, "compression": "deflate"},
    "tiles": {"tile": (16, 32)},
    "LZW tiles": {"tile": (32, 16), "compression": "lzw", "predictor": True},
    "zstd strip": {"compression": "zstd"},
    "big endian": {"rowsperstrip": 9, "byteorder": ">"},
    "BigTIFF": {"bigtiff": True, "tile": (64, 64), "compression": "packbits"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float16", "float32", "float64"])
def test_windows_are_parts_of_the_whole_image(layout, dtype, tmp_path):
    how = dict(LAYOUTS[layout])
    if np.dtype(dtype).kind == "f" and how.pop("predictor", None):
        how["predictor"] = 3
    for bands in (1, 3, 5):
        kind = values(dtype, bands)
        assert_same(write(tmp_path / f"{bands}.tif", kind, **how))
        if bands > 1:
            apart = write(tmp_path / f"{bands}_apart.tif", kind, planarconfig="separate", **how)
            assert_same(apart)
            assert_same(apart, bands=(3, 1))
            assert_same(tmp_path / f"{bands}.tif", bands=(2,))


@pytest.mark.parametrize("kind", ["1", "L", "I;16", "RGB", "RGBA", "LA", "CMYK", "P", "F"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_kinds_that_pillow_writes(kind, compression, tmp_path):
    path = tmp_path / "x.tif"
    rgb = Image.fromarray(RNG.integers(0, 256, (H, W, 3), dtype=np.uint8))
    if kind == "I;16":
        image = Image.fromarray(RNG.integers(0, 60000, (H, W), dtype=np.uint16))
    elif kind in ("P", "1"):
        image = rgb.convert("P", palette=Image.Palette.ADAPTIVE) if kind == "P" else rgb.convert("1")
    elif kind == "F":
        image = Image.fromarray(RNG.normal(size=(H, W)).astype(np.float32))
    else:
        image = rgb.convert(kind)
    image.save(path, compression=compression)
    assert_same(path)
    if kind in ("P", "CMYK", "RGBA", "L"):
        assert_same(path, bands=(1,))


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_white_is_zero(bits, tmp_path):
    pixels = values({1: bool, 8: "uint8", 16: "uint16"}[bits], 1)
    assert_same(write(tmp_path / "x.tif", pixels, photometric="miniswhite", rowsperstrip=9))


def test_premultiplied_transparency_and_many_extra_bands(tmp_path):
    alpha = np.full((H, W, 1), 128, np.uint8)
    pixels = np.concatenate([values("uint8", 3) // 2, alpha], axis=2)
    assert_same(write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"]))
    deep = values("uint16", 4)
    assert_same(write(tmp_path / "b.tif", deep, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32)))
    assert_same(tmp_path / "b.tif", bands=(4, 1))


def test_jpeg_in_tiff(tmp_path):
    smooth = np.asarray(
        Image.fromarray(values("uint8", 3)).resize((12, 9)).resize((192, 128), Image.Resampling.BICUBIC)
    )
    for photometric in ("ycbcr", "rgb"):
        path = tmp_path / f"{photometric}.tif"
        tifffile.imwrite(path, smooth, compression="jpeg", photometric=photometric, tile=(64, 64), metadata=None)
        whole = read_image(path).pixels.astype(int)
        with TiffSource(path) as source:
            assert abs(source.read(30, 20, 80, 90).pixels - whole[30:110, 20:110]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pages_are_read_upright(orientation, tmp_path):
    path = tmp_path / "x.tif"
    turned = [(274, "H", 1, orientation, False)]
    assert_same(write(path, values("uint16", 3), extratags=turned, tile=(16, 16), compression="deflate"))
    with TiffSource(path) as source:
        assert source.orientation == orientation


@settings(max_examples=60)
@given(data=st.data())
def test_any_window_of_any_tiling(data, tmp_path_factory):
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    tile = data.draw(st.sampled_from([None, (16, 16), (32, 16)]))
    how = {"tile": tile} if tile else {"rowsperstrip": data.draw(st.integers(1, 60))}
    pixels = np.arange(height * width * 2, dtype=np.uint16).reshape(height, width, 2)
    path = tmp_path_factory.mktemp("x") / "x.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", compression="deflate", **how)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    below, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    with TiffSource(path) as source:
        assert np.array_equal(source.read(top, left, below - top, right - left).pixels, pixels[top:below, left:right])


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", "0"), ("uint16", "65535"), ("float32", "-9999"), ("uint8", "-1")]
)
def test_nodata_is_told_and_filled_as_in_the_whole_image(dtype, nodata, tmp_path):
    pixels = np.clip(values(dtype, 1).astype(float), 0, 200).astype(dtype)
    pixels[10:20, 5:60] = float(nodata) if float(nodata) >= 0 or dtype == "float32" else 7
    if dtype == "float32":
        pixels[40, 40] = np.nan
    path = write(tmp_path / "x.tif", pixels, extratags=[(42113, "s", 0, nodata, False)], rowsperstrip=16)
    whole = read_image(path)
    with TiffSource(path) as source:
        for where in (np.s_[0:75, 0:100], np.s_[12:44, 30:50]):
            window = source.read(where[0].start, where[1].start, *(part.stop - part.start for part in where))
            expected = None if whole.nodata is None else whole.nodata[where]
            assert (window.nodata is None) == (expected is None)
            assert expected is None or np.array_equal(window.nodata, expected)
            assert np.allclose(window.pixels, whole.pixels[where], rtol=1e-6)


def test_all_without_value(tmp_path):
    path = write(tmp_path / "x.tif", np.full((H, W), np.nan, np.float32))
    with TiffSource(path) as source:
        window = source.read(0, 0, 5, 6)
        assert window.nodata.all()
        assert (window.pixels == 0).all()


def test_pages_are_frames(tmp_path):
    path = tmp_path / "x.tif"
    pages = [values("uint8", 1), values("uint16", 3), values("uint8", 1)[:40]]
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None)
        writer.write(pages[0][::2, ::2], subfiletype=1, metadata=None)  # an overview
    assert tiff_pages(path) == 3
    frames = list(tiff_frames(path))
    assert [name for name, _ in frames] == ["p0001", "p0002", "p0003"]
    for (_, source), page in zip(frames, pages, strict=True):
        assert np.array_equal(source.read(3, 4, 20, 30).pixels, page[3:23, 4:34])
        source.close()
    with TiffSource(path, page=2) as source:
        assert source.size == (40, W)
    with pytest.raises(FileError, match="holds 3 pages; there is no page 5"):
        TiffSource(path, page=4)


@pytest.mark.parametrize("axes", ["TZCYX", "CZYX", "ZTYX", "CYX", "YX", "TCYXS", "ZCYXS"])
@pytest.mark.parametrize("how", [{}, {"compression": "deflate", "tile": (16, 16)}])
def test_axes_of_ome_are_those_of_its_metadata(axes, how, tmp_path):
    path = tmp_path / "x.ome.tif"
    sides = {"T": 2, "Z": 3, "C": 4, "Y": 40, "X": 30, "S": 3}
    stack = RNG.integers(0, 60000, [sides[axis] for axis in axes]).astype(np.uint16)
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 500.0, "PhysicalSizeYUnit": "nm"}
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, stack, ome=True, photometric=photometric, metadata={"axes": axes, **size}, **how)
    check_frames(path, stack, axes)
    with next(tiff_frames(path))[1] as source:
        assert source.metres == pytest.approx((5e-7, 2.5e-7))


def check_frames(path, stack, axes):
    frames = dict(tiff_frames(path))
    count = 1
    for axis, side in zip(axes, stack.shape, strict=True):
        count *= side if axis in "TZ" else 1
    assert len(frames) == count
    for name, source in frames.items():
        at = {part[0].upper(): int(part[1:]) for part in name.split("_") if part}
        index = tuple(at.get(axis, slice(None)) for axis in axes)
        left = [axis for axis in axes if axis not in at]
        frame = np.moveaxis(stack[index], [left.index("Y"), left.index("X")], [0, 1])  # then C, S
        frame = frame.reshape(*frame.shape[:2], -1)
        frame = frame[..., 0] if frame.shape[2] == 1 else frame
        assert np.array_equal(source.read(5, 6, 30, 20).pixels, frame[5:35, 6:26]), name
        source.close()
    if frame.ndim == 3:  # that of the last name
        *_, (_, source) = tiff_frames(path, bands=(2, 1))
        assert np.array_equal(source.read(5, 6, 30, 20).pixels, frame[5:35, 6:26][..., [1, 0]])
        source.close()


@pytest.mark.parametrize("axes", ["TZCYX", "ZYX", "CYX"])
def test_imagej_hyperstacks(axes, tmp_path):
    path = tmp_path / "x.tif"
    stack = RNG.integers(0, 60000, [{"T": 2, "Z": 3, "C": 2, "Y": 40, "X": 30}[axis] for axis in axes]).astype(
        np.uint16
    )
    tifffile.imwrite(path, stack, imagej=True, resolution=(4, 2), metadata={"axes": axes, "unit": "um"})
    check_frames(path, stack, axes)
    with next(tiff_frames(path))[1] as source:
        assert source.metres == pytest.approx((0.5e-6, 0.25e-6))


def test_imagej_stack_that_describes_its_first_page_only(tmp_path):
    path = tmp_path / "x.tif"
    stack = RNG.integers(0, 60000, (5, 40, 30)).astype(">u2")
    description = "ImageJ=1.53\nimages=5\nslices=5\nloop=false\n"
    tifffile.imwrite(path, stack[0], byteorder=">", description=description, metadata=None)
    with path.open("ab") as file:
        file.write(stack[1:].tobytes())
    check_frames(path, stack, "ZYX")


def test_strange_axes_are_refused(tmp_path):
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(
        path, np.zeros((4, 3, 40, 30), np.uint8), ome=True, metadata={"axes": "RZYX"}, photometric="minisblack"
    )
    with pytest.raises(FileError, match="Save it with T, Z, C") as told:
        list(tiff_frames(path))
    assert told.value.code == "E_PAGES"


def test_image_of_40000_by_40000_in_bounded_memory(tmp_path):
    side, tile = 40_000, 512
    path = tmp_path / "large.tif"
    across = -(-side // tile)
    drawn = {0: 11, 40 * across + 40: 22, across * across - 1: 33}
    tiles = (np.full((tile, tile), drawn[n], np.uint8) if n in drawn else None for n in range(across * across))
    shape = {"shape": (side, side), "dtype": np.uint8, "tile": (tile, tile), "metadata": None}
    tifffile.imwrite(path, tiles, bigtiff=True, compression="deflate", photometric="minisblack", **shape)
    with TiffSource(path) as source:
        tracemalloc.start()
        assert source.size == (side, side)
        assert source.read(0, 0, 600, 600).pixels.sum() == 11 * tile * tile
        assert source.read(40 * tile - 5, 40 * tile - 5, 10, 10).pixels.sum() == 22 * 25
        assert source.read(side - 3, side - 3, 3, 3).pixels.sum() == 33 * 9
        for top in range(0, side - 1024, 8000):
            source.read(top, 0, 1024, 1024)
        assert tracemalloc.get_traced_memory()[1] < CACHE_BYTES + (16 << 20)
        tracemalloc.stop()


def test_uncompressed_image_of_one_strip_in_bounded_memory(tmp_path):
    side = 40_000
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, shape=(side, side), dtype=np.uint8, bigtiff=True, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset + 30_000 * side + 20_000)
        file.write(b"\x07")
    tracemalloc.start()
    with TiffSource(path) as source:
        assert source.read(29_999, 19_990, 500, 500).pixels.nonzero() == (np.array([1]), np.array([10]))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("intarsia.images.tiff.segments.CACHE_BYTES", 10_000)
    path = write(tmp_path / "x.tif", values("uint16", 3), tile=(16, 16), compression="deflate")
    with TiffSource(path) as source:
        source.read(0, 0, H, W)
        assert 0 < source._planes[0].cached <= 10_000
        assert source._planes[0].cached == sum(part.nbytes for part in source._planes[0].cache.values())


@pytest.mark.parametrize("layout", ["one strip", "strips", "LZW tiles"])
def test_cut_off_files(layout, tmp_path):
    path = write(tmp_path / "x.tif", values("uint8", 3), **LAYOUTS[layout])
    content = path.read_bytes()
    for length in (0, 6, 100, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:length])
        with pytest.raises(FileError) as told:
            TiffSource(path)
        assert told.value.code in ("E_EMPTY", "E_TRUNCATED", "E_CORRUPT", "E_NOT_IMAGE")
        if length > 500:
            assert told.value.code == "E_TRUNCATED"


def test_damage_inside_is_an_error_of_the_file(tmp_path):
    path = write(tmp_path / "x.tif", values("uint16", 1), compression="deflate", tile=(16, 16))
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[8], tiff.pages[0].databytecounts[8]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    with TiffSource(path) as source:
        assert source.read(0, 0, 16, 16).pixels.shape == (16, 16)
        with pytest.raises(FileError) as told:
            source.read(0, 0, H, W)
    assert told.value.code == "E_CORRUPT"


def test_what_is_no_tiff(tmp_path):
    png, missing = tmp_path / "x.png", tmp_path / "none.tif"
    Image.fromarray(values("uint8", 1)).save(png)
    for path, code in ((png, "E_NOT_IMAGE"), (missing, "E_MISSING"), (tmp_path, "E_NOT_FILE")):
        with pytest.raises(FileError) as told:
            TiffSource(path)
        assert told.value.code == code
    path = write(tmp_path / "x.tif", values("uint8", 3))
    with pytest.raises(FileError, match="has 3 bands, but band 4 is asked for"):
        TiffSource(path, bands=(4,))
    tifffile.imwrite(path, np.zeros((4, 4), np.complex64))
    with pytest.raises(FileError) as told:
        TiffSource(path)
    assert told.value.code == "E_MODE"


def test_real_tiff(shared):
    folder = shared("data/geotiff_sample")
    paths = sorted(folder.rglob("*.tif"))
    assert paths
    for path in paths:
        whole = tifffile.imread(path)
        with TiffSource(path) as source:
            top, left = source.height // 3, source.width // 3
            window = source.read(top, left, source.height - top, source.width - left)
        assert np.array_equal(window.pixels, whole[top:, left:])
