"""A model folder that is read whole, and each way in which it can be damaged, done for real and refused by its own name."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from intarsia.classes import ClassTable
from intarsia.devices import Device
from intarsia.errors import (
    ConfigError,
    GoldenMismatch,
    HashMismatch,
    IntegrityError,
    NonFiniteWeights,
    PickleRefused,
    SaveError,
    TruncatedFile,
    UnknownName,
    WrongClassCount,
    WrongWeights,
)
from intarsia.images.preprocess import Preprocess
from intarsia.models import create_model
from intarsia.models.base import logits_for, take_over
from intarsia.models.saved import load_saved, save_model
from intarsia.runs import MANIFEST, WEIGHTS, file_sha256, read_manifest

TABLE = ClassTable(names=("sky", "road", "car"), colors=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
PREPROCESS = Preprocess(channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), scale=0.5)


def tiny(name="unet_same", **settings):
    torch.manual_seed(0)
    return create_model(name, num_classes=3, in_channels=3, **{"width": 2, "depth": 1, **settings})


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    assert save_model(folder, tiny(), TABLE, PREPROCESS, size=(32, 64), about={"start": "random weights"}) == ""
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "model")


def change(folder, *path, to):
    """One value of the manifest."""
    manifest = node = json.loads((folder / MANIFEST).read_text())
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = to
    (folder / MANIFEST).write_text(json.dumps(manifest))


def reweigh(folder, weights):
    """Other weights, with a manifest that fits them."""
    save_file({key: np.array(value, order="C") for key, value in weights.items()}, folder / WEIGHTS)
    change(folder, "files", WEIGHTS, to=file_sha256(folder / WEIGHTS))
    change(folder, "bytes", WEIGHTS, to=(folder / WEIGHTS).stat().st_size)


def weights_in(folder):
    return load_file(folder / WEIGHTS)


def test_everything_comes_back(folder):
    saved = load_saved(folder)
    assert (saved.table, saved.folder) == (TABLE, folder)
    assert saved.preprocess.to_dict() == PREPROCESS.to_dict()
    assert saved.digest == file_sha256(folder / WEIGHTS)
    assert saved.manifest["start"] == "random weights"
    assert saved.manifest["sizes"] == {"trained": [32, 64], "logits": [32, 64], "smallest": [1, 1]}
    assert not saved.model.training
    image = torch.rand(1, 3, 20, 30)
    with torch.no_grad():
        assert torch.allclose(logits_for(saved.model, image), logits_for(tiny().eval(), image), atol=1e-6)


def test_a_run_folder_will_do_and_a_device_may_be_named(folder):
    saved = load_saved(str(folder.parent), device=Device("cpu", 0, "bf16"))
    assert saved.folder == folder
    assert {value.dtype for value in saved.model.parameters()} == {torch.float32}


def test_sizes_of_a_network_that_loses_its_border(tmp_path):
    net = tiny("unet", depth=2)
    save_model(tmp_path / "model", net, TABLE, PREPROCESS, size=(60, 60))
    sizes = load_saved(tmp_path / "model").manifest["sizes"]
    assert sizes["logits"] == list(net.output_size(60, 60)) < [60, 60]
    assert sizes["smallest"] == list(net.input_size(1, 1)) > [1, 1]


def test_a_folder_of_an_earlier_version_is_read(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    for key in ("golden", "bytes", "sizes"):
        del manifest[key]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert load_saved(folder).table == TABLE


def flip(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))


def cut(folder):
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(500)


def empty(folder):
    (folder / WEIGHTS).write_bytes(b"")


def pickled(folder):
    torch.save(tiny().state_dict(), folder / WEIGHTS)


def no_safetensors(folder):
    (folder / WEIGHTS).write_bytes(b"\x10" + bytes(7) + b"not the header, nor weights at all")
    change(folder, "files", WEIGHTS, to=file_sha256(folder / WEIGHTS))
    change(folder, "bytes", to={})


def not_a_number(folder):
    weights = weights_in(folder)
    weights["head.weight"].flat[3] = np.nan
    reweigh(folder, weights)


def infinite(folder):
    weights = weights_in(folder)
    weights["head.bias"][1] = -np.inf
    reweigh(folder, weights)


def fewer_names(folder):
    change(folder, "classes", to=ClassTable(names=("sky", "road")).to_dict())


def more_names(folder):
    change(folder, "classes", to=ClassTable(names=("sky", "road", "car", "dog")).to_dict())


def four_classes_all_over(folder):
    """Table and network agree; the weights are of three classes."""
    more_names(folder)
    change(folder, "model", "num_classes", to=4)


def head_of_four(folder):
    weights = weights_in(folder)
    reweigh(folder, {key: value.repeat(2, 0)[:4] if "head" in key else value for key, value in weights.items()})


def other_architecture(folder):
    reweigh(folder, {key: value.numpy() for key, value in tiny("plain", width=4).state_dict().items()})


def other_width(folder):
    change(folder, "model", "width", to=5)


def one_tensor_less(folder):
    reweigh(folder, {key: value for key, value in weights_in(folder).items() if key != "head.bias"})


def other_mean(folder):
    change(folder, "preprocess", "mean", to=[0.6, 0.5, 0.4])


def other_torch(folder):
    """A network that another version of torch computes otherwise, as far as its folder can tell."""
    change(folder, "environment", "packages", "torch", to="2.0.0+cpu")
    other_mean(folder)


def other_range(folder):
    """The golden image is made to fit the range, so its logits are the same."""
    change(folder, "preprocess", "value_range", to=[0, 65535])


def other_scale(folder):
    change(folder, "preprocess", "scale", to=1.0)


def classes_permuted(folder):
    weights = weights_in(folder)
    reweigh(folder, {key: value[[1, 2, 0]] if "head" in key else value for key, value in weights.items()})


def channels_swapped(folder):
    weights = weights_in(folder)
    first = next(key for key, value in weights.items() if value.ndim == 4 and value.shape[1] == 3)
    reweigh(folder, {**weights, first: weights[first][:, ::-1]})


REFUSALS = [
    (flip, HashMismatch, "sha256 differs"),
    (no_safetensors, HashMismatch, "no safetensors file"),
    (cut, TruncatedFile, "has 500 of"),
    (empty, TruncatedFile, "has 0 of"),
    (pickled, PickleRefused, "could run code"),
    (not_a_number, NonFiniteWeights, r"first head\.weight.*model-last"),
    (infinite, NonFiniteWeights, r"first head\.bias"),
    (fewer_names, WrongClassCount, "names 2 classes, its network has 3"),
    (more_names, WrongClassCount, "names 4 classes, its network has 3"),
    (four_classes_all_over, WrongClassCount, "has 4 classes, that of the weights 3"),
    (head_of_four, WrongClassCount, "has 3 classes, that of the weights 4"),
    (other_architecture, WrongWeights, "tensors differ"),
    (other_width, WrongWeights, "tensors differ"),
    (one_tensor_less, WrongWeights, r"1 tensors differ, first head\.bias"),
    (
        other_mean,
        GoldenMismatch,
        r"differ by up to .*, allowed is .*the same, so the folder was changed: copy it again",
    ),
    (other_torch, GoldenMismatch, r"saved with torch 2\.0\.0, here are torch .*pip install torch==2\.0\.0"),
    (other_range, GoldenMismatch, "value_range"),
    (other_scale, GoldenMismatch, "differ by up to"),
    (classes_permuted, GoldenMismatch, "differ by up to"),
    (channels_swapped, GoldenMismatch, "differ by up to"),
]


@pytest.mark.parametrize(("damage", "name", "message"), REFUSALS, ids=[each[0].__name__ for each in REFUSALS])
def test_what_is_not_what_was_saved_is_refused_by_name(damage, name, message, folder):
    damage(folder)
    with pytest.raises(IntegrityError, match=message) as refusal:
        load_saved(folder)
    assert type(refusal.value) is name
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)
    if name is GoldenMismatch:  # all else about it is right
        load_saved(folder, golden=False)


def test_the_path_of_a_pickle(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "best.pt")
    with pytest.raises(PickleRefused, match=r"best\.pt: is a pickle"):
        load_saved(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("classes",), {"names": []}, "1 to 255 classes"),
        (("classes",), "sky", "damaged"),
        (("preprocess", "std"), [0, 0, 0], "std must be positive"),
        (("preprocess",), None, "damaged"),
        (("model", "breadth"), 3, "no such setting.*update intarsia"),
        (("model", "in_channels"), 1, "prepares 3 channels, its network takes 1"),
    ],
)
def test_a_manifest_that_cannot_be_meant(path, value, message, folder):
    change(folder, *path, to=value)
    with pytest.raises(IntegrityError, match=message):
        load_saved(folder)


def test_a_network_that_is_not_installed_is_said(folder):
    change(folder, "model", "name", to="unet_sane")
    with pytest.raises(UnknownName, match="Did you mean 'unet_same'"):
        load_saved(folder)


def test_start_weights_are_checked_too(folder):
    assert take_over(tiny(), folder) == []
    not_a_number(folder)
    with pytest.raises(NonFiniteWeights):
        take_over(tiny(), folder)
    pickled(folder)
    with pytest.raises(PickleRefused):
        take_over(tiny(), folder)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    net = tiny()
    torch.nn.init.constant_(net.get_submodule("head").bias, torch.nan)
    with pytest.raises(SaveError, match=r"not finite, first head\.bias"):
        save_model(tmp_path / "model", net, TABLE, PREPROCESS)
    assert not (tmp_path / "model").exists()


class Unwell(torch.nn.Module):
    """As a network for which there is not enough memory."""

    def forward(self, image_NCHW):
        raise torch.OutOfMemoryError("no memory\nand more about it")


def test_a_golden_output_that_cannot_be_computed_is_said_and_left_out(tmp_path):
    net = tiny()
    keys = set(net.state_dict())
    net.add_module("head", torch.nn.Sequential(net.get_submodule("head"), Unwell()))
    reason = save_model(tmp_path / "model", net, TABLE, PREPROCESS)
    assert reason == "no golden output was kept: no memory"
    assert "golden" not in read_manifest(tmp_path / "model")
    assert len(weights_in(tmp_path / "model")) == len(keys)
    assert net.training


def test_training_leaves_golden_outputs(tiny_run):
    for name in ("model", "model-last"):
        saved = load_saved(tiny_run / name)
        assert np.shape(saved.manifest["golden"]["logits"]) == (saved.table.count, 8, 8)
        assert saved.manifest["sizes"]["trained"] == [64, 64]
        assert saved.manifest["model"] == saved.model.config.to_dict()
    with pytest.raises(ConfigError, match="does not exist"):
        load_saved(tiny_run / "nowhere")
