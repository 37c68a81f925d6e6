"""DICOM SEG: class maps of a series as a segmentation object in the geometry of its images. Standard: PS3.3, A.51 and C.8.20.

Differs from what the standard allows: only BINARY segments. Segment k is class k; class 0 and pixels that are not counted
(255) are those that no segment covers. Segments are named by codes of our own (99INTARSIA): no medical term is claimed.
The object refers to its images by UIDs and lies in their frame of reference; fields on the patient and the study are empty.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import IGNORE, ClassTable
from intarsia.errors import DataError, SaveError
from intarsia.images.medical.dicom import Series
from intarsia.images.medical.dicom_pixels import image_header
from intarsia.optional import need

# fmt: off
_KEPT = frozenset({
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "Modality", "ImageType", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DimensionOrganizationType", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod",
})
"""All that is taken of an image: identity and geometry."""
_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)
# fmt: on
_LONGEST_LABEL, _SCHEME = 64, "99INTARSIA"


def write_dicom_seg(path: Path | str, classes_DHW: NDArray[np.uint8], series: Series, table: ClassTable) -> None:
    """Write the classes of a series' slices.

    Args:
        classes_DHW: class numbers, a map a slice in the order of `series.slices`.

    Raises:
        DataError: the shape is not that of the series, there is no class but 0, or the series lies in several multi-frame
            files or in no space.
        SaveError: the file cannot be written.
    """
    need("highdicom", extra="med")
    path = Path(path)
    wanted = (len(series.slices), *series.size)
    if classes_DHW.shape != wanted or classes_DHW.dtype != np.uint8:
        raise DataError(f"{path}: classes must be uint8 of {wanted}, got {classes_DHW.dtype} of {classes_DHW.shape}")
    if table.count < 2:
        raise DataError(f"{path}: DICOM SEG holds classes from 1 on; the table has only class 0")
    segments = np.where(classes_DHW == IGNORE, 0, classes_DHW).astype(np.uint8)
    if segments.max() >= table.count:
        raise DataError(f"{path}: class {segments.max()} is not in the table of {table.count} classes")
    order, headers = _images(path, series)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _object(headers, segments[order], table).save_as(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error}); look at the folder and its free space") from None
    except (AttributeError, ValueError, TypeError, KeyError) as error:  # its words may quote the images
        told = f"the images do not tell all that DICOM SEG needs ({type(error).__name__})"
        raise DataError(f"{path}: {told}; write PNG or NIfTI") from None
    finally:
        temporary.unlink(missing_ok=True)


def _images(path: Path, series: Series) -> tuple[list[int], list[Any]]:
    """Order of the slices, and bare headers in that order: one a file, without a word on the patient."""
    files = list(dict.fromkeys(each.path for each in series.slices))
    headers = [_bare(image_header(file)) for file in files]
    several = [int(header.get("NumberOfFrames") or 1) > 1 for header in headers]
    if any(several) and len(files) > 1:
        raise DataError(f"{path}: the series lies in {len(files)} multi-frame files; write a DICOM SEG for each")
    if any(several) and len(series.slices) != int(headers[0].NumberOfFrames):
        raise DataError(f"{path}: the file holds frames that are not of this series; write PNG or NIfTI")
    if not headers[0].get("FrameOfReferenceUID") and len(series.slices) > 1:
        raise DataError(f"{path}: the images lie in no frame of reference; write PNG or NIfTI")
    order = sorted(range(len(series.slices)), key=lambda place: series.slices[place].frame) if any(several) else None
    return order or list(range(len(series.slices))), headers


def _bare(header: Any) -> Any:
    for element in list(header):
        if element.keyword not in _KEPT:
            del header[element.tag]
    groups = (
        *(header.get("SharedFunctionalGroupsSequence") or ()),
        *(header.get("PerFrameFunctionalGroupsSequence") or ()),
    )
    for group in groups:
        for element in list(group):
            if element.keyword not in _KEPT:  # such as the time of a frame
                del group[element.tag]
    for keyword in _EMPTY:
        setattr(header, keyword, "")
    return header


def _object(headers: list[Any], segments_DHW: NDArray[np.uint8], table: ClassTable) -> Any:
    from highdicom import UID
    from highdicom.seg import Segmentation, SegmentationTypeValues

    from intarsia import __version__

    return Segmentation(
        source_images=headers,
        pixel_array=segments_DHW,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, name) for number, name in enumerate(table.names) if number],
        series_instance_uid=UID(),
        series_number=100,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="intarsia",
        manufacturer_model_name="intarsia",
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=bool(segments_DHW.any()),
    )


def _segment(number: int, name: str) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    from intarsia import __version__

    label = name[:_LONGEST_LABEL] or f"class {number}"
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=CodedConcept("class", _SCHEME, "Class of a segmentation model"),
        segmented_property_type=CodedConcept(f"class{number}", _SCHEME, label),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="intarsia", version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )
