"""The page in a browser gives Python's class map, asks nobody else for anything, and says in words what is wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from intarsia.engines.card import Border, Card
from intarsia.errors import ConfigError, DownloadError, IntegrityError, UsageError
from intarsia.export.runtime import FILES, fetch_runtime
from intarsia.export.web import write_web
from intarsia.images.preprocess import Preprocess
from tests.export.browser import CHROMIUM, Browser, browser, served
from tests.export.small_nets import classes_of, small_card, write_small

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
FETCH = """(async (url, name) => {
  const found = await segment(new File([await (await fetch(url)).blob()], name));
  let text = "";
  for (let i = 0; i < found.classes.length; i += 8192) text += String.fromCharCode(...found.classes.subarray(i, i + 8192));
  return [found.height, found.width, btoa(text)];
})"""

SAVE = """(async () => {
  const blob = await classMapPng(await segment(await (await fetch("sample.png")).blob())), reader = new FileReader();
  return new Promise((done) => { reader.onload = () => done(reader.result); reader.readAsDataURL(blob); });
})()"""


@pytest.fixture(scope="module")
def runtime() -> Path:
    """onnxruntime-web from INTARSIA_ORT_WEB, which .ci/run sets: tests download nothing."""
    given = os.environ.get("INTARSIA_ORT_WEB")
    if not given:
        pytest.skip("INTARSIA_ORT_WEB names no onnxruntime-web (a folder, or the .tgz of npm pack onnxruntime-web)")
    return Path(given)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder that has the runtime's files, by name only."""
    folder = tmp_path / "stand_in"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def draw_scene(width: int, height: int) -> Image.Image:
    """Something of many colours, edges and gradients."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 255 // width, rows * 255 // height, (rows * columns) % 256], 2).astype(np.uint8)
    pixels = pixels // 2 + np.random.default_rng(1).integers(0, 90, pixels.shape, np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 5, height // 4, width // 2, height * 3 // 4), fill=(30, 140, 60))
    draw.polygon(
        [(width // 2, height // 2), (width - 9, height // 3), (width * 3 // 4, height - 5)], fill=(220, 90, 40)
    )
    return image


def segmented(page: Browser, name: str) -> NDArray[np.uint8]:
    """(H, W) classes that the page finds in a file that lies beside it."""
    height, width, text = page.run(f"{FETCH}({json.dumps(name)}, {json.dumps(name)})")
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)


def ready(page: Browser, url: str) -> None:
    page.open(f"{url}/index.html")
    page.wait("!document.getElementById('choose').disabled || !document.getElementById('problem').hidden")
    assert page.run("document.getElementById('problem').textContent") == ""


CARDS = {
    "plain": small_card(),
    "grey_pixels": small_card(1, input="pixels", output="classes"),
    "half": small_card(scale=0.5),
    "enlarged_pixels": small_card(scale=1.6, input="pixels"),
    "grey_half_to_classes": small_card(1, scale=0.5, output="classes"),
    "valid": small_card(border=Border(stride=4, lost=4, first=8)),
    "valid_half": small_card(1, scale=0.7, border=Border(stride=4, lost=4, first=8)),
}


@in_browser
@pytest.mark.browser
@pytest.mark.parametrize("kind", CARDS)
def test_the_browser_finds_the_classes_of_python(kind: str, page: Browser, runtime: Path, tmp_path: Path) -> None:
    card = write_small(tmp_path / "small.onnx", CARDS[kind])
    folder = write_web(tmp_path / "small.onnx", tmp_path / "page", runtime=runtime).parent
    image = draw_scene(331, 207)
    image.save(folder / "sample.png")
    with served(folder) as url:
        ready(page, url)
        found = segmented(page, "sample.png")
        asked = page.requests()
    expected = classes_of(tmp_path / "small.onnx", card, np.asarray(image))
    assert found.shape == expected.shape
    assert (found == expected).mean() >= 0.999
    assert len(np.unique(expected)) >= 3
    assert asked
    assert all(address.removeprefix("blob:").startswith(url) for address in asked)
    assert page.complaints() == []


@in_browser
@pytest.mark.browser
def test_images_of_any_size_and_kind(page: Browser, runtime: Path, tmp_path: Path) -> None:
    card = write_small(tmp_path / "small.onnx", small_card(border=Border(stride=4, lost=4, first=8)))
    folder = write_web(tmp_path / "small.onnx", tmp_path / "page", runtime=runtime).parent
    large, turned, clear = draw_scene(1930, 1203), draw_scene(160, 90), draw_scene(97, 61)
    large.save(folder / "large.png")
    turned.save(folder / "turned.png", exif=_orientation(6))
    clear.putalpha(Image.fromarray(np.random.default_rng(2).integers(0, 256, (61, 97), np.uint8)))
    clear.save(folder / "clear.png")
    Image.new("RGB", (1, 1), (9, 200, 30)).save(folder / "dot.png")
    pixels = {
        "large": np.asarray(large),
        "turned": np.rot90(np.asarray(turned), -1),
        "clear": np.asarray(clear)[..., :3],
    }
    with served(folder) as url:
        ready(page, url)
        for name, each in pixels.items():
            found, expected = segmented(page, f"{name}.png"), classes_of(tmp_path / "small.onnx", card, each)
            assert found.shape == expected.shape, name
            assert (found == expected).mean() >= 0.999, name
            if name == "large":
                assert "overlapping pieces" in page.run("document.getElementById('facts').textContent")
        assert segmented(page, "dot.png").shape == (1, 1)


def _orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


@in_browser
@pytest.mark.browser
@pytest.mark.slow
def test_what_does_not_fit_into_memory_is_computed_in_smaller_pieces(
    page: Browser, runtime: Path, tmp_path: Path
) -> None:
    # 4.5 GB of its first layer, more than a browser has
    card = write_small(tmp_path / "small.onnx", small_card(), width=2600, side=1)
    folder = write_web(tmp_path / "small.onnx", tmp_path / "page", runtime=runtime).parent
    image = draw_scene(1300, 330)
    image.save(folder / "wide.png")
    with served(folder) as url:
        ready(page, url)
        found = segmented(page, "wide.png")
        assert "overlapping pieces" in page.run("document.getElementById('facts').textContent")
    expected = classes_of(tmp_path / "small.onnx", card, np.asarray(image.crop((0, 0, 110, 330))))
    assert (found[:, :100] == expected[:, :100]).mean() >= 0.999


@in_browser
@pytest.mark.browser
def test_with_several_threads_where_the_server_allows_it(page: Browser, runtime: Path, tmp_path: Path) -> None:
    card = write_small(tmp_path / "small.onnx", small_card())
    folder = write_web(tmp_path / "small.onnx", tmp_path / "page", runtime=runtime).parent
    draw_scene(120, 80).save(folder / "sample.png")
    headers = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    with served(folder, headers) as url:
        ready(page, url)
        assert page.run("crossOriginIsolated")
        found = segmented(page, "sample.png")
        assert page.complaints() == []
    assert (found == classes_of(tmp_path / "small.onnx", card, np.asarray(draw_scene(120, 80)))).mean() >= 0.999


@in_browser
@pytest.mark.browser
def test_what_a_person_does(page: Browser, runtime: Path, tmp_path: Path) -> None:
    write_small(tmp_path / "small.onnx", small_card())
    draw_scene(200, 120).save(tmp_path / "scene.png")
    (tmp_path / "notes.txt").write_text("no image")
    settings: dict[str, Any] = {"title": "Roofs & <trees>", "sample": tmp_path / "scene.png", "runtime": runtime}
    folder = write_web(tmp_path / "small.onnx", tmp_path / "page", **settings).parent
    problem, text = "document.getElementById('problem')", "document.getElementById('{}').textContent"
    with served(folder) as url:
        ready(page, url)
        assert page.run("document.querySelector('h1').textContent") == "Roofs & <trees>"
        page.choose("#file", tmp_path / "notes.txt")
        page.wait(f"!{problem}.hidden")
        assert page.run(text.format("problem")).startswith("notes.txt: is no image that this browser can read.")
        page.run("document.getElementById('sample').click()")
        page.wait("!document.getElementById('result').hidden")
        assert page.run(f"{problem}.hidden")
        found = segmented(page, "sample.png")
        shares = page.run("[...document.querySelectorAll('#legend button')].map((line) => line.textContent)")
        share = 100 * (found == 1).mean()
        assert shares[1].startswith("tree <b>")
        assert float(re.findall(r"([\d.]+) %", shares[1])[0]) == pytest.approx(share, abs=0.051)
        page.run("document.getElementById('stage').focus()")
        page.run("stage.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
        assert page.run(text.format("under")) == small_card().classes.names[found[60, 100]]
        page.run("document.querySelectorAll('#legend button')[1].click()")
        seen = page.run("[...overlay.getContext('2d').getImageData(0, 0, 200, 120).data].filter((_, i) => i % 4 === 3)")
        assert ((np.reshape(seen, found.shape) > 0) == (found == 1)).all()
        saved = page.run(SAVE)
        assert page.complaints() == []
    image = Image.open(io.BytesIO(base64.b64decode(saved.partition(",")[2])))
    image.load()
    assert image.mode == "P"
    assert (np.asarray(image) == found).all()
    assert tuple(image.getpalette()[:12]) == tuple(sum(small_card().classes.colors, ()))


@in_browser
@pytest.mark.browser
def test_a_missing_model_and_a_page_opened_as_a_file_are_told(page: Browser, runtime: Path, tmp_path: Path) -> None:
    write_small(tmp_path / "small.onnx", small_card())
    folder = write_web(tmp_path / "small.onnx", tmp_path / "page", runtime=runtime).parent
    (folder / "model.onnx").unlink()
    shown = "document.getElementById('problem')"
    with served(folder) as url:
        page.open(f"{url}/index.html")
        page.wait(f"!{shown}.hidden")
        assert page.run(f"{shown}.textContent").startswith("model.onnx could not be loaded (HTTP 404).")
    page.open((folder / "index.html").as_uri())
    page.wait(f"!{shown}.hidden")
    assert "python -m http.server" in page.run(f"{shown}.textContent")


def test_what_a_folder_holds(stand_in: Path, tmp_path: Path) -> None:
    write_small(tmp_path / "small.onnx", small_card())
    for _ in range(2):  # an earlier export may be written over
        place = write_web(tmp_path / "small.onnx", tmp_path / "page", runtime=stand_in)
    names = {path.relative_to(place.parent).as_posix() for path in place.parent.rglob("*") if path.is_file()}
    assert names == {"index.html", "model.onnx", "runtime/LICENSE.txt", *(f"runtime/{name}" for name in FILES.values())}
    assert (place.parent / "model.onnx").read_bytes() == (tmp_path / "small.onnx").read_bytes()
    page = place.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=[\"']https?:", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "unsafe-inline" not in policy[1]
    for kind, tag in (("script", 'script type="module"'), ("style", "style")):
        inside = re.search(rf"<{tag}>(.*?)</{kind}>", page, re.DOTALL)
        assert inside
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{kind}-src" in policy[1]
        assert f"'sha256-{digest}'" in policy[1]
    (place.parent / "thesis.doc").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(thesis.doc\)"):
        write_web(tmp_path / "small.onnx", place.parent, runtime=stand_in)


FIVE = Preprocess(channels=5, mean=(0.5,) * 5, std=(0.5,) * 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preprocess": FIVE}, "takes images of 5 channels"),
        ({"preprocess": Preprocess(value_range=(0.0, 65535.0))}, "takes values of the range"),
        ({"preprocess": Preprocess(bands=(4, 3, 2))}, r"takes the bands \[4, 3, 2\]"),
        ({"precision": "bf16"}, "is of bf16"),
    ],
)
def test_what_no_browser_can_feed_is_refused(
    settings: dict[str, Any], words: str, stand_in: Path, tmp_path: Path
) -> None:
    card: Card = small_card().replace(**settings)
    write_small(tmp_path / "small.onnx", card)
    with pytest.raises(ConfigError, match=words):
        write_web(tmp_path / "small.onnx", tmp_path / "page", runtime=stand_in)
    assert not (tmp_path / "page").exists()


def pack(path: Path, names: list[str]) -> dict[str, str]:
    """An archive as npm writes them, and the sha256 of each file in it."""
    with tarfile.open(path, "w:gz") as archive:
        for name in [*names, "ort.all.mjs"]:
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return {name: hashlib.sha256(name.encode()).hexdigest() for name in names}


def test_the_runtime_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "server").mkdir()
    archive = tmp_path / "server" / "onnxruntime-web-0.tgz"
    unpacked = pack(archive, [*FILES])
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    with served(archive.parent) as url:
        address = f"{url}/{archive.name}"
        folder = fetch_runtime(url=address, sha256=sha256, unpacked=unpacked)
        with pytest.raises(IntegrityError, match="is not the published file"):
            fetch_runtime(url=f"{url}/./{archive.name}", sha256="0" * 64, unpacked=dict.fromkeys(FILES, "0"))
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert fetch_runtime(url=address, sha256=sha256, unpacked=unpacked) == folder  # the server is gone
    (folder / next(iter(FILES))).write_text("altered")
    assert (
        fetch_runtime(url=address, sha256=sha256, unpacked=unpacked) == folder
    )  # made anew of the archive that was kept
    assert (folder / next(iter(FILES))).read_text() == next(iter(FILES))
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "other"))
    with pytest.raises(DownloadError, match="could not be downloaded"):
        fetch_runtime(url=address, sha256=sha256, unpacked=unpacked)


def test_a_runtime_that_is_given(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    assert fetch_runtime(stand_in) == stand_in
    shutil.copytree(stand_in, tmp_path / "node" / "dist")
    assert fetch_runtime(tmp_path / "node") == tmp_path / "node" / "dist"
    pack(tmp_path / "mine.tgz", [*FILES])
    assert {path.name for path in fetch_runtime(tmp_path / "mine.tgz").iterdir()} == set(FILES)
    pack(tmp_path / "other.tgz", ["ort.wasm.min.mjs"])
    with pytest.raises(UsageError, match="npm pack onnxruntime-web"):
        fetch_runtime(tmp_path / "other.tgz")
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "mine.tgz").read_bytes()[:60])
    with pytest.raises(IntegrityError, match="no archive that can be read"):
        fetch_runtime(tmp_path / "cut.tgz")
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="npm pack onnxruntime-web"):
            fetch_runtime(wrong)
