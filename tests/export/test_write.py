"""One file of one model: what it says, that it is compared, and that nothing else is left or lost."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from intarsia.classes import ClassTable
from intarsia.engines.card import Card, Parity
from intarsia.engines.files import read_card
from intarsia.engines.inputs import input_of_stored
from intarsia.errors import ConfigError, IntegrityError, SaveError
from intarsia.export import onnx_write
from intarsia.export.parity import batches_of, check_parity, made_pictures
from intarsia.export.traceable import border_rule
from intarsia.export.write import aside, check_kind, check_place, files_of, write_network, write_proved
from intarsia.images.preprocess import Preprocess
from intarsia.models.base import create_model

pytestmark = pytest.mark.slow  # each writes networks; tests/evaluation/test_exporting.py does the whole in every run
TABLE = ClassTable(names=("ground", "tree", "water"))


def tiny(name="unet_same", **settings):
    torch.manual_seed(0)
    return create_model(name, num_classes=3, in_channels=3, width=4, depth=2, **settings).eval()


def card_for(model, **settings):
    preprocess = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    border = border_rule(model)
    return Card(model="tiny", classes=TABLE, preprocess=preprocess, border=border, weights="ab" * 32, **settings)


def written(tmp_path, kind, name, model, **settings):
    card = card_for(model, **settings)
    path = tmp_path / name
    with aside(path) as file:
        made = write_proved(model, card, file, kind=kind, pictures=made_pictures(card.preprocess))
    return path, made


@pytest.mark.parametrize(("kind", "name"), [("onnx", "m.onnx"), ("openvino", "m.xml")])
@pytest.mark.parametrize(("model", "lost"), [("unet_same", 0), ("unet", None)])
def test_card_tells_the_comparison_and_the_file_is_what_it_tells(kind, name, model, lost, tmp_path):
    path, made = written(tmp_path, kind, name, tiny(model))
    card = read_card(path)
    assert card == made.card
    assert card.parity.agreement >= 0.9999
    assert 0 <= card.parity.max_difference <= 1e-3 * card.parity.largest_logit
    assert len({count for count, _, _ in card.parity.sizes}) > 1
    assert len({(height, width) for _, height, width in card.parity.sizes}) > 1
    assert (card.border is None) == (lost == 0)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(each.name for each in files_of(path))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_program_of_torch_export_runs_at_other_sizes_without_intarsia(precision, tmp_path):
    model = tiny()
    path, made = written(tmp_path, "torch-export", "m.pt2", model, precision=precision)
    extra = {"intarsia.json": ""}
    run = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["intarsia.json"])["classes"]["names"] == list(TABLE.names)
    for size in ((1, 3, 64, 96), (3, 3, 37, 101)):  # multiples of the stride, and none
        image = torch.randn(size)
        with torch.no_grad():
            found, expected = run(image), model(image)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-4 if precision == "fp32" else 0.2)
    assert precision == "fp32" or not torch.equal(found, expected)
    assert made.card.parity.agreement >= 0.95


@pytest.mark.parametrize(("kind", "name"), [("onnx", "m.onnx"), ("openvino", "m.xml"), ("torch-export", "m.pt2")])
def test_pixels_in_and_classes_out(kind, name, tmp_path):
    model = tiny()
    _, made = written(tmp_path, kind, name, model, input="pixels", output="classes")
    image = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    found = made.engine(image)
    with torch.no_grad():
        planes = np.stack([made.card.preprocess(each) for each in image])
        expected = model(torch.from_numpy(planes)).argmax(1).numpy()
    assert found.dtype == np.uint8
    assert (found == expected).mean() > 0.999


def falsified(model, card, path, *, kind, images):
    """Writes, and then changes the weights of one convolution in the file."""
    card = write_network(model, card, path, kind=kind, images=images)
    network = onnx.load(path)
    weights = max(network.graph.initializer, key=lambda each: len(each.dims))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.5), weights.name))
    onnx.save(network, path)
    return card


def test_a_file_that_computes_something_else_is_removed_and_an_older_one_stays(tmp_path):
    path, _ = written(tmp_path, "onnx", "m.onnx", tiny())
    before, model = path.read_bytes(), tiny()
    card = card_for(model)
    with (
        pytest.raises(
            IntegrityError, match=r"m\.onnx: computes something else .* logits differ by up to .* removed"
        ) as met,
        aside(path) as file,
    ):
        write_proved(model, card, file, kind="onnx", pictures=made_pictures(card.preprocess), writer=falsified)
    assert str(tmp_path / "m.onnx") in str(met.value)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_each_precision_has_its_own_bound():
    card = card_for(tiny())
    parity = {"sizes": ((1, 8, 8),), "max_difference": 0.5, "largest_logit": 9.0}
    for precision, least in (("fp32", 0.9999), ("bf16", 0.95), ("int8", 0.8)):
        of = card.replace(precision=precision)
        with pytest.raises(IntegrityError, match="of pixels have the model's class"):
            check_parity(Parity(**parity, agreement=least - 1e-3), of, "m.onnx")
        if precision != "fp32":
            check_parity(Parity(**parity, agreement=least), of, "m.onnx")
    with pytest.raises(IntegrityError, match=r"logits differ by up to 0\.5, allowed is 0\.009"):
        check_parity(Parity(**parity, agreement=1.0), card, "m.onnx")


def test_of_a_model_that_remembers_maxima_half_of_the_logits_must_be_near():
    """A near-tie in a pooling that is decided the other way moves a value; PyTorch does so against itself in float64."""
    assert [create_model(name).remembers_maxima for name in ("segnet_basic", "unet_same")] == [True, False]
    assert create_model("plain", up="unpool", halvings=1, down="max").remembers_maxima
    card = card_for(tiny())
    parity = {"sizes": ((1, 8, 8),), "max_difference": 0.5, "largest_logit": 9.0}
    check_parity(Parity(**parity, agreement=0.995, median_difference=0.0009), card, "m.onnx")
    with pytest.raises(IntegrityError, match=r"half of the logits differ by more than 0\.001, allowed is 0\.0009"):
        check_parity(Parity(**parity, agreement=1.0, median_difference=0.001), card, "m.onnx")
    with pytest.raises(IntegrityError, match=r"99\.4.* % of pixels have the model's class, 99\.5 % must"):
        check_parity(Parity(**parity, agreement=0.994, median_difference=0.0), card, "m.onnx")


def test_weights_and_outputs_that_are_not_finite_are_refused(tmp_path):
    model = tiny()
    card = card_for(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    for kind, name in (("onnx", "m.onnx"), ("openvino", "m.xml"), ("torch-export", "m.pt2")):
        with pytest.raises(SaveError, match="not finite"), aside(tmp_path / name) as file:
            write_network(model, card, file, kind=kind)
    model = tiny()
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(1e30)
    with pytest.raises(IntegrityError, match="the model's outputs are not finite"), aside(tmp_path / "m.onnx") as file:
        write_proved(model, card, file, kind="onnx", pictures=made_pictures(card.preprocess))
    assert not list(tmp_path.iterdir())


def test_what_no_format_has_is_refused():
    with pytest.raises(ConfigError, match=r"onnxruntime computes no bf16 .* --format openvino"):
        check_kind("onnx", "bf16")
    with pytest.raises(ConfigError, match="int8: is not written by torch-export"):
        check_kind("torch-export", "int8")


def test_only_exported_models_are_replaced(tmp_path):
    own = tmp_path / "notes.onnx"
    own.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="exists and was not exported by intarsia"):
        check_place(own, "onnx")
    (tmp_path / "m.bin").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"m\.bin: exists and was not exported"):
        check_place(tmp_path / "m.xml", "openvino")
    with pytest.raises(ConfigError, match=r"ends in \.xml. Name it m\.xml"):
        check_place(tmp_path / "m.onnx", "openvino")
    path, _ = written(tmp_path, "torch-export", "m.pt2", tiny())
    check_place(path, "torch-export")
    check_place(tmp_path / "new.onnx", "onnx")


def test_pictures_are_compared_in_batches_and_sizes_that_are_odd_and_even():
    pictures = made_pictures(Preprocess(channels=1, mean=(0.5,), std=(0.5,), value_range=(-1, 1)))
    assert all(each.dtype == np.float32 and -1 <= each.min() < each.max() <= 1 for each in pictures)
    shapes = [each.shape for each in batches_of(pictures)]
    assert shapes[0] == (1, 1, 192, 272)
    assert any(shape[-1] % 2 and shape[-2] % 2 and shape[0] == 3 for shape in shapes)
    assert any(shape[-1] % 64 == 0 and shape[-2] % 64 == 0 and shape[0] == 2 for shape in shapes)
    assert not {shape[::2] for shape in shapes} & {onnx_write.EXAMPLE}


def test_inputs_have_the_border_that_the_network_loses():
    model = tiny("unet")
    card = card_for(model)
    planes = made_pictures(card.preprocess)[0][None]
    image = input_of_stored(planes, card)
    assert model.output_size(*image.shape[-2:]) >= planes.shape[-2:]
    top, left, *_ = card.border.around(*planes.shape[-2:])
    inner = image[0, :, top : top + planes.shape[-2], left : left + planes.shape[-1]]
    assert np.allclose(inner, card.preprocess.normalise(planes[0]))
