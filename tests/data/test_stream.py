"""Shards: what goes in comes out byte for byte, in any order; what is missing, cut off or changed is one line."""

import importlib.util
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from intarsia import optional
from intarsia.data import DATASETS, FolderConfig
from intarsia.data.stream import StreamConfig
from intarsia.data.stream.convert import convert
from intarsia.errors import ConfigError, DataError, FileError, IntegrityError, MissingExtra
from intarsia.losses.base import Border
from intarsia.progress import Silent
from tests.conftest import TINY, write

NO_LITDATA = "litdata (40 MB of cloud clients) is not in the development set: pip install 'intarsia[stream]'"
KINDS = [
    "webdataset",
    pytest.param("litdata", marks=pytest.mark.skipif(not importlib.util.find_spec("litdata"), reason=NO_LITDATA)),
]


def opened(root, **settings):
    return StreamConfig(name="stream", path=str(root), **settings).open(Silent())


def converted(source, target, kind="webdataset", most=45_000, **settings):
    convert(FolderConfig(path=str(source), **settings), target, kind, Silent(), most=most)
    return target


def by_name(dataset):
    return {item.name: (split, item) for split, items in dataset.splits.items() for item in items}


def change(root, **values):
    """Write something else into intarsia.json."""
    file = root / "intarsia.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture
def shards(cells, tmp_path):
    return converted(cells, tmp_path / "shards")


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_in_comes_out(kind, cells, tmp_path):
    root = converted(cells, tmp_path / "shards", kind)
    ours, theirs = opened(root, verify=True), FolderConfig(path=str(cells)).open(Silent())
    assert len(json.loads((root / "intarsia.json").read_text())["shards"]) > 3
    for split in theirs.splits:
        assert [item.name for item in ours.splits[split]] == [item.name for item in theirs.splits[split]]
    there = by_name(ours)
    for name, (_, item) in reversed(by_name(theirs).items()):
        mine = there[name][1]
        assert ours.members[mine.image].read() == item.image.read_bytes()
        assert ours.members[mine.mask].read() == item.mask.read_bytes()
        assert np.array_equal(ours.read_image(mine), theirs.read_image(item))
        assert np.array_equal(ours.read_mask(mine), theirs.read_mask(item))
        assert not mine.image.exists()
    for fact in ("table", "channels", "value_range", "mean", "std", "label", "split_source"):
        assert getattr(ours, fact) == getattr(theirs, fact), fact
    for split, pixels in theirs.class_pixels.items():
        assert np.array_equal(ours.class_pixels[split], pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_trains_one_step_and_evaluates(kind, cells, tmp_path):
    from intarsia.evaluation.evaluate import evaluate
    from intarsia.evaluation.experiment import train
    from intarsia.recipes.recipe import Recipe

    root = converted(cells, tmp_path / "shards", kind)
    recipe = Recipe().replace(data={"name": "stream", "path": str(root), "size": (32, 32)}, model=TINY)
    steps = {"steps": 2, "batch": 4, "validations": 1, "memory_format": "contiguous", "workers": 2}
    run = train(recipe, out=tmp_path / "run", progress=Silent(), train=steps, evaluate={"after_training": False})
    assert len(evaluate(run, progress=Silent(), report=False).images) == 3


def test_the_file_format_is_webdatasets_own(shards, cells):
    webdataset = pytest.importorskip("webdataset")
    read = list(webdataset.WebDataset(sorted(map(str, shards.glob("train-*.tar"))), shardshuffle=False))
    names = [sample["__key__"] for sample in read]
    assert sorted(names) == sorted(f"train/{path.stem}" for path in (cells / "train" / "images").iterdir())
    for sample in read:
        file = f"{sample['__key__'].removeprefix('train/')}.png"
        assert sample["png"] == (cells / "train" / "images" / file).read_bytes()
        assert sample["mask.png"] == (cells / "train" / "masks" / file).read_bytes()


def test_shards_are_the_same_each_time(shards, cells, tmp_path):
    again = converted(cells, tmp_path / "again")
    for path in shards.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_a_class_map_is_written_into_the_masks(folder, tmp_path):
    source = folder(6, values=(0, 1, 2))
    (source / "classes.yaml").write_text("names: [a, b, c]\n")
    settings = {"class_map": {"b": "other", "c": "other"}}
    ours = opened(converted(source, tmp_path / "shards", **settings))
    theirs = FolderConfig(path=str(source), **settings).open(Silent())
    assert ours.table.names == theirs.table.names
    for name, (split, item) in by_name(theirs).items():
        assert by_name(ours)[name][0] == split
        assert np.array_equal(ours.read_mask(by_name(ours)[name][1]), theirs.read_mask(item))


def test_single_objects_come_along(folder, tmp_path):
    source = folder(4)
    for index in range(4):
        write(source / "instances" / f"i{index}.png", np.full((24, 32), index, np.uint8))
    ours, theirs = opened(converted(source, tmp_path / "shards")), FolderConfig(path=str(source)).open(Silent())
    for name, (_, item) in by_name(theirs).items():
        mine = by_name(ours)[name][1]
        assert np.array_equal(ours.read_instances(mine), theirs.read_instances(item))
        border = Border(10.0, 5.0)
        assert np.array_equal(ours.border_weights(mine, border), theirs.border_weights(item, border))


def test_names_with_dots_and_ours_after_a_split_file(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.v1", "a.v2", "a_v1", "b"):
        write(tmp_path / "set" / "images" / f"{name}.png", rng.integers(0, 255, (8, 8, 3), np.uint8))
        write(tmp_path / "set" / "masks" / f"{name}.png", rng.integers(0, 2, (8, 8), np.uint8))
    root = converted(tmp_path / "set", tmp_path / "shards")
    assert sorted(by_name(opened(root))) == ["a.v1", "a.v2", "a_v1", "b"]
    listed = tmp_path / "splits.json"
    listed.write_text(json.dumps({"train": ["a.v2", "b"], "val": ["a_v1"]}))
    data = opened(root, splits=str(listed))
    assert [[item.name for item in items] for items in data.splits.values()] == [["a.v2", "b"], ["a_v1"], []]


def test_bands_that_were_not_noted_are_read_anew(shards):
    plain, first = opened(shards), opened(shards, bands=(1,))
    assert first.channels == 1
    assert by_name(first).keys() == by_name(plain).keys()
    item = first.splits["train"][0]
    assert first.read_image(item).ndim == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["missing", "cut off", "changed", "count"])
def test_a_shard_that_is_not_what_was_written(kind, fault, cells, tmp_path):
    root = converted(cells, tmp_path / "shards", kind)
    noted = json.loads((root / "intarsia.json").read_text())
    name = noted["shards"][1]["name"]
    content = (root / name).read_bytes()
    if fault == "missing":
        (root / name).unlink()
        with pytest.raises(IntegrityError, match=f"{name}: the shard is missing; .* Copy the shard again"):
            opened(root)
    if fault == "cut off":
        (root / name).write_bytes(content[:-700])
        with pytest.raises(
            IntegrityError, match=rf"{name}: the shard has {len(content) - 700} bytes, intarsia.json says"
        ):
            opened(root)
    if fault == "changed":
        place = len(content) // 3
        (root / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        opened(root)
        with pytest.raises(IntegrityError, match=f"{name}: the shard's sha256"):
            opened(root, verify=True)
    if fault == "count":
        shards = [{**one, "items": one["items"] + (one["name"] == name)} for one in noted["shards"]]
        change(root, shards=shards)
        with pytest.raises(IntegrityError, match=rf"{name}: the shard holds (\d+) items, intarsia.json says"):
            opened(root)


def test_a_shard_with_fewer_items_of_the_same_size(shards):
    noted = json.loads((shards / "intarsia.json").read_text())
    name = max(noted["shards"], key=lambda one: one["items"])["name"]
    content = (shards / name).read_bytes()
    last = content.rindex(b".png\0")
    head = content.rindex(b"train/", 0, last)
    (shards / name).write_bytes(content[:head] + bytes(len(content) - head))
    with pytest.raises(IntegrityError, match=r"holds no|the shard holds"):
        opened(shards)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}', "[1]", '{"format": 1, "kind": "zip"}'])
def test_a_damaged_intarsia_json(text, shards):
    (shards / "intarsia.json").write_text(text)
    with pytest.raises(DataError, match=r"intarsia.json: (is damaged|has format 2)"):
        opened(shards)


def test_shards_are_named_below_the_folder_only(shards):
    change(shards, shards=[{"name": "../x.tar", "items": 1, "bytes": 1, "sha256": ""}])
    with pytest.raises(DataError, match=r"a shard named '../x.tar', which is not read"):
        opened(shards)


def test_a_shard_cut_off_after_opening(shards):
    data = opened(shards)
    item = data.splits["train"][-1]
    for path in shards.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(FileError, match=r"is cut off: \d+ of \d+ bytes from byte \d+ on are there") as caught:
        data.read_image(item)
    assert caught.value.path == item.image


@pytest.mark.parametrize("kind", ["webdataset", "litdata"])
def test_the_extra_is_named_where_it_is_missing(kind, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(optional, "found", lambda module: False)
    with pytest.raises(MissingExtra, match=rf"{kind}, which is not installed: pip install 'intarsia\[stream\]'"):
        converted(cells, tmp_path / "shards", kind)
    assert not list(tmp_path.glob("*shards*"))


def test_tars_are_read_without_an_extra(shards, monkeypatch):
    monkeypatch.setattr(optional, "found", lambda module: False)
    assert len(opened(shards).splits["train"]) == 6


def test_a_folder_with_content_is_not_written_into(cells, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        converted(cells, tmp_path)
    assert (tmp_path / "mine").read_text() == "kept"


def test_shards_are_not_combined(shards):
    config = DATASETS["combined"].replace({"parts": [{"name": "stream", "path": str(shards)}]})
    with pytest.raises(ConfigError, match=r"shards are not combined. Combine the data sets"):
        config.open(Silent())


def png(array):
    buffer = io.BytesIO()
    from PIL import Image

    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(seed, size=(12, 16)):
    rng = np.random.default_rng(seed)
    return png(rng.integers(0, 256, (*size, 3), np.uint8)), png(rng.integers(0, 3, size, np.uint8))


@pytest.fixture
def foreign(tmp_path):
    """Shards of somebody else: 4 train and 2 val images, other members, names that lead elsewhere."""
    root = tmp_path / "foreign"
    for split, first, count in (("train", 0, 4), ("val", 4, 2)):
        members: dict[str, bytes] = {}
        for index in range(first, first + count):
            image, mask = sample(index)
            members |= {f"{index:04d}.json": b"{}", f"{index:04d}.png": image, f"{index:04d}.seg.png": mask}
        tar(root / f"{split}-000.tar", members)
    return root


def test_foreign_shards(foreign):
    data = opened(foreign)
    assert [len(items) for items in data.splits.values()] == [4, 2, 0]
    assert data.table.count == 3
    assert data.table_source == "inferred from the masks"
    assert any("there is no intarsia.json" in note for note in data.notes)
    assert any("4 members are passed over, such as .json" in note for note in data.notes)
    (foreign / "classes.yaml").write_text("names: [road, car, sky]\n")
    data = opened(foreign)
    assert data.table.names == ("road", "car", "sky")
    for index, item in enumerate(data.splits["train"]):
        image, mask = sample(index)
        assert (data.members[item.image].read(), data.members[item.mask].read()) == (image, mask)
    with pytest.raises(ConfigError, match=r"data.verify: .* has no intarsia.json"):
        opened(foreign, verify=True)


def test_foreign_classes_that_do_not_fit(foreign):
    (foreign / "classes.yaml").write_text("names: [road, car]\n")
    with pytest.raises(DataError, match=r"train-000.tar/0000.seg.png: holds 2, which the class table does not know"):
        opened(foreign)


def test_names_are_only_names(tmp_path):
    outside = write(tmp_path / "outside.png", np.zeros((5, 5, 3), np.uint8))
    members = {}
    for index, key in enumerate(("../outside", "/etc/x", str(outside.with_suffix("")), "a/../../b")):
        image, mask = sample(index)
        members |= {f"{key}.png": image, f"{key}.mask.png": mask}
    tar(tmp_path / "data" / "x.tar", members)
    before = sorted(path for path in tmp_path.rglob("*"))
    data = opened(tmp_path / "data")
    items = [item for _, item in by_name(data).values()]
    assert len(items) == 4
    for item in items:
        assert item.image.is_relative_to(tmp_path / "data" / "x.tar")
        assert ".." not in item.image.parts
        assert data.read_image(item).shape == (12, 16, 3)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_one_name_in_two_shards_and_images_without_mask(tmp_path):
    for index, name in enumerate(("a", "b")):
        image, mask = sample(index)
        tar(tmp_path / f"{name}.tar", {"0.png": image, "0.mask.png": mask, "1.png": image})
    data = opened(tmp_path)
    assert sorted(by_name(data)) == ["a/0", "b/0"]
    assert any(note.startswith("2 images without mask are left out") for note in data.notes)


def test_damaged_foreign_shards(foreign):
    path = foreign / "train-000.tar"
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        third = archive.getmembers()[6]
    path.write_bytes(content[: third.offset_data + 100])
    with pytest.raises(FileError, match=rf"train-000.tar: is cut off at byte {third.offset} "):
        opened(foreign)
    path.write_bytes(content[: third.offset] + b"x" * 512 + content[third.offset + 512 :])
    with pytest.raises(FileError, match=rf"train-000.tar: is damaged at byte {third.offset} \(no tar header there\)"):
        opened(foreign)
    path.write_bytes(b"no tar")
    with pytest.raises(FileError, match=r"train-000.tar: is damaged at byte 0"):
        opened(foreign)
    image, mask = sample(0)
    tar(path, {"0.png": image[:-60], "0.mask.png": mask})
    with pytest.raises(DataError, match=r"train-000.tar/0.png: is (cut off|damaged)"):
        opened(foreign)


def test_folders_without_shards(tmp_path, folder):
    with pytest.raises(DataError, match=r"holds no shards. Expected \*.tar .* met: images/, masks/"):
        opened(folder(2))
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.tar.gz").touch()
    with pytest.raises(DataError, match="unpack them with gunzip"):
        opened(tmp_path / "packed")
    with pytest.raises(DataError, match="does not exist"):
        opened(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"data.path: is not set"):
        opened("")


def test_the_command(cells, tmp_path, intarsia):
    target = tmp_path / "shards"
    code, text, _ = intarsia("data", "convert", cells, target, "--to", "webdataset", "--megabytes", "0.05")
    assert code == 0
    assert "6 train · 2 val · 3 test in" in text
    assert f"use      data=stream data.path={target}" in text
    assert "usable" in intarsia("data", "check", target, "data=stream", "data.verify=true")[1]


def test_nothing_is_left_in_memory(shards, tmp_path, monkeypatch):
    from intarsia.data.stream import shards as module

    monkeypatch.setattr(module, "MEMORY", tmp_path / "memory")
    (tmp_path / "memory").mkdir()
    data = opened(shards)
    data.read_mask(data.splits["train"][0])
    assert not list((tmp_path / "memory").iterdir())
    shutil.rmtree(tmp_path / "memory")
    assert data.read_mask(data.splits["train"][0]).size
