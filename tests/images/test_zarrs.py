"""Zarr: windows by told axes, labels that follow OME-NGFF, and inputs that stay as they were."""

import hashlib
import json

import numpy as np
import pytest

from intarsia.classes import ClassTable
from intarsia.errors import FileError, SaveError
from intarsia.images.zarrs import ZarrSource, is_zarr, write_labels, zarr_frames

zarr = pytest.importorskip("zarr", reason="the extra bio is not installed")
RNG = np.random.default_rng(0)
TABLE = ClassTable(names=("background", "cell", "wall"), colors=((0, 0, 0), (10, 20, 30), (200, 100, 50)))
SIDES = {"t": 2, "c": 3, "z": 4, "y": 50, "x": 70}
KINDS = {"t": "time", "c": "channel"}


def plain(path, pixels, names=None, **how):
    array = zarr.create_array(path, shape=pixels.shape, dtype=pixels.dtype, chunks=how.get("chunks", (16,) * pixels.ndim),
                              zarr_format=how.get("zarr_format", 3), dimension_names=names)  # fmt: skip
    array[...] = pixels
    return path


def ome(path, axes, version="0.5", scale=None, translation=None):
    """An OME-Zarr image whose metadata is written by hand."""
    pixels = RNG.integers(0, 60000, [SIDES[axis] for axis in axes]).astype(np.uint16)
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    separator = {"name": "v2" if version == "0.4" else "default", "separator": "/"}
    for level, step in enumerate((1, 2)):
        part = pixels[..., ::step, ::step]
        array = group.create_array(str(level), shape=part.shape, dtype=part.dtype, chunks=(16,) * part.ndim,
                                   chunk_key_encoding=separator)  # fmt: skip
        array[...] = part
    described = [{"name": axis, "type": KINDS.get(axis, "space")} for axis in axes]
    for axis in described:
        if axis["type"] == "space":
            axis["unit"] = "micrometer"
    changes = [{"type": "scale", "scale": scale or [1.0] * len(axes)}]
    if translation:
        changes.append({"type": "translation", "translation": translation})
    scales = {"axes": described, "datasets": [{"path": "0", "coordinateTransformations": changes}, {"path": "1"}]}
    if version == "0.4":
        group.attrs["multiscales"] = [{**scales, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [scales]}
    return pixels


def as_frame(pixels, axes, at):
    """(H, W) or (H, W, C), slowly: by the letters."""
    for axis, number in at.items():
        pixels, axes = np.take(pixels, number, axes.index(axis)), axes.replace(axis, "")
    order = [axes.index(axis) for axis in "yxc" if axis in axes]
    return pixels.transpose(order)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "tcyx", "zyx", "czyx", "tczyx"])
def test_frames_of_ome_zarr(axes, version, tmp_path):
    pixels = ome(tmp_path / "x.zarr", axes, version)
    frames = dict(zarr_frames(tmp_path / "x.zarr"))
    outer = [axis for axis in axes if axis in "tz"]
    assert len(frames) == int(np.prod([SIDES[axis] for axis in outer]))
    for name, source in frames.items():
        at = {part[0]: int(part[1:]) for part in name.split("_") if part}
        assert list(at) == outer
        frame = as_frame(pixels, axes, at)
        assert source.size == (50, 70)
        assert source.metres == pytest.approx((1e-6, 1e-6))
        window = source.read(7, 11, 30, 41)
        assert np.array_equal(window.pixels, frame[7:37, 11:52])
        assert window.pixels.dtype == np.uint16
        assert window.nodata is None
    last = {axis: SIDES[axis] - 1 for axis in outer}
    with ZarrSource(tmp_path / "x.zarr", last) as source:
        assert np.array_equal(source.read(0, 0, 50, 70).pixels, as_frame(pixels, axes, last))


@pytest.mark.parametrize("names", ["yx", "yxc", "cyx", "xy", "xcy", "zyxc"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_arrays_by_their_names(names, zarr_format, tmp_path):
    pixels = RNG.integers(0, 255, [SIDES[axis] for axis in names]).astype(np.uint8)
    path = plain(tmp_path / "x", pixels, list(names) if zarr_format == 3 else None, zarr_format=zarr_format)
    if zarr_format == 2:
        zarr.open(path).attrs["_ARRAY_DIMENSIONS"] = list(names)
    for name, source in zarr_frames(path):
        frame = as_frame(pixels, names, {"z": int(name[1:])} if name else {})
        assert np.array_equal(source.read(3, 5, 20, 60).pixels, frame[3:23, 5:65])
    if "c" in names:
        with ZarrSource(path, bands=(3, 1)) as source:
            frame = as_frame(pixels, names, {"z": 0} if "z" in names else {})
            assert np.array_equal(source.read(3, 5, 20, 60).pixels, frame[3:23, 5:65][..., [2, 0]])


def test_axes_are_never_guessed(tmp_path):
    pixels = RNG.integers(0, 255, (50, 70, 3)).astype(np.uint8)
    path = plain(tmp_path / "x", pixels)
    with pytest.raises(FileError, match=r"does not tell its 3 axes.*write dimension_names") as told:
        ZarrSource(path)
    assert told.value.code == "E_PAGES"
    with ZarrSource(path, axes="yxc") as source:
        assert np.array_equal(source.read(0, 0, 50, 70).pixels, pixels)
    for names in (["y", "x", "wavelength"], ["y", "y", "x"], ["c", "z", "t"]):
        with pytest.raises(FileError, match="they must be y and x"):
            ZarrSource(plain(tmp_path / "".join(names), pixels, names))


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "float64", "bool"])
def test_kinds_of_number(dtype, tmp_path):
    pixels = RNG.integers(0, 2, (20, 30)).astype(dtype)
    path = plain(tmp_path / "x", pixels, ["y", "x"])
    with ZarrSource(path) as source:
        found = source.read(0, 0, 20, 30).pixels
    assert found.dtype == {"uint8": np.uint8, ">u2": np.uint16}.get(dtype, np.float32)
    assert np.array_equal(found, pixels)


def test_pixels_without_value(tmp_path):
    pixels = RNG.normal(size=(20, 30)).astype(np.float32)
    pixels[3:6, 4:9] = np.nan
    with ZarrSource(plain(tmp_path / "x", pixels, ["y", "x"])) as source:
        for window in (source.read(0, 0, 20, 30), source.read(2, 3, 10, 10)):
            assert np.isfinite(window.pixels).all()
            assert window.nodata.sum() == 15
            assert window.pixels[window.nodata] == pytest.approx(np.nanmean(pixels), rel=1e-5)


def test_transforms_give_metres(tmp_path):
    ome(tmp_path / "x.zarr", "cyx", scale=[1.0, 0.5, 0.25])
    with ZarrSource(tmp_path / "x.zarr") as source:
        assert source.metres == pytest.approx((5e-7, 2.5e-7))


def test_damaged_and_strange_stores(tmp_path):
    path = tmp_path / "x"
    plain(path, RNG.integers(0, 255, (40, 40)).astype(np.uint8), ["y", "x"])
    chunk = path / "c" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with ZarrSource(path) as source:
        source.read(0, 0, 16, 16)
        with pytest.raises(FileError) as told:
            source.read(10, 10, 16, 16)
    assert told.value.code == "E_CORRUPT"
    words = path / "zarr.json"
    words.write_text(words.read_text()[:100])
    cases = {path: "E_CORRUPT", tmp_path / "none": "E_MISSING", tmp_path: "E_NOT_IMAGE"}
    plain(tmp_path / "complex", np.zeros((20, 20), np.complex64), ["y", "x"])
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w")
    plate.attrs["ome"] = {"version": "0.5", "plate": {}}
    old = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    old.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    zarr.open_group(tmp_path / "empty", mode="w")
    cases |= {tmp_path / "complex": "E_MODE", tmp_path / "plate.zarr": "E_PAGES", tmp_path / "old.zarr": "E_MODE"}
    cases[tmp_path / "empty"] = "E_PAGES"
    for bad, code in cases.items():
        with pytest.raises(FileError) as told:
            ZarrSource(bad)
        assert told.value.code == code, bad
        assert "\n" not in str(told.value)
    ome(tmp_path / "y.zarr", "tcyx")
    for at, bands in (({"t": 2}, None), ({"z": 0}, None), ({"c": 0}, None), (None, (4,))):
        with pytest.raises(FileError):
            ZarrSource(tmp_path / "y.zarr", at, bands)
    assert is_zarr(tmp_path / "y.zarr")
    assert not is_zarr(tmp_path)


def hashes(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_follow_the_image(version, tmp_path):
    ome(tmp_path / "in.zarr", "tcyx", version, scale=[1.0, 1.0, 0.5, 0.25], translation=[0.0, 0.0, 7.0, 9.0])
    before = hashes(tmp_path / "in.zarr")
    classes = RNG.integers(0, 3, (1500, 1301)).astype(np.uint8)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "out.zarr"
    found = write_labels(path, classes, TABLE, like=tmp_path / "in.zarr", name="mine")
    assert found == path / "labels" / "mine"
    assert hashes(tmp_path / "in.zarr") == before
    words = json.loads((found / (".zattrs" if version == "0.4" else "zarr.json")).read_text())
    ome_words = words if version == "0.4" else words["attributes"]["ome"]
    label = ome_words["image-label"]
    assert {"label-value": 1, "rgba": [10, 20, 30, 255]} in label["colors"]
    assert {"label-value": 2, "class": "wall"} in label["properties"]
    assert (found / label["source"]["image"]).resolve() == (tmp_path / "in.zarr").resolve()
    scales = ome_words["multiscales"][0]
    assert (scales if version == "0.4" else ome_words)["version"] == version
    assert [(axis["name"], axis["unit"]) for axis in scales["axes"]] == [("y", "micrometer"), ("x", "micrometer")]
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    listed = group["labels"].attrs if version == "0.4" else group["labels"].attrs["ome"]
    assert listed["labels"] == ["mine"]
    assert [level["path"] for level in scales["datasets"]] == ["0", "1", "2"]
    for level, dataset in enumerate(scales["datasets"]):
        step = 2**level
        assert np.array_equal(group["labels/mine"][dataset["path"]][...], classes[::step, ::step])
        changes = dataset["coordinateTransformations"]
        assert changes[0] == {"type": "scale", "scale": [0.5 * step, 0.25 * step]}
        assert changes[1] == {"type": "translation", "translation": [7.0, 9.0]}
    with ZarrSource(found) as source:  # a label image is an image
        assert np.array_equal(source.read(700, 600, 300, 500).pixels, classes[700:1000, 600:1100])
        assert source.metres == pytest.approx((5e-7, 2.5e-7))


def test_labels_of_frames_and_of_no_image(tmp_path):
    classes = RNG.integers(0, 3, (2, 3, 40, 30)).astype(np.uint8)
    found = write_labels(tmp_path / "x.zarr", classes, TABLE, axes="tzyx")
    for name, source in zarr_frames(found):
        assert np.array_equal(source.read(0, 0, 40, 30).pixels, classes[int(name[1:4]), int(name[6:9])])
    assert "source" not in zarr.open_group(found, mode="r").attrs["ome"]["image-label"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_inside_the_image_if_told_so(version, tmp_path):
    path = tmp_path / "x.zarr"
    pixels = ome(path, "cyx", version)
    before = hashes(path)
    classes = np.ones((50, 70), np.uint8)
    for name in ("a", "b"):
        write_labels(path, classes, TABLE, like=path, name=name, inside=True)
    assert hashes(path).items() >= before.items()
    listed = zarr.open_group(path, mode="r")["labels"].attrs
    assert (listed if version == "0.4" else listed["ome"])["labels"] == ["a", "b"]
    with ZarrSource(path) as source:
        assert np.array_equal(source.read(0, 0, 50, 70).pixels, pixels.transpose(1, 2, 0))
    with pytest.raises(SaveError, match="exists already"):
        write_labels(path, classes, TABLE, like=path, name="a", inside=True)


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path):
    path = tmp_path / "x.zarr"
    ome(path, "yx")
    before = hashes(path)
    with pytest.raises(SaveError, match="exists already"):
        write_labels(path, np.ones((50, 70), np.uint8), TABLE)
    with pytest.raises(SaveError, match="must be uint8"):
        write_labels(tmp_path / "y.zarr", np.ones((50, 70), np.int64), TABLE)
    assert hashes(path) == before

    class Failing:
        shape, dtype = (50, 70), np.dtype(np.uint8)

        def __getitem__(self, where):
            raise OSError("no space left on device")

    with pytest.raises(SaveError, match="no space left"):
        write_labels(tmp_path / "y.zarr", Failing(), TABLE)
    assert [each.name for each in tmp_path.iterdir()] == ["x.zarr"]


def test_a_class_map_on_disk_is_written_in_blocks(tmp_path):
    classes = np.memmap(tmp_path / "raw", np.uint8, "w+", shape=(3000, 2500))
    classes[...] = RNG.integers(0, 3, classes.shape)
    asked = []

    class Watched:
        shape, dtype = classes.shape, classes.dtype

        def __getitem__(self, where):
            part = classes[where]
            asked.append(part.size)
            return part

    found = write_labels(tmp_path / "x.zarr", Watched(), TABLE)
    assert max(asked) <= 1024 * 1024
    assert np.array_equal(zarr.open_group(found, mode="r")["0"][...], classes)
