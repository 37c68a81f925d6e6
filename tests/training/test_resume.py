"""A run that is killed and resumed ends with the same weights as one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from intarsia.errors import ConfigError, Diverged, IntegrityError, SaveError
from intarsia.progress import Silent
from intarsia.training.state import checkpoints, newest_checkpoint, verify
from intarsia.training.train import train_model
from tests.conftest import TINY

SETTINGS = {
    "model": {**TINY, "dropout": 0.2},
    "train": {
        "steps": 18,
        "batch": 2,
        "validations": 6,
        "ema": 0.5,
        "memory_format": "contiguous",
        "precision": "fp32",
    },
    "data": {"size": (48, 48)},
    "evaluate": {"after_training": False},
}


def words(cells, out, *more):
    return [
        *(sys.executable, "-m", "intarsia", "train", str(cells), "--out", str(out)),
        *("model=unet_same", "model.width=4", "model.depth=2", "model.dropout=0.2", "data.size=[48,48]"),
        *("train.steps=18", "train.batch=2", "train.validations=6", "train.ema=0.5"),
        *("train.memory_format=contiguous", "train.precision=fp32", "evaluate.after_training=false", *more),
    ]


def weights(run, name="model-last"):
    return load_file(run / name / "model.safetensors")


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    """The run that nobody disturbed."""
    return train_model(cells, SETTINGS, out=tmp_path_factory.mktemp("whole") / "run", progress=Silent())


def test_twice_the_same(whole, cells, tmp_path):
    again = train_model(cells, SETTINGS, out=tmp_path / "run", progress=Silent())
    assert same(weights(whole), weights(again))
    assert same(weights(whole, "model"), weights(again, "model"))


@pytest.mark.parametrize("step", [3, 9, 15])
def test_resumed_from_any_checkpoint_ends_the_same(step, whole, cells, tmp_path, monkeypatch):
    run = tmp_path / "run"

    class Killed(Exception):
        pass

    import intarsia.training.loop as loop

    original = loop.save_checkpoint

    def save_then_die(folder, counters, *rest, **options):
        original(folder, counters, *rest, **options)
        if counters.step >= step:
            raise Killed

    monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
    with pytest.raises(Killed):
        train_model(cells, SETTINGS, out=run, progress=Silent())
    monkeypatch.undo()
    assert not (run / "model-last").exists()
    train_model(cells, {"train": {"workers": 2}}, out=run, resume=True, progress=Silent())
    assert same(weights(whole), weights(run))
    assert same(weights(whole, "model"), weights(run, "model"))
    ours, theirs = ((path / "metrics.csv").read_text().splitlines() for path in (run, whole))
    assert [line.split(",")[0] for line in ours] == [line.split(",")[0] for line in theirs]
    assert [line.split(",")[5:] for line in ours] == [line.split(",")[5:] for line in theirs]


def test_sigkill_in_the_middle_then_resume_ends_the_same(whole, cells, tmp_path):
    run = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    first = subprocess.Popen(words(cells, run), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoints(run / "checkpoints") and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    subprocess.run(words(cells, run, "--resume"), env=environment, check=True, capture_output=True)
    assert same(weights(whole), weights(run))


def test_sigterm_saves_and_says_how_to_go_on(cells, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(words(cells, run, "train.steps=100000"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "--resume" in text
    assert str(run) in text
    assert "Traceback" not in text
    found, skipped = newest_checkpoint(run / "checkpoints")
    assert found is not None
    assert not skipped


def test_a_damaged_checkpoint_is_passed_over_and_said(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    newest, older = checkpoints(run / "checkpoints")
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (newest / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(IntegrityError):
        verify(newest)
    found, skipped = newest_checkpoint(run / "checkpoints")
    assert found == older
    assert newest.name in skipped[0]
    for name in ("meta.json", "train_state.pt"):
        (older / name).write_bytes((older / name).read_bytes()[:20])
        assert newest_checkpoint(run / "checkpoints")[0] is None


def test_a_half_written_checkpoint_is_never_seen(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "checkpoints" / ".step_00000099.tmp").mkdir()
    assert newest_checkpoint(run / "checkpoints")[0].name == "step_00000018"


def test_checkpoints_are_kept_to_two_and_load_without_pickle(whole):
    kept = checkpoints(whole / "checkpoints")
    assert [path.name for path in kept] == ["step_00000018", "step_00000015"]
    state = torch.load(kept[0] / "train_state.pt", weights_only=True)
    assert state["counters"]["step"] == 18


def test_a_finished_run_goes_on_when_given_more_steps(whole, cells, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    train_model(cells, {"train": {"steps": 20}}, out=run, resume=True, progress=Silent())
    assert json.loads((run / "model-last" / "manifest.json").read_text())["trained"]["step"] == 20


def test_a_resume_takes_settings_and_changes_together(whole, cells, tmp_path):
    from intarsia.evaluation.experiment import train

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    train(cells, ["train.steps=20"], out=run, resume=True, progress=Silent(), train={"workers": 1})
    assert json.loads((run / "model-last" / "manifest.json").read_text())["trained"]["step"] == 20
    with pytest.raises(ConfigError, match=r"only train\.\{epochs"):
        train(cells, ["train.lr=0.5"], out=run, resume=True, progress=Silent(), train={"workers": 1})


def test_resume_refuses_other_settings_and_a_missing_run(whole, cells):
    with pytest.raises(ConfigError, match=r"only train\.\{epochs"):
        train_model(cells, {"train": {"lr": 0.5}}, out=whole, resume=True, progress=Silent())
    with pytest.raises(ConfigError, match="needs --out"):
        train_model(cells, SETTINGS, resume=True, progress=Silent())
    with pytest.raises(ConfigError, match="exists and is not empty"):
        train_model(cells, SETTINGS, out=whole, progress=Silent())


def test_loss_that_is_never_finite_stops_with_a_reason(cells, tmp_path, monkeypatch):
    from intarsia.losses import CrossEntropyDiceConfig

    monkeypatch.setattr(CrossEntropyDiceConfig, "of", lambda self, pixels: pixels.log_p_NKP.sum() * float("nan"))
    with pytest.raises(Diverged, match=r"10 steps in a row.*train\.lr"):
        train_model(cells, SETTINGS, out=tmp_path / "run", progress=Silent())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    import numpy as np

    from intarsia.runs import write_model

    with pytest.raises(SaveError, match=r"not finite, first w"):
        write_model(tmp_path / "model", {"w": np.array([np.nan], np.float32)}, {})
    assert not (tmp_path / "model").exists()


def test_a_full_disk_is_loud_and_keeps_the_older_checkpoint(whole, tmp_path, monkeypatch):
    import intarsia.training.state as state
    from intarsia.models import create_model

    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", folder)

    def no_space(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save_file", no_space)
    model = create_model("unet_same", width=2, depth=1)
    with pytest.raises(SaveError, match="No space left"):
        state.save_checkpoint(folder, state.Counters(step=99), model, None, torch.optim.SGD(model.parameters(), lr=1))
    assert newest_checkpoint(folder)[0].name == "step_00000018"


def test_resume_needs_no_start_weights_and_keeps_their_normalisation(tiny_run, cells, tmp_path):
    """The weights that a run started from may be gone when it is gone on with; a checkpoint holds all that is needed."""
    source = tmp_path / "source"
    shutil.copytree(tiny_run, source)
    settings = {**SETTINGS, "model": {**TINY, "start_from": str(source)}, "train": {**SETTINGS["train"], "steps": 4}}
    run = train_model(cells, settings, out=tmp_path / "run", progress=Silent())
    began = json.loads((run / "start.json").read_text())
    assert began["weights"] == "weights of source"
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    assert began["preprocess"] == manifest["preprocess"]
    shutil.rmtree(source)
    train_model(cells, {"train": {"steps": 6}}, out=run, resume=True, progress=Silent())
    again = json.loads((run / "model-last" / "manifest.json").read_text())
    assert again["preprocess"] == manifest["preprocess"]
    assert again["trained"]["step"] == 6
    assert again["start"] == "weights of source"
