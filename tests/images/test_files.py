"""Decoding: right for good files, one clear error for bad ones, never half an image."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from intarsia.classes import ClassTable
from intarsia.errors import FileError
from intarsia.images.files import read_image, read_mask, write_class_map

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[..., 0]


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "bmp"])
def test_lossless_colour(ending, tmp_path):
    path = tmp_path / f"x.{ending}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read_image(path).pixels, RGB)


def test_kinds_of_pixels(tmp_path):
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    cases = {
        "grey": (Image.fromarray(GREY), GREY),
        "deep": (Image.fromarray(deep), deep),
        "alpha": (Image.fromarray(np.dstack([RGB, GREY])), RGB),
        "palette": (Image.fromarray(RGB).quantize(16), None),
        "bits": (Image.fromarray(GREY > 128), np.where(GREY > 128, 255, 0)),
    }
    for name, (image, expected) in cases.items():
        path = tmp_path / f"{name}.png"
        image.save(path)
        pixels = read_image(path).pixels
        if expected is None:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(pixels, expected), name
    assert read_image(tmp_path / "deep.png").pixels.dtype == np.uint16
    assert read_image(tmp_path / "alpha.png").notes == ("alpha channel dropped",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(orientation, tmp_path):
    path = tmp_path / "x.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    turns = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2)}
    turns |= {6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB, 1)}
    found = read_image(path)
    assert np.array_equal(found.pixels, turns[orientation])
    assert found.swapped == (orientation >= 5)


@pytest.mark.parametrize("orientation", [0, 99])
def test_broken_orientation_is_as_none(orientation, tmp_path):
    path = tmp_path / "x.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    assert np.array_equal(read_image(path).pixels, RGB)


def test_masks_keep_their_values(tmp_path):
    values = (GREY % 5).astype(np.uint8)
    palette = Image.fromarray(values)
    palette.putpalette([10 * i % 256 for i in range(768)])
    wide = values.astype(np.uint16) * 300
    cases = {"m.png": (Image.fromarray(values), values), "p.png": (palette, values), "g.gif": (palette, values)}
    cases |= {
        "w.tif": (Image.fromarray(wide), wide),
        "b.png": (Image.fromarray(values > 2), (values > 2).astype(np.uint8)),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name).pixels, expected), name


def test_class_map_is_a_palette_of_class_numbers(tmp_path):
    table = ClassTable(names=("a", "b", "c"), colors=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    classes = (GREY % 3).astype(np.uint8)
    write_class_map(tmp_path / "x.png", classes, table)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((0, 0)) == table.colors[classes[0, 0]]
    assert np.array_equal(read_mask(tmp_path / "x.png").pixels, classes)


def png(width, height, *, data=b""):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(image_format):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "E_EMPTY"),
        (b"<html>not found</html>", "E_NOT_IMAGE"),
        (b"just text", "E_NOT_IMAGE"),
        (b"%PDF-1.4", "E_NOT_IMAGE"),
        (bytes(range(128, 256)), "E_NOT_IMAGE"),
        (encoded("JPEG")[: len(encoded("JPEG")) // 2], "E_TRUNCATED"),
        (encoded("PNG")[: len(encoded("PNG")) // 2], ("E_TRUNCATED", "E_CORRUPT")),
        (png(50_000, 50_000), "E_TOO_LARGE"),
        (png(0, 10), "E_DIM"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_bad_files_have_a_code_and_the_path(content, code, read, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(FileError) as error:
        read(path)
    assert error.value.code in ((code,) if isinstance(code, str) else code)
    assert str(path) in str(error.value)


def test_the_limit_is_checked_before_decoding_and_can_be_set(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "x.png")
    before = Image.MAX_IMAGE_PIXELS
    read_image(tmp_path / "x.png")
    assert before == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", before)
    monkeypatch.setenv("INTARSIA_MAX_PIXELS", "599")
    with pytest.raises(FileError, match="more pixels than the limit of 599"):
        read_image(tmp_path / "x.png")
    monkeypatch.setenv("INTARSIA_MAX_PIXELS", "600")
    assert read_image(tmp_path / "x.png").pixels.shape == (20, 30)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileError, match="E_MISSING"):
        read_image(tmp_path / "no.png")
    with pytest.raises(FileError):
        read_image(tmp_path)


def test_pages_are_refused(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(FileError, match=r"2 pages.*E_PAGES"):
        read_image(tmp_path / "pages.tif")


def test_a_tiff_whose_second_page_has_no_size_is_refused(tmp_path):
    one = bytearray(encoded("TIFF"))
    start = int.from_bytes(one[4:8], "little")
    entries = int.from_bytes(one[start : start + 2], "little")
    following = start + 2 + 12 * entries
    one[following : following + 4] = len(one).to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(bytes(one) + (0).to_bytes(6, "little"))
    with pytest.raises(FileError, match="E_PAGES"):
        read_image(tmp_path / "x.tif")


def test_whatever_a_decoder_raises_is_a_damaged_file(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr("intarsia.images.files.orientation_of", lambda image: {}["no such tag"])
    with pytest.raises(FileError, match="E_CORRUPT"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_anywhere_decodes_or_raises_file_error(image_format, data, tmp_path_factory):
    content = bytearray(encoded(image_format))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.png"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        pixels = read_image(path).pixels
        assert pixels.ndim in (2, 3)
    except FileError:
        pass
