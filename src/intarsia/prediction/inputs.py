"""What is to be predicted: files, folders, patterns, lists of names, names from standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from intarsia.errors import ConfigError
from intarsia.images.files import IMAGE_SUFFIXES
from intarsia.images.medical.dicom import is_dicom
from intarsia.images.video import VIDEO_SUFFIXES
from intarsia.images.zarrs import is_zarr

SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | {".nii"}
"""Of files that are taken from a folder; a file that is named itself may be called as it likes."""


def find_images(given: Iterable[str | Path], without: Path | None = None) -> list[Path]:
    """Each input once, in order: files as they are, folders as the images in them, `*` patterns, `@list.txt` as the names in
    it, a line each, and `-` as the names that standard input gives.

    A folder that is one image itself (Zarr) is taken whole, and so are the DICOM slices of a folder, as one input.

    Args:
        without: a folder whose content is no input unless it is named itself: that of earlier results.

    Raises:
        ConfigError: nothing to predict.
    """
    found: dict[Path, None] = {}
    for entry in given:
        paths = _of(str(entry))
        if without is not None and without.is_dir() and Path(entry).is_dir():
            own = without.resolve()
            inside = [path for path in paths if not path.resolve().is_relative_to(own)]
            paths = inside if inside or not Path(entry).resolve().is_relative_to(own) else paths
        found.update(dict.fromkeys(paths))
    if not found:
        raise ConfigError("no image given. Name files or folders.")
    return list(found)


def _of(entry: str) -> list[Path]:
    path = Path(entry)
    if entry == "-":
        return _listed(sys.stdin.read().splitlines(), "standard input")
    if entry.startswith("@") and not path.exists():
        try:
            lines = Path(entry[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{entry}: the list cannot be read ({getattr(error, 'strerror', None) or error})."
            ) from None
        return _listed(lines, entry[1:])
    if path.is_dir():
        return _of_folder(path)
    if glob.has_magic(entry) and not path.exists():
        matches = sorted(Path(name) for name in glob.glob(entry, recursive=True))
        if not matches:
            raise ConfigError(f"{entry}: no file fits this pattern.")
        return [each for match in matches for each in (_of_folder(match) if match.is_dir() else [match])]
    return [path]


def _listed(lines: Sequence[str], source: str) -> list[Path]:
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise ConfigError(f"{source}: names no image.")
    return [each for name in names for each in (_of_folder(Path(name)) if Path(name).is_dir() else [Path(name)])]


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files that lie directly in a folder; they often have no suffix."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in ("", ".dcm", ".dicom", ".ima") and path.is_file() and is_dicom(path)
    ]


def _of_folder(folder: Path) -> list[Path]:
    if is_zarr(folder):
        return [folder]
    slices = set(dicom_files(folder))
    inside: list[Path] = [folder] if slices else []
    others = 0
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path in slices:
            continue
        if path.is_dir():
            inside += _maybe_of_folder(path)
        elif path.suffix.lower() in SUFFIXES or path.name.lower().endswith(".nii.gz"):
            inside.append(path)
        else:
            others += 1
    if not inside:
        more = f" ({others} other files; name them to have them tried)" if others else ""
        raise ConfigError(f"{folder}: holds no images{more}. Read are {', '.join(sorted(SUFFIXES))}.")
    return inside


def _maybe_of_folder(folder: Path) -> list[Path]:
    try:
        return _of_folder(folder)
    except ConfigError:
        return []


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A name for each result: the stem, with folders in front where two stems are equal, with a number if all else is."""
    names: list[str] = []
    for depth in range(1, 9):
        names = ["_".join(part.strip("/.") for part in (*path.parts[-depth:-1], _stem(path))) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name}_{index}" for index, name in enumerate(names, 1)]


def _stem(path: Path) -> str:
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem
