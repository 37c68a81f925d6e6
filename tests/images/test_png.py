"""PNG by libpng: the same pixels as Pillow's for every kind of file, and Pillow's words for what is damaged."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from intarsia.errors import FileError
from intarsia.images.files import frame_of, read_image, read_mask
from intarsia.images.png import png_of
from tests.images.png import png_bytes

RNG = np.random.default_rng(0)
MODES = {"L": (37, 53), "LA": (37, 53, 2), "RGB": (37, 53, 3), "RGBA": (37, 53, 4)}


def drawn(mode):
    return RNG.integers(0, 256, MODES[mode]).astype(np.uint8)


def saved(path, pixels, **settings_of_pillow):
    Image.fromarray(pixels).save(path, "PNG", **settings_of_pillow)
    return path


@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_those_that_were_png_bytes(mode, tmp_path):
    pixels = drawn(mode)
    path = saved(tmp_path / "a.png", pixels)
    assert np.array_equal(png_of(path).pixels(8), pixels)
    found = read_image(path)
    bands = {"L": pixels, "LA": pixels[..., 0]}.get(mode, pixels[..., :3])
    assert np.array_equal(found.pixels, bands)
    assert found.mode == mode
    assert found.pixels.flags.writeable
    assert np.array_equal(read_mask(path).pixels, bands)
    if mode in ("LA", "RGBA"):
        count = pixels.shape[2]
        assert np.array_equal(read_image(path, range(1, count + 1)).pixels, pixels)
        assert "alpha channel dropped" in found.notes


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_interlaced_and_deep_files(bits, interlaced, tmp_path, capfd):
    pixels = RNG.integers(0, 2**bits, (19, 27, 3)).astype(f"u{bits // 8}")
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(pixels, interlaced=interlaced))
    found = read_image(path).pixels
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_an_alpha_channel(bits, tmp_path):
    pixels = RNG.integers(0, 2**bits, (9, 7, 3)).astype(f"u{bits // 8}")
    pixels[2:4, 3:5] = key = (1, 2, 3)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(pixels, before=[(b"tRNS", struct.pack(">HHH", *key))]))
    assert np.array_equal(read_image(path).pixels, pixels)
    alpha = read_image(path, (1, 2, 3, 4)).pixels[..., 3]
    assert np.array_equal(alpha == 0, (pixels == key).all(axis=2))


def test_gamma_and_profiles_change_no_number(tmp_path):
    pixels = drawn("RGB")
    about = PngImagePlugin.PngInfo()
    about.add(b"gAMA", (20000).to_bytes(4, "big"))
    path = saved(tmp_path / "a.png", pixels, pnginfo=about, icc_profile=b"no profile")
    assert np.array_equal(read_image(path).pixels, pixels)


@pytest.mark.parametrize("late", [False, True])
def test_an_orientation_before_or_after_the_pixels_turns_the_image(late, tmp_path):
    pixels = drawn("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turn = [(b"eXIf", exif.tobytes()[6:])]
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(pixels, before=[] if late else turn, after=turn if late else []))
    found = read_image(path)
    assert found.orientation == 6
    assert np.array_equal(found.pixels, np.rot90(pixels, -1))
    assert frame_of(path) == ((53, 37), 6)


def test_the_size_is_told_without_decoding_pixels(tmp_path, monkeypatch):
    def load(self):
        raise AssertionError("decoded")

    path = saved(tmp_path / "a.png", drawn("RGB"))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert frame_of(path) == ((37, 53), 1)
    assert read_image(path).pixels.shape == (37, 53, 3)


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_that_is_cut_off_says_so(deep, tmp_path):
    pixels = RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    content = png_bytes(pixels if deep else pixels.astype(np.uint8))
    path = tmp_path / "a.png"
    for kept in (
        len(content) // 2,
        len(content) - 25,
        *[len(content) - 13] * deep,
    ):  # Pillow needs no checksum at the end
        path.write_bytes(content[:kept])
        with pytest.raises(FileError) as caught:
            read_image(path)
        assert caught.value.code == "E_TRUNCATED"


@settings(max_examples=60, deadline=None)
@given(place=st.integers(60, 10_000), bit=st.integers(0, 7))
def test_wrong_content_with_the_right_checksum_is_damaged(place, bit, tmp_path_factory):
    content = bytearray(png_bytes(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3) * 7))
    content[60 + place % (len(content) - 60 - 20)] ^= 1 << bit
    pixels = content.index(b"IDAT")
    (length,) = struct.unpack_from(">I", content, pixels - 4)
    content[pixels + 4 + length : pixels + 8 + length] = struct.pack(
        ">I", zlib.crc32(content[pixels : pixels + 4 + length])
    )
    path = tmp_path_factory.mktemp("bent") / "a.png"
    path.write_bytes(content)
    try:
        seen = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        with pytest.raises(FileError):
            read_image(path)
    else:
        assert np.array_equal(read_image(path).pixels, seen)


def test_other_files_are_no_png(tmp_path):
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(40)):
        (tmp_path / "a.png").write_bytes(content)
        assert png_of(tmp_path / "a.png") is None
