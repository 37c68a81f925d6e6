"""`intarsia data view`: pictures of a data set, one clear line for each slip."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from intarsia.data import FolderConfig
from intarsia.data.view import HEAT, heat_map, write_views
from intarsia.losses.base import Border
from intarsia.progress import Silent
from tests.conftest import write


def test_pictures_of_the_classes(intarsia, cells, tmp_path):
    code, out, _ = intarsia("data", "view", cells, "--count", 2, "--split", "val", "--out", tmp_path / "view")
    assert code == 0
    lines = out.splitlines()
    assert [line.split("   ")[1] for line in lines] == ["160 x 160"] * 2
    with Image.open(lines[0].split("   ")[0]) as picture:
        assert picture.mode == "RGB"
        assert picture.width == 2 * 320 + 8  # small images are enlarged
        assert picture.height > 320


def test_pictures_with_border_weights(intarsia, cells, tmp_path):
    words = ("data", "view", cells, "--weights", "--w0", 20, "--count", 9, "--out", tmp_path)
    code, out, _ = intarsia(*words)
    assert code == 0
    assert len(out.splitlines()) == 6  # as many as there are
    assert "objects, border weights 0 to " in out
    with Image.open(out.split("   ")[0]) as picture:
        assert picture.width == 3 * 320 + 16


@pytest.mark.parametrize("preset", ["unet", "none"])
def test_a_sheet_of_augmented_samples(intarsia, cells, tmp_path, preset):
    words = ("data", "view", cells, f"transforms={preset}", "data.size=64", "--augment", "--count", 2, "--out")
    code, out, _ = intarsia(*words, tmp_path / "one")
    assert code == 0
    assert out.strip() == str(tmp_path / "one" / "train-augmented.png")
    with Image.open(out.strip()) as picture:
        assert picture.width > picture.height
        first = np.asarray(picture)
    _, out, _ = intarsia(*words, tmp_path / "two")
    with Image.open(out.strip()) as picture:
        assert np.array_equal(np.asarray(picture), first)
    _, out, _ = intarsia(*words[:3], *words[3:], tmp_path / "three", "train.seed=5")
    with Image.open(out.strip()) as picture:
        assert not np.array_equal(np.asarray(picture), first)


def test_the_loss_of_the_settings_gives_w0_and_sigma(intarsia, cells, tmp_path):
    many = ("data", "view", cells, "loss=ce", "loss.border_w0=1", "loss.border_sigma=2", "--weights", "--count", 6)
    _, out, _ = intarsia(*many, "--out", tmp_path)
    tops = [float(line.rsplit(" ", 1)[1]) for line in out.splitlines()]
    assert 0.5 < max(tops) <= 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 2, "nowhere: is no folder, no YAML file and no recipe."),
        (
            ["{cells}", "--split", "tset"],
            2,
            "has no split 'tset'; there are: train (6), val (2), test (3). Did you mean",
        ),
        (["{cells}", "--count", "0"], 2, "--count"),
        (["{cells}", "--sigma", "3"], 2, "--w0 and --sigma say what the border weights are: give --weights as well."),
        (["{cells}", "--weights", "--sigma", "0"], 2, "border weights need w0 >= 0 and sigma > 0"),
        (["{cells}", "--weights", "--w0", "nan"], 2, "border weights need w0 >= 0 and sigma > 0"),
        (["{cells}", "lose=ce"], 2, "Did you mean 'loss'?"),
        (["{cells}", "--out", "{file}"], 74, "cannot be written"),
        (["{empty}"], 6, "has no folders images/ and masks/"),
    ],
)
def test_slips_are_one_line(intarsia, cells, tmp_path, words, code, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    places = {"cells": cells, "file": tmp_path / "file", "empty": tmp_path / "empty"}
    filled = [word.format(**places) for word in words]
    out = [] if "--out" in words else ["--out", tmp_path / "view"]
    met, stdout, stderr = intarsia("data", "view", *filled, *out)
    assert met == code
    assert message in stderr
    assert stdout == ""
    assert len(stderr.strip().splitlines()) == 1
    assert not (tmp_path / "view").exists()


def test_an_instance_file_of_another_size_is_one_line(intarsia, folder, tmp_path):
    root = folder(2)
    for name in ("i0", "i1"):
        write(root / "instances" / f"{name}.png", np.ones((5, 5), np.uint16))
    code, _, stderr = intarsia("data", "view", root, "--weights", "--out", tmp_path / "view")
    assert code == 6
    assert "is 5 x 5, its image" in stderr
    assert len(stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (300, 200)])
def test_any_size_of_image(folder, tmp_path, size):
    data = FolderConfig(path=str(folder(3, size=size, values=(0, 1, 255)))).open(Silent())
    (view,) = write_views(data, tmp_path / "view", count=1, border=Border(10.0, 5.0))
    with Image.open(view.path) as picture:
        assert max(picture.size) <= 3 * 800 + 200
    assert "connected parts of the mask" in view.caption


def test_names_of_deep_folders_become_file_names(tmp_path):
    for kind in ("images", "masks"):
        for index in range(3):
            write(tmp_path / "d" / kind / "a b" / f"ü {index}.png", np.eye(9, dtype=np.uint8))
    data = FolderConfig(path=str(tmp_path / "d")).open(Silent())
    (view,) = write_views(data, tmp_path / "view")
    assert re.fullmatch(r"train-0001-a-b-ü-\d\.png", view.path.name)


def test_heat_goes_from_dark_to_light_and_shows_objects_without_weight():
    weights = np.array([[0, 5, 10, 0]], np.float32)
    heat = heat_map(weights, np.array([[False, False, True, True]]), 10.0)
    assert heat[0, 0].tolist() == list(HEAT[0])
    assert heat[0, 2].tolist() == list(HEAT[-1])
    assert heat[0, :3].sum(-1).tolist() == sorted(heat[0, :3].sum(-1).tolist())
    assert heat[0, 3].sum() > heat[0, 0].sum()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['intarsia', 'data', 'view', '--help']\n"
        "from intarsia.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
