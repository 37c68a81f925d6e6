"""Masks in doubt: a wrong mask comes first, thin disagreement and ignored pixels do not count, pictures are drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from intarsia.data import FolderConfig
from intarsia.errors import ConfigError
from intarsia.evaluation import label_errors as module
from intarsia.evaluation.batch_size import largest_batch
from intarsia.models.base import MODELS
from intarsia.progress import Silent
from intarsia.recipes.recipe import Recipe
from intarsia.training.validation import Scored
from tests.conftest import TINY, write


@pytest.fixture
def squares(tmp_path):
    """Images whose brightness says the class; in i2 a square is missing from the mask, in i1 it is ignored."""
    for index in range(4):
        mask = np.zeros((40, 50), np.uint8)
        mask[5:15, 5:25] = 1
        mask[20:32, 30:45] = 2
        write(tmp_path / "set" / "images" / f"i{index}.png", mask * 100)
        if index in (1, 2):
            mask[20:32, 30:45] = {1: 255, 2: 0}[index]
        write(tmp_path / "set" / "masks" / f"i{index}.png", mask)
    (tmp_path / "set" / "classes.yaml").write_text("names: [background, b, c]")
    return FolderConfig(path=str(tmp_path / "set")).open(Silent())


@pytest.fixture
def sure(monkeypatch, squares):
    """A model that reads the class off the brightness, with probability 0.99, and is unsure in one corner."""

    def score(network, dataset, items, **settings):
        for item in items:
            prediction = dataset.read_image(item) // 100
            logits = torch.zeros(1, 3, *prediction.shape)
            logits[0].scatter_(0, torch.from_numpy(prediction[None].astype(np.int64)), 6.0)
            logits[..., :4, :4] *= 0.01
            yield Scored(item, prediction, dataset.read_mask(item), np.zeros((3, 3), np.int64), 0.0, logits)

    predictor = SimpleNamespace(table=squares.table, network=None)
    monkeypatch.setattr(module, "score_images", score)
    monkeypatch.setattr(module, "load", lambda run, device: predictor)


def test_the_missing_square_is_found_with_its_place_and_classes(squares, sure):
    (doubt,) = module.find_label_errors("run", squares, Silent())
    assert doubt.item.name == "i2"
    assert doubt.share == pytest.approx(12 * 15 / (40 * 50))
    assert (doubt.largest, doubt.box) == (180, (20, 30, 31, 44))
    assert doubt.pair == ("background", "c")
    assert "mask background, model c" in doubt.line()
    assert module.sheet_of_doubts(squares, [doubt]).ndim == 3


def test_at_most_so_many_the_worst_first(squares, sure):
    for index, rows in ((0, 3), (3, 8)):
        path = squares.root / "masks" / f"i{index}.png"
        mask = np.zeros((40, 50), np.uint8)
        mask[5:15, 5:25] = 1
        mask[20 : 32 - rows, 30:45] = 2
        write(path, mask)
    names = [doubt.item.name for doubt in module.find_label_errors("run", squares, Silent(), most=2)]
    assert names == ["i2", "i3"]


def test_a_model_of_other_classes_is_refused(tiny_run, folder):
    data = FolderConfig(path=str(folder(4))).open(Silent())
    with pytest.raises(
        ConfigError, match=r"was trained on the classes background, cell, nucleus; set has background, f"
    ):
        module.find_label_errors(tiny_run, data, Silent())


def test_batch_estimates_grow_with_the_model_and_the_sample(cells):
    def estimate(**changes):
        recipe = Recipe().replace({"data": {"path": str(cells), **changes.pop("data", {})}, "model": TINY, **changes})
        return largest_batch(recipe, recipe.data.open(Silent()))

    small = estimate(data={"size": (64, 64)})
    large = estimate(data={"size": (128, 128)})
    wide = estimate(data={"size": (64, 64)}, model={**TINY, "width": 16})
    assert small is not None
    assert large.bytes_per_sample == pytest.approx(4 * small.bytes_per_sample, rel=0.01)
    assert wide.bytes_per_sample > 3 * small.bytes_per_sample
    assert small.largest > large.largest > 0
    assert "an estimate" in small.text()


@pytest.mark.parametrize("name", ["unet", "segnet", "fcdensenet56", "fcn8s_vgg16", "encdec"])
def test_there_is_an_estimate_for_models_of_each_kind(cells, name):
    assert name in MODELS.names()
    recipe = Recipe().replace(data={"path": str(cells)}, model=name)
    assert largest_batch(recipe, recipe.data.open(Silent())).bytes_per_sample > 1 << 20
