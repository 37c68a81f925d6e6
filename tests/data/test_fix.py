"""`data check --fix`: what needs no guess is mended in a copy, the rest is put aside with its reason, the source stays."""

import json

import numpy as np
import pytest
from PIL import Image

from intarsia.classes import IGNORE
from intarsia.data import FolderConfig
from intarsia.data.fix import fix_folder
from intarsia.data.inspection import inspect_dataset
from intarsia.errors import ConfigError, DataError, SaveError
from intarsia.images.files import read_image, read_mask
from intarsia.progress import Silent
from tests.conftest import write

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
MASK = (IMAGE[..., 0] > 128).astype(np.uint8)


def opened(root, **settings):
    return FolderConfig(path=str(root), **settings).open(Silent())


def fixed(root, **settings):
    """The report and the copy, opened; the source is as it was."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    copy = root.with_name("copy")
    report = fix_folder(root, copy, Silent(), **settings)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert json.loads((copy / "fix.json").read_text()) == report.to_dict()
    return report, opened(copy)


def mask_of(data, name):
    item = next(item for items in data.splits.values() for item in items if item.name == name)
    return data.read_mask(item)


def done_to(report, file):
    return next(entry["what"] for entry in report.mended if entry["file"] == file)


@pytest.mark.parametrize("table", [None, "names: [a, b]", "names: [a, b]\nignore_index: null"])
def test_masks_of_0_and_255(folder, table):
    root = folder(4, values=(0, 255))
    if table:
        (root / "classes.yaml").write_text(table)
    stored = read_mask(root / "masks" / "i2.png").pixels
    report, data = fixed(root)
    assert np.array_equal(mask_of(data, "i2"), stored // 255)
    assert len(report.mended) == 4
    assert report.copied == 4
    assert data.table.names == (("a", "b") if table else ("background", "foreground"))


def test_values_of_the_class_table_are_mapped_and_the_table_is_rewritten(folder):
    root = folder(4, values=(3, 100, 7))
    (root / "classes.yaml").write_text("names: [a, b]\nvalues: {3: b, 100: a, 7: ignore}")
    stored = read_mask(root / "masks" / "i0.png").pixels
    _, data = fixed(root)
    assert np.array_equal(mask_of(data, "i0"), np.select([stored == 3, stored == 100], [1, 0], IGNORE))
    assert data.table.values is None
    with Image.open(data.root / "masks" / "i0.png") as image:
        assert image.mode == "P"


def test_colours_alpha_palettes_and_depths_become_index_pngs(folder):
    root = folder(5)
    (root / "classes.yaml").write_text("names: [a, b]\ncolors: [[0, 0, 0], [255, 0, 0]]")
    coloured = np.zeros((24, 32, 3), np.uint8)
    coloured[MASK == 1] = (255, 0, 0)
    write(root / "masks" / "i0.png", coloured)
    write(root / "masks" / "i1.png", np.dstack([coloured, np.full((24, 32), 255, np.uint8)]))
    write(root / "masks" / "i2.png", MASK.astype(np.uint16))
    (root / "masks" / "i3.png").unlink()
    Image.fromarray(MASK).save(root / "masks" / "i3.tif")
    report, data = fixed(root)
    for index in range(4):
        assert np.array_equal(mask_of(data, f"i{index}"), MASK), index
        assert read_mask(data.root / "masks" / f"i{index}.png").pixels.dtype == np.uint8
    assert done_to(report, "masks/i1.png") == ["colours turned into class numbers"]
    assert done_to(report, "masks/i2.png") == ["written with 8 bits and one channel"]
    assert done_to(report, "masks/i3.tif") == ["written as PNG"]
    assert not report.not_mended


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_images_stored_turned_and_masks_drawn_without_it(folder, orientation):
    root, exif = folder(3), Image.Exif()
    exif[0x0112] = orientation
    stored = np.dstack([MASK * 200] * 3)  # the image shows what the mask says
    Image.fromarray(stored).save(root / "images" / "i1.png", exif=exif)
    write(root / "masks" / "i1.png", MASK)
    write(root / "instances" / "i1.png", MASK.astype(np.uint16) * 700)
    report, data = fixed(root)
    image = read_image(data.root / "images" / "i1.png")
    assert (image.pixels.shape, image.turned) == ((32, 24, 3), False)
    assert np.array_equal(mask_of(data, "i1"), image.pixels[..., 0] // 200)
    assert np.array_equal(
        read_mask(data.root / "instances" / "i1.png").pixels, (image.pixels[..., 0] // 200) * np.uint16(700)
    )
    assert done_to(report, "masks/i1.png") == ["turned as its image"]


def test_trailing_bytes_are_cut_and_lying_endings_corrected(folder):
    root = folder(3)
    for name, junk in (("i0", b"junk"), ("i1", b"")):
        Image.fromarray(IMAGE).save(root / "images" / f"{name}.png", "JPEG")
        with (root / "images" / f"{name}.png").open("ab") as file:
            file.write(junk)
    with (root / "masks" / "i2.png").open("ab") as file:
        file.write(b"more junk")
    pixels = read_image(root / "images" / "i0.png").pixels
    _, data = fixed(root)
    assert np.array_equal(read_image(data.root / "images" / "i0.jpg").pixels, pixels)
    assert not read_image(data.root / "images" / "i0.jpg").notes
    assert not read_image(data.root / "images" / "i1.jpg").notes
    assert not data.notes[1:]  # the first tells of the split
    assert not [finding for finding in inspect_dataset(data, Silent()) if finding.code == "W_MASK_FILE"]


def test_copies_of_test_images_leave_train(folder):
    root = folder(5)
    (root / "images" / "i0.png").write_bytes((root / "images" / "i4.png").read_bytes())
    splits = {"train": ["i0", "i1", "i2"], "val": ["i3"], "test": ["i4"]}
    (root / "splits.json").write_text(json.dumps(splits))
    report, data = fixed(root)
    assert [item.name for item in data.splits["train"]] == ["i1", "i2"]
    assert report.left_out == [{"file": "images/i0.png", "why": "also in test, as i4"}]
    assert not [finding for finding in inspect_dataset(data, Silent()) if finding.code == "W_LEAK"]


def test_what_would_be_a_guess_is_put_aside_with_its_reason(folder):
    root = folder(10)
    (root / "classes.yaml").write_text("names: [a, b]")
    (root / "masks" / "i0.png").unlink()
    (root / "images" / "i1.png").unlink()
    write(root / "masks" / "i2.png", MASK.T.copy())
    write(root / "masks" / "i3.png", MASK[:9])
    Image.fromarray(MASK).save(root / "masks" / "i4.png", "JPEG")
    write(root / "masks" / "i5.png", MASK * 9)
    (root / "images" / "i6.png").write_bytes(b"")
    Image.fromarray(IMAGE).save(root / "images" / "i7.jpg")
    report, data = fixed(root)
    why = {entry["file"]: entry["why"] for entry in report.not_mended}
    assert why["images/i0.png"] == "image without mask"
    assert why["masks/i1.png"] == "mask without image"
    assert "which way it was turned cannot be told" in why["images/i2.png"]
    assert "image 24 x 32, mask 9 x 32" in why["images/i3.png"]
    assert why["masks/i4.png"] == "mask stored as JPEG: compression has changed class numbers"
    assert f"mask holds {MASK.sum()} pixels that the class table does not know" == why["masks/i5.png"]
    assert why["images/i6.png"] == "image is empty (0 bytes)"
    assert "two files of the same name" in why["images/i7.jpg"]
    assert sorted(item.name for items in data.splits.values() for item in items) == ["i8", "i9"]
    aside = {path.relative_to(data.root / "not-mended").as_posix() for path in (data.root / "not-mended").rglob("*.*")}
    assert {"images/i0.png", "masks/i1.png", "images/i7.jpg", "images/i7.png", "masks/i7.png"} <= aside
    assert "not mended, in not-mended/: 8" in report.text()


def test_unknown_colours_become_the_nearest_only_when_asked(folder):
    root = folder(4)
    (root / "classes.yaml").write_text("names: [a, b]\ncolors: [[0, 0, 0], [255, 0, 0]]")
    coloured = np.zeros((24, 32, 3), np.uint8)
    coloured[:10] = (255, 0, 0)
    coloured[10] = (170, 3, 0)
    write(root / "masks" / "i1.png", coloured)
    report, data = fixed(root, nearest_colour=True)
    assert mask_of(data, "i1")[:, 0].tolist() == [1] * 11 + [0] * 13
    assert "unknown colours taken for the nearest" in done_to(report, "masks/i1.png")


def test_split_folders_and_subfolders_stay(tmp_path):
    for split in ("train", "val"):
        for kind, array in (("images", IMAGE), ("masks", MASK * 255)):
            write(tmp_path / "set" / split / kind / "a" / "x.png", array if split == "train" else array[::-1].copy())
    _, data = fixed(tmp_path / "set")
    assert [item.name for item in data.splits["val"]] == ["val/a/x"]
    assert data.split_source == "folders"


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("full", ConfigError, "is not an empty folder"),
        ("set/inner", ConfigError, "lies within"),
        (".", ConfigError, r"not an empty folder|lies within"),
        ("file", ConfigError, "is not an empty folder"),
        ("file/below", SaveError, "cannot be written"),
    ],
)
def test_places_that_are_refused(folder, tmp_path, place, error, message):
    root = folder(3, values=(0, 255))
    write(tmp_path / "full" / "x.png", MASK)
    (tmp_path / "file").write_text("x")
    with pytest.raises(error, match=message):
        fix_folder(root, tmp_path / place, Silent())


def test_folders_whose_classes_cannot_be_told(folder, tmp_path):
    with pytest.raises(DataError, match=r"which are not 0..K-1.*write classes.yaml first"):
        fix_folder(folder(3, values=(0, 90, 200)), tmp_path / "copy", Silent())
    root = folder(2, name="hopeless")
    (root / "classes.yaml").write_text("names: [a, b]")
    for path in (root / "masks").iterdir():
        write(path, MASK * 9)
    with pytest.raises(DataError, match=r"nothing can be mended; first masks/i0\.png"):
        fix_folder(root, tmp_path / "copy", Silent())
    assert not list((tmp_path / "copy").iterdir())


def test_images_without_mask_are_left_out_when_the_settings_skip_them(folder):
    root = folder(4)
    (root / "masks" / "i1.png").unlink()
    report, data = fixed(root, skip_unlabelled=True)
    assert report.left_out == [{"file": "images/i1.png", "why": "has no mask"}]
    assert not report.not_mended
    assert not (data.root / "not-mended").exists()
