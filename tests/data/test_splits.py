"""Splits: grouped, stratified, folds; each is the same for the same seed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intarsia.data import FolderConfig
from intarsia.data.base import Item
from intarsia.data.splits import complete_splits
from intarsia.errors import ConfigError, DataError
from intarsia.progress import Silent
from tests.conftest import write

PATIENT = r"^(p\d+)_"


def items(groups: int, each: int) -> list[Item]:
    names = [f"p{g:02d}_{n}" for g in range(groups) for n in range(each)]
    return [Item(name, Path(name), Path(name), 8, 8) for name in names]


def split(given_, **settings):
    rest = {"val_share": 0.15, "test_share": 0.15, "seed": 0, "label": "set", **settings}
    return complete_splits(given_, **rest)


def patients(part) -> set[str]:
    return {item.name[:3] for item in part}


@given(st.integers(3, 12), st.integers(1, 7), st.integers(0, 5), st.booleans())
def test_groups_stay_together_and_nothing_is_lost(groups, each, seed, stratify):
    rng = np.random.default_rng(seed)
    everything = items(groups, each)
    held = {item.name: rng.integers(0, 2, 4) for item in everything}
    classes_of = (lambda item: held[item.name]) if stratify else None
    splits, _ = split({None: everything}, group=PATIENT, seed=seed, classes_of=classes_of)
    assert sorted(item.name for part in splits.values() for item in part) == sorted(item.name for item in everything)
    sides = [patients(splits[name]) for name in ("train", "val", "test")]
    assert all(sides)
    assert not (sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2])


@given(st.integers(2, 6), st.integers(0, 3), st.booleans())
def test_every_image_validates_in_exactly_one_fold(folds, seed, grouped):
    everything = items(12, 3)
    group = PATIENT if grouped else None
    seen: Counter[str] = Counter()
    tests = set()
    for fold in range(folds):
        splits, notes = split({None: everything}, folds=folds, fold=fold, group=group, seed=seed)
        seen.update(item.name for item in splits["val"])
        tests.add(tuple(item.name for item in splits["test"]))
        assert f"fold {fold} of {folds} validates" in notes[0]
        assert not {i.name for i in splits["train"]} & {i.name for i in splits["val"]}
        if grouped:
            assert not patients(splits["train"]) & patients(splits["val"])
    assert len(tests) == 1  # the test does not depend on the fold
    assert set(seen.values()) == {1}
    assert len(seen) + len(tests.pop()) == len(everything)


def test_folds_deal_a_given_validation_again_and_keep_the_test():
    everything = items(5, 2)
    given_ = {"train": everything[:6], "val": everything[6:8], "test": everything[8:]}
    splits, notes = split(given_, folds=4, fold=3)
    assert [item.name for item in splits["test"]] == ["p04_0", "p04_1"]
    assert len(splits["val"]) == 2
    assert "the validation split that was given is dealt again" in notes[0]


def test_stratified_shares_of_a_rare_class():
    everything = items(40, 1)
    rare = {item.name for item in everything[:8]}

    def classes_of(item: Item) -> np.ndarray:
        return np.array([10, 5 * (item.name in rare)])

    for seed in range(5):
        splits, _ = split({None: everything}, val_share=0.25, test_share=0.25, seed=seed, classes_of=classes_of)
        held = [sum(item.name in rare for item in splits[name]) for name in ("train", "val", "test")]
        assert held == [4, 2, 2]
        assert [len(splits[name]) for name in ("train", "val", "test")] == [20, 10, 10]


def test_groups_of_a_given_split_on_both_sides_are_told():
    everything = items(3, 2)
    _, notes = split({"train": everything[:3], "val": everything[3:]}, group=PATIENT)
    assert "1 groups of data.group are in more than one split, first p01" in notes


def test_validation_from_training_by_group():
    splits, notes = split({"train": items(6, 4), "test": items(1, 1)}, group=PATIENT)
    assert len(splits["val"]) == 4
    assert "grouped by" in notes[-1]


def test_faults():
    with pytest.raises(ConfigError, match=r"data.group: '\^q' does not match 4 of 4 names, first 'p00_0'"):
        split({None: items(2, 2)}, group="^q")
    with pytest.raises(DataError, match=r"has 1 groups of data.group, and 2 are needed"):
        split({None: items(1, 5)}, group=PATIENT)
    with pytest.raises(DataError, match="has 3 images, and 6 are needed"):
        split({None: items(3, 1)}, folds=5)
    with pytest.raises(ConfigError, match="no regular expression"):
        FolderConfig(group="(")
    with pytest.raises(ConfigError, match=r"fold must be below folds \(3\)"):
        FolderConfig(folds=3, fold=3)


def test_a_folder_in_folds_is_written_down_and_read_back(folder, tmp_path):
    from intarsia.evaluation.evaluate import evaluate
    from intarsia.evaluation.experiment import train

    root = folder(9)
    settings = {"model": {"name": "unet_same", "width": 2, "depth": 1}, "train": {"steps": 1, "batch": 2}}
    data = {"size": (16, 16), "folds": 3, "fold": 2, "stratify": True, "group": r"i(\d)"}
    run = train(
        root, out=tmp_path / "run", progress=Silent(), data=data, evaluate={"after_training": False}, **settings
    )
    opened = FolderConfig(path=str(root), **data).open(Silent())
    assert opened.split_source == "fold 2 of 3, drawn with seed 0"
    scored = [image.item.name for image in evaluate(run, "val", progress=Silent(), report=False).images]
    assert sorted(scored) == [item.name for item in opened.splits["val"]]


def test_split_folders_in_folds_are_read_back(tmp_path):
    from intarsia.config import read_yaml
    from intarsia.runs import write_json

    for split_, count in (("train", 4), ("val", 2)):
        for index in range(count):
            write(tmp_path / "set" / split_ / "images" / f"{index}.png", np.full((8, 8), index, np.uint8))
            write(tmp_path / "set" / split_ / "masks" / f"{index}.png", np.eye(8, dtype=np.uint8))
    config = FolderConfig(path=str(tmp_path / "set"), folds=3, fold=1)
    first = config.open(Silent())
    lists = {name: [item.name for item in part] for name, part in first.splits.items()}
    write_json(tmp_path / "splits.json", {"source": first.split_source, **lists})
    again = config.of_run(tmp_path).open(Silent())
    assert {name: [item.name for item in part] for name, part in again.splits.items()} == lists
    assert read_yaml(tmp_path / "splits.json")["source"] == "fold 1 of 3, drawn with seed 0"
