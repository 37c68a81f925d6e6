"""Supervisely: every kind of object, every kind of PNG, bombs, and what is damaged. No real project lies at hand."""

from __future__ import annotations

import base64
import io
import json
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

import intarsia.importers  # noqa: F401
from intarsia.errors import FileError
from intarsia.importers.base import Files, find_format
from intarsia.importers.rasterize import render
from intarsia.importers.supervisely import MOST_UNPACKED, read
from tests.conftest import write

META = {
    "classes": [
        {"title": "dog", "shape": "any", "color": "#FF0080"},
        {"title": "cat", "shape": "polygon", "color": "nonsense"},
        {"title": "unused", "shape": "bitmap", "color": "#010203"},
    ],
    "tags": [],
}
TICK = np.array([[1, 0, 1], [0, 1, 1]], bool)


def points(exterior, interior=()):
    return {"points": {"exterior": exterior, "interior": list(interior)}}


def thing(kind, title="cat", **more):
    return {"classTitle": title, "geometryType": kind, **more}


def packed(image: Image.Image, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


def bitmap(data, origin=(1, 1)):
    return thing("bitmap", bitmap={"data": data, "origin": list(origin)})


def export(folder, *objects, dataset="ds", name="a.png", size=(4, 6), meta=META):
    (folder / dataset / "ann").mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    document = {"description": "", "tags": [], "size": {"height": size[0], "width": size[1]}, "objects": list(objects)}
    (folder / dataset / "ann" / f"{name}.json").write_text(json.dumps(document))
    return Files(folder)


def drawn(files, size=(4, 6)):
    project = read(files)
    found = render(project.pictures[0].shapes, size, project.classes).classes
    return ["".join("." if value == 255 else project.classes[value][0] for value in row) for row in found]


def test_a_project_has_its_order_colours_splits_and_images(tmp_path):
    for dataset in ("train", "val", "more"):
        write(tmp_path / dataset / "img" / "a.png", np.zeros((4, 6, 3), np.uint8))
        files = export(tmp_path, thing("rectangle", **points([[0, 0], [1, 1]])), dataset=dataset)
    assert find_format(files).name == "supervisely"
    project = read(files)
    assert project.classes == ("dog", "cat", "unused")
    assert project.colors == {"dog": (255, 0, 128), "unused": (1, 2, 3)}
    assert [(p.name, p.split, p.size, p.image) for p in project.pictures] == [
        (f"{each}/a", {"more": None}.get(each, each), (4, 6), tmp_path / each / "img" / "a.png")
        for each in ("more", "train", "val")
    ]


def test_older_projects_name_annotations_without_the_ending(tmp_path):
    image = write(tmp_path / "ds" / "img" / "a.jpg", np.zeros((4, 6, 3), np.uint8))
    assert read(export(tmp_path, name="a")).pictures[0].image == image


def test_an_image_of_another_data_set_is_not_taken(tmp_path):
    for dataset in ("train", "val"):
        write(tmp_path / dataset / "img" / "a.png", np.zeros((4, 6, 3), np.uint8))
    project = read(export(tmp_path, dataset="test"))
    assert (project.pictures[0].image, project.pictures[0].missing) == (None, "a.png")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (thing("rectangle", **points([[1, 0], [3, 2]])), [".cc...", ".cc...", "......", "......"]),
        (thing("rectangle", **points([[3, 2], [1, 0]])), [".cc...", ".cc...", "......", "......"]),
        (
            thing("polygon", **points([[0, 0], [6, 0], [6, 4], [0, 4]], [[[1, 1], [3, 1], [3, 3], [1, 3]]])),
            ["cccccc", "c..ccc", "c..ccc", "cccccc"],
        ),
        (
            thing("multipolygon", parts=[points([[0, 0], [1, 0], [1, 1], [0, 1]])["points"]] * 1
                  + [points([[4, 2], [6, 2], [6, 3], [4, 3]])["points"]]),
            ["c.....", "......", "....cc", "......"],
        ),
        (bitmap(packed(Image.fromarray(TICK.astype(np.uint8) * 255))), ["......", ".c.c..", "..cc..", "......"]),
        (bitmap(packed(Image.fromarray(TICK.astype(np.uint8) * 255)), (-1, 3)), ["......", "......", "......", ".c...."]),
        (bitmap(packed(Image.fromarray(TICK.astype(np.uint8) * 255)), (9, 9)), ["......"] * 4),
    ],
)  # fmt: skip
def test_each_kind_of_object(tmp_path, made, expected):
    assert drawn(export(tmp_path, made)) == expected


def palette(first):
    image = Image.fromarray(TICK.astype(np.uint8)).convert("P")
    image.putdata(TICK.astype(int).ravel().tolist())
    image.putpalette(first)
    return image


OPAQUE = np.where(TICK, 255, 0).astype(np.uint8)
RED = np.stack((np.full_like(OPAQUE, 255), OPAQUE * 0, OPAQUE * 0, OPAQUE), axis=2)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image.fromarray(OPAQUE), {}),
        (Image.fromarray(TICK), {}),
        (Image.fromarray(RED), {}),
        (Image.fromarray(RED[..., 2:]), {}),
        (Image.fromarray(np.repeat(OPAQUE[..., None], 3, axis=2)), {}),
        (palette([0, 0, 0, 255, 255, 255]), {"transparency": 0}),
        (palette([255, 255, 255, 0, 0, 0]), {}),
        (palette([9, 9, 9, 9, 9, 9]), {"transparency": 0, "bits": 1}),
    ],
    ids=["L", "1", "RGBA", "LA", "RGB", "P and transparency", "P, white first", "P of one bit"],
)
def test_every_kind_of_png(tmp_path, image, options):
    assert drawn(export(tmp_path, bitmap(packed(image, **options)))) == ["......", ".c.c..", "..cc..", "......"]


def test_the_later_object_lies_on_top(tmp_path):
    boxes = [thing("rectangle", title, **points([[x, 0], [x + 3, 1]])) for title, x in (("cat", 0), ("dog", 2))]
    assert drawn(export(tmp_path, *boxes))[0] == "ccddd."
    assert drawn(export(tmp_path, *boxes[::-1]))[0] == "cccdd."


def test_what_has_no_area_is_left_out_and_counted(tmp_path):
    kinds = ["point", "line", "line", "graph", "cuboid", "cuboid_2d", "alpha_mask"]
    objects = [thing(kind, **points([[0, 0], [1, 1]])) for kind in (*kinds, "polygon")]
    assert read(export(tmp_path, *objects)).left_out == {
        "points": 1, "lines": 2, "graphs": 1, "cuboids": 2, "shapes of type alpha_mask": 1,
        "polygons of less than three points": 1,
    }  # fmt: skip


def test_a_bomb_is_refused_quickly_and_with_little_memory(tmp_path):
    zeros = zlib.compress(bytes(200 << 20), 9)
    files = export(tmp_path, bitmap(base64.b64encode(zeros).decode()))
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(FileError, match="more than 32 MB") as error:
        read(files)
    assert time.monotonic() - start < 2
    assert tracemalloc.get_traced_memory()[1] < 4 * MOST_UNPACKED
    tracemalloc.stop()
    assert error.value.code == "E_TOO_LARGE"


def test_a_png_larger_than_its_image_is_refused_before_it_is_unpacked(tmp_path):
    huge = packed(Image.new("1", (12_000, 12_000)))
    start = time.monotonic()
    with pytest.raises(FileError, match="more pixels than its image"):
        read(export(tmp_path, bitmap(huge)))
    assert time.monotonic() - start < 1


GOOD = packed(Image.fromarray(OPAQUE))


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (bitmap("not base64 !"), "E_SHAPE"),
        (bitmap("ä"), "E_SHAPE"),
        (bitmap(base64.b64encode(b"not zlib").decode()), "E_SHAPE"),
        (bitmap(base64.b64encode(zlib.compress(b"not a PNG")).decode()), "E_SHAPE"),
        (bitmap(base64.b64encode(zlib.compress(zlib.decompress(base64.b64decode(GOOD))[:46])).decode()), "E_SHAPE"),
        (bitmap(base64.b64encode(base64.b64decode(GOOD)[:40]).decode()), "E_SHAPE"),
        (bitmap(""), "E_SHAPE"),
        (bitmap(3), "E_SHAPE"),
        (bitmap(GOOD, ("x", 1)), "E_NUMBER"),
        (bitmap(GOOD, (1,)), "E_SHAPE"),
        (thing("bitmap"), "E_SHAPE"),
        (thing("polygon"), "E_SHAPE"),
        (thing("polygon", points=[]), "E_SHAPE"),
        (thing("polygon", **points([[1, 2], [3, "x"], [4, 5]])), "E_NUMBER"),
        (thing("polygon", points={"exterior": [[0, 0], [1, 0], [1, 1]], "interior": 3}), "E_SHAPE"),
        (thing("multipolygon"), "E_SHAPE"),
        (thing("rectangle", **points([[1, 2]])), "E_SHAPE"),
        (thing("rectangle", **points([1, 2])), "E_SHAPE"),
        (thing("rectangle", None, **points([[1, 2], [3, 4]])), "E_SHAPE"),
        ("text", "E_SHAPE"),
        ({"geometryType": "rectangle"}, "E_SHAPE"),
    ],
)
def test_damaged_objects_are_refused(tmp_path, broken, code):
    with pytest.raises(FileError) as error:
        read(export(tmp_path, broken))
    assert error.value.code == code


@pytest.mark.parametrize(
    ("size", "code"), [((0, 5), "E_DIM"), (("x", 5), "E_NUMBER"), ((10**6, 10**6), "E_TOO_LARGE"), ((None, 4), "E_DIM")]
)
def test_sizes_are_checked(tmp_path, size, code):
    with pytest.raises(FileError) as error:
        read(export(tmp_path, size=size))
    assert error.value.code == code


@pytest.mark.parametrize("meta", [[], {}, {"classes": 3}, {"classes": [None, {"title": 3}]}])
def test_a_meta_file_that_says_nothing_is_passed_over(tmp_path, meta):
    assert read(export(tmp_path, thing("rectangle", **points([[0, 0], [1, 1]])), meta=meta)).classes == ("cat",)
