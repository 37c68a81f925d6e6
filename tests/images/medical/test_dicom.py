"""DICOM: values with their meaning, slices in the order of space, segmentations that lie where their images lie, no patient."""

import logging
import warnings

import numpy as np
import pytest

from intarsia.classes import ClassTable
from intarsia.errors import DataError, FileError, SaveError
from intarsia.images.medical.dicom import Series, dicom_frames, find_series, is_dicom, picture_of, read_slice
from intarsia.images.medical.dicom_pixels import frames_of
from intarsia.images.medical.dicom_seg import write_dicom_seg

pydicom = pytest.importorskip("pydicom", reason="the extra med is not installed")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid  # noqa: E402

CT = "1.2.840.10008.5.1.4.1.1.2"
SECRETS = {
    "PatientName": "SECRET^JANE",
    "PatientID": "SECRET-4711",
    "PatientBirthDate": "19010203",
    "StudyDate": "19040506",
    "SeriesDate": "19040506",
    "AccessionNumber": "SECRET-ACC",
    "ReferringPhysicianName": "SECRET^DOC",
    "StudyDescription": "SECRET study",
    "SeriesDescription": "SECRET series",
    "InstitutionName": "SECRET hospital",
    "StudyID": "SECRETID",
    "OtherPatientNames": "SECRET^OTHER",
    "PatientComments": "SECRET comment",
    "AcquisitionDate": "19040506",
}
TABLE = ClassTable(names=("background", "liver", "spleen"))
RNG = np.random.default_rng(0)


def dataset(pixels, **tags):
    signed = pixels.dtype.kind == "i"
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = CT
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid()
    found.Modality, found.SeriesInstanceUID, found.StudyInstanceUID = "CT", "1.2.3", "1.2.4"
    found.FrameOfReferenceUID, found.PatientSex = "1.2.5", ""
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        found.SamplesPerPixel, found.PhotometricInterpretation, found.PlanarConfiguration = 3, "RGB", 0
        found.Rows, found.Columns = pixels.shape[:2]
    else:
        found.Rows, found.Columns = pixels.shape[-2:]
        if pixels.ndim == 3:
            found.NumberOfFrames = pixels.shape[0]
    bits = 8 * pixels.dtype.itemsize
    found.BitsAllocated = found.BitsStored = bits
    found.HighBit, found.PixelRepresentation = bits - 1, int(signed)
    for name, value in {**SECRETS, **tags}.items():
        setattr(found, name, value)
    found.PixelData = pixels.tobytes()
    return found


def save(path, pixels, **tags):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset(pixels, **tags).save_as(path, enforce_file_format=True)
    return path


def volume(folder, count=5, orientation=(1, 0, 0, 0, 1, 0), shuffled=True, size=(12, 16), **tags):
    """Slices under names and numbers that say nothing of their places; the value of each tells its place."""
    folder.mkdir(exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    names = RNG.permutation(count) if shuffled else np.arange(count)
    for place in range(count):
        pixels = np.full(size, place, np.int16)
        save(folder / f"{names[place]}.dcm", pixels, InstanceNumber=int(names[place]), RescaleSlope=2, RescaleIntercept=-10,
             PixelSpacing=[0.5, 0.25], SliceThickness=3, ImageOrientationPatient=list(orientation),
             ImagePositionPatient=[float(part) for part in np.round(normal * 3.0 * place + [5, 6, 7], 6)], **tags)  # fmt: skip
    return folder


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("rescale", [None, (2.5, -1000.0)])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_values_have_their_meaning(dtype, rescale, kind, tmp_path):
    info = np.iinfo(dtype)
    pixels = RNG.integers(info.min, info.max, (20, 30), endpoint=True).astype(dtype)
    tags = {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]} if rescale else {}
    found = read_slice(save(tmp_path / "x.dcm", pixels, PhotometricInterpretation=kind, **tags))
    slope, intercept = rescale or (1, 0)
    stored = pixels.astype(float) if kind == "MONOCHROME2" else float(info.min) + float(info.max) - pixels
    assert found.pixels.dtype == (np.float32 if rescale or dtype == "int16" else dtype)
    assert np.array_equal(found.pixels, (stored * slope + intercept).astype(np.float32))
    assert bool(found.notes) == (kind == "MONOCHROME1")


def test_bits_that_are_stored_set_the_range_of_inversion(tmp_path):
    pixels = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
    path = save(tmp_path / "x.dcm", pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    assert np.array_equal(read_slice(path).pixels, 4095 - pixels)


def test_colour_and_frames(tmp_path):
    colour = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    assert np.array_equal(read_slice(save(tmp_path / "c.dcm", colour)).pixels, colour)
    frames = RNG.integers(0, 256, (4, 20, 30)).astype(np.uint8)
    path = save(tmp_path / "f.dcm", frames)
    assert frames_of(path) == 4
    for number, frame in enumerate(frames):
        assert np.array_equal(read_slice(path, number).pixels, frame)
    with pytest.raises(FileError, match="holds 4 frames; there is no frame 5"):
        read_slice(path, 4)


@pytest.mark.parametrize("function", [None, "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_the_window_is_for_the_eye_only(function, kind, tmp_path):
    pixels = np.arange(600, dtype=np.int16).reshape(20, 30)
    tags = {"VOILUTFunction": function} if function else {}
    path = save(tmp_path / "x.dcm", pixels, WindowCenter=[300, 40], WindowWidth=[101, 400], RescaleSlope=1, RescaleIntercept=0,
                PhotometricInterpretation=kind, **tags)  # fmt: skip
    assert np.ptp(read_slice(path).pixels) == 599
    expected = np.empty((20, 30))
    for at in np.ndindex(20, 30):  # PS3.3, C.11.2.1.2.1 to C.11.2.1.3.1, word by word
        x, c, w = float(pixels[at]), 300.0, 101.0
        if function == "SIGMOID":
            expected[at] = 255 / (1 + np.exp(-4 * (x - c) / w))
        elif function == "LINEAR_EXACT":
            expected[at] = 0 if x <= c - w / 2 else 255 if x > c + w / 2 else ((x - c) / w + 0.5) * 255
        else:
            low, high = c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2
            expected[at] = 0 if x <= low else 255 if x > high else ((x - (c - 0.5)) / (w - 1) + 0.5) * 255
    shown = picture_of(path)
    shown = 255 - shown.astype(int) if kind == "MONOCHROME1" else shown.astype(int)
    assert abs(shown - expected).max() <= 1


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, -0.6, 0.8, 0)]
)
def test_slices_are_in_the_order_of_space(orientation, tmp_path):
    (series,) = find_series(volume(tmp_path / "s", orientation=orientation))
    assert series.size == (12, 16)
    assert series.spacing == (0.5, 0.25)
    assert series.notes == ()
    for place, (name, source) in enumerate(series.frames()):
        assert name == f"s{place + 1:04d}"
        assert source.metres == (0.0005, 0.00025)
        assert (source.read(0, 0, 12, 16).pixels == 2 * place - 10).all()


def test_series_are_kept_apart_and_other_objects_left_out(tmp_path):
    folder = volume(tmp_path / "s")
    volume(folder / "other", count=2, SeriesInstanceUID="9.9")
    save(folder / "scout.dcm", np.zeros((30, 40), np.uint8), ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
         ImagePositionPatient=[0, 0, 0])  # fmt: skip
    save(folder / "seg.dcm", np.zeros((12, 16), np.uint8), Modality="SEG")
    save(folder / "rt.dcm", np.zeros((12, 16), np.uint8), Modality="RTSTRUCT")
    (folder / "notes.txt").write_text("no DICOM")
    found = find_series(folder)
    assert sorted(len(series.slices) for series in found) == [1, 2, 5]
    assert len({series.name for series in found}) == 3
    assert found[0].notes == ("left out: 1 × contours", "left out: 1 × segmentation")
    for name in ("seg.dcm", "rt.dcm"):
        with pytest.raises(FileError, match="but no image") as told:
            read_slice(folder / name)
        assert told.value.code == "E_NOT_IMAGE"
    with pytest.raises(FileError, match="holds no DICOM image"):
        find_series(folder / "seg.dcm")


def test_names_of_all_slices_of_a_file_or_folder(tmp_path):
    folder = volume(tmp_path / "s", count=2)
    assert [name for name, _ in dicom_frames(folder)] == ["s0001", "s0002"]
    assert [name for name, _ in dicom_frames(folder / "0.dcm")] == [""]
    volume(folder / "other", count=2, SeriesInstanceUID="9.9")
    assert [name for name, _ in dicom_frames(folder)] == [f"series0{i}_s000{j}" for i in (1, 2) for j in (1, 2)]
    with pytest.raises(FileError, match="holds no DICOM image"):
        list(dicom_frames(save(tmp_path / "seg.dcm", np.zeros((4, 5), np.uint8), Modality="SEG")))


def test_what_is_said_of_places(tmp_path):
    for index in range(3):
        save(tmp_path / f"{index}.dcm", np.full((4, 5), index, np.uint8), InstanceNumber=9 - index)
    (series,) = find_series(tmp_path)
    assert series.notes == ("slices tell no position; they are in the order of InstanceNumber",)
    assert [int(source.read(0, 0, 4, 5).pixels[0, 0]) for _, source in series.frames()] == [2, 1, 0]
    folder = volume(tmp_path / "gap")
    for path in folder.iterdir():
        if read_slice(path).pixels[0, 0] == 2 * 2 - 10:
            path.unlink()
    assert "not evenly spaced: 3 to 6 mm" in find_series(folder)[0].notes[0]


def test_damaged_and_other_files(tmp_path):
    path = save(tmp_path / "x.dcm", RNG.integers(0, 256, (60, 70)).astype(np.uint8))
    content = path.read_bytes()
    text = tmp_path / "x.txt"
    text.write_text("no DICOM at all")
    cases = [(content[: len(content) // 2], "E_TRUNCATED"), (content[:-50], "E_TRUNCATED"), (b"", "E_EMPTY")]
    cases.append((content[:140], "E_NOT_IMAGE"))
    for kept, code in cases:
        path.write_bytes(kept)
        with pytest.raises(FileError) as told:
            read_slice(path)
        assert told.value.code == code, len(kept)
    for bad, code in ((text, "E_NOT_IMAGE"), (tmp_path / "none", "E_MISSING"), (tmp_path, "E_NOT_FILE")):
        with pytest.raises(FileError) as told:
            read_slice(bad)
        assert told.value.code == code
    assert not is_dicom(text)
    assert not is_dicom(tmp_path)


def test_any_damage_is_an_error_of_the_file_or_none(tmp_path):
    path = save(tmp_path / "x.dcm", np.zeros((6, 5), np.uint16), RescaleSlope=2, RescaleIntercept=1, PixelSpacing=[1, 1],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 0])  # fmt: skip
    content, refused = path.read_bytes(), []
    for _ in range(150):
        damaged = bytearray(content)
        damaged[RNG.integers(128, len(content))] = RNG.integers(256)
        path.write_bytes(damaged)
        try:
            assert [source.size for _, source in dicom_frames(path)]
            picture_of(path)
        except FileError as error:
            refused.append(error.reason)
    assert 0 < len(refused) < 150
    assert not any("SECRET" in reason for reason in refused)


def test_a_damaged_slice_of_a_series_is_left_out_and_told(tmp_path):
    folder = volume(tmp_path / "s")
    (folder / "0.dcm").write_bytes((folder / "0.dcm").read_bytes()[:200])
    series = find_series(folder)[0]
    assert len(series.slices) == 4
    assert any(note.startswith("left out: 1 ×") for note in series.notes)


def test_a_bare_data_set_is_dicom_too(tmp_path):
    pixels = RNG.integers(0, 256, (20, 30)).astype(np.uint8)
    path = tmp_path / "x"
    bare = dataset(pixels, BitsAllocated=8)
    del bare.file_meta
    pydicom.dcmwrite(path, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"
    assert is_dicom(path)
    assert np.array_equal(read_slice(path).pixels, pixels)


def test_a_compression_that_is_not_decoded_names_the_package(tmp_path):
    broken = dataset(np.zeros((20, 30), np.uint8), TransferSyntaxUID=JPEGLosslessSV1)
    broken.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    broken["PixelData"].is_undefined_length = True
    broken.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    if pydicom.pixels.get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("a decoder of lossless JPEG is installed")
    with pytest.raises(FileError, match="needs another package: pip install python-gdcm") as told:
        read_slice(tmp_path / "x.dcm")
    assert told.value.code == "E_MODE"


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless"])
def test_compressions_that_are_decoded(syntax, tmp_path):
    uid = getattr(pydicom.uid, syntax)
    if not pydicom.pixels.get_decoder(uid).is_available:
        pytest.skip("no encoder for it here")
    pixels = RNG.integers(-100, 100, (20, 30)).astype(np.int16)
    packed = dataset(pixels, RescaleSlope=1, RescaleIntercept=0)
    packed.compress(uid)
    packed.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    assert np.array_equal(read_slice(tmp_path / "x.dcm").pixels, pixels)


def test_no_message_and_no_result_tells_of_a_patient(tmp_path, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    folder = volume(tmp_path / "s")
    broken = folder / "broken.dcm"
    content = next(folder.glob("*.dcm")).read_bytes()
    broken.write_bytes(content.replace(b"SECRET-4711 ", b"SECRET-4711\n").replace(b"19010203", b"SECRETXX")[:-20])
    with pytest.raises(FileError) as told:
        read_slice(broken)
    broken.unlink()
    (series,) = find_series(folder)
    out = tmp_path / "out.dcm"
    pytest.importorskip("highdicom", reason="the extra med is not installed")
    write_dicom_seg(out, RNG.integers(0, 3, (5, 12, 16)).astype(np.uint8), series, TABLE)
    words = [str(told.value), repr(series), caplog.text, *(str(warning.message) for warning in recwarn)]
    assert not any("SECRET" in text or "1901" in text for text in words)
    written = out.read_bytes()
    for secret in (b"SECRET", b"19010203", b"19040506"):
        assert secret not in written
    found = pydicom.dcmread(out)
    assert [str(found[name].value or "") for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate")] == [
        ""
    ] * 4


def read_back(path, series):
    """(D, H, W) of a SEG, by the positions of its frames."""
    found = pydicom.dcmread(path)
    frames = found.pixel_array.reshape(-1, *series.size)
    normal = np.cross([1, 0, 0], [0, 1, 0])
    classes = np.zeros((len(series.slices), *series.size), np.uint8)
    places = np.array([each.place for each in series.slices])
    for pixels, groups in zip(frames, found.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        at = int(np.argmin(abs(places - position @ normal)))
        assert abs(places[at] - position @ normal) < 1e-3
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        classes[at][pixels > 0] = segment
    return found, classes


def test_segmentation_lies_where_the_images_lie(tmp_path):
    pytest.importorskip("highdicom", reason="the extra med is not installed")
    (series,) = find_series(volume(tmp_path / "s"))
    classes = RNG.integers(0, 3, (5, 12, 16)).astype(np.uint8)
    classes[2] = 0
    classes[0, 0, :4] = 255
    write_dicom_seg(tmp_path / "out.dcm", classes, series, TABLE)
    found, written = read_back(tmp_path / "out.dcm", series)
    assert np.array_equal(written, np.where(classes == 255, 0, classes))
    assert found.Modality == "SEG"
    assert found.FrameOfReferenceUID == "1.2.5"
    assert found.StudyInstanceUID == "1.2.4"
    assert [segment.SegmentLabel for segment in found.SegmentSequence] == ["liver", "spleen"]
    shared = found.SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.5, 0.25]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    images = {pydicom.dcmread(each.path).SOPInstanceUID for each in series.slices}
    told = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {each.ReferencedSOPInstanceUID for each in told} == images


def test_segmentation_without_any_object_and_what_is_refused(tmp_path):
    pytest.importorskip("highdicom", reason="the extra med is not installed")
    (series,) = find_series(volume(tmp_path / "s"))
    none = np.zeros((5, 12, 16), np.uint8)
    write_dicom_seg(tmp_path / "none.dcm", none, series, TABLE)
    assert not read_back(tmp_path / "none.dcm", series)[1].any()
    with pytest.raises(DataError, match="must be uint8 of"):
        write_dicom_seg(tmp_path / "x.dcm", none[:2], series, TABLE)
    with pytest.raises(DataError, match="class 7 is not in the table"):
        write_dicom_seg(tmp_path / "x.dcm", none + np.uint8(7), series, TABLE)
    with pytest.raises(SaveError, match="cannot be written"):
        write_dicom_seg(tmp_path / "missing" / "x.dcm", none + np.uint8(1), series, TABLE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.dcm", "s"]


def test_real_series_of_both_publishers(shared):
    folder = shared("data/dicom_samples")
    found = {series.slices[0].path.parent.name: series for series in find_series(folder)}
    ct = found["ct-3slice"]
    assert ct.size == (512, 512)
    assert [each.path.name for each in ct.slices] == ["03.dcm", "02.dcm", "01.dcm"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for (_, source), each in zip(ct.frames(), ct.slices, strict=True):
            pixels = source.read(0, 0, 512, 512).pixels
            raw = pydicom.dcmread(each.path)
            assert np.array_equal(pixels, raw.pixel_array.astype(np.float32) * raw.RescaleSlope + raw.RescaleIntercept)
        single = [source.read(0, 0, 38, 23).pixels for _, source in found["image"].frames()]
        several = [source.read(0, 0, 38, 23).pixels for _, source in found["multiframe"].frames()]
        assert np.array_equal(single, several)  # one volume, once as slices and once as frames
    kinds = sorted(series.modality for series in find_series(folder / "highdicom"))
    assert kinds == ["CT", "DX", "SM"]
    segs = [path for path in folder.rglob("*") if "seg" in path.name and path.suffix in (".dcm", ".seg")]
    segs += [folder / "dcmqi" / "liver.dcm", folder / "dcmqi" / "partial_overlaps.dcm"]
    assert len(segs) >= 15
    for path in segs:
        with pytest.raises(FileError, match="but no image"):
            read_slice(path)


@pytest.mark.parametrize("name", ["ct-3slice", "23x38x3/image", "23x38x3/multiframe"])
def test_segmentation_of_a_real_series(name, shared, tmp_path):
    pytest.importorskip("highdicom", reason="the extra med is not installed")
    (series,) = find_series(shared(f"data/dicom_samples/dcmqi/{name}"))
    assert isinstance(series, Series)
    classes = RNG.integers(0, 3, (3, *series.size)).astype(np.uint8)
    write_dicom_seg(tmp_path / "x.dcm", classes, series, TABLE)
    assert np.array_equal(read_back(tmp_path / "x.dcm", series)[1], classes)
