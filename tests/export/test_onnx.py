"""ONNX files: the card, what stands inside, what is refused, and that a model stays as it is."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from intarsia.classes import ClassTable
from intarsia.engines.card import Card
from intarsia.engines.files import read_card
from intarsia.errors import ConfigError, IntegrityError, SaveError
from intarsia.export import onnx_write
from intarsia.export.onnx_write import change_card, write_onnx
from intarsia.export.traceable import GridMeans, Traceable, border_rule
from intarsia.images.preprocess import Preprocess
from intarsia.models import create_model
from intarsia.models.base import border_of
from intarsia.models.deeplab import scaled_side
from intarsia.models.encoders.timm import _same_padding
from intarsia.ops.depthwise import depthwise_in_float32

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")

STATISTICS = {1: (0.4,), 3: (0.4, 0.5, 0.6), 5: (0.1, 0.2, 0.3, 0.4, 0.5)}


def tiny(channels=3, name="plain", **settings):
    torch.manual_seed(0)
    settings = settings or {"width": 4, "depth": 3}
    return create_model(name, num_classes=4, in_channels=channels, **settings).eval()


def card_for(channels=3, value_range=(0, 255), **fields):
    mean = STATISTICS[channels]
    preprocess = Preprocess(channels=channels, mean=mean, std=mean, value_range=value_range)
    return Card(model="plain", classes=ClassTable(names=tuple("abcd")), preprocess=preprocess, weights="0", **fields)


def run(path, image):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["image"]
    return session.get_outputs()[0].name, session.run(None, {"image": image})[0]


def logits_of(model, preprocess, pixels_NHWC):
    images = np.stack([preprocess.normalise(np.moveaxis(each, 2, 0)) for each in pixels_NHWC])
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def test_card_comes_back_and_can_be_exchanged(tmp_path):
    path = tmp_path / "a.onnx"
    card = write_onnx(tiny(), card_for(version="1.2"), path)
    assert read_card(path) == card
    assert card.content
    change_card(path, card.replace(mean_iou={"fp32": 0.5}))
    assert read_card(path) == card.replace(mean_iou={"fp32": 0.5})
    assert run(path, np.zeros((1, 3, 20, 30), np.float32))[1].shape == (1, 4, 20, 30)
    assert [each.name for each in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize(("channels", "value_range"), [(1, (0, 255)), (3, (0, 255)), (5, (10, 4000))])
def test_stored_pixels_are_normalised_inside(tmp_path, channels, value_range):
    model, card = tiny(channels), card_for(channels, value_range, input="pixels")
    write_onnx(model, card, tmp_path / "a.onnx")
    kind = np.uint8 if value_range == (0, 255) else np.float32
    pixels = np.random.default_rng(0).integers(*value_range, (2, 21, 34, channels)).astype(kind)
    name, logits = run(tmp_path / "a.onnx", pixels)
    assert name == "logits"
    np.testing.assert_allclose(logits, logits_of(model, card.preprocess, pixels), atol=1e-4)


def test_classes_are_those_of_the_largest_logit(tmp_path):
    model, card = tiny(), card_for(input="pixels", output="classes")
    write_onnx(model, card, tmp_path / "a.onnx")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 40, 50, 3)).astype(np.uint8)
    name, classes = run(tmp_path / "a.onnx", pixels)
    assert (name, classes.dtype, classes.shape) == ("classes", np.uint8, (1, 40, 50))
    assert (classes == logits_of(model, card.preprocess, pixels).argmax(axis=1)).mean() > 0.999


def test_flipped_bit_and_cut_file_are_refused(tmp_path):
    path = tmp_path / "a.onnx"
    write_onnx(tiny(), card_for(), path)
    whole = path.read_bytes()
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(IntegrityError):
        read_card(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError):
        read_card(path)


@pytest.mark.parametrize("settings", [{"depth": 4}, {"depth": 2}, {"depth": 1, "released": True}])
def test_border_rule_is_that_of_the_model(settings):
    model = tiny(name="unet", width=2, **settings)
    rule = border_rule(model)
    assert rule is not None
    for size in ((1, 1), (100, 333), (388, 389)):
        assert rule.around(*size) == border_of(model, *size)
    assert border_rule(tiny()) is None


def test_sizes_without_a_rule_are_refused():
    model = tiny()
    model.output_size = lambda height, width: (height // 2, width // 2)
    with pytest.raises(ConfigError, match="cannot be exported: its logits are not a fixed number of pixels smaller"):
        border_rule(model)


def test_model_stays_as_it_is(tmp_path):
    model = depthwise_in_float32(tiny(name="encdec", encoder="mobilenetv3_small_050", pretrained="none", decoder="psp"))
    model.train()
    before, kinds = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    traceable = Traceable(model, card_for().preprocess)
    assert not any(parameter.requires_grad for parameter in traceable.parameters())
    assert not any(module.training for module in traceable.modules())
    assert any(isinstance(module, GridMeans) for module in traceable.modules())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.eval()
    image = torch.randn(1, 3, 65, 70)
    with torch.no_grad():
        torch.testing.assert_close(traceable(image), model(image), atol=1e-4, rtol=1e-4)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = tiny()
    with torch.no_grad():
        model.head.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(SaveError, match=r"not written, 1 tensors hold numbers that are not finite, first head\.weight"):
        write_onnx(model, card_for(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_too_many_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_write, "LARGEST", 1000)
    with pytest.raises(ConfigError, match=r"plain cannot be written as ONNX: weights of 0\.0 GiB, a file holds 2\."):
        write_onnx(tiny(), card_for(), tmp_path / "a.onnx")


class DependsOnValues(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_what_cannot_be_followed_is_one_line_and_leaves_no_file(tmp_path, capfd):
    model = tiny()
    model.head = nn.Sequential(model.head, DependsOnValues())
    (tmp_path / "a.onnx").write_bytes(b"the old one")
    with pytest.raises(ConfigError, match="plain cannot be written as ONNX: ") as caught:
        write_onnx(model, card_for(), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"the old one"]


def test_other_channels_than_the_model_takes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"preprocess\.channels: is 5, the model takes 3"):
        write_onnx(tiny(), card_for(5), tmp_path / "a.onnx")


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(SaveError, match="cannot be written"):
        write_onnx(tiny(), card_for(), tmp_path / "none" / "a.onnx")


@pytest.mark.parametrize("bins", [2, 3, 6, (1, 4)])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (12, 6)])
def test_means_of_a_grid_are_torchs(bins, size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(GridMeans(bins)(x), nn.AdaptiveAvgPool2d(bins)(x))


class Symbolic:
    """A side that is not an int, as an export has it, whose arithmetic is Python's."""

    def __init__(self, value):
        self.value = value

    def __rmul__(self, other):
        return self.value * other


@pytest.mark.parametrize("scale", [0.75, 0.5, 1.25, 0.6875])
def test_scaled_side_by_whole_numbers_is_that_of_round(scale):
    assert all(scaled_side(Symbolic(side), scale) == max(1, round(side * scale)) for side in range(1, 3000))


def test_scale_that_whole_numbers_cannot_round_alike_is_refused():
    with pytest.raises(ConfigError, match=r"model\.scales: 0\.7 cannot be exported exactly"):
        scaled_side(Symbolic(45), 0.7)


def test_same_padding_by_whole_numbers_is_timms():
    from timm.layers.padding import get_same_padding

    for kernel, stride, dilation in ((1, 2, 1), (3, 1, 2), (3, 2, 1), (5, 2, 1), (7, 4, 1)):
        for side in range(1, 100):
            assert _same_padding(side, kernel, stride, dilation) == get_same_padding(side, kernel, stride, dilation)
