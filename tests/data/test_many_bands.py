"""A folder of images of many bands, from check to report: found, learned, scored, shown, predicted."""

import json

import numpy as np
import pytest
import tifffile

from intarsia.data import FolderConfig
from intarsia.data.combine import CombinedConfig
from intarsia.errors import DataError
from intarsia.evaluation.experiment import train
from intarsia.images.files import read_image
from intarsia.prediction.predictor import load
from intarsia.progress import Silent
from tests.conftest import TINY, write

BANDS = 5


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Five bands in units of their own; the class is where the last band is high; a corner without value."""
    root = tmp_path_factory.mktemp("fields")
    rng = np.random.default_rng(0)
    for index in range(8):
        mask = np.zeros((40, 56), np.uint8)
        top, left = rng.integers(4, 20, 2)
        mask[top : top + 14, left : left + 20] = 1
        pixels = rng.normal(0, 1, (40, 56, BANDS)) * [1, 10, 1000, 0.01, 0.1] + [0, 0, 5000, 0, 0]
        pixels[..., 4] += mask
        pixels[:3, :4] = np.nan
        write(root / "masks" / f"{index}.png", mask)
        (root / "images").mkdir(exist_ok=True)
        tifffile.imwrite(
            root / "images" / f"{index}.tif", pixels.astype(np.float32), photometric="minisblack", planarconfig="contig"
        )
    return root


@pytest.fixture(scope="module")
def run(fields, tmp_path_factory):
    return train(
        fields,
        out=tmp_path_factory.mktemp("runs") / "fields",
        progress=Silent(),
        model=TINY,
        train={"steps": 30, "batch": 4, "validations": 1, "lr": 0.01, "memory_format": "contiguous"},
        data={"size": (32, 32)},
        transforms={"name": "unet", "elastic": 2.0},
    )


def test_each_band_has_its_own_range(fields):
    data = FolderConfig(path=str(fields)).open(Silent())
    low, high = data.value_range
    assert len(low) == len(high) == len(data.mean) == data.channels == BANDS
    assert low[2] > 1000 > high[1]
    assert 0.1 < min(data.std) < max(data.std) < 0.5
    assert all(item.nodata for items in data.splits.values() for item in items)
    mask = data.read_mask(data.items("train")[0])
    assert (mask[:3, :4] == 255).all()
    assert (mask[3:] != 255).all()
    assert data.picture(data.items("train")[0]).shape == (40, 56, 3)


def test_training_learns_the_band_that_tells_the_class(run, fields):
    predictor = load(run, device="cpu")
    assert predictor.preprocess.channels == BANDS
    path = fields / "images" / "0.tif"
    found = predictor.predict(path)
    truth = read_image(path).pixels[..., 4] > 0.5
    assert (found.classes == truth)[4:].mean() > 0.9
    assert found.image.shape == (40, 56, 3)
    decoded = read_image(path)
    of_array = predictor.predict(decoded.pixels).classes
    assert np.array_equal(np.where(decoded.nodata, 255, of_array), found.classes)
    holes = decoded.pixels.copy()
    holes[decoded.nodata] = np.nan
    assert np.array_equal(predictor.predict(holes).classes, found.classes)
    assert (run.path / "augmented.png").is_file()


def test_an_image_of_other_bands_is_refused(run):
    with pytest.raises(DataError, match="the network takes 5 bands, the image has 3"):
        load(run, device="cpu").predict(np.zeros((8, 8, 3), np.uint8))


def test_chosen_bands_stay_with_the_model(fields, tmp_path):
    chosen = train(
        fields,
        out=tmp_path / "run",
        progress=Silent(),
        model=TINY,
        train={"steps": 1, "batch": 2, "validations": 1, "memory_format": "contiguous"},
        data={"size": (32, 32), "bands": (5, 1)},
    )
    predictor = load(chosen, device="cpu")
    assert predictor.preprocess.bands == (5, 1)
    assert predictor.predict(fields / "images" / "0.tif").shape == (40, 56)


def test_the_command_line_tells_and_shows(fields, tmp_path, intarsia):
    def said(*words):
        code, text, errors = intarsia(*words)
        assert code == 0, errors
        return text

    text = said("data", "check", fields)
    assert "5 bands, values" in text
    assert "each band by its own range" in text
    assert "96 pixels of 8 images have no value" in text
    assert "channels   5; values" in said("data", "stats", fields)
    said("data", "view", fields, "--sheet", "--out", tmp_path / "sheet.png")
    said("data", "view", fields, "--augment", "--out", tmp_path / "augment.png")
    assert json.loads(said("data", "check", fields, "--json"))["channels"] == BANDS


def test_parts_must_agree_in_bands(fields, folder):
    rng = np.random.default_rng(0)
    other = folder(3).parent / "floats"
    for index in range(3):
        write(other / "masks" / f"{index}.png", rng.integers(0, 2, (8, 9), dtype=np.uint8))
        (other / "images").mkdir(exist_ok=True)
        pixels = rng.random((8, 9, 2), dtype=np.float32)
        tifffile.imwrite(other / "images" / f"{index}.tif", pixels, photometric="minisblack", planarconfig="contig")
    parts = [{"path": str(fields)}, {"path": str(other)}]
    with pytest.raises(DataError, match=r"different bands \(fields\d* 5, floats 2\)"):
        CombinedConfig(parts=parts).open(Silent())
    parts[0]["bands"] = [1, 5]
    data = CombinedConfig(parts=parts).open(Silent())
    assert data.channels == 2
    assert data.bands is None
