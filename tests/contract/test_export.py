"""Every preset as an ONNX file, made at one size and run at others, gives the logits of its model."""

import gc
import json

import numpy as np
import pytest
import torch

from intarsia.classes import ClassTable
from intarsia.engines.card import Card
from intarsia.export.onnx_write import write_onnx
from intarsia.images.preprocess import Preprocess
from intarsia.models import MODELS, create_model
from tests.conftest import ROOT
from tests.contract.presets import SMALL

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")

TABLE = ROOT / "results" / "export_parity.json"
IMPOSSIBLE: dict[str, str] = {}
"""Presets that have no ONNX file, and why."""
REMEMBER = ("segnet", "segnet_basic")
"""Whose poolings remember where each maximum was. Where the largest two values of a cell differ in their last bits alone, the
order of a sum decides which it was, and the decoder puts a value elsewhere: at full width that happens between PyTorch in
float32 and in float64 as well as between PyTorch and an engine, and such a place shows in every pixel that sees it."""
SIZES = ((1, 1, 1), (1, 64, 96), (3, 61, 93))
"""(N, H, W) at which files are run, the smallest first; they are made at other ones, of odd sides."""
LITE = {"encoder": "resnet10t"}
SMALLER = {
    **SMALL,
    **{name: {**SMALL.get(name, {}), **LITE} for name in MODELS.names() if name.startswith("encdec_")},
    **{f"deeplab3{plus}_lite0": {**SMALL[f"deeplab3{plus}_lite0"], **LITE} for plus in ("", "plus")},
    "deeplab2_resnet101": {**SMALL["deeplab2_resnet101"], "scales": (0.75,)},
    "fcn": {**SMALL["fcn"], **LITE},
    **{f"fcdensenet{depth}": {"growth": 2, "layers": (1,) * 5, "first": 4} for depth in (56, 67, 103)},
    "resunet": {"width": 2, "depths": (1, 1, 1), "dropout": 0.1},
    **{name: {**SMALL[name], "depth": 2} for name in ("unet", "unet_bn", "unet_released", "unet_same")},
}
"""Made smaller than the models of the other contracts, since an export takes the longer the more operations there are; the
encoder of `encdec` stays, and all scales of `deeplab2_resnet101` stand in the slow test."""


def same_when_small():
    """Presets in groups, each of which is one network in SMALLER."""
    groups = {}
    for name in MODELS.names():
        config = MODELS[name].replace(**SMALLER.get(name, {}))
        key = json.dumps([type(config).__name__, {**config.to_dict(), "name": ""}])
        groups.setdefault(key, []).append(name)
    return list(groups.values())


QUICK = ("plain", "fcn32s_alexnet", "segnet_basic", "unet", "unet_same", "deeplab_largefov_vgg16", "encdec")
"""Those of every run: unpooling, valid convolutions, crops, padding to a stride. An export takes seconds."""


def quick_first():
    """Every network, the others marked slow: what they are at full width, by both engines, stands in the table of results,
    which a test below holds against the presets."""
    quick = {True: [], False: [pytest.mark.slow]}
    return [
        pytest.param(names, id=" ".join(names), marks=quick[bool(set(names) & set(QUICK))])
        for names in same_when_small()
    ]


def made(name, **settings):
    """The preset with drawn weights, also where it starts at zero."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, in_channels=3, **settings).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def held(model, name, sizes, folder, *, flips=False):
    """Writes the model and compares; leaves no file."""
    card = Card(model=name, classes=ClassTable(names=tuple("abcde")), preprocess=Preprocess(), weights="0")
    path = folder / "model.onnx"
    card = write_onnx(model, card, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    path.unlink()
    drawn = torch.Generator().manual_seed(1)
    for num, *size in sizes:
        size = model.input_size(*size)
        image = torch.randn(num, 3, *size, generator=drawn)
        with torch.no_grad():
            expected = model(image).numpy()
        found = session.run(None, {"image": image.numpy()})[0]
        assert found.shape == expected.shape == (num, 5, *model.output_size(*size))
        difference = np.abs(found - expected) / max(1, np.abs(expected).max())
        assert (np.median(difference) if flips else difference.max()) <= 1e-4
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= (0.995 if flips else 0.9999)
    return card


@pytest.mark.parametrize("names", quick_first())
def test_file_gives_the_logits_of_the_model_at_any_size(names, tmp_path):
    model = made(names[0], **SMALLER.get(names[0], {}))
    if reason := IMPOSSIBLE.get(names[0]):
        pytest.skip(reason)
    card = held(model, names[0], SIZES, tmp_path)
    loses = model.output_size(*model.input_size(64, 64)) != model.input_size(64, 64)
    assert (card.border is not None) == loses


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
def test_full_width(name, tmp_path):
    if reason := IMPOSSIBLE.get(name):
        pytest.skip(reason)
    none = {"pretrained": "none"} if "pretrained" in type(MODELS[name]).model_fields else {}
    sizes = ((1, 1, 1), (1, 256, 320), (3, 193, 231), (1, 321, 200))
    held(made(name, **none), name, sizes, tmp_path, flips=name in REMEMBER)
    gc.collect()


def test_table_of_results_holds_every_preset_and_none_that_differs():
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["presets"]
    assert set(rows) == set(MODELS.names()), "run scripts/export_parity.py"
    for name, row in rows.items():
        if name in IMPOSSIBLE:
            assert row["reason"]
        else:
            assert set(row["engines"]) == {"onnxruntime", "openvino"}
            assert all(
                found["passes"] or (name in REMEMBER and found["agreement"] >= 0.995)
                for found in row["engines"].values()
            )


def test_what_has_no_file_is_a_preset_and_has_a_reason():
    assert set(IMPOSSIBLE) <= set(MODELS.names())
    assert all(IMPOSSIBLE.values())
