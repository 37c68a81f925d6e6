"""Bad images and masks, one test a row of the project's table of bad inputs: what a person reads, or what comes out."""

import io
import json
import os
import struct
import time
import zlib
from hashlib import sha256

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from intarsia.data import FolderConfig
from intarsia.data.checks import FolderProblems
from intarsia.data.fix import fix_folder
from intarsia.data.inspection import inspect_dataset
from intarsia.data.scan import image_facts
from intarsia.errors import DataError, FileError
from intarsia.images.files import read_image, read_mask
from intarsia.progress import Silent
from tests.conftest import write
from tests.images.png import chunk, png_bytes

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
MASK = (IMAGE[..., 0] > 128).astype(np.uint8)


def opened(root, **settings):
    return FolderConfig(path=str(root), **settings).open(Silent())


def told(root, **settings):
    """What a folder that is refused says."""
    with pytest.raises(FolderProblems) as error:
        opened(root, **settings)
    return str(error.value)


def notes(root, **settings):
    return "\n".join(opened(root, **settings).notes)


def findings(root):
    return {finding.code: finding for finding in inspect_dataset(opened(root), Silent())}


def bytes_of(array, fmt, **options):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, fmt, **options)
    return buffer.getvalue()


def png(width, height, *, bits=8, data=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_tiff(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig" if pixels.ndim == 3 else None)
    return path


@pytest.fixture
def bad_image(folder):
    """A folder in which one image has this content; the path stays images/i1.png."""

    def make(content):
        root = folder(4)
        (root / "images" / "i1.png").write_bytes(content)
        return root

    return make


def refuses(root, *words):
    text = told(root)
    assert "images/i1.png" in text
    for word in words:
        assert word in text


def test_row_01_empty_file(bad_image):
    refuses(bad_image(b""), "empty file", "is empty (0 bytes)")


def test_row_02_page_saved_as_png(bad_image):
    refuses(bad_image(b"<!doctype html><p>Not found"), "not an image, whatever its ending says", "it is HTML or XML")


def test_row_03_jpeg_cut_at_half(bad_image):
    content = bytes_of(IMAGE, "JPEG")
    refuses(bad_image(content[: len(content) // 2]), "file is cut off", "the end of the file is missing")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_row_04_png_cut_or_flipped(bad_image, damage):
    content = bytearray(bytes_of(IMAGE, "PNG"))
    if damage == "flipped":
        content[len(content) // 2] ^= 0x10
    else:
        del content[len(content) // 2 :]
    refuses(bad_image(bytes(content)), "copy it again from its source")


def test_row_05_jpeg_with_one_flipped_byte_is_read_and_known_by_its_hash(folder):
    root = folder(3)
    path = root / "images" / "i1.jpg"
    (root / "images" / "i1.png").unlink()
    content = bytearray(bytes_of(np.tile(IMAGE, (4, 4, 1)), "JPEG"))
    write(root / "masks" / "i1.png", np.tile(MASK, (4, 4)))
    path.write_bytes(content)
    before = image_facts(path)
    opened(root)
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)
    opened(root)  # it decodes; the cache knows the file by size, time and sha256, and reads it again
    assert image_facts(path)["sum"] != before["sum"]


def test_row_05_files_that_are_not_what_the_list_of_hashes_says(folder):
    root = folder(3)
    files = [path for kind in ("images", "masks") for path in sorted((root / kind).iterdir())]
    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}" for path in files]
    (root / "SHA256SUMS").write_text("\n".join(lines[1:]) + "\n")  # what is not listed is passed over
    opened(root)
    write(root / "masks" / "i1.png", 1 - MASK)
    write(root / "images" / "i0.png", IMAGE)
    text = told(root)
    assert "file is not what SHA256SUMS says" in text
    assert "masks/i1.png" in text
    assert "i0.png" not in text
    (root / "SHA256SUMS").write_text("nonsense")
    with pytest.raises(DataError, match="SHA256SUMS: line 1 is no sha256 and path"):
        opened(root)


def test_row_06_trailing_bytes_are_told(folder):
    root = folder(3)
    for name, fmt in (("i0", "PNG"), ("i1", "JPEG")):
        (root / "images" / f"{name}.png").unlink()
        ending = {"PNG": ".png", "JPEG": ".jpg"}[fmt]
        (root / "images" / f"{name}{ending}").write_bytes(bytes_of(IMAGE, fmt) + b"trailing junk")
    assert "bytes after the end of the image in 2 images" in notes(root)


def test_row_07_small_file_that_claims_50000_x_50000(bad_image):
    start = time.monotonic()
    refuses(bad_image(png(50_000, 50_000, bits=1)), "more pixels than allowed", "INTARSIA_MAX_PIXELS")
    assert time.monotonic() - start < 5


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_row_08_large_empty_bitmap_is_refused_by_the_limit_before_decoding(bad_image, monkeypatch):
    content = png(13_000, 13_000, bits=1, data=zlib.compress(bytes(1626 * 13_000)))
    assert len(content) < 30_000
    root = bad_image(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("INTARSIA_MAX_PIXELS", "100000000")
    refuses(root, "more pixels than the limit of 100000000")


def test_row_09_text_that_unpacks_to_50_megabytes(bad_image):
    content = bytes_of(IMAGE, "PNG")
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    refuses(bad_image(content[:33] + text + content[33:]), "text in the file unpacks", "without its text")


def test_row_10_image_without_width(bad_image):
    refuses(bad_image(png(0, 10)), "image without pixels", "has a side of 0 pixels")


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (9, 7)], ids=str)
def test_row_11_thin_and_tiny_images_keep_their_size(tiny_run, size):
    from intarsia.prediction.predictor import load

    grey = RNG.integers(0, 256, size, dtype=np.uint8)
    assert load(tiny_run, device="cpu").predict(grey).classes.shape == size


def test_row_12_sizes_that_32_does_not_divide_keep_their_size(tiny_run):
    from intarsia.prediction.predictor import load

    assert load(tiny_run, device="cpu").predict(RNG.integers(0, 256, (53, 71), dtype=np.uint8)).shape == (53, 71)


def test_row_13_images_stored_turned_are_read_upright_and_told(folder):
    root, exif = folder(3), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(IMAGE)).save(root / "images" / "i1.png", exif=exif)
    assert "1 images are turned upright by their EXIF orientation" in notes(root)
    assert np.array_equal(read_image(root / "images" / "i1.png").pixels, IMAGE)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_row_13_results_in_the_stored_frame_on_request(tiny_run, tmp_path, orientation):
    from intarsia.prediction.predictor import load

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(IMAGE[..., 0]).save(tmp_path / "x.png", exif=exif)
    predictor = load(tiny_run, device="cpu")
    upright = predictor.predict(tmp_path / "x.png", probabilities=True)
    stored = predictor.predict(tmp_path / "x.png", probabilities=True, stored_frame=True)
    assert stored.shape == stored.image.shape[:2] == (24, 32)
    assert np.array_equal(stored.image[..., 0], IMAGE[..., 0])
    assert np.array_equal(stored.probabilities.argmax(0), stored.classes)
    turned = ImageOps.exif_transpose(Image.open(tmp_path / "x.png"))
    assert np.array_equal(upright.image[..., 0], np.asarray(turned))
    marked = Image.fromarray(stored.classes)
    marked.getexif()[0x0112] = orientation
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(marked)), upright.classes)


def test_row_14_orientation_that_does_not_exist_is_passed_over_and_told(folder):
    root, exif = folder(3), Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(IMAGE).save(root / "images" / "i1.png", exif=exif)
    assert "unreadable EXIF orientation passed over in 1 images" in notes(root)


def test_row_15_cmyk_becomes_rgb_and_is_told(folder):
    root = folder(3)
    (root / "images" / "i1.png").unlink()
    flat = np.full((24, 32, 3), (200, 30, 60), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(root / "images" / "i1.jpg", quality=95)
    assert "CMYK turned into RGB without its colour profile in 1 images" in notes(root)
    pixels = read_image(root / "images" / "i1.jpg").pixels
    assert pixels.shape == (24, 32, 3)
    assert np.abs(pixels.astype(int) - flat).max() < 8  # not inverted


def test_row_16_grey_among_colour_is_told(folder):
    root = folder(3)
    (root / "images" / "i1.png").unlink()
    Image.fromarray(IMAGE[..., 0]).save(root / "images" / "i1.jpg")
    assert "grey ones are repeated to three channels" in notes(root)


def test_row_17_sixteen_bits_are_scaled_by_the_set_and_never_cut(tmp_path):
    for index in range(3):
        write(tmp_path / "images" / f"{index}.png", RNG.integers(900, 4000, (24, 32)).astype(np.uint16))
        write(tmp_path / "masks" / f"{index}.png", MASK)
    data = opened(tmp_path)
    assert data.read_image(data.items("train")[0]).dtype == np.uint16
    assert 900 <= data.value_range[0] < data.value_range[1] <= 4000


def test_row_18_sixteen_bit_colour_keeps_its_depth(tmp_path):
    deep = RNG.integers(0, 65536, (24, 32, 3), dtype=np.uint16)
    for index in range(3):
        path = write(tmp_path / "images" / f"{index}.png", MASK)
        path.write_bytes(png_bytes(deep))
        write(tmp_path / "masks" / f"{index}.png", MASK)
    data = opened(tmp_path)
    assert np.array_equal(data.read_image(data.items("train")[0]), deep)
    assert data.value_range[1] > 60_000


def test_row_18_sixteen_bit_colour_among_eight_bits_is_refused(folder):
    root = folder(3)
    (root / "images" / "i1.png").write_bytes(png_bytes(np.zeros((24, 32, 3), np.uint16)))
    assert "16-bit images among 8-bit ones (1 of 3)" in told(root)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_row_19_alpha_is_dropped_and_told(folder, mode):
    root = folder(3)
    Image.fromarray(IMAGE).convert(mode).save(root / "images" / "i1.png")
    assert "alpha channel dropped in 1 images" in notes(root)


def test_row_20_palette_image_becomes_colour(folder):
    root = folder(3)
    picture = Image.fromarray(IMAGE).quantize(16)
    picture.save(root / "images" / "i1.png")
    opened(root)
    assert np.array_equal(read_image(root / "images" / "i1.png").pixels, np.asarray(picture.convert("RGB")))


def test_row_21_palette_mask_is_read_by_its_indices(folder):
    root = folder(3)
    picture = Image.fromarray(MASK)
    picture.putpalette([128, 0, 0, 0, 128, 0])
    picture.save(root / "masks" / "i1.png")
    opened(root)
    assert np.array_equal(read_mask(root / "masks" / "i1.png").pixels, MASK)


def test_row_22_mask_stored_as_jpeg(folder):
    root = folder(3)
    (root / "masks" / "i1.png").unlink()
    Image.fromarray(MASK * 2).save(root / "masks" / "i1.jpg")
    text = told(root)
    assert "mask stored as JPEG, which changes class numbers at every border" in text
    assert "export the masks again as PNG" in text


def test_row_23_value_beyond_the_classes(folder):
    root = folder(3)
    (root / "classes.yaml").write_text("names: [a, b]")
    mask = MASK.copy()
    mask[5, 7:11] = 9
    write(root / "masks" / "i1.png", mask)
    text = told(root)
    assert "not in the class table: 9" in text
    assert "masks/i1.png: 4 pixels, first 9 at row 5, column 7" in text


@pytest.mark.parametrize("table", [None, "names: [a, b]", "names: [a, b]\nignore_index: null"])
def test_row_24_zero_and_255_for_two_classes_is_asked(folder, table):
    root = folder(3, values=(0, 255))
    if table:
        (root / "classes.yaml").write_text(table)
    text = told(root)
    assert "masks hold 0 and 255" in text
    assert "values: {0: " in text
    assert "--fix DIR" in text


def test_row_24_is_not_asked_where_255_is_said_to_be_ignored(folder):
    root = folder(3, values=(0, 255))
    (root / "classes.yaml").write_text("names: [a, b]\nignore_index: 255")
    assert findings(root)["W_ABSENT"].examples[0] == "train: b"


def test_row_25_mask_of_another_size(folder):
    root, exif = folder(5), Image.Exif()
    exif[0x0112] = 8
    write(root / "masks" / "i1.png", MASK[:20])
    write(root / "masks" / "i2.png", MASK.T.copy())
    Image.fromarray(IMAGE).save(root / "images" / "i3.png", exif=exif)
    text = told(root)
    assert "images/i1.png 24 x 32, mask 20 x 32" in text
    assert "one of the two was turned by a quarter" in text
    assert "stored turned (EXIF orientation)" in text


def test_row_25_masks_are_resized_by_nearest_neighbour_on_request(folder, tmp_path):
    root = folder(3)
    write(root / "masks" / "i1.png", MASK[::2, ::2])
    write(root / "instances" / "i1.png", MASK[::2, ::2] * np.uint8(3))
    assert "--fix DIR --resize-masks" in told(root)
    report = fix_folder(root, tmp_path / "kept", Silent())
    assert "(--resize-masks: as a whole)" in report.not_mended[0]["why"]
    report = fix_folder(root, tmp_path / "fixed", Silent(), resize_masks=True)
    assert report.not_mended == []
    assert "resized to its image by nearest neighbour" in report.text()
    data = opened(tmp_path / "fixed")
    item = next(item for items in data.splits.values() for item in items if item.name == "i1")
    assert np.array_equal(data.read_mask(item), MASK[::2, ::2].repeat(2, 0).repeat(2, 1))
    assert np.array_equal(data.read_instances(item), 3 * MASK[::2, ::2].repeat(2, 0).repeat(2, 1))


def test_row_26_smoothed_colours_are_listed_with_their_pixels(folder):
    root = folder(3)
    (root / "classes.yaml").write_text("names: [a, b]\ncolors: [[0, 0, 0], [255, 0, 0]]")
    mask = np.zeros((24, 32, 3), np.uint8)
    mask[:10] = (255, 0, 0)
    mask[10] = (128, 0, 0)
    write(root / "masks" / "i1.png", mask)
    text = told(root)
    assert "(128, 0, 0) 32 px" in text
    assert "export without" in text


def test_row_27_sixteen_bit_mask_never_wraps(folder):
    root = folder(3)
    (root / "classes.yaml").write_text("names: [a, b]\nvalues: {0: a, 44: b, 1: b}")
    write(root / "masks" / "i1.png", MASK.astype(np.uint16) * 300)
    assert "not in the class table: 300" in told(root)


def test_row_28_ignored_masks_empty_masks_and_absent_classes_are_told(folder):
    root = folder(6, values=(0, 1, 2))
    (root / "classes.yaml").write_text("names: [background, b, c]")
    write(root / "masks" / "i0.png", np.full((24, 32), 255, np.uint8))
    write(root / "masks" / "i1.png", np.zeros((24, 32), np.uint8))
    write(root / "masks" / "i4.png", MASK)
    (root / "splits.json").write_text(json.dumps({"train": ["i0", "i1", "i2", "i3"], "val": ["i4"], "test": ["i5"]}))
    found = findings(root)
    assert found["W_IGNORED"].examples == ("masks/i0.png",)
    assert found["W_EMPTY"].examples == ("masks/i1.png",)
    assert found["W_ABSENT"].examples == ("val: c",)
    assert "not defined" in found["W_ABSENT"].advice


def test_row_29_what_does_not_pair_up_is_listed(folder):
    root = folder(6)
    (root / "masks" / "i1.png").rename(root / "masks" / "I1.png")
    (root / "masks" / "i2.png").unlink()
    (root / "images" / "i3.png").unlink()
    Image.fromarray(IMAGE).save(root / "images" / "i4.jpg")
    text = told(root)
    assert "image without mask" in text
    assert "names differ only in upper and lower case" in text
    assert "mask without image" in text
    assert "images/i4.jpg and images/i4.png" in text


def test_row_30_copies_across_the_split_are_told(folder):
    root = folder(5, size=(60, 80))
    smooth = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60)))
    write(root / "images" / "i0.png", smooth)
    write(root / "images" / "i3.png", np.clip(smooth.astype(int) + 6, 0, 255).astype(np.uint8))
    (root / "images" / "i4.png").write_bytes((root / "images" / "i1.png").read_bytes())
    (root / "splits.json").write_text(json.dumps({"train": ["i0", "i1", "i2"], "val": ["i3"], "test": ["i4"]}))
    found = findings(root)
    assert found["W_LEAK"].examples == ("images/i4.png = images/i1.png",)
    assert found["W_ALIKE"].examples == ("images/i3.png like images/i0.png",)
    assert found["W_CONTRADICTION"].count == 1


def test_row_31_nan_in_float_tiffs_is_ignored_and_counted(tmp_path):
    pixels = IMAGE[..., 0].astype(np.float32) / 7
    without = pixels.copy()
    without[0, :3] = [np.nan, np.inf, -np.inf]
    for name, values in (("a", pixels), ("b", pixels), ("c", without)):
        write_tiff(tmp_path / "images" / f"{name}.tif", values)
        write(tmp_path / "masks" / f"{name}.png", MASK)
    data = opened(tmp_path)
    item = next(item for items in data.splits.values() for item in items if item.name == "c")
    expected = MASK.copy()
    expected[0, :3] = 255
    assert np.array_equal(data.read_mask(item), expected)
    assert np.isfinite(data.read_image(item)).all()
    assert "3 pixels of 1 images have no value (NaN, infinite, or the file's nodata): they are ignored" in data.notes
    assert np.isfinite([*data.mean, *data.std, *data.value_range]).all()


def test_row_31_floating_point_among_bytes_is_refused(folder):
    root = folder(3)
    (root / "images" / "i1.png").unlink()
    write_tiff(root / "images" / "i1.tif", IMAGE.astype(np.float32))
    assert "floating-point images among 8-bit ones (1 of 3)" in told(root)


def test_row_32_tiffs_of_five_bands_are_read_and_the_count_must_agree(tmp_path, folder):
    five = RNG.integers(0, 256, (24, 32, 5), dtype=np.uint8)
    for index in range(3):
        write_tiff(tmp_path / "images" / f"{index}.tif", five)
        write(tmp_path / "masks" / f"{index}.png", MASK)
    data = opened(tmp_path)
    assert data.channels == 5
    assert np.array_equal(data.read_image(data.items("train")[0]), five)

    root = folder(3)
    (root / "images" / "i1.png").unlink()
    write_tiff(root / "images" / "i1.tif", five)
    text = told(root)
    assert "images whose number of bands is not that of the others (3)" in text
    assert "images/i1.tif: 5" in text
    assert opened(root, bands=[1, 2, 3]).channels == 3


@pytest.mark.parametrize("ending", [".tif", ".gif", ".webp"])
def test_row_33_several_pages_are_refused(folder, ending):
    root = folder(3)
    (root / "masks" / "i1.png").unlink()
    pages = [Image.fromarray(MASK * 255), Image.fromarray(255 - MASK * 255)]
    pages[0].save(root / "masks" / f"i1{ending}", save_all=True, append_images=pages[1:])
    text = told(root)
    assert "holds 2 pages; save each as a file of its own" in text


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript or EPS"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG, a drawing"),
        (b"<?xml version='1.0'?><svg/>", "SVG, a drawing"),
        (b"%PDF-1.7\n", "PDF"),
    ],
)
def test_row_34_drawings_and_documents_are_refused_by_content(bad_image, content, kind):
    refuses(bad_image(content), f"is no image file (it is {kind})")


def test_row_35_ending_that_lies_is_read_and_told(folder):
    root = folder(3)
    (root / "images" / "i1.png").write_bytes(bytes_of(IMAGE, "JPEG"))
    assert "JPEG under another format's ending in 1 images" in notes(root)


@pytest.mark.parametrize("name", ["a\nb", "😀 ü", "x" * 240, "a;rm -rf b", "%2e%2e%2f"])
def test_row_36_odd_names_are_names(folder, name):
    root = folder(3)
    for kind in ("images", "masks"):
        (root / kind / "i1.png").rename(root / kind / f"{name}.png")
    assert name in {item.name for items in opened(root).splits.values() for item in items}


def test_row_36_links_out_of_the_folder_are_told(folder, tmp_path):
    root = folder(3)
    outside = write(tmp_path / "elsewhere" / "secret.png", IMAGE)
    (root / "images" / "i1.png").unlink()
    (root / "images" / "i1.png").symlink_to(outside)
    found = findings(root)["W_LINK"]
    assert found.examples == ("images/i1.png",)
    assert f"first to {outside}" in found.advice


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in the file system are of Unix")
def test_row_36_pipes_and_devices_are_never_opened(folder):
    root = folder(3)
    (root / "images" / "i1.png").unlink()
    os.mkfifo(root / "images" / "i1.png")
    assert "mask without image" in told(root)
    for path in (root / "images" / "i1.png", "/dev/zero"):
        with pytest.raises(FileError, match=r"no regular file.*E_NOT_FILE"):
            read_image(path)


def test_a_folder_of_nothing_but_odd_files_is_one_line(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "images" / "a.eps").write_bytes(b"%!PS")
    with pytest.raises(DataError, match="holds no images"):
        opened(tmp_path)
