"""Images through networks: whole and in tiles, views, several models; the cut never shows."""

import numpy as np
import pytest
import torch
from torch import nn

from intarsia.devices import choose_device
from intarsia.errors import ConfigError, UnknownName
from intarsia.images.preprocess import Preprocess
from intarsia.images.source import ArraySource, Window
from intarsia.models.base import ModelConfig, SegmentationModel, create_model, resize_logits
from intarsia.prediction import tiled
from intarsia.prediction.canvas import canvas_in_memory, canvas_on_disk
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.torch_network import Member, Network
from intarsia.prediction.networks.tta import views_of
from intarsia.prediction.tiled import column_blocks, segment

CPU = choose_device("cpu", "fp32")
PLAIN = Preprocess(channels=3, mean=(0, 0, 0), std=(1, 1, 1))


class Lambda(SegmentationModel):
    """A network that is a function."""

    def __init__(self, function):
        super().__init__(ModelConfig(num_classes=3, in_channels=3))
        self.function = function
        self.calls = []

    def forward(self, image):
        self.calls.append(tuple(image.shape))
        return self.function(image)


def network_of(model, preprocess=PLAIN, **settings):
    return Network([Member(model.eval(), preprocess)], CPU, PredictConfig(**settings))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def logits_of(network, image):
    return resize_logits(network.of_image(image), image.shape[:2])


def small_convolutions():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 5, padding=2)]
    return Lambda(nn.Sequential(*layers))


@pytest.mark.parametrize(
    "settings", [{"tile": 64}, {"tile": 96, "overlap": 0.5}, {"tile": 64, "overlap": 0.0, "halo": 0}]
)
def test_an_identity_returns_the_image(settings):
    image = picture(150, 211)
    found = logits_of(network_of(Lambda(lambda x: x), **settings), image)
    assert torch.equal(found[0], torch.from_numpy(image).permute(2, 0, 1) / 255)


def test_tiles_equal_the_whole_image_within_the_halo():
    image, model = picture(130, 197), small_convolutions()
    whole = logits_of(network_of(model), image)
    assert torch.allclose(logits_of(network_of(model, tile=64, halo=3), image), whole, atol=1e-5)


@pytest.mark.parametrize("batch", [2, 3, 64])
def test_the_size_of_a_batch_changes_nothing(batch):
    image, model = picture(130, 197), small_convolutions()
    one = logits_of(network_of(model, tile=64), image)
    many = network_of(model, tile=64, batch=batch)
    assert torch.allclose(logits_of(many, image), one, atol=1e-6)
    assert max(shape[0] for shape in model.calls) == min(batch, max(shape[0] for shape in model.calls))
    assert max(shape[0] for shape in model.calls) > 1


def test_valid_unet_in_overlap_tiles_equals_the_whole_image():
    torch.manual_seed(0)
    model = create_model("unet", num_classes=3, in_channels=3, width=4)
    image = picture(436, 324)
    whole = logits_of(network_of(model), image)
    network = network_of(model, tile=192)
    assert network.plan(image.shape[:2]).count > 4
    assert torch.allclose(logits_of(network, image), whole, atol=1e-4)
    assert whole.std() > 1e-3


def test_half_scale_in_tiles_is_near_the_whole_image():
    preprocess = PLAIN.replace(scale=0.5)
    image = np.kron(picture(20, 26), np.ones((16, 16, 1), np.uint8))
    model = small_convolutions()
    whole = logits_of(network_of(model, preprocess), image)
    tiles = logits_of(network_of(model, preprocess, tile=64, halo=8), image)
    assert torch.allclose(tiles, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"mirrors": "horizontal"}, 2),
        ({"mirrors": "both"}, 4),
        ({"rotations": True}, 4),
        ({"rotations": True, "mirrors": "horizontal"}, 8),
        ({"rotations": True, "mirrors": "both"}, 8),
        ({"scales": (0.5, 1.0), "mirrors": "vertical"}, 4),
    ],
)
def test_views_are_distinct_and_brought_back(settings, count):
    views = views_of(PredictConfig(**settings))
    assert len(views) == count
    image = torch.rand(1, 2, 7, 9)
    seen = {(view.scale, view.of(image).numpy().tobytes()) for view in views}
    assert len(seen) == count
    assert all(torch.equal(view.back(view.of(image)), image) for view in views)
    assert torch.equal(views[0].of(image), image)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_views_of_an_asymmetric_network_are_averaged(average):
    ramp = Lambda(lambda x: x + torch.linspace(0, 1, x.shape[3]) * torch.tensor([1.0, 0, 0])[:, None, None])
    image = picture(32, 48)
    plain = logits_of(network_of(ramp), image)
    mirrored = logits_of(network_of(ramp), image[:, ::-1].copy()).flip(3)
    found = logits_of(network_of(ramp, mirrors="horizontal", average=average), image)
    if average == "logits":
        assert torch.allclose(found, (plain + mirrored) / 2, atol=1e-6)
    else:
        assert torch.allclose(found.softmax(1), (plain.softmax(1) + mirrored.softmax(1)) / 2, atol=1e-6)


def test_views_of_one_shape_are_computed_together():
    model, image = small_convolutions(), picture(40, 52)
    settings = {"mirrors": "horizontal", "rotations": True, "scales": (0.5, 1.0)}
    alone = logits_of(network_of(model, **settings), image)
    assert len(model.calls) == 16
    model.calls.clear()
    together = logits_of(network_of(model, batch=3, **settings), image)
    assert [shape[0] for shape in model.calls] == [3, 1] * 4
    assert torch.allclose(alone, together, atol=1e-6)


def test_scales_are_brought_back_to_the_image():
    found = logits_of(network_of(Lambda(lambda x: x), scales=(0.5, 1.0, 1.5), average="logits"), picture(33, 50))
    assert found.shape == (1, 3, 33, 50)


def test_valid_unet_turned():
    torch.manual_seed(0)
    model = create_model("unet", num_classes=3, in_channels=3, width=4)
    image = picture(100, 132)
    assert logits_of(network_of(model, rotations=True, mirrors="horizontal"), image).shape == (1, 3, 100, 132)


def test_several_models_with_preparations_of_their_own():
    other = PLAIN.replace(mean=(0.5, 0.5, 0.5))
    members = [Member(Lambda(lambda x: x).eval(), PLAIN), Member(Lambda(lambda x: 2 * x).eval(), other)]
    image = picture(20, 30)
    unit = torch.from_numpy(image).permute(2, 0, 1) / 255
    found = logits_of(Network(members, CPU, PredictConfig(average="logits")), image)
    assert torch.allclose(found[0], (unit + 2 * (unit - 0.5)) / 2, atol=1e-6)


def fill(network, source, canvas=None):
    canvas = canvas or canvas_in_memory(source.size, 3, ("probabilities", "entropy"), "float32")
    segment(network, source, canvas, 3)
    return canvas


def test_classes_probabilities_and_entropy_agree():
    network, image = network_of(small_convolutions(), tile=64), picture(90, 140)
    canvas = fill(network, ArraySource(image))
    softmax = logits_of(network, image)[0].softmax(0).numpy()
    assert np.allclose(canvas.probabilities, softmax, atol=1e-6)
    assert np.array_equal(canvas.classes, softmax.argmax(0))
    entropy = -(softmax * np.log(softmax)).sum(0) / np.log(3)
    assert np.abs(canvas.entropy - 255 * entropy).max() <= 0.51


def test_a_wide_image_in_blocks_of_columns_is_the_same(monkeypatch):
    network, source = network_of(small_convolutions(), tile=64), ArraySource(picture(150, 500))
    whole = fill(network, source)
    assert len(column_blocks(network.plan(source.size), 3)) == 1
    monkeypatch.setattr(tiled, "column_blocks", lambda plan, classes: column_blocks(plan, classes, 4 * 3 * 16 * 150))
    assert len(tiled.column_blocks(network.plan(source.size), 3)) > 2
    blocks = fill(network, source)
    assert np.array_equal(blocks.classes, whole.classes)
    assert np.array_equal(blocks.probabilities, whole.probabilities)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("moment", [1, 7, 20, 33])
def test_an_interrupted_image_is_gone_on_with_and_is_the_same(moment, blocks, tmp_path, monkeypatch):
    if blocks:
        monkeypatch.setattr(
            tiled, "column_blocks", lambda plan, classes: column_blocks(plan, classes, 4 * 3 * 16 * 150)
        )
    model, source = small_convolutions(), ArraySource(picture(300, 300))
    network = network_of(model, tile=64)
    whole = fill(network, source)
    count = len(model.calls)

    def stop(done, total):
        if done == moment:
            raise Killed

    canvas = canvas_on_disk(tmp_path / "work", source.size, 3, ("probabilities",), "float32", "key")
    with pytest.raises(Killed):
        segment(network, source, canvas, 3, tick=stop)
    model.calls.clear()
    again = canvas_on_disk(tmp_path / "work", source.size, 3, ("probabilities",), "float32", "key")
    segment(network, source, again, 3)
    assert np.array_equal(again.classes, whole.classes)
    assert np.array_equal(again.probabilities, whole.probabilities)
    if moment > 20 and not blocks:
        assert len(model.calls) < count  # what was finished is not computed again
    other = canvas_on_disk(tmp_path / "work", source.size, 3, (), "float32", "another key")
    assert other.done() == (0, 0)


def test_pixels_without_value_have_no_class_and_empty_tiles_are_not_computed():
    image, nodata = picture(200, 200), np.zeros((200, 200), bool)
    nodata[:, 90:] = True
    nodata[3, 4] = True
    model = small_convolutions()
    network = network_of(model, tile=64)
    total = network.plan((200, 200)).count
    canvas = fill(network, ArraySource(image, nodata))
    assert np.array_equal(canvas.classes == 255, nodata)
    assert len(model.calls) < total
    assert np.array_equal(
        canvas.classes[:, :80], np.where(nodata, 255, fill(network, ArraySource(image)).classes)[:, :80]
    )


class Broken(ArraySource):
    def read(self, top, left, height, width) -> Window:
        if top > 60:
            raise ValueError("damaged")
        return super().read(top, left, height, width)


def test_what_goes_wrong_in_reading_is_told_here():
    with pytest.raises(ValueError, match="damaged"):
        fill(network_of(small_convolutions(), tile=64), Broken(picture(200, 200)))


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="do not fit into the overlap"):
        network_of(small_convolutions(), tile=64, halo=40).plan((300, 300))
    with pytest.raises(ConfigError, match="tile"):
        PredictConfig(tile=3)
    with pytest.raises(UnknownName, match=r"there is no 'deplab'.*Did you mean 'deeplab'"):
        PredictConfig().replace({"crf": "deplab"})
