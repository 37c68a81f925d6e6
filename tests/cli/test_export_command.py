"""`intarsia export`, as a person types it."""

import json

import pytest

from tests.cli.test_cli import intarsia
from tests.evaluation.tiny import write_data, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    return write_run(root / "street", write_data(root / "data"))


def test_export_then_predict(run, tmp_path):
    done = intarsia("export", run, "--out", tmp_path / "m.onnx")
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert names[:4] == ["file", "input", "output", "compared"]
    assert done.stdout.splitlines()[-1] == f"next       intarsia predict {tmp_path / 'm.onnx'} IMAGES --out DIR"
    intarsia(
        "predict", tmp_path / "m.onnx", run.parent / "data" / "test" / "images" / "b.png", "--out", tmp_path / "seen"
    )
    assert (tmp_path / "seen" / "b.png").is_file()


def test_json_tells_all(run, tmp_path):
    done = intarsia("export", run, "--out", tmp_path / "m.pt2", "--format", "torch-export", "--with-argmax", "--json")
    told = json.loads(done.stdout)
    assert told["path"] == str(tmp_path / "m.pt2")
    assert told["card"]["output"] == "classes"
    assert told["card"]["parity"]["agreement"] >= 0.9999
    assert told["bytes"] == (tmp_path / "m.pt2").stat().st_size


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["nowhere"], "nowhere: does not exist", 2),
        (["{run}", "--format", "tflite"], "'tflite' is not one of", 2),
        (["{run}", "--precision", "bf16"], "choose", 2),
        (["{run}/model", "--precision", "int8"], "needs training images to calibrate on", 6),
    ],
)
def test_slips_are_one_line(run, words, message, code):
    if message == "choose":
        message = "onnxruntime computes no bf16"
    done = intarsia("export", *[word.format(run=run) for word in words], code=code)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
