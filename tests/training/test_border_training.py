"""A border map in training: it reaches the loss, cropped as the mask is, and a resumed run repeats."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from intarsia.progress import Silent
from intarsia.training.feed import Batch
from intarsia.training.loop import _loss
from intarsia.training.train import train_model

SETTINGS = {
    "model": {"name": "unet_same", "width": 2, "depth": 2},
    "loss": {"name": "ce", "border_w0": 10.0},
    "train": {"steps": 6, "batch": 2, "validations": 2, "memory_format": "contiguous", "precision": "fp32"},
    "data": {"size": (48, 48)},
    "evaluate": {"after_training": False},
}


def weights(run):
    return load_file(run / "model-last" / "model.safetensors")


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    return train_model(cells, SETTINGS, out=tmp_path_factory.mktemp("border") / "run", progress=Silent())


def test_the_map_changes_what_is_learned(whole, cells, tmp_path):
    plain = train_model(cells, SETTINGS | {"loss": "ce"}, out=tmp_path / "plain", progress=Silent())
    assert not same(weights(whole), weights(plain))


def test_resumed_with_a_border_ends_the_same(whole, cells, tmp_path, monkeypatch):
    import intarsia.training.loop as loop

    original = loop.save_checkpoint

    def save_then_die(folder, counters, *rest):
        original(folder, counters, *rest)
        if counters.step == 3:
            raise InterruptedError

    monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
    with pytest.raises(InterruptedError):
        train_model(cells, SETTINGS, out=tmp_path / "run", progress=Silent())
    monkeypatch.undo()
    train_model(cells, {"train": {"workers": 2}}, out=tmp_path / "run", resume=True, progress=Silent())
    assert same(weights(whole), weights(tmp_path / "run"))


def test_u_net_without_padding_trains_with_a_border(cells, tmp_path):
    settings = SETTINGS | {"model": {"name": "unet", "width": 2, "depth": 1}, "data": {}}
    train = {"steps": 1, "batch": 1, "memory_format": "auto"}  # auto: the trial of layouts gets the weights as well
    run = train_model(cells, settings | {"train": train}, out=tmp_path / "run", progress=Silent())
    assert (run / "model-last").is_dir()


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_weights_are_cut_as_the_mask_is_and_reach_every_loss(auxiliary):
    seen = []

    def loss(logits, mask, weights=None):
        seen.append((mask, weights))
        return logits.sum()

    loss.at = lambda share: loss

    def model(image):
        return torch.zeros(image.shape[0], 3, 4, 5)

    model.with_auxiliary = lambda image: (model(image), [model(image), model(image)])
    config = SimpleNamespace(deep_supervision=True)
    training = SimpleNamespace(
        model=SimpleNamespace(config=config), config=SimpleNamespace(auxiliary=auxiliary), loss=loss, share=0.5
    )
    mask = torch.arange(80, dtype=torch.uint8).reshape(1, 8, 10)
    _loss(training, model, Batch(torch.zeros(1, 1, 8, 10), mask, mask.float()))
    assert len(seen) == (3 if auxiliary else 1)
    for cut, weight in seen:
        assert torch.equal(cut, mask[:, 2:6, 2:7])
        assert torch.equal(weight, cut.float())
    _loss(training, model, Batch(torch.zeros(1, 1, 8, 10), mask))
    assert seen[-1][1] is None
