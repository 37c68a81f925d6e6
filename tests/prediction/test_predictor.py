"""Prediction: from whatever names an image to a class map of its size."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import intarsia as ia
from intarsia.errors import ConfigError, DataError, IntegrityError, PartialFailure
from intarsia.prediction.inputs import find_images, unique_names
from tests.conftest import write


@pytest.fixture(scope="module")
def model(tiny_run):
    return ia.load(tiny_run)


def test_result_is_a_class_map_and_more(model, cells):
    result = model.predict(cells / "test" / "images" / "cells_000.png", probabilities=True)
    assert result.classes.shape == result.shape == (160, 160)
    assert np.array_equal(np.asarray(result), result.classes)
    assert result.probabilities.sum(0) == pytest.approx(np.ones((160, 160)), abs=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.classes)
    assert np.array_equal(result.one_hot().argmax(0), result.classes)
    assert sum(result.shares.values()) == pytest.approx(1)
    assert result.overlay().width == 160
    assert "<img" in result._repr_html_()


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (97, 131)])
@pytest.mark.parametrize("kind", ["grey", "rgb", "rgba", "pillow", "one channel"])
def test_any_size_and_kind_of_image(model, size, kind):
    grey = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    image = {
        "grey": grey,
        "rgb": np.stack([grey] * 3, -1),
        "rgba": np.stack([grey] * 4, -1),
        "pillow": Image.fromarray(grey),
        "one channel": grey[..., None],
    }[kind]
    assert model.predict(image).classes.shape == size


def test_same_image_same_answer_whatever_it_comes_as(model, cells):
    path = cells / "test" / "images" / "cells_001.png"
    from_path = model.predict(path).classes
    assert np.array_equal(from_path, model.predict(str(path)).classes)
    assert np.array_equal(from_path, model.predict(np.asarray(Image.open(path))).classes)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), "uint8 or uint16, got float64"),
        (np.zeros((4, 4, 7), np.uint8), r"the network|must be"),
        (np.zeros((0, 4), np.uint8), r"got \(0, 4\)"),
        (np.zeros(5, np.uint8), "must be"),
    ],
)
def test_arrays_that_are_no_images(model, image, message):
    with pytest.raises(DataError, match=message):
        model.predict(image)


def test_scale_is_undone(tiny_run, tmp_path, cells):
    copy = tmp_path / "model"
    shutil.copytree(tiny_run / "model", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["preprocess"]["scale"] = 0.5
    del manifest["golden"]  # which is right to refuse such a change
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert ia.load(copy).predict(cells / "test" / "images" / "cells_000.png").shape == (160, 160)


def damage_weights(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 4
    (folder / "model.safetensors").write_bytes(bytes(content))


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_manifest(folder):
    (folder / "manifest.json").write_text("{")


def newer_format(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))


def other_network(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["width"] = 5
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, "sha256 differs"),
        (remove_weights, "is missing"),
        (cut_manifest, "missing or damaged"),
        (newer_format, "has format 99.*Update intarsia"),
        (other_network, "tensors differ"),
    ],
)
def test_a_damaged_model_is_never_used(damage, message, tiny_run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_run / "model", folder)
    damage(folder)
    with pytest.raises(IntegrityError, match=message):
        ia.load(folder)


def test_no_model(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        ia.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is no run and no model folder"):
        ia.load(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(ConfigError, match="no model yet"):
        ia.load(tmp_path)


def test_batch_does_what_can_be_done(model, cells, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    seen = []
    with pytest.raises(PartialFailure, match="1 of 4"):
        ia.predict(model, [bad, cells / "test" / "images"], out=tmp_path / "out", done=seen.append)
    assert len(seen) == 3
    assert all(written.classes.is_file() for written in seen)


def test_an_image_is_never_overwritten_by_its_result(model, tmp_path):
    image = write(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    before = image.read_bytes()
    with pytest.raises(ConfigError, match=r"holds the image a\.png itself"):
        ia.predict(model, image, out=tmp_path)
    assert image.read_bytes() == before


def test_names_stay_apart(tmp_path):
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", tmp_path / "b" / "x.jpg"]
    names = unique_names(paths)
    assert len(set(names)) == 3
    assert unique_names(paths[:1]) == ["x"]
    with pytest.raises(ConfigError, match="holds no images"):
        find_images([tmp_path])


def test_run_object(tiny_run):
    from intarsia.evaluation.experiment import Run

    run = Run(tiny_run)
    assert 0 <= run.metrics["test"].mean_iou <= 1
    assert run.report is not None
    assert "mean IoU" in run._repr_html_()
    assert np.array_equal(ia.load(run).table.names, ("background", "cell", "nucleus"))
