"""The report, read as a person and a browser read it: a tiny run with odd class names, scored and written once."""

from __future__ import annotations

import base64
import html
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intarsia.classes import IGNORE, ClassTable
from intarsia.evaluation import pictures
from intarsia.evaluation.evaluate import evaluate
from intarsia.evaluation.figures import charts, confusion_matrix, nice_ticks, percent
from intarsia.evaluation.pictures import choose, class_map_uri, draw_pictures, error_map
from intarsia.evaluation.report import verdict
from intarsia.evaluation.scores import Evaluation
from intarsia.metrics.overlap import overlap_scores
from intarsia.prediction.predictor import load
from intarsia.progress import Silent
from intarsia.recipes.recipe import load_recipe
from tests.evaluation.tiny import HEIGHT, NAMES, WIDTH, write_data, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass(frozen=True)
class Sample:
    run: Path
    evaluation: Evaluation
    page: str


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    place = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTARSIA_CACHE", str(place / "cache"))
        run = write_run(place / "run & <more>", write_data(place / "shapes"))
        evaluation = evaluate(run, device="cpu", progress=Silent())
        assert evaluation.report is not None
        yield Sample(run, evaluation, evaluation.report.read_text(encoding="utf-8"))


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page)))


def test_the_page_needs_nothing_from_outside(sample: Sample) -> None:
    links = re.findall(r"\b(?:src|href)=[\"']?([^\"'> ]*)", sample.page)
    assert links
    outside = [link for link in links if not link.startswith(("data:image/", "#", "../recipe.yaml"))]
    assert outside == []
    assert not re.search(r"https?://|@import|url\(", sample.page)
    assert len(sample.page) < 1_000_000


def test_names_are_shown_as_written_and_never_as_markup(sample: Sample) -> None:
    assert "<b>x</b>" not in sample.page
    assert "</script><i>" not in sample.page
    assert "<device>" not in sample.page
    text = text_of(sample.page)
    for name in (*NAMES[:3], "a_worst<1>", "run & <more>"):
        assert name in text


def test_every_image_has_a_line_and_those_without_score_come_last(sample: Sample) -> None:
    table = sample.page[sample.page.index('id="table"') :]
    names = [text_of(name) for name in re.findall(r"<tr><td>(.*?)</td>", table)]
    ranked = [image.item.name for image in sample.evaluation.ranked]
    assert names == [*ranked, "test/d_without_truth"]
    assert re.search(r'd_without_truth</td><td data-v="-">-</td>', table)


def test_classes_that_are_nowhere_are_said_and_left_out(sample: Sample) -> None:
    assert f"In neither truth nor prediction; left out of the means: {NAMES[3]}." in text_of(sample.page)
    assert "Mean IoU" in verdict(sample.evaluation)
    assert "over 3 of 4 classes" in verdict(sample.evaluation)


def test_bars_are_sorted_and_agree_with_the_scores(sample: Sample) -> None:
    section = sample.page.split('id="classes"')[1].split("</section>")[0]
    shown = [float(value) for value in re.findall(r"class=\"fill\"[^>]*--v:([\d.]+)\"", section)]
    scores = sorted((value for value in sample.evaluation.scores.iou if np.isfinite(value)), reverse=True)
    assert shown == pytest.approx(scores, abs=1e-4)
    found = sample.evaluation.found["overlap"]
    between = re.findall(r"class=\"between\" style=\"--a:([\d.]+);--b:([\d.]+)\"", section)
    expected = sorted(zip(found.low["iou"], found.high["iou"], strict=True), key=lambda pair: -pair[1])[: len(between)]
    assert len(between) == 3
    assert sorted(map(float, sum(between, ()))) == pytest.approx(sorted(np.ravel(expected)), abs=1e-4)


def test_the_verdict_says_the_numbers(sample: Sample) -> None:
    sentence = verdict(sample.evaluation)
    assert sentence in text_of(sample.page)
    assert sentence.startswith(f"Mean IoU {sample.evaluation.mean_iou:.2f} over ")
    assert "on 4 images" in sentence
    best = int(np.nanargmax(sample.evaluation.scores.iou))
    assert f"best {NAMES[best]} {sample.evaluation.scores.iou[best]:.2f}" in sentence


def scored(counts: list[list[int]], sample: Sample) -> Evaluation:
    array = np.array(counts)
    table = ClassTable(names=tuple("abcdef"[: len(array)]))
    return replace(sample.evaluation, table=table, counts=array, scores=overlap_scores(array))


def test_the_verdict_names_a_weak_point_only_where_there_is_one(sample: Sample) -> None:
    weak = scored([[900, 0, 0, 0], [0, 800, 0, 0], [20, 0, 10, 0], [10, 0, 0, 0]], sample)
    assert (
        "never found: d; rare classes are the weak point (the 2 rarest average 0.17, the 2 commonest 0.98)"
        in verdict(weak)
    )
    even = scored([[90, 10, 0, 0], [10, 90, 0, 0], [0, 0, 9, 1], [0, 0, 1, 9]], sample)
    assert verdict(even) == "Mean IoU 0.82 over 4 classes on 4 images."
    assert "no pixel of the truth counts" in verdict(scored([[0, 0], [0, 0]], sample))


def test_the_recipe_the_settings_and_the_command_are_there(sample: Sample) -> None:
    text = text_of(sample.page)
    for part in ("unet_same", "40 steps", "batches of 8", "step 20 was chosen", "a <device>", "ce_dice"):
        assert part in text
    assert '<a href="../recipe.yaml">' in sample.page
    assert f"intarsia evaluate '{sample.run}' --split test" in text


def test_curves_mark_the_chosen_step_and_are_left_out_where_there_are_none(sample: Sample) -> None:
    section = sample.page.split('id="curves"')[1].split("</section>")[0]
    assert section.count('class="chosen"') == 2
    assert "step 20, whose weights were kept" in text_of(section)
    assert charts([], 20) == []


def test_choice_of_pictures_has_worst_median_and_best(sample: Sample) -> None:
    for total in range(1, 30):
        ranked = [sample.evaluation.images[0]] * total
        for count in range(12):
            places = choose(ranked, count)
            assert places == sorted(set(places))
            assert len(places) == min(count, total)
            if count >= 3 and total >= 3:
                assert {0, (total - 1) // 2, total - 1} <= set(places)


def test_errors_are_missed_false_and_confused() -> None:
    mask = np.array([[0, 0, 1, 1, 1, IGNORE]], np.uint8)
    prediction = np.array([[0, 1, 1, 0, 2, 1]], np.uint8)
    with_background = ClassTable(names=("background", "cell", "debris"))
    assert error_map(mask, prediction, with_background).tolist() == [[0, 2, 0, 1, 3, IGNORE]]
    without = ClassTable(names=("sky", "road", "tree"))
    assert error_map(mask, prediction, without).tolist() == [[0, 1, 0, 1, 1, IGNORE]]


def read_as_the_script_does(uri: str) -> np.ndarray:
    """Class numbers from the bytes of the PNG, without undoing row filters; fails if there are any."""
    content, at, packed = base64.b64decode(uri.partition(",")[2]), 8, b""
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    assert (depth, colour) == (8, 3)
    while at < len(content):
        length = struct.unpack(">I", content[at : at + 4])[0]
        packed += content[at + 8 : at + 8 + length] if content[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


@pytest.mark.parametrize("count", [2, 11, 30, 254, 255])
def test_an_embedded_class_map_holds_the_class_numbers(count: int) -> None:
    classes = np.random.default_rng(0).integers(0, count, (37, 51)).astype(np.uint8)
    classes[:5] = IGNORE
    table = ClassTable(names=tuple(map(str, range(count))))
    found = read_as_the_script_does(class_map_uri(classes, table))
    assert (found[5:] == classes[5:]).all()
    assert (found[:5] >= count).all()


def test_many_large_pictures_are_made_smaller_and_lie_beside_in_full(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load(sample.run, device="cpu")
    dataset = load_recipe(sample.run / "recipe.yaml").data.open(Silent())
    monkeypatch.setattr(pictures, "BUDGET", 3 * 8_000)
    drawn = draw_pictures(sample.evaluation, predictor, dataset, 3, tmp_path / "pictures")
    for picture in drawn:
        panels = {panel.name: panel for panel in picture.panels}
        assert read_as_the_script_does(panels["truth"].uri).shape[1] < WIDTH
        assert panels["truth"].full is not None
        with Image.open(tmp_path / panels["truth"].full) as full:
            assert full.size == (WIDTH, HEIGHT)


def test_the_matrix_is_readable_with_very_many_classes(sample: Sample) -> None:
    counts = np.diag(np.arange(1, 101)) + 1
    table = ClassTable(names=tuple(map(str, range(100))))
    many = replace(sample.evaluation, table=table, counts=counts, scores=overlap_scores(counts))
    matrix = confusion_matrix(many)
    assert (len(matrix.classes), matrix.left_out, matrix.numbers) == (40, 60, False)


def test_numbers_are_written_as_people_read_them() -> None:
    assert [percent(share) for share in (0.0, 1e-6, 0.0023, 0.023, 0.23, 1.0)] == [
        "0\u202f%", "<0.01\u202f%", "0.23\u202f%", "2.3\u202f%", "23\u202f%", "100\u202f%",
    ]  # fmt: skip
    assert nice_ticks(0.06, 0.22, 4) == [0.05, 0.1, 0.15, 0.2, 0.25]
    assert nice_ticks(1.0, 1.0, 4)[0] <= 1.0 < nice_ticks(1.0, 1.0, 4)[-1]


PROBE = """<script>(async () => {
const wait = (time) => new Promise((done) => setTimeout(done, time)), out = [];
const column = (index) => [...document.querySelectorAll("#table tbody tr")].filter((row) => !row.hidden)
  .map((row) => row.cells[index].textContent);
const heads = document.querySelectorAll("#table th button");
heads[0].click(); out.push(column(0).join(" "));
heads[0].click(); heads[1].click(); heads[1].click(); out.push(column(1).join(" "));
heads[0].click(); heads[0].click(); heads[2].click(); out.push(column(2).join(" "));
const search = document.getElementById("search");
search.value = "WITHOUT"; search.dispatchEvent(new Event("input")); out.push(column(0).join(" "));
const cell = document.querySelector("[data-panel=truth]"), box = cell.getBoundingClientRect();
cell.dispatchEvent(new PointerEvent("pointerenter")); await wait(300);
const place = { clientX: box.x + box.width * 0.7, clientY: box.y + box.height / 2 };
cell.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, ...place }));
out.push(document.querySelector("#tip div").textContent);
cell.click(); out.push(document.querySelector("dialog").open);
document.body.replaceChildren(Object.assign(document.createElement("pre"), { textContent: out.join("\\n") }));
})();</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_in_a_browser_one_can_sort_search_point_and_enlarge(sample: Sample, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(sample.page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shown = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert shown, done.stderr[-2000:]
    names, down, up, found, tip, opened = html.unescape(shown[1]).split("\n")
    scores = [f"{image.scores.mean_iou:.3f}" for image in reversed(sample.evaluation.ranked)]
    assert down.split() == [*scores, "-"]
    assert up.split() == [*sorted(up.split()[:-1]), "-"]
    assert names.split() == sorted(names.split())
    assert found == "test/d_without_truth"
    assert tip == f"truth: {NAMES[1]}"
    assert opened == "true"
