"""Zarr: images of OME-Zarr 0.4 and 0.5 and plain arrays read window by window, class maps written as OME-Zarr labels.

Axes are those that the metadata tells, never guessed: `axes` of OME-NGFF, `dimension_names` (zarr 3), `_ARRAY_DIMENSIONS`
(zarr 2, as xarray writes it). Channels become bands, times and depths frames. A chunk that is not there reads as the fill value
of its array, as zarr has it. Specification: https://ngff.openmicroscopy.org/0.4/ and /0.5/, "multiscales" and "labels".
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE, ClassTable
from intarsia.errors import FileError, SaveError
from intarsia.images.source import Source, Window
from intarsia.images.values import as_pixels, spread_mean, without_value
from intarsia.optional import need

_MARKS = ("zarr.json", ".zarray", ".zgroup")
_VERSIONS = ("0.4", "0.5")
_AXES = {
    **dict.fromkeys(("t", "time"), "t"),
    **dict.fromkeys(("c", "channel", "channels", "band", "bands"), "c"),
    **dict.fromkeys(("z", "depth"), "z"),
    **dict.fromkeys(("y", "row", "rows", "height"), "y"),
    **dict.fromkeys(("x", "column", "columns", "col", "width"), "x"),
}
"""What an axis is, by its name."""
_UNITS = {
    "meter": 1.0,
    "centimeter": 1e-2,
    "millimeter": 1e-3,
    "micrometer": 1e-6,
    "nanometer": 1e-9,
    "angstrom": 1e-10,
}
_CHUNK, _SMALLEST_LEVEL = 1024, 512


class Sliceable(Protocol):
    """An array, also one on disk: only blocks of it are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, where: Any, /) -> Any: ...


@dataclass(frozen=True)
class _Image:
    """An array of a store, and what its metadata tells."""

    array: Any
    axes: str
    """One letter of t, c, z, y, x an axis."""
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    described: tuple[Mapping[str, Any], ...]
    """OME-NGFF's own words on each axis; empty for a plain array."""
    version: str | None


def is_zarr(path: Path | str) -> bool:
    """Whether a folder is a zarr array or group."""
    return any((Path(path) / mark).is_file() for mark in _MARKS)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except Exception as error:  # codecs and JSON raise all sorts over damage
        raise FileError(path, "E_CORRUPT", f"is damaged ({error or type(error).__name__})") from error


def _open(path: Path, axes: str | None) -> _Image:
    zarr = need("zarr", extra="bio")
    if not path.exists():
        raise FileError(path, "E_MISSING", "does not exist")
    if not is_zarr(path):
        raise FileError(
            path, "E_NOT_IMAGE", "is no zarr array or group: it holds neither zarr.json nor .zarray nor .zgroup"
        )
    with guarded(path):
        node = zarr.open(path, mode="r")
        image = _plain(path, node, axes) if isinstance(node, zarr.Array) else _ome(path, node)
        if image.array.dtype.kind not in "uifb":
            raise FileError(path, "E_MODE", f"holds {image.array.dtype} numbers, which are no pixels")
        if 0 in image.array.shape:
            raise FileError(path, "E_DIM", "has a side of 0 pixels")
    return image


def _ome(path: Path, group: Any) -> _Image:
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if not ome.get("multiscales"):
        inside = sorted(group.keys())
        what = "a plate" if "plate" in ome else "a group" if inside else "an empty group"
        raise FileError(
            path, "E_PAGES", f"is {what}, not one image; name one in it ({', '.join(inside[:5]) or 'none'})"
        )
    scales = ome["multiscales"][0]
    version = str(ome.get("version") or scales.get("version") or "0.4")
    if version not in _VERSIONS or not all(isinstance(axis, Mapping) for axis in scales.get("axes") or [None]):
        raise FileError(path, "E_MODE", f"is OME-Zarr {version}; 0.4 and 0.5 are read. Convert it with a newer writer")
    level = scales["datasets"][0]
    array, described = group[level["path"]], tuple(scales["axes"])
    kinds = {"channel": "c", "time": "t"}
    names = [kinds.get(str(axis.get("type")), str(axis["name"])) for axis in described]
    scale, translation = np.ones(array.ndim), np.zeros(array.ndim)
    for step in (*level.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())):
        scale *= step.get("scale", 1)
        translation = translation * step.get("scale", 1) + step.get("translation", 0)
    letters = _letters(path, names, array.ndim)
    return _Image(array, letters, tuple(scale.tolist()), tuple(translation.tolist()), described, version)


def _plain(path: Path, array: Any, axes: str | None) -> _Image:
    told = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    names = list(axes) if axes else [str(name) for name in told or ()]
    if not names:
        todo = "write dimension_names (zarr 3) or _ARRAY_DIMENSIONS (zarr 2) such as [y, x] or [y, x, c]"
        raise FileError(path, "E_PAGES", f"does not tell its {array.ndim} axes, shape {array.shape}; {todo}")
    return _Image(array, _letters(path, names, array.ndim), (1.0,) * array.ndim, (0.0,) * array.ndim, (), None)


def _letters(path: Path, names: Sequence[str], count: int) -> str:
    letters = "".join(_AXES.get(name.lower(), "?") for name in names)
    if len(letters) != count or "?" in letters or len(set(letters)) < count or not {"y", "x"} <= set(letters):
        told = f"has {count} axes called {', '.join(names)}; they must be y and x, and perhaps t, z and c, each once"
        raise FileError(path, "E_PAGES", told)
    return letters


class ZarrSource(Source):
    """One frame of a zarr array, or of the finest level of an OME-Zarr image.

    Args:
        path: the folder of the array or of the image's group; of one image, not of a plate.
        at: which frame, such as {"t": 0, "z": 3}; axes that are not named are at 0.
        bands: channels to take, from 1, in this order; None: all.
        axes: what a plain array's axes are, such as "yxc", where its metadata does not tell.

    Raises:
        FileError: it is missing, damaged, no zarr, does not tell its axes, or has not this frame or these channels.
    """

    def __init__(
        self,
        path: Path | str,
        at: Mapping[str, int] | None = None,
        bands: Sequence[int] | None = None,
        *,
        axes: str | None = None,
        _image: _Image | None = None,
    ) -> None:
        self.path = folder = Path(path)
        self._image = image = _image or _open(folder, axes)
        sides = dict(zip(image.axes, (int(side) for side in image.array.shape), strict=True))
        self.height, self.width, there = sides["y"], sides["x"], sides.get("c", 1)
        if bands is not None and max(bands) > there:
            told = f"has {there} band{'s' * (there != 1)}, but band {max(bands)} is asked for (data.bands)"
            raise FileError(folder, "E_BANDS", told)
        for axis, number in (at or {}).items():
            if axis not in sides or axis in "yxc" or not 0 <= number < sides[axis]:
                raise FileError(folder, "E_PAGES", f"has axes {sides}; there is no {axis} = {number}")
        self._at = {axis: (at or {}).get(axis, 0) for axis in image.axes if axis in "tz"}
        self._channels = None if bands is None else [band - 1 for band in bands]
        self.bands = there if bands is None else len(bands)
        self.metres = _metres(image)
        self._fill: NDArray[np.float64] | None = None

    def read(self, top: int, left: int, height: int, width: int) -> Window:
        planes = self._read(top, left, height, width)
        there = without_value(planes, None)
        if there is not None:
            if self._fill is None:
                self._fill = spread_mean(self._read, self.size, None)
            planes[there] = self._fill.astype(planes.dtype)
        return Window(np.ascontiguousarray(planes[..., 0] if planes.shape[2] == 1 else planes), there)

    def _read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """(h, w, C)"""
        where: dict[str, Any] = {"y": slice(top, top + height), "x": slice(left, left + width), **self._at}
        channels = [slice(None)] if self._channels is None else [slice(band, band + 1) for band in self._channels]
        if "c" not in self._image.axes:
            channels = [slice(None)] * len(channels)
        kept = [axis for axis in self._image.axes if axis in "yxc"]
        assert self.path is not None
        parts = []
        with guarded(self.path):
            for channel in channels:
                index = tuple({**where, "c": channel}[axis] for axis in self._image.axes)
                part = np.asarray(self._image.array[index])
                part = part if "c" in kept else part[..., None]
                parts.append(part.transpose([[*kept, "c"].index(axis) for axis in "yxc"]))
        return np.array(as_pixels(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)), order="C")


def zarr_frames(
    path: Path | str, bands: Sequence[int] | None = None, *, axes: str | None = None
) -> Iterator[tuple[str, Source]]:
    """Frames of a zarr image, each with what its name ends in: `t000_z003`, from 0; "" where there is one without t and z.

    Raises:
        FileError: as `ZarrSource`.
    """
    image = _open(Path(path), axes)
    outer = [(axis, int(side)) for axis, side in zip(image.axes, image.array.shape, strict=True) if axis in "tz"]
    for numbers in product(*(range(side) for _, side in outer)):
        at = {axis: number for (axis, _), number in zip(outer, numbers, strict=True)}
        name = "_".join(f"{axis}{number:03d}" for axis, number in at.items())
        yield name, ZarrSource(path, at, bands, _image=image)


def _metres(image: _Image) -> tuple[float, float] | None:
    if not image.described:
        return None
    y, x = (image.axes.index(axis) for axis in "yx")
    units = [_UNITS.get(str(image.described[place].get("unit")), 0.0) for place in (y, x)]
    return (image.scale[y] * units[0], image.scale[x] * units[1]) if all(units) else None


def write_labels(
    path: Path | str,
    classes: Sliceable,
    table: ClassTable,
    *,
    like: Path | str | None = None,
    name: str = "classes",
    axes: str = "yx",
    inside: bool = False,
) -> Path:
    """Write a class map as an OME-Zarr label image under `labels/NAME`, with coarser levels that take each second pixel.

    Args:
        path: a new zarr; or, with `inside`, the image's own group, which then gains the labels.
        classes: uint8, an axis for each letter of `axes`; read in blocks.
        like: the OME-Zarr image: its version, its units and coordinates are those of the labels, and it is their source.
        axes: what the axes of `classes` are, of t, z, y, x, in the order of the image; y and x last.

    Returns:
        The folder of the label image.

    Raises:
        SaveError: the zarr or these labels exist already, or cannot be written.
    """
    need("zarr", extra="bio")
    root = Path(path)
    if len(classes.shape) != len(axes) or not axes.endswith("yx") or np.dtype(classes.dtype) != np.uint8:
        raise SaveError(f"{root}: classes must be uint8 with axes {axes}, got {classes.dtype} of shape {classes.shape}")
    image = _open(Path(like), None) if like is not None else None
    target = root / "labels" / name
    if (target if inside else root).exists():
        raise SaveError(f"{target if inside else root}: exists already; choose another name, or move it away")
    whole = target.with_name(f".{name}.part") if inside else root.with_name(f".{root.name}.part")
    version = (image.version if image else None) or _VERSIONS[-1]
    source = Path(like) if like is not None else root if inside else None
    try:
        shutil.rmtree(whole, ignore_errors=True)
        group = _make_group(whole if inside else whole / "labels" / name, version)
        scales = _write_levels(group, classes, axes, image, name)
        described = _described(table, version)
        if source is not None:
            described["source"] = {"image": PurePath(os.path.relpath(source, target)).as_posix()}
        _set(group, version, {"multiscales": [scales], "image-label": described})
        if inside:
            _list_label(_make_group(root / "labels", version), version, name)
        else:
            _make_group(whole, version)
            _list_label(_make_group(whole / "labels", version), version, name)
        whole.rename(target if inside else root)
    except OSError as error:
        raise SaveError(f"{root}: cannot be written ({error}); look at the folder and its free space") from None
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return target


def _make_group(path: Path, version: str) -> Any:
    """The group at `path`; made, if it is not there."""
    zarr = need("zarr", extra="bio")
    return zarr.open_group(path, mode="a", zarr_format=2 if version == "0.4" else 3)


def _set(group: Any, version: str, words: Mapping[str, Any]) -> None:
    if version == "0.4":
        words = {
            key: [{**each, "version": version} for each in value] if key == "multiscales" else value
            for key, value in words.items()
        }
        group.attrs.update(words)
    else:
        group.attrs["ome"] = {**dict(group.attrs).get("ome", {}), "version": version, **words}


def _list_label(group: Any, version: str, name: str) -> None:
    attributes = dict(group.attrs)
    listed = (attributes if version == "0.4" else attributes.get("ome", {})).get("labels", [])
    _set(group, version, {"labels": [*listed, name]})


def _described(table: ClassTable, version: str) -> dict[str, Any]:
    """`image-label`: a colour and a name for each class; pixels that are not counted are seen through."""
    colours = [{"label-value": value, "rgba": [*colour, 255]} for value, colour in enumerate(table.colors)]
    names = [{"label-value": value, "class": name} for value, name in enumerate(table.names)]
    colours.append({"label-value": IGNORE, "rgba": [128, 128, 128, 0]})
    names.append({"label-value": IGNORE, "class": "ignored"})
    return {"version": version, "colors": colours, "properties": names}


def _write_levels(group: Any, classes: Sliceable, axes: str, image: _Image | None, name: str) -> dict[str, Any]:
    """The arrays, finest first, and their `multiscales` entry."""
    described: list[dict[str, Any]] = []
    scale, translation = [1.0] * len(axes), [0.0] * len(axes)
    for place, axis in enumerate(axes):
        words: dict[str, Any] = {"name": axis, "type": "time" if axis == "t" else "space"}
        if image and axis in image.axes:
            at = image.axes.index(axis)
            words = dict(image.described[at]) if image.described else words
            scale[place], translation[place] = image.scale[at], image.translation[at]
        described.append(words)
    datasets, level, finer = [], 0, classes
    while True:
        finer = _write_level(group, str(level), finer, described, halved=level > 0)
        step = [side * 2**level if axis in "yx" else side for side, axis in zip(scale, axes, strict=True)]
        changes: list[dict[str, Any]] = [{"type": "scale", "scale": step}]
        if any(translation):  # each second pixel, from the first: the origin stays
            changes.append({"type": "translation", "translation": translation})
        datasets.append({"path": str(level), "coordinateTransformations": changes})
        if max(finer.shape[-2:]) <= _SMALLEST_LEVEL:
            break
        level += 1
    return {"name": name, "axes": described, "datasets": datasets, "type": "nearest"}


def _write_level(
    group: Any, name: str, source: Sliceable, described: Sequence[Mapping[str, Any]], *, halved: bool
) -> Sliceable:
    step = 2 if halved else 1
    shape = (*source.shape[:-2], *(-(-side // step) for side in source.shape[-2:]))
    chunks = (*(1 for _ in shape[:-2]), *(min(side, _CHUNK) for side in shape[-2:]))
    is_old = group.metadata.zarr_format == 2
    more = {} if is_old else {"dimension_names": [str(axis["name"]) for axis in described]}
    array = group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype="uint8",
        chunk_key_encoding={"name": "v2" if is_old else "default", "separator": "/"},
        **more,
    )
    blocks = [range(0, side, chunk) for side, chunk in zip(shape, chunks, strict=True)]
    for corner in product(*blocks):
        ends = [min(begin + chunk, side) for begin, chunk, side in zip(corner, chunks, shape, strict=True)]
        where = tuple(slice(begin, end) for begin, end in zip(corner, ends, strict=True))
        finer = (*where[:-2], *(slice(part.start * step, part.stop * step) for part in where[-2:]))
        array[where] = np.asarray(source[finer])[..., ::step, ::step]
    found: Sliceable = array
    return found
