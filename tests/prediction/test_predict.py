"""Many inputs to files: what is done is not done again, what fails is told, nothing is half there."""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import intarsia as ia
from intarsia.errors import ConfigError, PartialFailure, UnknownName
from intarsia.images.files import read_mask
from intarsia.prediction import worker as worker_module
from intarsia.prediction.inputs import find_images
from intarsia.prediction.manifest import Manifest, content_sha256
from tests.conftest import write


@pytest.fixture(scope="module")
def model(tiny_run):
    return ia.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(3)
    for index in range(4):
        write(tmp_path / "photos" / f"p{index}.png", rng.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    return tmp_path / "photos"


def records(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def hashes(folder):
    files = (path for path in folder.iterdir() if path.name != "manifest.jsonl")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_manifest_names_each_input_once_with_true_hashes(model, photos, tmp_path):
    out = tmp_path / "out"
    ia.predict(model, photos, out=out)
    found = records(out)
    assert [record["image"] for record in found] == [str(path) for path in sorted(photos.iterdir())]
    for record in found:
        assert record["status"] == "done"
        assert record["sha256"] == hashlib.sha256(Path(record["image"]).read_bytes()).hexdigest()
        assert {name: content_sha256(out / name) for name in record["outputs"]} == record["outputs"]
        classes = read_mask(out / f"{record['image'][-6:-4]}.png").pixels
        counted = {name: int((classes == k).sum()) for k, name in enumerate(model.table.names) if (classes == k).any()}
        assert record["pixels"] == counted
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_what_is_done_is_passed_over_until_something_differs(model, photos, tmp_path):
    out, seen = tmp_path / "out", []
    again = lambda **settings: seen.clear() or ia.predict(model, photos, out=out, done=seen.append, **settings)  # noqa: E731
    again()
    assert [each.skipped for each in seen] == [False] * 4
    again()
    assert [each.skipped for each in seen] == [True] * 4
    (out / "p1.png").write_bytes(b"changed")
    (out / "p2_overlay.png").unlink()
    write(photos / "p3.png", np.zeros((70, 90, 3), np.uint8))
    again()
    assert [each.skipped for each in seen] == [True, False, False, False]
    again(mirrors="horizontal")
    assert [each.skipped for each in seen] == [False] * 4


def test_a_manifest_that_a_kill_cut_off_is_read_and_gone_on_with(model, photos, tmp_path):
    out = tmp_path / "out"
    ia.predict(model, photos, out=out)
    before = hashes(out)
    text = (out / "manifest.jsonl").read_text()
    (out / "manifest.jsonl").write_text(text[: len(text) - 40])
    seen = []
    ia.predict(model, photos, out=out, done=seen.append)
    assert [each.skipped for each in seen] == [True, True, True, False]
    assert hashes(out) == before
    assert len(Manifest(out).records) == 4


def test_failures_are_in_the_manifest_and_stop_nothing(model, photos, tmp_path):
    (photos / "p1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(PartialFailure, match="1 of 5") as failure:
        ia.predict(
            model,
            [photos, photos / "p0.png", write(tmp_path / "q.png", np.zeros((9, 9), np.uint8))],
            out=tmp_path / "out",
        )
    assert "p1.png" in str(failure.value)
    states = {record["image"][-6:]: record["status"] for record in records(tmp_path / "out")}
    assert states == {"p0.png": "done", "p1.png": "failed", "p2.png": "done", "p3.png": "done", "/q.png": "done"}


def test_inputs_by_pattern_list_and_standard_input(photos, tmp_path, monkeypatch):
    paths = sorted(photos.iterdir())
    listed = tmp_path / "list.txt"
    listed.write_text("# mine\n" + "\n".join(map(str, paths)) + "\n\n")
    assert find_images([f"{photos}/*.png"]) == paths
    assert find_images([f"@{listed}"]) == paths
    monkeypatch.setattr(sys, "stdin", io.StringIO(listed.read_text()))
    assert find_images(["-"]) == paths
    assert find_images([photos, paths[0]]) == paths
    for bad, message in (
        (f"{photos}/*.jpg", "no file fits this pattern"),
        (f"@{tmp_path}/none.txt", "the list cannot be read"),
        (f"@{write_empty(tmp_path)}", "names no image"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_images([bad])


def test_results_are_no_inputs_of_the_next_call(model, photos):
    for _ in range(2):
        assert len(ia.predict(model, photos, out=photos / "seen")) == 4
    assert len(find_images([photos / "seen"], without=photos / "seen")) == 8


def write_empty(folder):
    (folder / "empty.txt").write_text("\n")
    return folder / "empty.txt"


def test_every_output_in_memory(model, photos, tmp_path):
    outputs = ("classes", "overlay", "probabilities", "entropy", "binary", "polygons", "areas")
    (first, *_) = ia.predict(model, photos, out=tmp_path / "out", outputs=outputs, numbers="uint8", polygons="coco")
    names = {path.name for path in first.outputs}
    masks = {f"p0_{name}.png" for name in model.table.names}
    expected = {"p0.png", "p0_overlay.png", "p0_probabilities.npz", "p0_entropy.png", "p0_coco.json", "p0_areas.csv"}
    assert names == expected | masks
    classes = read_mask(tmp_path / "out" / "p0.png").pixels
    stored = np.load(tmp_path / "out" / "p0_probabilities.npz")
    assert stored["probabilities"].dtype == np.uint8
    assert (
        np.take_along_axis(stored["probabilities"], classes[None].astype(int), 0)[0] == stored["probabilities"].max(0)
    ).all()
    for index, name in enumerate(model.table.names):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / f"p0_{name}.png")) == 255, classes == index)
    areas = (tmp_path / "out" / "p0_areas.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[2]) for row in areas] == [int((classes == k).sum()) for k in range(model.table.count)]


def test_results_on_disk_are_those_in_memory(model, photos, tmp_path, monkeypatch):
    outputs = ("classes", "probabilities", "entropy")
    ia.predict(model, photos, out=tmp_path / "a", outputs=outputs, tile=64)
    monkeypatch.setattr(worker_module, "LARGEST_IN_MEMORY", 0)
    ia.predict(model, photos, out=tmp_path / "b", outputs=outputs, tile=64)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_pages_of_a_tiff_are_images_of_their_own(model, tmp_path):
    import tifffile

    rng = np.random.default_rng(0)
    pages = rng.integers(0, 256, (3, 40, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack", metadata=None)
    (written,) = ia.predict(model, tmp_path / "stack.tif", out=tmp_path / "out", outputs=("classes",))
    assert (written.frames, written.size) == (3, (40, 50))
    for number, page in enumerate(pages, 1):
        mine = read_mask(tmp_path / "out" / f"stack_p{number:04d}.png").pixels
        assert np.array_equal(mine, model.predict(page).classes)


def test_a_geotiff_keeps_its_coordinates_and_its_gaps(model, tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasterio (extra geo) is not installed")
    pixels = np.random.default_rng(0).integers(1, 256, (3, 100, 120), dtype=np.uint8)
    pixels[:, :30] = 0
    profile = {
        "driver": "GTiff",
        "height": 100,
        "width": 120,
        "count": 3,
        "dtype": "uint8",
        "nodata": 0,
        "crs": "EPSG:32633",
    }
    where = rasterio.transform.from_origin(4e5, 5.8e6, 0.5, 0.5)
    with rasterio.open(tmp_path / "scene.tif", "w", transform=where, **profile) as file:
        file.write(pixels)
    outputs = ("classes", "overlay", "polygons", "areas", "entropy")
    ia.predict(model, tmp_path / "scene.tif", out=tmp_path / "out", outputs=outputs, tile=64)
    with rasterio.open(tmp_path / "out" / "scene.tif") as result:
        classes = result.read(1)
        assert (result.crs, result.transform) == (rasterio.CRS.from_epsg(32633), where)
    assert (classes[:30] == 255).all()
    assert (classes[30:] < model.table.count).all()
    areas = (tmp_path / "out" / "scene_areas.csv").read_text().splitlines()[1:]
    square_metres = {row.split(",")[1]: float(row.split(",")[4]) for row in areas}
    assert square_metres.pop("ignored") == pytest.approx(30 * 120 * 0.25)
    assert sum(square_metres.values()) == pytest.approx(70 * 120 * 0.25)
    assert json.loads((tmp_path / "out" / "scene.geojson").read_text())["features"]


def test_a_volume_comes_back_as_a_volume(model, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="nibabel (extra med) is not installed")
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    affine = np.diag([-1.0, -1.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "scan.nii.gz")
    (written,) = ia.predict(model, tmp_path / "scan.nii.gz", out=tmp_path / "out", outputs=("classes",))
    assert written.frames == 3
    result = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    assert np.array_equal(result.affine, affine)
    assert result.shape == values.shape
    from intarsia.images.medical.nifti import NiftiVolume

    shown, found = NiftiVolume(tmp_path / "scan.nii.gz"), NiftiVolume(tmp_path / "out" / "scan.nii.gz")
    assert np.array_equal(found.slice(1), model.predict(np.ascontiguousarray(shown.slice(1))).classes)


@pytest.mark.parametrize("disk", [False, True])
def test_zarr_in_labels_out(model, tmp_path, disk, monkeypatch):
    zarr = pytest.importorskip("zarr", reason="zarr (extra bio) is not installed")
    from intarsia.images.zarrs import zarr_frames

    if disk:
        monkeypatch.setattr(worker_module, "LARGEST_IN_MEMORY", 0)
    values = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 50), dtype=np.uint8)
    stored = zarr.create_array(
        tmp_path / "stack.zarr", shape=values.shape, dtype="u1", dimension_names=("t", "z", "y", "x")
    )
    stored[:] = values
    (written,) = ia.predict(model, tmp_path / "stack.zarr", out=tmp_path / "out", outputs=("classes",))
    assert written.frames == 6
    labels = tmp_path / "out" / "stack.zarr" / "labels" / "classes"
    found = {name: source.read(0, 0, 40, 50).pixels for name, source in zarr_frames(labels)}
    for t, z in np.ndindex(2, 3):
        assert np.array_equal(found[f"t{t:03d}_z{z:03d}"], model.predict(values[t, z]).classes)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_film_keeps_its_times(model, tmp_path):
    pytest.importorskip("av", reason="av (extra video) is not installed")
    from fractions import Fraction

    from intarsia.images.video import VideoFrames, VideoWriter

    rng = np.random.default_rng(0)
    frames = [np.kron(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(7)]
    times = [Fraction(t, 100) for t in (0, 4, 10, 11, 30, 34, 50)]
    writer = VideoWriter(tmp_path / "film.mp4", (64, 64), Fraction(1, 100))
    for pixels, time in zip(frames, times, strict=True):
        writer.write(pixels, time)
    writer.close()
    (written,) = ia.predict(model, tmp_path / "film.mp4", out=tmp_path / "out")
    assert (written.frames, {path.name for path in written.outputs}) == (7, {"film.mkv", "film_overlay.mp4"})
    maps = list(VideoFrames(tmp_path / "out" / "film.mkv", grey=True))
    assert [time for _, time in maps] == times
    assert [time for _, time in VideoFrames(tmp_path / "out" / "film_overlay.mp4")] == times
    shown = [pixels for pixels, _ in VideoFrames(tmp_path / "film.mp4")]
    assert all(
        np.array_equal(classes, model.predict(pixels).classes) for (classes, _), pixels in zip(maps, shown, strict=True)
    )
    assert sum(json.loads((tmp_path / "out" / "manifest.jsonl").read_text())["pixels"].values()) == 7 * 64 * 64


def test_the_command_takes_settings_among_the_images(intarsia, tiny_run, photos, tmp_path):
    out = tmp_path / "out"
    code, text, _ = intarsia(
        "predict", tiny_run, photos, "mirrors=both", "outputs=[classes]", "--out", out, "--device", "cpu"
    )
    assert (code, len(text.splitlines())) == (0, 4)
    assert records(out)[0]["settings"]["mirrors"] == "both"
    assert {path.name for path in out.iterdir()} == {"manifest.jsonl", *(f"p{index}.png" for index in range(4))}
    code, text, _ = intarsia(
        "predict", tiny_run, photos, "mirrors=both", "outputs=[classes]", "--out", out, "--device", "cpu"
    )
    assert text.count("done before") == 4
    code, _, errors = intarsia("predict", tiny_run, photos, "mirror=both", "--out", out)
    assert (code, "Did you mean 'mirrors'" in errors) == (2, True)
    code, _, errors = intarsia("predict", tiny_run, photos, "crf=deplab", "--out", out)
    assert (code, "Did you mean 'deeplab'" in errors) == (2, True)
    code, text, _ = intarsia("show", "predict", "tile=512")
    assert (code, "tile: 512" in text, "# Dense CRF" in text) == (0, True, True)
    code, text, _ = intarsia("list", "crfs")
    assert (code, "deeplab_largefov" in text) == (0, True)


def test_several_models_of_the_same_classes(tiny_run, photos, tmp_path):
    from intarsia.runs import find_model

    twice = ia.load([tiny_run, tiny_run], device="cpu")
    one = ia.load(tiny_run, device="cpu")
    image = np.asarray(Image.open(photos / "p0.png"))
    assert np.array_equal(twice.predict(image).classes, one.predict(image).classes)
    import shutil

    shutil.copytree(find_model(tiny_run), tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / "manifest.json").read_text())
    manifest["classes"]["names"] = ["a", "b", "c"]
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="Only models of the same classes are averaged"):
        ia.load([tiny_run, tmp_path / "other"])
    with pytest.raises(ConfigError, match="set when models are loaded"):
        ia.predict(one, photos, out=tmp_path / "out", ensemble=(str(tiny_run),))
    with pytest.raises(UnknownName):
        ia.load(tiny_run, settings={"crf": "nothing like it"})


def test_a_crf_changes_the_result_towards_colours(tiny_run, cells):
    image = cells / "test" / "images" / "cells_000.png"
    plain = ia.load(tiny_run, device="cpu").predict(image)
    refined = ia.load(tiny_run, device="cpu", settings={"crf": "deeplab"}).predict(image, probabilities=True)
    assert 0 < (plain.classes != refined.classes).mean() < 0.5
    assert np.array_equal(refined.probabilities.argmax(0), refined.classes)
