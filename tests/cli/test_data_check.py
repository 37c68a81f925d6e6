"""`intarsia data check` and `data stats`: what is printed, what is written, which exit code."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write


def leaking(folder):
    root = folder(5)
    for kind in ("images", "masks"):
        (root / kind / "i4.png").write_bytes((root / kind / "i0.png").read_bytes())
    (root / "splits.json").write_text(json.dumps({"train": ["i0", "i1", "i2"], "val": ["i3"], "test": ["i4"]}))
    return root


def test_a_clean_folder(intarsia, cells):
    code, out, _ = intarsia("data", "check", cells, "--strict")
    assert code == 0
    assert "usable." in out
    assert "(an estimate: encdec, " in out
    assert "weight" in out
    assert "to look at" not in out


def test_things_to_look_at_are_told_and_strict_refuses_them(intarsia, folder):
    root = leaking(folder)
    code, out, _ = intarsia("data", "check", root)
    assert code == 0
    assert "One thing to look at:" in out
    assert "images/i4.png = images/i0.png" in out
    code, _, err = intarsia("data", "check", root, "--strict")
    assert code == 6
    assert err.strip() == f"{root}: --strict refuses 1 of the things to look at."


def test_json_holds_everything(intarsia, folder):
    code, out, _ = intarsia("data", "check", leaking(folder), "--json")
    facts = json.loads(out)
    assert (code, facts["usable"]) == (0, True)
    assert [finding["code"] for finding in facts["findings"]] == ["W_LEAK"]
    assert facts["largest_batch"]["is_an_estimate"]
    assert facts["largest_batch"]["largest"] > 0
    assert len(facts["class_weights"]["median_frequency"]) == 2


def test_fix_writes_a_copy_that_is_clean(intarsia, folder, tmp_path):
    root = folder(5, values=(0, 255))
    code, out, err = intarsia("data", "check", root, "--fix", tmp_path / "copy")
    assert code == 0
    assert "masks hold 0 and 255" in out
    assert "5 files mended, 5 copied as they are" in out
    assert f"{tmp_path / 'copy'}: usable." in out
    assert err == ""
    assert intarsia("data", "check", tmp_path / "copy")[0] == 0


def test_fix_says_what_is_left_and_leaves_with_3(intarsia, folder, tmp_path):
    root = folder(5, values=(0, 255))
    (root / "masks" / "i1.png").unlink()
    code, out, err = intarsia("data", "check", root, "--fix", tmp_path / "copy")
    assert code == 3
    assert "images/i1.png: image without mask" in out
    assert "1 things are not mended" in err
    code, out, _ = intarsia("data", "check", root, "--fix", tmp_path / "other", "--json")
    assert code == 3
    assert json.loads(out)["fix"]["not_mended"] == [{"file": "images/i1.png", "why": "image without mask"}]


def test_pictures_of_findings_and_of_faults(intarsia, folder, tmp_path):
    root = leaking(folder)
    code, out, _ = intarsia("data", "check", root, "--picture", tmp_path / "p" / "found.png")
    assert code == 0
    assert f"picture  {tmp_path / 'p' / 'found.png'}" in out
    write(root / "masks" / "i1.png", np.ones((3, 4), np.uint8))
    (root / "images" / "i2.png").write_text("no image")
    code, _, err = intarsia("data", "check", root, "--picture", tmp_path / "faults.png")
    assert code == 6
    assert "faults.png" in err
    for path in (tmp_path / "p" / "found.png", tmp_path / "faults.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200


def test_doubts_of_a_model(intarsia, cells, tiny_run, tmp_path):
    words = ("data", "check", cells, "--model", tiny_run)
    code, out, _ = intarsia(*words, "--picture", tmp_path / "x.png")
    assert code == 0
    assert "doubts most" in out
    code, out, _ = intarsia(*words, "--json")
    assert isinstance(json.loads(out)["label_errors"], list)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--nearest-colour"], 2, "give --fix DIR as well"),
        (["--fix", "{cells}"], 2, "--fix: {cells} exists and is not an empty folder"),
        (["--picture", "{file}/x.png"], 74, "cannot be written"),
        (["--picture", "{new}.nonsense"], 74, "such as sheet.png"),
        (["--model", "nowhere"], 2, "nowhere"),
    ],
)
def test_slips_are_one_line(intarsia, cells, tmp_path, words, code, message):
    (tmp_path / "file").write_text("")
    places = {"cells": cells, "file": tmp_path / "file", "new": tmp_path / "new"}
    met, _, err = intarsia("data", "check", cells, *(word.format(**places) for word in words))
    assert met == code
    assert message.format(**places) in err
    assert len(err.strip().splitlines()) == 1


def test_stats(intarsia, cells):
    code, out, _ = intarsia("data", "stats", cells)
    assert code == 0
    assert "160 x 160 (11)" in out
    assert "enet" in out
    facts = json.loads(intarsia("data", "stats", cells, "--json")[1])
    assert facts["images"] == {"train": 6, "val": 2, "test": 3}
    assert facts["classes"] == ["background", "cell", "nucleus"]


def test_a_sheet_of_a_split(intarsia, cells, tmp_path):
    code, out, _ = intarsia("data", "view", cells, "--sheet", "--split", "val", "--out", tmp_path)
    assert code == 0
    assert out.strip() == str(tmp_path / "val-sheet.png")
    code, _, err = intarsia("data", "view", cells, "--sheet", "--weights", "--out", tmp_path)
    assert code == 2
    assert "give one of them" in err


@pytest.mark.parametrize("name", ["camvid-mini", "dsb2018", "isbi2012/train"])
def test_real_folders_are_usable_and_have_no_copies_across_the_split(intarsia, shared, name):
    code, out, _ = intarsia("data", "check", shared(f"data/{name}"), "--json")
    assert code == 0
    assert json.loads(out)["findings"] == []


def test_path_is_also_where_a_named_data_set_lies(intarsia, shared):
    code, out, _ = intarsia("data", "check", shared("data/dsb2018"), "data=dsb2018")
    assert code == 0
    assert "classes  2, Data Science Bowl 2018" in out
