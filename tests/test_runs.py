"""A model folder on disk: what is written, and how each kind of damage to a file is told from the others."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from intarsia.errors import ConfigError, HashMismatch, IntegrityError, PickleRefused, TruncatedFile
from intarsia.runs import (
    MANIFEST,
    WEIGHTS,
    check_file,
    file_sha256,
    find_model,
    is_cut,
    is_pickle,
    read_manifest,
    write_model,
)

TENSORS = {"a": np.arange(600, dtype=np.float32).reshape(20, 30), "b": np.ones(7, np.float32)}


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "model", TENSORS, {"about": [[1.5, -2], [3e-9, 4]], "text": "[\n 1,\n 2\n]"})
    return tmp_path / "model"


def without_sizes(folder):
    """As folders were written before lengths were noted."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["bytes"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rehashed(folder):
    """The manifest is made to fit whatever lies beside it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][WEIGHTS] = file_sha256(folder / WEIGHTS)
    manifest["bytes"] = {WEIGHTS: (folder / WEIGHTS).stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_manifest_is_read_back_with_rows_of_numbers_in_one_line(folder):
    manifest = read_manifest(folder)
    assert manifest["about"] == [[1.5, -2], [3e-9, 4]]
    assert manifest["text"] == "[\n 1,\n 2\n]"
    assert manifest["bytes"] == {WEIGHTS: (folder / WEIGHTS).stat().st_size}
    assert "[1.5, -2]" in (folder / MANIFEST).read_text()


@pytest.mark.parametrize("sizes", ["noted", "not noted"])
@pytest.mark.parametrize("place", [1, 9, 40, 2000, -1])
def test_one_flipped_bit_is_a_hash_that_differs(folder, place, sizes):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[place] ^= 4
    (folder / WEIGHTS).write_bytes(bytes(content))
    if sizes == "not noted":
        without_sizes(folder)
    with pytest.raises(HashMismatch, match=r"sha256 differs.*Copy it again"):
        read_manifest(folder)


@pytest.mark.parametrize("mend", [lambda folder: None, without_sizes, rehashed])
@pytest.mark.parametrize("length", [0, 3, 8, 9, 60, 0.5, -1])
def test_a_missing_end_is_told_wherever_it_is_cut(folder, length, mend):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(len(content) * length) if length == 0.5 else length])
    mend(folder)
    with pytest.raises(TruncatedFile, match=r"is cut short, it has \d+"):
        read_manifest(folder)


def test_a_longer_file_is_another_file(folder):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(HashMismatch):
        read_manifest(folder)


@pytest.mark.parametrize("files", [{}, [], None, {"other": "0"}])
def test_a_manifest_without_a_hash_of_the_weights_is_damaged(folder, files):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": files}))
    with pytest.raises(IntegrityError, match="damaged"):
        read_manifest(folder)


class Harmful:
    """What a hostile file holds: code that runs when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def stored_by_torch(value, zipped=True):
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


PICKLES = {
    **{f"protocol {number}": pickle.dumps({"w": [1.0, 2.0], "x": Harmful()}, protocol=number) for number in range(6)},
    "one long piece": pickle.dumps(bytes(20_000)),
    "torch": stored_by_torch({"w": torch.ones(4)}),
    "torch, cut short": stored_by_torch({"w": torch.ones(400)})[:900],
    "torch, before 1.6": stored_by_torch({"w": torch.ones(4)}, zipped=False),
}


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("mend", [lambda folder: None, rehashed])
def test_a_pickle_named_safetensors_is_refused_by_name(folder, kind, mend):
    (folder / WEIGHTS).write_bytes(PICKLES[kind])
    mend(folder)
    with pytest.raises(PickleRefused, match=r"could run code.*weights_only=True.*save_model") as refusal:
        read_manifest(folder)
    assert refusal.value.exit_code == 7


@pytest.mark.parametrize("name", ["net.pt", "net.PTH", "last.ckpt", "net.pkl", "pytorch_model.bin"])
def test_the_path_of_a_pickle_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(PICKLES["torch"])
    with pytest.raises(PickleRefused, match=name):
        find_model(tmp_path / name)


def test_what_is_no_pickle_is_not_called_one(tmp_path, folder):
    with pytest.raises(ConfigError, match="is no run and no model folder"):
        find_model(folder / MANIFEST)
    path = tmp_path / "file"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing")
    assert not is_pickle(path)
    noise = np.random.default_rng(0).bytes(5000)
    for content in (b"", b".", b"\x80", b"Notes on the network.", b"\x89PNG\r\n\x1a\n", bytes(100), noise):
        path.write_bytes(content)
        assert not is_pickle(path), content[:9]
    assert not is_pickle(tmp_path / "nowhere")


def test_safetensors_that_begin_like_a_pickle_are_none(tmp_path):
    """Headers of 640, 896, ... bytes begin with 0x80 and the number of a protocol."""
    met = set()
    for count in range(60):
        write_model(tmp_path / "model", {f"tensor {index}": np.ones(3, np.float32) for index in range(count)}, {})
        read_manifest(tmp_path / "model")
        met.add((tmp_path / "model" / WEIGHTS).read_bytes()[:2])
    assert any(head[0] == 0x80 and 2 <= head[1] <= 5 for head in met)


def test_a_file_is_held_against_what_was_noted(folder):
    path = folder / WEIGHTS
    size, digest = path.stat().st_size, file_sha256(path)
    check_file(path, digest, size)
    check_file(path, digest)
    assert not is_cut(path)
    assert not is_cut(folder / MANIFEST)
    with pytest.raises(TruncatedFile, match=rf"it has {size} of {size + 1} bytes"):
        check_file(path, digest, size + 1)
    with pytest.raises(IntegrityError, match="is missing"):
        check_file(folder / "nowhere", digest)
