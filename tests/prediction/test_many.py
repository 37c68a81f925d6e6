"""Many images through an engine: several at once, and still in order, each once, as if one came after the other."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

import intarsia as ia
from intarsia.devices import cores
from intarsia.errors import PartialFailure
from intarsia.prediction.predict import predict
from tests.engines.nets import kernel, write_conv

SIZES = ((40, 50), (64, 64), (33, 90), (150, 170))


@pytest.fixture(params=["onnxruntime", "openvino"])
def model(request, tmp_path):
    return ia.load(write_conv(tmp_path / "net.onnx", kernel()), settings={"backend": request.param, "tile": 64})


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 256, (*SIZES[number % len(SIZES)], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"i{number:02}.png")
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_many_are_what_one_by_one_are(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr("intarsia.prediction.networks.engine_network.cores", lambda: 3)
    told = []
    (images / "i07.png").write_bytes(b"no image")
    with pytest.raises(PartialFailure, match=r"1 of 24 images(.|\n)*i07\.png"):
        predict(model, images, out=tmp_path / "out", done=told.append)
    names = [written.image.name for written in told]
    assert names == sorted(names)
    assert len(set(names)) == 23
    assert {line["image"][-7:-4] for line in lines(tmp_path / "out")} == {f"i{number:02}" for number in range(24)}
    for number in (0, 3, 23):
        alone = model.predict(images / f"i{number:02}.png").classes
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / f"i{number:02}.png")), alone)
    with pytest.raises(PartialFailure):
        predict(model, images, out=tmp_path / "out", done=told.append)
    assert all(written.skipped for written in told[23:])


def test_several_are_computed_at_once(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr("intarsia.prediction.networks.engine_network.cores", lambda: 2)
    many = model.for_many(24)
    assert (model.network.parallel, many.network.parallel) == (1, 2)
    engine = many.network.engines[0]
    both, usual = threading.Barrier(2, timeout=20), type(engine).lend
    monkeypatch.setattr(type(engine), "lend", lambda self, image: (both.wait(), usual(self, image))[1])
    predict(many, sorted(images.iterdir())[:2], out=tmp_path / "out")  # neither goes on before the other is there


def test_a_few_have_all_cores(model, monkeypatch):
    monkeypatch.setattr("intarsia.prediction.networks.engine_network.cores", lambda: 4)
    assert model.for_many(15) is model
    assert model.for_many(16).network.parallel == 4


def test_the_cores_can_be_limited(monkeypatch):
    there = cores()
    monkeypatch.setenv("INTARSIA_THREADS", "1")
    assert cores() == 1
    monkeypatch.setenv("INTARSIA_THREADS", "1000")
    assert cores() == there
    monkeypatch.setenv("INTARSIA_THREADS", "many")
    assert cores() == there


def test_threads_that_call_an_engine_first_do_not_wait_for_each_other(tmp_path):
    """In a process of its own, since it is the first call of all that counts."""
    import subprocess
    import sys

    path = write_conv(tmp_path / "net.onnx", kernel())
    code = (
        "import numpy as np\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "from pathlib import Path\nfrom intarsia.engines.engine import open_engine\n"
        "from intarsia.engines.files import read_card\n"
        f"path = Path({str(path)!r})\n"
        "engine = open_engine(path, read_card(path), backend='openvino').with_streams(2)\n"
        "image = np.zeros((1, 3, 64, 64), np.float32)\n"
        "with ThreadPoolExecutor(2) as threads:\n    print(len(list(threads.map(engine, [image] * 8))))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "8\n", ended.stderr
