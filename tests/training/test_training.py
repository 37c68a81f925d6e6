"""What a run leaves behind, and the parts of the loop."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import intarsia
from intarsia.config import read_yaml
from intarsia.errors import ConfigError
from intarsia.models import create_model
from intarsia.progress import Silent
from intarsia.recipes import TrainConfig, load_recipe
from intarsia.training.history import read_history
from intarsia.training.optimizers import make_optimizer
from intarsia.training.schedules import lr_factor
from intarsia.training.train import train_model
from tests.conftest import TINY


def test_everything_of_a_run_is_there(tiny_run):
    for name in ("recipe.yaml", "classes.yaml", "splits.json", "environment.json", "metrics.csv", "curves.png"):
        assert (tiny_run / name).is_file(), name
    for name in ("augmented.png", "model/manifest.json", "model-last/model.safetensors", "report/index.html"):
        assert (tiny_run / name).is_file(), name
    with Image.open(tiny_run / "augmented.png") as picture:
        assert picture.size == (4 * 64, 4 * 64)


def test_the_recipe_is_resolved_and_reads_back(tiny_run, cells):
    stored = read_yaml(tiny_run / "recipe.yaml")
    assert stored["model"]["num_classes"] == 3
    assert stored["model"]["in_channels"] == 1
    assert stored["train"]["memory_format"] == "contiguous"
    assert stored["data"]["path"] == str(cells)
    assert load_recipe(tiny_run / "recipe.yaml").model.width == 4


def test_the_manifest_tells_what_prediction_needs(tiny_run):
    manifest = json.loads((tiny_run / "model" / "manifest.json").read_text())
    assert manifest["classes"]["names"] == ["background", "cell", "nucleus"]
    assert manifest["preprocess"]["channels"] == 1
    assert len(manifest["files"]["model.safetensors"]) == 64
    assert manifest["environment"]["packages"]["torch"]


def test_history_has_losses_and_validations(tiny_run):
    rows = read_history(tiny_run / "metrics.csv")
    assert [row["step"] for row in rows if row["val_mean_iou"] is not None] == [4, 8, 12]
    assert any(row["loss"] is not None for row in rows)


def test_training_lowers_the_loss(cells, tmp_path):
    settings = {"model": {**TINY, "width": 8}, "train": {"steps": 60, "batch": 4, "lr": 0.01, "validations": 2}}
    run = train_model(cells, settings | {"data": {"size": (64, 64)}}, out=tmp_path / "run", progress=Silent())
    losses = [row["loss"] for row in read_history(run / "metrics.csv") if row["loss"] is not None]
    assert losses[-1] < 0.7 * losses[0]


def test_neither_timm_nor_torchvision_is_imported_unless_needed(cells, tmp_path):
    code = (  # Lightning imports torchmetrics where it is installed, and that torchvision: hidden, as they are not ours
        "import sys; sys.modules['torchmetrics'] = None\n"
        "from intarsia.training.train import train_model; from intarsia.progress import Silent;"
        f"train_model({str(cells)!r}, ['model=unet_same', 'model.width=2', 'model.depth=1', 'train.steps=1'],"
        f" out={str(tmp_path / 'run')!r}, progress=Silent());"
        "print([name for name in ('timm', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_valid_unet_trains_and_validates_on_whole_images(cells, tmp_path):
    settings = {
        "model": {"name": "unet", "width": 2, "depth": 2},
        "train": {"steps": 2, "batch": 2, "validations": 1, "memory_format": "contiguous"},
    }
    run = train_model(cells, settings, out=tmp_path / "run", progress=Silent())
    assert read_history(run / "metrics.csv")[-1]["val_mean_iou"] is not None


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_schedule_rises_then_falls_to_zero(schedule):
    config = TrainConfig(schedule=schedule, warmup=0.1)
    factors = [lr_factor(share, config) for share in np.linspace(0, 1, 101)]
    assert factors[10] == pytest.approx(1.0)
    assert np.all(np.diff(factors[:11]) > 0)
    assert np.all(np.diff(factors[10:]) < 0)
    assert factors[-1] == 0
    assert lr_factor(0.55, TrainConfig(schedule="poly", warmup=0.1)) == pytest.approx(0.5**0.9)


def test_biases_and_norms_are_not_decayed_and_the_encoder_has_its_rate():
    pytest.importorskip("timm")
    model = create_model("encdec", pretrained="none")
    groups = make_optimizer(model, TrainConfig(lr=0.1, encoder_lr=0.5, weight_decay=0.3)).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] > 0) for parameter in group["params"])
    assert {group["peak"] for group in groups} == {0.1, 0.05}


def test_minutes_bound_a_run(cells, tmp_path):
    settings = {"model": TINY, "train": {"minutes": 0.02, "batch": 2, "validations": 2, "memory_format": "contiguous"}}
    run = train_model(cells, settings | {"data": {"size": (32, 32)}}, out=tmp_path / "run", progress=Silent())
    rows = read_history(run / "metrics.csv")
    assert rows[-1]["seconds"] < 10
    assert rows[-1]["step"] >= 1


def test_patience_stops_early(cells, tmp_path, monkeypatch):
    import intarsia.training.loop as loop
    from intarsia.metrics import overlap_scores

    monkeypatch.setattr(
        loop, "_validate", lambda t, net: (_count(t), (overlap_scores(np.eye(3, dtype=np.int64)), 0.0))[1]
    )
    settings = {
        "model": TINY,
        "train": {"steps": 100, "batch": 2, "validations": 50, "patience": 3},
        "data": {"size": (32, 32)},
    }
    run = train_model(cells, settings, out=tmp_path / "run", progress=Silent())
    assert read_history(run / "metrics.csv")[-1]["step"] == 8


def _count(training):
    training.counters.validations += 1


def test_accumulated_gradients_equal_those_of_the_larger_batch(cells, tmp_path):
    base = {"model": {**TINY, "norm": "none"}, "data": {"size": (32, 32)}, "loss": "ce"}
    common = {"steps": 1, "validations": 1, "memory_format": "contiguous", "precision": "fp32"}
    runs = [
        train_model(cells, base | {"train": common | part}, out=tmp_path / name, progress=Silent())
        for name, part in (("big", {"batch": 4}), ("parts", {"batch": 2, "accumulate": 2}))
    ]
    from safetensors.torch import load_file

    first, second = (load_file(run / "model-last" / "model.safetensors") for run in runs)
    assert all(torch.allclose(first[key], second[key], atol=2e-4) for key in first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.num_classes=2", "model=unet_same"], r"model\.num_classes: is 2, but cells has 3"),
        (["train.device=cuda:7"], "there is no cuda:7 here"),
        (["train.device=gpu"], "must be auto, cpu"),
        (["data.classes=nowhere.yaml"], r"data\.classes: nowhere\.yaml does not exist"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings, message, cells, tmp_path):
    with pytest.raises(Exception, match=message) as error:
        train_model(cells, settings, out=tmp_path / "run", progress=Silent())
    assert isinstance(error.value, ConfigError) or "does not exist" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_deep_supervision_trains_its_logits_and_predicts_without_them(cells, tmp_path):
    model = {**TINY, "deep_supervision": True}
    settings = {"model": model, "train": {"steps": 6, "batch": 2}, "data": {"size": (48, 48)}}
    run = train_model(cells, settings, out=tmp_path / "run", progress=Silent())
    trained = load_file(run / "model-last" / "model.safetensors")
    torch.manual_seed(0)
    fresh = create_model("unet_same", num_classes=3, in_channels=1, width=4, depth=2, deep_supervision=True)
    key = "auxiliary.0.weight"
    assert trained[key].shape == fresh.state_dict()[key].shape
    without = train_model(
        cells, {**settings, "train": {**settings["train"], "auxiliary": 0.0}}, out=tmp_path / "other", progress=Silent()
    )
    assert not torch.equal(trained[key], load_file(without / "model-last" / "model.safetensors")[key])
    result = intarsia.load(run).predict(np.zeros((50, 60), np.uint8))
    assert result.classes.shape == (50, 60)


def test_a_model_starts_from_a_run_with_other_classes(tiny_run, folder, tmp_path):
    other = folder(count=6, size=(64, 64), values=(0, 1), name="two")
    settings = {
        "model": {**TINY, "in_channels": 3, "start_from": str(tiny_run)},
        "train": {"steps": 2, "batch": 2},
        "data": {"size": (48, 48)},
    }
    run = train_model(other, settings, out=tmp_path / "run", progress=Silent())
    started = json.loads((run / "start.json").read_text())["weights"]
    assert started == f"weights of {tiny_run.name}, but for 3 of 66 tensors"  # the grey first layer, two last ones
    assert json.loads((run / "model" / "manifest.json").read_text())["start"] == started


def test_a_model_that_is_not_there_is_told(cells, tmp_path):
    settings = {"model": {**TINY, "start_from": str(tmp_path / "none")}, "train": {"steps": 1}}
    with pytest.raises(ConfigError, match="does not exist"):
        train_model(cells, settings, out=tmp_path / "run", progress=Silent())


def test_validations_take_at_most_a_quarter_of_the_time(monkeypatch):
    from intarsia.training import loop

    clock = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    pace = loop.Pace()
    assert pace.affordable
    pace.begins()
    clock[0] += 8
    pace.ends()
    assert not pace.affordable
    clock[0] += 23.9
    assert not pace.affordable
    clock[0] += 0.1
    assert pace.affordable
