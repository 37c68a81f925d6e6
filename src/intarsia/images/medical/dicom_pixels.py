"""DICOM: frames as numbers with a meaning; nothing of a patient is read into a result or a message.

Grey values are rescaled (Hounsfield units of a CT) to float32 where the file tells how; MONOCHROME1 is inverted: more is
brighter. The window of interest (VOI) is for the eye only (`picture_of`): a network gets the whole range, padding as it is.
Standard: PS3.3, C.11.1 (modality LUT), C.11.2 (VOI LUT). H, W: rows and columns of a frame.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.errors import FileError, IntarsiaError
from intarsia.images.files import Decoded, guarded, max_pixels
from intarsia.optional import need

_MAGIC_AT, _MAGIC = 128, b"DICM"
_GROUPS = (b"\x02\0", b"\x08\0")
"""How a file without preamble begins: its first group of elements."""
_NOT_IMAGES = {
    "SEG": "segmentation",
    "RTSTRUCT": "contours",
    "RTDOSE": "dose",
    "RTPLAN": "plan",
    "SR": "report",
    "PR": "view",
}
_SEGMENTATIONS = "1.2.840.10008.5.1.4.1.1.66."
_CUT_OFF = ("less than expected", "end of file", "cannot reshape")
"""What the library says where pixels are missing."""
_PACKAGES = {"1.2.840.10008.1.2.4.57": "python-gdcm", "1.2.840.10008.1.2.4.70": "python-gdcm"}
"""Transfer syntax to what decodes it, where pydicom alone does not: lossless JPEG; all others, pylibjpeg-openjpeg."""


def is_dicom(path: Path | str) -> bool:
    """Whether a file is DICOM: by its preamble; without one, by whether it tells what it holds."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_MAGIC_AT + 4)
    if start[_MAGIC_AT:] == _MAGIC:
        return True
    if start[:2] not in _GROUPS:
        return False
    try:
        return "SOPClassUID" in header_of(path, ["SOPClassUID"])
    except FileError:
        return False


@contextmanager
def guarded_dicom(path: Path) -> Iterator[None]:
    """As `guarded`, but no word of the library reaches a message: it may quote what a file says of a patient."""
    pydicom = need("pydicom", extra="med")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with guarded(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (IntarsiaError, FileNotFoundError):
            raise
        except pydicom.errors.InvalidDicomError:
            raise FileError(path, "E_NOT_IMAGE", "is no DICOM file") from None
        except Exception as error:
            words = str(error).lower()
            if isinstance(error, EOFError) or any(each in words for each in _CUT_OFF):
                raise FileError(path, "E_TRUNCATED", "is cut off: the end of the file is missing") from None
            raise FileError(path, "E_CORRUPT", f"is damaged ({type(error).__name__})") from None


def header_of(path: Path, tags: list[str] | None = None) -> Any:
    """The data set without its pixels."""
    pydicom = need("pydicom", extra="med")
    with guarded_dicom(path):
        with path.open("rb") as file:
            start = file.read(_MAGIC_AT + 4)
        bare = start[_MAGIC_AT:] != _MAGIC and start[:2] in _GROUPS
        return pydicom.dcmread(path, stop_before_pixels=True, force=bare, specific_tags=tags)


def image_header(path: Path) -> Any:
    """The header of an image; FileError for any other object."""
    header = header_of(path)
    with guarded_dicom(path):  # elements are decoded when they are asked for
        if what := no_image(header):
            raise FileError(path, "E_NOT_IMAGE", f"is a DICOM object, but no image ({what})")
        if header.Rows * header.Columns > max_pixels():
            told = f"has more pixels than the limit of {max_pixels()}; set INTARSIA_MAX_PIXELS to allow it"
            raise FileError(path, "E_TOO_LARGE", told)
    return header


def no_image(header: Any) -> str | None:
    """What a DICOM object is that is no image; None for an image."""
    modality = str(header.get("Modality") or "")
    if modality in _NOT_IMAGES:
        return _NOT_IMAGES[modality]
    if str(header.get("SOPClassUID") or "").startswith(_SEGMENTATIONS):
        return "segmentation"
    return None if header.get("Rows") and header.get("Columns") else "object without pixels"


def frames_of(path: Path | str) -> int:
    """How many frames a DICOM image holds.

    Raises:
        FileError: as `read_slice`.
    """
    header = image_header(Path(path))
    with guarded_dicom(Path(path)):
        return int(header.get("NumberOfFrames") or 1)


def read_slice(path: Path | str, frame: int = 0) -> Decoded:
    """A frame: (H, W), or (H, W, 3) RGB.

    float32 where the file has a rescale (value = slope · stored + intercept) or signed numbers, else uint8 or uint16.

    Raises:
        FileError: it is missing, damaged, no DICOM image (also a segmentation or contours), or compressed in a way that nothing
            here decodes; the message then names the package that does.
    """
    path = Path(path)
    return read_frame(path, image_header(path), frame)


def read_frame(path: Path, header: Any, frame: int) -> Decoded:
    """As `read_slice`, for a file whose header is read already."""
    stored = _stored(path, header, frame)
    with guarded_dicom(path):
        values, rescaled = _rescaled(header, stored, frame)
        notes: tuple[str, ...] = ()
        if header.PhotometricInterpretation == "MONOCHROME1":
            values, notes = _inverted(header, values, frame), ("MONOCHROME1 inverted: more is brighter",)
        kept = values if values.dtype in (np.uint8, np.uint16) and not rescaled else values.astype(np.float32)
    return Decoded(np.ascontiguousarray(kept), "DICOM", str(stored.dtype), notes=notes)


def picture_of(path: Path | str, frame: int = 0) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) as a viewer shows it: the file's first VOI window, or from the least to the greatest value.

    Raises:
        FileError: as `read_slice`.
    """
    path = Path(path)
    header = image_header(path)
    stored = _stored(path, header, frame)
    with guarded_dicom(path):
        if stored.ndim == 3:
            picture: NDArray[np.uint8] = (stored >> 8 if stored.dtype == np.uint16 else stored).astype(np.uint8)
            return picture
        values = _rescaled(header, stored, frame)[0].astype(np.float64)
        share = _windowed(header, values, frame)
        if header.PhotometricInterpretation == "MONOCHROME1":
            share = 1 - share
        grey: NDArray[np.uint8] = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
        return grey


def _windowed(header: Any, values: NDArray[np.float64], frame: int) -> NDArray[np.float64]:
    """0..1 by the functions of PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    voi = functional_group(header, frame, "FrameVOILUTSequence") or header
    if "WindowCenter" not in voi or "WindowWidth" not in voi:
        low, high = values.min(), values.max()
        return np.asarray((values - low) / max(high - low, 1e-12))
    centre, width = (float(np.atleast_1d(voi[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    function = str(voi.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp((-4 * (values - centre) / width).clip(-500, 500))))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    return (values - (centre - 0.5)) / max(width - 1, 1e-12) + 0.5


def _stored(path: Path, header: Any, frame: int) -> NDArray[Any]:
    """(H, W) or (H, W, 3) RGB; the numbers of the file before any rescale."""
    pydicom = need("pydicom", extra="med")
    pixels = need("pydicom.pixels", extra="med")
    with guarded_dicom(path):
        count = int(header.get("NumberOfFrames") or 1)
        if not 0 <= frame < count:
            raise FileError(path, "E_PAGES", f"holds {count} frames; there is no frame {frame + 1}")
        syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
        _check_decoder(path, pixels, syntax)
        if syntax is None:  # a bare data set: the standard's default
            header = pydicom.dcmread(path, force=True)
            header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        array = pixels.pixel_array(path if syntax is not None else header, index=frame)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            array = pixels.apply_color_lut(array, header)
            array = (array >> 8).astype(np.uint8) if array.dtype == np.uint16 else array
    return np.asarray(array)


def _check_decoder(path: Path, pixels: Any, syntax: Any) -> None:
    if syntax is None or not syntax.is_compressed:
        return
    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:
        raise FileError(
            path, "E_MODE", f"is compressed as {syntax.name}, which is not read; save it uncompressed"
        ) from None
    if not decoder.is_available:
        package = _PACKAGES.get(str(syntax), "pylibjpeg pylibjpeg-openjpeg")
        told = f"is compressed as {syntax.name}, which needs another package: pip install {package}"
        raise FileError(path, "E_MODE", told)


def _rescaled(header: Any, stored: NDArray[Any], frame: int) -> tuple[NDArray[Any], bool]:
    """Values after the modality LUT, and whether the file has one."""
    if stored.ndim == 3:
        return stored, False
    if header.get("ModalityLUTSequence"):
        return need("pydicom.pixels", extra="med").apply_modality_lut(stored, header), True
    told = functional_group(header, frame, "PixelValueTransformationSequence") or header
    if "RescaleSlope" not in told or "RescaleIntercept" not in told:
        return stored, False
    return stored * np.float64(told.RescaleSlope) + np.float64(told.RescaleIntercept), True


def _inverted(header: Any, values: NDArray[Any], frame: int) -> NDArray[Any]:
    """The least value that can be stored becomes the greatest."""
    bits, is_signed = int(header.BitsStored), bool(header.PixelRepresentation)
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1])
    if header.get("ModalityLUTSequence"):
        table = np.asarray(header.ModalityLUTSequence[0].LUTData)
        ends = np.array([table.min(), table.max()])
    else:
        ends = _rescaled(header, ends, frame)[0]
    wide = values.astype(np.int64) if values.dtype.kind in "ui" else values
    inverted = ends.sum() - wide
    return np.asarray(inverted.astype(values.dtype) if values.dtype.kind == "u" else inverted)


def functional_group(header: Any, frame: int, name: str) -> Any:
    """A functional group of a frame, its own or the shared one; None where there is none."""
    own = header.get("PerFrameFunctionalGroupsSequence")
    shared = header.get("SharedFunctionalGroupsSequence")
    for group in (own[frame] if own and frame < len(own) else None, shared[0] if shared else None):
        if group is not None and group.get(name):
            return group.get(name)[0]
    return None
