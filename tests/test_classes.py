"""Class tables: every form, every slip."""

import json

import numpy as np
import pytest

from intarsia.classes import IGNORE, UNKNOWN, ClassTable, default_colors, read_class_table
from intarsia.errors import ConfigError, DataError


@pytest.mark.parametrize(
    "text",
    [
        "names: [background, cell]\nvalues: {0: background, 255: cell}",
        "names: [background, cell]\nvalues: {0: 0, 255: 1}",
        "{0: background, 255: cell}",
        '{"0": "background", "255": "cell"}',
        "names: {0: background, 255: cell}",
        "classes:\n- {name: background, value: 0}\n- {name: cell, value: 255}",
        "- {name: background, value: 0}\n- {name: cell, value: 255}",
    ],
)
def test_every_form_means_the_same(text, tmp_path):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    table, _ = read_class_table(file)
    lookup = table.lookup()
    assert table.names == ("background", "cell")
    assert (lookup[0], lookup[1]) == (0, UNKNOWN)
    assert lookup[255] in (1, IGNORE)


def test_values_255_as_a_class_need_no_ignored_value(tmp_path):
    file = tmp_path / "classes.yaml"
    file.write_text("names: [a, b]\nvalues: {0: a, 255: b}")
    assert read_class_table(file)[0].lookup()[255] == 1


def test_palette_of_other_tools_is_read_and_extra_entries_are_said(tmp_path):
    file = tmp_path / "classes.json"
    content = {"names": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]], "ignore_index": 11, "train_mean": [0.5]}
    file.write_text(json.dumps(content))
    table, notes = read_class_table(file)
    assert table.colors == ((1, 2, 3), (4, 5, 6))
    assert table.lookup()[11] == IGNORE
    assert notes == ["classes.json: not used: train_mean"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, a]", "twice: a"),
        ("names: [a, b]\ncolors: [[0, 0, 0]]", "2 names need 2 colors"),
        ("names: [a, b]\ncolors: [[0, 0, 300], [0, 0, 0]]", r"three numbers 0\.\.255"),
        ("names: [a, b]\nvalues: {0: a, 1: c}", "'c', which is no class"),
        ("name: [a]", "Did you mean 'names'"),
        ("42", "is no class table"),
        ("names: [", "is not YAML"),
        ("colors: [[0, 0, 0]]", "names no classes"),
        ("names: []", "1 to 255"),
    ],
)
def test_a_slip_is_one_line_with_the_file(text, message, tmp_path):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_class_table(file)
    assert "classes.yaml" in str(error.value)


def test_text_reads_back(tmp_path):
    table = ClassTable(names=("no", "1e3", "ünïcode"), ignore_index=7, values={0: "no", 3: "1e3", 9: "ünïcode"})
    file = tmp_path / "classes.yaml"
    file.write_text(table.to_text(), encoding="utf-8")
    assert read_class_table(file)[0] == table


@pytest.mark.parametrize("count", [1, 2, 8, 19, 30, 150, 255])
def test_default_colours_differ(count):
    assert len(set(default_colors(count))) == count


def test_palette_has_ignored_pixels_in_grey():
    palette = np.array(ClassTable(names=("a", "b")).palette()).reshape(256, 3)
    assert palette[IGNORE].tolist() == [128, 128, 128]


def test_too_many_classes():
    with pytest.raises(ConfigError, match="1 to 255"):
        ClassTable(names=tuple(map(str, range(256))))
