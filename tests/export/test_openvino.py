"""OpenVINO's two files: the card inside the first, the hash over both."""

import re

import numpy as np
import pytest

from intarsia.engines.engine import open_engine
from intarsia.engines.files import read_card, read_openvino
from intarsia.errors import ConfigError, IntegrityError
from intarsia.export.openvino_write import change_card, write_openvino
from tests.export.small_nets import small_card, write_small


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    card = write_small(folder / "m.onnx", small_card())
    return folder / "m.xml", write_openvino(folder / "m.onnx", card, folder / "m.xml"), card


def test_both_files_compute_what_the_onnx_file_does(made):
    path, card, of_onnx = made
    image = np.random.default_rng(0).normal(size=(2, 3, 33, 47)).astype(np.float32)
    found = open_engine(path, card)(image)
    assert np.allclose(found, open_engine(path.with_name("m.onnx"), of_onnx)(image), atol=1e-4)


def test_weights_are_stored_in_fp32(made):
    assert 'element_type="f16"' not in made[0].read_text()


def test_card_is_read_back_and_stands_once(made):
    path, card, of_onnx = made
    assert read_card(path) == card
    assert card.content != of_onnx.content
    assert len(re.findall("<intarsia ", path.read_text())) == 1  # not the ONNX file's as well
    assert card.classes.names[1] == "tree <b>"  # which must be escaped in XML


def test_another_card_leaves_the_network(made):
    path, card, _ = made
    weights, content = path.with_suffix(".bin").read_bytes(), read_openvino(path)[1]
    changed = change_card(path, card.replace(agreement={"bf16": 0.999}, model='a "b" <c> & d'))
    assert read_card(path) == changed
    assert changed.content == content == card.content
    assert path.with_suffix(".bin").read_bytes() == weights
    change_card(path, card)
    assert read_card(path) == card


def test_a_flipped_bit_is_found_in_either_file(made, tmp_path):
    path, *_ = made
    for name in ("m.xml", "m.bin"):
        for each in (path, path.with_suffix(".bin")):
            (tmp_path / each.name).write_bytes(each.read_bytes())
        damaged = bytearray((tmp_path / name).read_bytes())
        damaged[300] ^= 1
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(IntegrityError):
            read_card(tmp_path / "m.xml")


def test_what_cannot_be_converted_is_told_in_one_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x09nonsense")
    with pytest.raises(ConfigError, match="small cannot be written for OpenVINO") as met:
        write_openvino(tmp_path / "m.onnx", small_card(), tmp_path / "m.xml")
    assert "\n" not in str(met.value)
