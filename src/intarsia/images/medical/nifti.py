"""NIfTI: volumes in slices that lie as radiologists look at them, and class maps in the file's own frame and geometry.

A slice is cut from the voxels as they are (no resampling), along the axis of the array that is nearest to the body's:

| plane | slices rise towards | rows run | columns run |
|---|---|---|---|
| axial | superior | anterior to posterior | right to left |
| coronal | anterior | superior to inferior | right to left |
| sagittal | right | superior to inferior | anterior to posterior |

So the right of the body is on the left of the picture, as in DICOM, whatever the order in the file (RAS, LPS, LAS, ...), as the
affine tells it. Shapes: D slices of H x W, T volumes. Standard: https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import ConfigError, FileError, SaveError
from intarsia.images.files import guarded, max_pixels
from intarsia.images.source import ArraySource, Source
from intarsia.images.values import as_pixels, without_value
from intarsia.optional import need

PLANES = ("sagittal", "coronal", "axial")
"""By the canonical axis that a slice lies across: right, anterior, superior."""
_GZIP = b"\x1f\x8b"
_METRES = {1: 1.0, 2: 1e-3, 3: 1e-6}
"""Unit of length by its code, the lowest three bits of xyzt_units."""
_TEXTS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
"""Fields of free text, which may tell of a patient."""
_BLOCK, _MOST_BEHIND = 1 << 20, 64 << 20


def is_nifti(path: Path | str) -> bool:
    """Whether a file is one NIfTI volume (.nii, .nii.gz), by its content."""
    try:
        with _unpacked(Path(path)) as file:
            return _is_single(file.read(348))
    except (OSError, EOFError, zlib.error):
        return False


def _is_single(start: bytes) -> bool:
    return start[344:348] == b"n+1\0" or start[4:8] == b"n+2\0"


def _unpacked(path: Path) -> Any:
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
    return gzip.open(path) if is_packed else path.open("rb")


@contextmanager
def _guarded_volume(path: Path) -> Iterator[None]:
    with guarded(path):
        try:
            yield
        except EOFError:
            raise FileError(path, "E_TRUNCATED", "is cut off: the end of the file is missing") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise FileError(path, "E_CORRUPT", f"is damaged ({error})") from None


class NiftiVolume:
    """A volume, or several of one space (4-D), in slices.

    A file without compression is mapped; a compressed one is held in memory as stored, and its checksum is looked at.

    Args:
        plane: axial, coronal or sagittal; None: across the axis with the largest spacing, the last (axial) of equal ones.

    Raises:
        FileError: it is missing, damaged, cut off, no NIfTI file, or holds no scalars or colours.
    """

    def __init__(self, path: Path | str, plane: str | None = None) -> None:
        if plane is not None and plane not in PLANES:
            raise ConfigError(f"slices: must be axial, coronal or sagittal, got {plane!r}.")
        nibabel = need("nibabel", extra="med")
        self.path = Path(path)
        with _guarded_volume(self.path):
            self.image = image = self._load(nibabel)
            stored = np.asanyarray(image.dataobj.get_unscaled())
            self.notes = self._check(stored)
            self.slope, self.offset = (float(each) for each in (image.dataobj.slope, image.dataobj.inter))
            self._turn = nibabel.io_orientation(image.affine)
            if np.isnan(self._turn).any() or sorted(self._turn[:, 0]) != [0, 1, 2]:
                raise FileError(self.path, "E_CORRUPT", "is damaged (its affine does not tell where the axes point)")
            self.axcodes = "".join(nibabel.aff2axcodes(image.affine))
            """Where the axes of the stored array point, such as LPS."""
        spacing = np.linalg.norm(image.affine[:3, :3], axis=0)[np.argsort(self._turn[:, 0])]
        self.spacing = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
        """Between voxels from left to right, back to front, bottom to top, in the file's units."""
        widest = np.flatnonzero(spacing >= spacing.max() * (1 - 1e-3))
        self.plane = plane or PLANES[int(widest[-1])]
        self._slices_TDHW = self._to_slices(stored.reshape(*stored.shape[:3], -1))
        times, depth, height, width = self._slices_TDHW.shape
        if height * width > max_pixels():
            told = f"has slices with more pixels than the limit of {max_pixels()}; set INTARSIA_MAX_PIXELS to allow it"
            raise FileError(self.path, "E_TOO_LARGE", told)
        self.times: int = times
        """Volumes in the file."""
        self.shape: tuple[int, int, int] = (depth, height, width)
        """(D, H, W) of the slices."""

    def _load(self, nibabel: Any) -> Any:
        logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it writes of what it mends in a header
        with _unpacked(self.path) as file:
            start = file.read(540)
            if not _is_single(start):
                told = (
                    "is one of a pair of files (.hdr, .img); save it as .nii"
                    if start[344:348] == b"ni1\0"
                    else "is no NIfTI file"
                )
                raise FileError(self.path, "E_NOT_IMAGE", told)
            kind = nibabel.Nifti2Image if start[4:8] == b"n+2\0" else nibabel.Nifti1Image
            header = kind.header_class.from_fileobj(io.BytesIO(start + bytes(16)), check=False)
            if 0 in header.get_data_shape() or len(header.get_data_shape()) < 2:
                raise FileError(self.path, "E_DIM", "has a side of 0 voxels")
            end = (
                int(header["vox_offset"])
                + int(np.prod(header.get_data_shape(), dtype=object)) * header.get_data_dtype().itemsize
            )
            if not isinstance(file, gzip.GzipFile):
                if end > self.path.stat().st_size:
                    raise FileError(self.path, "E_TRUNCATED", "is cut off: the end of the file is missing")
                return kind.from_filename(self.path)
            content = _read_to_end(self.path, file, start, end)
        files = kind.make_file_map({"image": io.BytesIO(content), "header": io.BytesIO(content)})
        return kind.from_file_map(files)

    def _check(self, stored: NDArray[Any]) -> tuple[str, ...]:
        names = stored.dtype.names
        if stored.dtype.kind not in "uif" and names not in (("R", "G", "B"), ("R", "G", "B", "A")):
            raise FileError(self.path, "E_MODE", f"holds {stored.dtype} numbers, which are no pixels")
        if any(side > 1 for side in stored.shape[4:]):
            raise FileError(self.path, "E_BANDS", f"has the shape {stored.shape}: several numbers a voxel are not read")
        if stored.ndim < 3:
            raise FileError(self.path, "E_DIM", f"has the shape {stored.shape}; a volume has three sides, one may be 1")
        header = self.image.header
        if not int(header["sform_code"]) and not int(header["qform_code"]):
            return (
                "does not tell how it lies in the body; its axes are taken as nibabel does: left, anterior, superior",
            )
        return ()

    def _to_slices(self, stored_XYZT: NDArray[Any]) -> NDArray[Any]:
        """(T, D, H, W), a view: canonical (right, anterior, superior), then as the table above has it."""
        orientations = need("nibabel.orientations", extra="med")
        canonical = np.asarray(orientations.apply_orientation(stored_XYZT, self._turn))
        depth = PLANES.index(self.plane)
        columns, rows = (axis for axis in range(3) if axis != depth)
        return canonical.transpose(3, depth, rows, columns)[:, :, ::-1, ::-1]

    def _from_slices(self, slices_TDHW: NDArray[Any]) -> NDArray[Any]:
        """(X, Y, Z, T) as stored: undoes `_to_slices`."""
        orientations = need("nibabel.orientations", extra="med")
        depth = PLANES.index(self.plane)
        columns, rows = (axis for axis in range(3) if axis != depth)
        places = [0] * 3
        places[depth], places[rows], places[columns] = 1, 2, 3
        canonical = slices_TDHW[:, :, ::-1, ::-1].transpose(*places, 0)
        back = orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), self._turn)
        return np.asarray(orientations.apply_orientation(canonical, back))

    @property
    def metres(self) -> tuple[float, float] | None:
        """Height and width of a slice's pixel, where the file tells its unit."""
        unit = _METRES.get(int(self.image.header["xyzt_units"]) & 7)
        if unit is None:
            return None
        columns, rows = (axis for axis in range(3) if axis != PLANES.index(self.plane))
        return self.spacing[rows] * unit, self.spacing[columns] * unit

    def slice(self, number: int, time: int = 0) -> NDArray[Any]:
        """(H, W), or (H, W, 3) of colours: uint8 and uint16 as stored, if the file has no scale, else float32 (scaled)."""
        stored = self._slices_TDHW[time, number]
        if stored.dtype.names:
            return np.stack([stored[name] for name in "RGB"], axis=-1)
        if (self.slope, self.offset) == (1, 0):
            return np.array(as_pixels(stored), order="C")
        return np.ascontiguousarray(stored * self.slope + self.offset, dtype=np.float32)

    def frames(self) -> Iterator[tuple[str, Source]]:
        """Each slice, with what its name ends in: `axial0003`, of several volumes `t000_axial0003`; from 0."""
        for time in range(self.times):
            for number in range(self.shape[0]):
                with _guarded_volume(self.path):
                    pixels = self.slice(number, time)
                there = without_value(pixels if pixels.ndim == 3 else pixels[..., None], None)
                if there is not None:
                    pixels[there] = pixels[~there].mean(axis=0, dtype=np.float64) if not there.all() else 0
                source = ArraySource(pixels, there, path=self.path, notes=self.notes)
                source.metres = self.metres
                yield (f"t{time:03d}_" if self.times > 1 else "") + f"{self.plane}{number:04d}", source


def _read_to_end(path: Path, file: gzip.GzipFile, start: bytes, end: int) -> bytes:
    """The first `end` bytes, after the checksum at the file's end was looked at."""
    content = bytearray(start)
    while len(content) < end:
        block = file.read(min(_BLOCK, end - len(content)))
        if not block:
            raise FileError(path, "E_TRUNCATED", "is cut off: the end of the file is missing")
        content += block
    behind = 0
    while block := file.read(_BLOCK):
        behind += len(block)
        if behind > _MOST_BEHIND:
            raise FileError(path, "E_CORRUPT", "is damaged (much more follows than its header tells of)")
    return bytes(content[:end])


def write_classes(path: Path | str, classes: NDArray[np.uint8], like: NiftiVolume) -> None:
    """Write a class map in the frame of the volume that was sliced: its array's order, affine, spacing and units.

    Whole numbers (uint8) without a scale. Free text and extensions of the header are left out: they may tell of a patient.

    Args:
        path: .nii or .nii.gz.
        classes: (D, H, W) in the order of `like`'s slices; (T, D, H, W) if it holds several volumes.

    Raises:
        SaveError: the shape is another, or the file cannot be written.
    """
    nibabel = need("nibabel", extra="med")
    path = Path(path)
    wanted = (like.times, *like.shape) if like.times > 1 else like.shape
    if classes.shape != wanted or classes.dtype != np.uint8:
        raise SaveError(f"{path}: classes must be uint8 of {wanted}, got {classes.dtype} of {classes.shape}")
    ending = next((each for each in (".nii.gz", ".nii") if path.name.endswith(each)), None)
    if ending is None:
        raise SaveError(f"{path}: must end in .nii or .nii.gz")
    stored = like._from_slices(classes.reshape(like.times, *like.shape))
    header = like.image.header.copy()
    header.extensions.clear()
    for name in _TEXTS:
        if name in header:
            header[name] = b""
    header["cal_max"] = header["cal_min"] = 0
    header.set_data_dtype(np.uint8)
    shape = like.image.shape
    image = type(like.image)(np.ascontiguousarray(stored).reshape(shape), None, header)
    image.header.set_slope_inter(1, 0)
    temporary = path.with_name(f".part.{path.name}")
    try:
        nibabel.save(image, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error}); look at the folder and its free space") from None
    finally:
        temporary.unlink(missing_ok=True)
