"""A folder broken in every way: each fault is one clear line, nothing is dropped, nothing is a traceback."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from intarsia.data import FolderConfig
from intarsia.data.checks import FolderProblems
from intarsia.errors import DataError
from intarsia.progress import Silent
from tests.conftest import write

IMAGE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
MASK = (IMAGE[..., 0] > 128).astype(np.uint8)


def problems_of(root, **settings):
    with pytest.raises(FolderProblems) as error:
        FolderConfig(path=str(root), **settings).open(Silent())
    return {problem.code: problem for problem in error.value.problems}, str(error.value)


def missing_mask(root):
    (root / "masks" / "i1.png").unlink()


def missing_image(root):
    (root / "images" / "i1.png").unlink()


def swapped(root):
    write(root / "masks" / "i1.png", MASK.T.copy())


def other_size(root):
    write(root / "masks" / "i1.png", MASK[:10])


def zero_255(root):
    for path in (root / "masks").iterdir():
        write(path, MASK * 255)


def text_file(root):
    (root / "images" / "i1.png").write_text("I am a text")


def truncated(root):
    image = root / "images" / "i1.jpg"
    Image.fromarray(IMAGE).save(image)
    image.write_bytes(image.read_bytes()[:600])
    (root / "images" / "i1.png").unlink()


def empty_file(root):
    (root / "masks" / "i1.png").write_bytes(b"")


def jpeg_mask(root):
    (root / "masks" / "i1.png").unlink()
    Image.fromarray(MASK).save(root / "masks" / "i1.jpg")


def hidden_jpeg_mask(root):
    Image.fromarray(MASK).save(root / "masks" / "i1.png", format="JPEG")


def high_value(root):
    (root / "classes.yaml").write_text("names: [a, b]")
    write(root / "masks" / "i1.png", MASK * 7)


def unknown_colour(root):
    (root / "classes.yaml").write_text("names: [a, b]\ncolors: [[0, 0, 0], [255, 0, 0]]")
    coloured = np.zeros((24, 32, 3), np.uint8)
    coloured[:5] = (255, 0, 0)
    coloured[5] = (200, 10, 10)
    write(root / "masks" / "i1.png", coloured)


def double(root):
    Image.fromarray(IMAGE).save(root / "images" / "i1.jpg")


def exif_turned(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IMAGE).save(root / "images" / "i1.png", exif=exif)


def gaps(root):
    for path in (root / "masks").iterdir():
        write(path, MASK * 90)


def empty_masks(root):
    for path in (root / "masks").iterdir():
        write(path, MASK * 0)


def mixed_depth(root):
    write(root / "images" / "i1.png", IMAGE[..., 0].astype(np.uint16) * 100)


def pages(root):
    first = Image.fromarray(MASK)
    (root / "masks" / "i1.png").unlink()
    first.save(root / "masks" / "i1.tif", save_all=True, append_images=[first, first])


WAYS = [
    (missing_mask, "E_NO_MASK", "images/i1.png", "data.unlabelled=skip"),
    (missing_image, "E_NO_IMAGE", "masks/i1.png", "add the images"),
    (swapped, "E_SIZE_SWAPPED", "24 x 32, mask 32 x 24", "turn it back"),
    (other_size, "E_SIZE", "24 x 32, mask 10 x 32", "nearest"),
    (exif_turned, "E_SIZE_EXIF", "32 x 24, mask 24 x 32", "EXIF"),
    (zero_255, "E_0_255", "masks/i0.png", "values: {0: background, 255: foreground}"),
    (text_file, "E_NOT_IMAGE", "it is a text file", "replace"),
    (truncated, "E_TRUNCATED", "images/i1.jpg", "copy it again"),
    (empty_file, "E_EMPTY", "0 bytes", "copy it again"),
    (jpeg_mask, "E_JPEG_MASK", "masks/i1.jpg", "PNG"),
    (hidden_jpeg_mask, "E_JPEG_MASK", "masks/i1.png", "PNG"),
    (high_value, "E_VALUE", "pixels", "(0..1)"),
    (unknown_colour, "E_COLOUR", "32 pixels", "colors"),
    (double, "E_DOUBLE", "images/i1.jpg and images/i1.png", "keep one"),
    (gaps, "E_VALUE", "masks/i0.png", "values: {0: class 0, 90: class 1}"),
    (empty_masks, "E_ONE_VALUE", "masks/i0.png", "draw"),
    (mixed_depth, "E_DEPTH", "images/i1.png", "one depth"),
    (pages, "E_PAGES", "3 pages", "save each page"),
]


@pytest.mark.parametrize(("damage", "code", "met", "advice"), WAYS, ids=[way[0].__name__ for way in WAYS])
def test_each_fault_is_named_counted_and_answered(damage, code, met, advice, folder):
    root = folder(4)
    damage(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    problems, text = problems_of(root)
    assert set(problems) == {code}
    assert met in text
    assert advice in text
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_all_at_once_are_listed_each_with_its_number(folder):
    root = folder(12)
    (root / "masks" / "i2.png").unlink()
    (root / "images" / "i3.png").unlink()
    (root / "images" / "i4.png").write_text("text")
    (root / "images" / "i5.png").write_bytes(b"")
    write(root / "masks" / "i6.png", MASK.T.copy())
    write(root / "masks" / "i7.png", MASK * 255)
    write(root / "masks" / "i8.png", MASK[:3])
    Image.fromarray(MASK).save(root / "masks" / "i9.png", format="JPEG")
    (root / "masks" / "i10.png").write_bytes((root / "masks" / "i10.png").read_bytes()[:60])
    double_file = root / "images" / "i11.bmp"
    Image.fromarray(IMAGE).save(double_file)
    (root / "classes.yaml").write_text("names: [a, b]\nignore_index: null")
    problems, text = problems_of(root)
    assert len(problems) >= 9
    assert "things to mend; nothing was changed" in text
    assert all(f"\n{number}  " in text for number in range(1, len(problems) + 1))


def test_the_command_line_shows_lines_and_exit_code_6(folder):
    root = folder(4)
    zero_255(root)
    for words in (["train", str(root), "model=unet_same"], ["data", "check", str(root)]):
        done = subprocess.run(
            [sys.executable, "-m", "intarsia", *words], capture_output=True, text=True, cwd=root.parent, check=False
        )
        assert done.returncode == 6
        assert "Traceback" not in done.stderr
        assert "values: {0: background, 255: foreground}" in done.stderr
        assert not (root.parent / "runs").exists()


def test_the_two_lines_that_are_printed_mend_it(folder):
    root = folder(4)
    zero_255(root)
    _, text = problems_of(root)
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(("names:", "values:"))]
    (root / "classes.yaml").write_text("\n".join(lines))
    data = FolderConfig(path=str(root)).open(Silent())
    assert set(np.unique(data.read_mask(data.items("train")[0]))) <= {0, 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text("x"), "is a file, not a folder"),
        (lambda root: root.mkdir(), r"no folders images/ and masks/.*met: nothing"),
        (lambda root: (root / "images").mkdir(parents=True), "has images/ but no masks/"),
        (lambda root: [(root / k).mkdir(parents=True) for k in ("images", "masks")], "holds no images"),
    ],
)
def test_no_data_folder_at_all(make, message, tmp_path):
    root = tmp_path / "x"
    make(root)
    with pytest.raises(DataError, match=message):
        FolderConfig(path=str(root)).open(Silent())
