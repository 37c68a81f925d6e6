"""Exported files behind the same prediction as torch: the numbers are those of the same network there."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import intarsia as ia
from intarsia.devices import choose_device
from intarsia.engines.card import Border
from intarsia.engines.choice import choice_file
from intarsia.engines.engine import open_engine
from intarsia.engines.files import read_card
from intarsia.errors import ConfigError
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import ModelConfig, SegmentationModel
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.engine_network import EngineNetwork
from intarsia.prediction.networks.torch_network import Member, Network
from tests.engines.nets import PLAIN, TABLE, kernel, write_conv

CPU = choose_device("cpu", "fp32")
HALF = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), scale=0.5)


class Convolution(SegmentationModel):
    """The network of tests/engines/nets.py in torch."""

    def __init__(self, weights, *, padded=True):
        super().__init__(ModelConfig(num_classes=4, in_channels=3))
        self.lost = 0 if padded else weights.shape[-1] - 1
        self.conv = nn.Conv2d(3, 4, weights.shape[-1], padding=weights.shape[-1] // 2 if padded else 0, bias=False)
        self.conv.weight.data = torch.from_numpy(weights)

    def output_size(self, height, width):
        return height - self.lost, width - self.lost

    def input_size(self, height, width):
        return height + self.lost, width + self.lost

    def forward(self, image):
        return self.conv(image)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def both(tmp_path, backend="onnxruntime", *, preprocess=PLAIN, seeds=(0,), padded=True, settings=None, **card):
    """The same networks in torch and in an engine."""
    config = PredictConfig().replace(settings or {})
    border = None if padded else Border(stride=1, lost=4, first=5)
    members, engines = [], []
    for seed in seeds:
        weights = kernel(5, seed)
        members.append(Member(Convolution(weights, padded=padded).eval(), preprocess))
        path = write_conv(
            tmp_path / f"{seed}.onnx", weights, padded=padded, preprocess=preprocess, border=border, **card
        )
        engines.append(open_engine(path, read_card(path), backend=backend, threads=1))
    return Network(members, CPU, config), EngineNetwork(engines, config)


def logits_of(network, image):
    return np.asarray(network.fit(network.of_image(image), image.shape[:2]))


SETTINGS = {
    "whole": {},
    "tiles": {"tile": 64, "overlap": 0.3},
    "tiles in batches": {"tile": 64, "batch": 3},
    "mirrors and turns": {"mirrors": "both", "rotations": True},
    "mirrors in tiles, logits": {"mirrors": "horizontal", "tile": 64, "average": "logits"},
}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_numbers_are_those_of_torch(tmp_path, settings, backend):
    ours, exported = both(tmp_path, backend, settings=settings)
    image = picture(150, 203)
    found = logits_of(exported, image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits_of(ours, image), atol=2e-4)


def test_several_files_are_averaged(tmp_path):
    ours, exported = both(tmp_path, seeds=(0, 1, 2))
    image = picture(40, 50)
    np.testing.assert_allclose(logits_of(exported, image), logits_of(ours, image), atol=2e-4)


def test_scaled_views_are_near(tmp_path):
    ours, exported = both(tmp_path, settings={"scales": (0.75, 1.0, 1.5)})
    image = picture(60, 80)
    np.testing.assert_allclose(logits_of(exported, image), logits_of(ours, image), atol=5e-3)


def test_an_image_is_scaled_before_and_its_logits_after(tmp_path):
    ours, exported = both(tmp_path, preprocess=HALF)
    image = picture(61, 83)
    assert logits_of(exported, image).shape == (1, 4, 61, 83)
    np.testing.assert_allclose(logits_of(exported, image), logits_of(ours, image), atol=2e-3)


@pytest.mark.parametrize("settings", [{}, {"tile": 64}, {"mirrors": "both", "scales": (1.0, 0.5)}], ids=str)
def test_a_network_that_loses_its_border_gets_a_mirrored_one(tmp_path, settings):
    ours, exported = both(tmp_path, padded=False, settings=settings)
    image = picture(70, 90)
    found = logits_of(exported, image)
    assert found.shape == (1, 4, 70, 90)
    np.testing.assert_allclose(found, logits_of(ours, image), atol=5e-3)


@pytest.mark.parametrize("settings", [{}, {"tile": 64}, {"mirrors": "horizontal"}], ids=str)
def test_stored_pixels_go_in_where_the_file_normalises(tmp_path, settings):
    ours, exported = both(tmp_path, settings=settings, input="pixels")
    image = picture(70, 90)
    np.testing.assert_allclose(logits_of(exported, image), logits_of(ours, image), atol=2e-4)


def test_classes_come_out_where_the_file_takes_the_largest(tmp_path):
    ours, exported = both(tmp_path, settings={"tile": 64, "overlap": 0.25}, output="classes")
    image = picture(100, 130)
    found, right = logits_of(exported, image).argmax(1), logits_of(ours, image).argmax(1)
    assert (found == right).mean() > 0.999


def test_probabilities_of_such_a_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"outputs: probabilities went with --with-argmax"):
        both(tmp_path, settings={"outputs": ("classes", "probabilities")}, output="classes")


def test_a_crf_refines_as_in_torch(tmp_path):
    ours, exported = both(tmp_path, settings={"crf": "deeplab"})
    image = picture(40, 50)
    assert (logits_of(exported, image).argmax(1) == logits_of(ours, image).argmax(1)).mean() > 0.999


def test_with_and_without_pre_are_not_averaged(tmp_path):
    paths = [
        write_conv(tmp_path / "a.onnx", kernel()),
        write_conv(tmp_path / "b.onnx", kernel(), input="pixels"),
    ]
    with pytest.raises(ConfigError, match="cannot be averaged; export them alike"):
        ia.load(paths)


def test_load_and_predict(tmp_path):
    path = write_conv(tmp_path / "net.onnx", kernel(5))
    predictor, image = ia.load(path), picture(50, 60)
    result = predictor.predict(image, probabilities=True)
    right = logits_of(both(tmp_path)[0], image)
    assert np.array_equal(result.classes, right[0].argmax(0))
    np.testing.assert_allclose(result.probabilities, torch.from_numpy(right[0]).softmax(0), atol=1e-4)
    assert (predictor.table, predictor.words) == (TABLE, "onnxruntime fp32")
    with pytest.raises(ConfigError, match="has no torch module"):
        predictor.model  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "cuda"}, "exported files run on the processor"),
        ({"settings": {"backend": "torch"}}, "does not run in torch"),
        ({"precision": "fp8"}, "must be one of auto, fp32, bf16"),
    ],
)
def test_what_exported_files_do_not_do_is_said(tmp_path, settings, said):
    with pytest.raises(ConfigError, match=said):
        ia.load(write_conv(tmp_path / "net.onnx", kernel()), **settings)


def test_the_fastest_engine_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    path = write_conv(tmp_path / "net.onnx", kernel())
    first = ia.load(path, settings={"backend": "auto"}).words
    written = choice_file().read_text()
    assert first in ("onnxruntime fp32", "openvino fp32")
    assert ia.load(path, settings={"backend": "auto"}).words == first
    assert choice_file().read_text() == written
    choice_file().write_text("{ damaged")
    assert ia.load(path, settings={"backend": "auto"}).words in ("onnxruntime fp32", "openvino fp32")


def test_bf16_is_chosen_only_where_it_agrees(tmp_path, monkeypatch):
    from intarsia.prediction.networks.backends import _precisions

    monkeypatch.setattr("intarsia.prediction.networks.backends.cpu_has_bf16", lambda: True)
    near = read_card(write_conv(tmp_path / "near.onnx", kernel(), agreement={"bf16": 0.9951}))
    far = read_card(write_conv(tmp_path / "far.onnx", kernel(), agreement={"bf16": 0.9949}))
    assert _precisions(near, "auto", "openvino") == ("fp32", "bf16")
    assert _precisions(far, "auto", "openvino") == ("fp32",)
    assert _precisions(far, "bf16", "openvino") == ("bf16",)
    assert _precisions(near, "auto", "onnxruntime") == ("fp32",)


def test_predict_imports_no_torch(tmp_path):
    path = write_conv(tmp_path / "net.onnx", kernel())
    image = tmp_path / "picture.png"
    from PIL import Image

    Image.fromarray(picture(64, 80)).save(image)
    for backend in ("onnxruntime", "openvino"):
        code = (
            "import sys\nfrom intarsia.cli.main import main\n"
            f"sys.argv = ['intarsia', 'predict', {str(path)!r}, {str(image)!r}, '--out', {str(tmp_path / backend)!r},"
            f" 'backend={backend}', 'outputs=[classes,overlay,probabilities,entropy,areas]', 'tile=64']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            "heavy = [name for name in ('torch', 'scipy', 'timm', 'matplotlib') if name in sys.modules]\n"
            "assert not heavy, heavy\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / backend / "picture.png").is_file()
