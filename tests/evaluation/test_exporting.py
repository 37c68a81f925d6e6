"""`export`: from a run to a file that predicts as the run does, with what it costs told."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import intarsia as ia
from intarsia.devices import cpu_has_bf16
from intarsia.engines.files import read_card
from intarsia.errors import ConfigError, DataError, IntegrityError
from intarsia.evaluation.exporting import export
from intarsia.export.parity import made_pictures
from intarsia.images.preprocess import Preprocess
from intarsia.models.unet import UNet
from intarsia.progress import Silent
from tests.evaluation.tiny import write_data, write_run


@pytest.fixture(scope="module")
def noise_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    return write_run(root / "street 1", write_data(root / "data"))


def exported(run, *where, **settings):
    return export(run, *where, progress=Silent(), **settings)


@pytest.mark.parametrize(("form", "ending"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_an_exported_run_predicts_as_the_run_does(form, ending, tiny_run, cells, tmp_path):
    made = exported(tiny_run, tmp_path / f"deep/er/m{ending}", format=form)
    card = read_card(made.path)
    assert card == made.card
    manifest = json.loads((tiny_run / "model" / "manifest.json").read_text())
    assert card.weights == manifest["files"]["model.safetensors"]
    assert card.classes.to_dict() == manifest["classes"]
    assert card.preprocess.to_dict() == manifest["preprocess"]
    assert card.parity.agreement >= 0.9999
    assert ("bf16" in card.agreement) == cpu_has_bf16()
    run, file = ia.load(tiny_run, device="cpu", precision="fp32"), ia.load(made.path)
    for image in sorted((cells / "test" / "images").iterdir()):
        assert (run.predict(image).classes == file.predict(image).classes).mean() >= 0.9999
    told = "\n".join(made.lines)
    assert f"next       intarsia predict {made.path} IMAGES --out DIR" in told
    assert "% of pixels alike" in told


def test_without_a_place_it_lies_in_the_run_and_is_replaced(noise_run):
    made = exported(noise_run)
    assert made.path == noise_run / "export" / "street 1.onnx"
    again = exported(noise_run, precision="fp32")
    assert again.card.replace(agreement={}) == made.card.replace(agreement={})
    assert [each.name for each in made.path.parent.iterdir()] == ["street 1.onnx"]


def test_int8_says_what_it_costs(tiny_run, tmp_path):
    made = exported(tiny_run, tmp_path, precision="int8", with_pre=True, images=4)
    assert made.path == tmp_path / f"{tiny_run.name}-int8-pixels.onnx"
    card = read_card(made.path)
    assert card.precision == "int8"
    assert card.input == "pixels"
    assert set(card.mean_iou) == {"fp32", "int8"}
    assert 0.8 <= card.agreement["int8"] < 1
    lost = 100 * (card.mean_iou["fp32"] - card.mean_iou["int8"])
    (line,) = [line for line in made.lines if line.startswith("mean IoU")]
    assert f"{abs(lost):.2f} points {'lost' if lost >= 0 else 'gained'}" in line
    assert any("more than 0.5" in note for note in made.notes) == (lost > 0.5)


def test_int8_needs_training_images(tiny_run, cells, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(tiny_run / "model", alone)
    with pytest.raises(DataError, match=r"--precision int8: needs training images .* Give --data FOLDER"):
        exported(alone, tmp_path / "m.onnx", precision="int8")
    assert not (tmp_path / "m.onnx").exists()
    made = exported(alone, tmp_path / "m.onnx", precision="int8", data=str(cells), images=4)
    assert made.card.mean_iou


def test_without_data_built_in_pictures_are_compared(noise_run, tmp_path):
    shutil.copytree(noise_run / "model", tmp_path / "folder")
    made = exported(tmp_path / "folder", tmp_path / "m.onnx")
    assert any("built-in pictures" in note for note in made.notes)
    assert made.card.parity.sizes[0][1:] == made_pictures(Preprocess())[0].shape[1:]
    assert made.card.agreement == {}


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor computes no bf16")
def test_bf16_of_openvino(tiny_run, tmp_path):
    made = exported(tiny_run, tmp_path / "m.xml", format="openvino", precision="bf16")
    assert 0.95 <= made.card.agreement["bf16"] <= 1
    assert ia.load(made.path).words == "openvino bf16"


def test_classes_alone(tiny_run, cells, tmp_path):
    made = exported(tiny_run, tmp_path / "m.onnx", with_pre=True, with_argmax=True)
    image = min((cells / "test" / "images").iterdir())
    run, file = ia.load(tiny_run, device="cpu", precision="fp32"), ia.load(made.path)
    assert (run.predict(image).classes == file.predict(image).classes).mean() >= 0.9999
    assert made.card.output == "classes"
    assert made.card.parity.max_difference == 0
    assert not any(line.startswith("  logits") for line in made.lines)


def test_triton_gets_a_proved_network(noise_run, tmp_path):
    made = exported(noise_run, tmp_path / "models", format="triton")
    assert made.path == tmp_path / "models" / "street-1"
    assert read_card(made.path / "1" / "model.onnx") == made.card
    assert made.card.parity is not None
    assert f"--model-repository={tmp_path / 'models'}" in made.next


def test_a_model_that_is_followed_wrongly_leaves_nothing(noise_run, tmp_path, monkeypatch):
    forward = UNet.forward

    def otherwise(self, image):  # as a model does whose Python asks for what a file cannot know
        logits = forward(self, image)
        return logits.flip(1) if torch.compiler.is_exporting() else logits

    monkeypatch.setattr(UNet, "forward", otherwise)
    for form, name in (("onnx", "m.onnx"), ("openvino", "m.xml"), ("torch-export", "m.pt2")):
        with pytest.raises(IntegrityError, match=r"computes something else than the model: .* % of pixels") as met:
            exported(noise_run, tmp_path / name, format=form)
        assert "\n" not in str(met.value)
    assert not list(tmp_path.iterdir())


def test_what_does_not_go_together_is_refused_at_once(noise_run, tmp_path):
    for settings, message in (
        ({"precision": "bf16"}, "onnxruntime computes no bf16"),
        ({"format": "web", "precision": "bf16"}, "onnxruntime computes no bf16"),
        ({"format": "tflite"}, "there is no such format; there are onnx, openvino"),
        ({"precision": "fp16"}, "must be fp32, bf16 or int8"),
        ({"sample": "a.png"}, "--sample: goes with --format web alone"),
        ({"precision": "int8", "images": 0}, "--images 0: must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            exported(noise_run, tmp_path / "x", **settings)
    with pytest.raises(ConfigError, match="does not exist"):
        exported(tmp_path / "nowhere")
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="was not exported by intarsia"):
        exported(noise_run, tmp_path / "mine.onnx")
    assert (tmp_path / "mine.onnx").read_bytes() == b"mine"


def test_the_guide_s_plain_onnxruntime_code_runs(tiny_run, cells, tmp_path):
    from tests.conftest import ROOT

    page = (ROOT / "docs" / "guides" / "export.md").read_text(encoding="utf-8")
    (code,) = [block.partition("```")[0] for block in page.split("```python\n")[1:] if "InferenceSession" in block]
    made = exported(tiny_run, tmp_path / "model.onnx")
    image = min((cells / "test" / "images").iterdir())
    Image.open(image).convert("RGB").save(tmp_path / "photo.png")
    scope = {}
    code = code.replace("model.onnx", str(made.path)).replace("photo.png", str(tmp_path / "photo.png"))
    exec(code, scope)
    if made.card.preprocess.channels == 3:
        expected = ia.load(tiny_run, device="cpu", precision="fp32").predict(tmp_path / "photo.png").classes
        assert np.mean(scope["classes"] == expected) >= 0.999
    assert "intarsia" not in [name.partition(".")[0] for name in scope]


def test_it_is_a_public_name():
    code = "import intarsia, sys; assert callable(intarsia.export); print(intarsia.export.__doc__[:5])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Write"
