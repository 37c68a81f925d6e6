"""NIfTI: slices that lie alike whatever the order in the file, classes that go back voxel for voxel, damage that is told."""

import gzip
from itertools import permutations, product

import numpy as np
import pytest

from intarsia.errors import ConfigError, FileError, SaveError
from intarsia.images.medical.nifti import PLANES, NiftiVolume, is_nifti, write_classes

nibabel = pytest.importorskip("nibabel", reason="the extra med is not installed")
RNG = np.random.default_rng(0)
SIDES = (5, 6, 7)
EVERY_ORDER = [
    "".join(signs[i][axis] for i, axis in enumerate(order))
    for order in permutations(range(3))
    for signs in product(("RAS", "LPI"), repeat=3)
]


def affine_of(codes, spacing=(1.0, 1.0, 1.0), shear=0.0, origin=(10.0, -20.0, 30.0)):
    """Of an array whose axes point where the three letters say."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, code in enumerate(codes):
        row = next(at for at, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[row, column] = spacing[column] * (1 if code in "RAS" else -1)
        affine[(row + 1) % 3, column] += shear * spacing[column]
    affine[:3, 3] = origin
    return affine


def save(path, array, affine, scale=None, unit="mm", kind=None):
    image = (kind or nibabel.Nifti1Image)(array, affine)
    image.header.set_xyzt_units(unit)
    if scale:
        image.header.set_slope_inter(*scale)
    nibabel.save(image, path)
    return path


def world_slices(array, affine, plane):
    """(D, H, W), voxel by voxel: where each lies in the body decides its place in the picture."""
    across, rows, columns = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[plane]
    index = np.array(list(np.ndindex(array.shape)))
    nearest = [int(np.argmax(abs(affine[row, :3]))) for row in range(3)]  # the array's axis along each of the body's
    sides = [array.shape[axis] for axis in nearest]
    slices = np.zeros((sides[across], sides[rows], sides[columns]), array.dtype)
    for voxel in index:
        at = []
        for row in range(3):
            step = voxel[nearest[row]]
            at.append(step if affine[row, nearest[row]] > 0 else sides[row] - 1 - step)  # towards R, A, S
        slices[at[across], sides[rows] - 1 - at[rows], sides[columns] - 1 - at[columns]] = array[tuple(voxel)]
    return slices


@pytest.mark.parametrize("codes", EVERY_ORDER)
def test_slices_lie_alike_and_classes_go_back_voxel_for_voxel(codes, tmp_path):
    array = RNG.permutation(np.prod(SIDES)).reshape(SIDES).astype(np.uint8)
    affine = affine_of(codes)
    path = save(tmp_path / "x.nii", array, affine)
    for plane in PLANES:
        volume = NiftiVolume(path, plane)
        assert volume.axcodes == codes
        slices = np.stack([source.read(0, 0, *source.size).pixels for _, source in volume.frames()])
        assert np.array_equal(slices, world_slices(array, affine, plane))
        write_classes(tmp_path / "y.nii", slices, volume)
        written = nibabel.load(tmp_path / "y.nii")
        assert np.array_equal(np.asarray(written.dataobj), array)
        assert np.array_equal(written.affine, affine)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
def test_oblique_volumes_keep_their_geometry(codes, ending, kind, tmp_path):
    affine = affine_of(codes, (0.7, 0.8, 2.5), shear=0.3)
    array = RNG.integers(-1000, 1000, SIDES).astype(np.int16)
    path = save(tmp_path / f"x{ending}", array, affine, kind=getattr(nibabel, kind))
    volume = NiftiVolume(path)
    classes = np.stack([volume.slice(number) for number in range(volume.shape[0])])
    assert classes.dtype == np.float32
    chosen = (classes > 0).astype(np.uint8)
    write_classes(tmp_path / f"y{ending}", chosen, volume)
    written, image = nibabel.load(tmp_path / f"y{ending}"), nibabel.load(path)
    assert type(written) is type(image)
    assert np.array_equal(np.asarray(written.dataobj), (array > 0).astype(np.uint8))
    assert written.get_data_dtype() == np.uint8
    assert np.allclose(written.affine, image.affine)
    for name in ("pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "xyzt_units", "dim"):
        assert np.array_equal(written.header[name], image.header[name]), name


@pytest.mark.parametrize(
    ("spacing", "plane"),
    [
        ((1, 1, 1), "axial"),
        ((3, 1, 1), "sagittal"),
        ((1, 3, 1), "coronal"),
        ((1, 1, 3), "axial"),
        ((3, 3, 1), "coronal"),
    ],
)
def test_slices_lie_across_the_widest_spacing(spacing, plane, tmp_path):
    path = save(tmp_path / "x.nii", np.zeros(SIDES, np.uint8), affine_of("RAS", spacing))
    volume = NiftiVolume(path)
    assert volume.plane == plane
    rows, columns = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1)}[plane]
    assert volume.metres == pytest.approx((spacing[rows] / 1000, spacing[columns] / 1000))
    turned = save(tmp_path / "y.nii", np.zeros(SIDES, np.uint8), affine_of("SLP", (spacing[2], spacing[0], spacing[1])))
    assert NiftiVolume(turned).plane == plane


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("scale", [None, (2.0, -5.0)])
def test_kinds_of_number_and_scale(dtype, scale, tmp_path):
    array = RNG.integers(0, 200, SIDES).astype(dtype)
    path = save(tmp_path / "x.nii", array, np.eye(4))
    if scale:  # into the header: nibabel would rescale what is stored
        content = bytearray(path.read_bytes())
        content[112:120] = np.array(scale, np.float32).tobytes()
        path.write_bytes(content)
    volume = NiftiVolume(path, "axial")
    slope, offset = scale or (1, 0)
    expected = world_slices(array * slope + offset, np.eye(4), "axial")
    kept = dtype in ("uint8", "uint16") and not scale
    for number in range(volume.shape[0]):
        found = volume.slice(number)
        assert found.dtype == (dtype if kept else np.float32)
        assert np.array_equal(found, expected[number])


def test_several_volumes_and_colours(tmp_path):
    array = RNG.integers(0, 200, (*SIDES, 3)).astype(np.uint8)
    volume = NiftiVolume(save(tmp_path / "x.nii.gz", array, affine_of("LPS")), "axial")
    frames = list(volume.frames())
    assert volume.times == 3
    assert [name for name, _ in frames][:2] == ["t000_axial0000", "t000_axial0001"]
    slices = np.stack([source.read(0, 0, 6, 5).pixels for _, source in frames]).reshape(3, *volume.shape)
    for time in range(3):
        assert np.array_equal(slices[time], world_slices(array[..., time], affine_of("LPS"), "axial"))
    write_classes(tmp_path / "y.nii.gz", slices, volume)
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "y.nii.gz").dataobj), array)
    colours = RNG.integers(0, 256, (*SIDES, 3)).astype(np.uint8)
    packed = colours.copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    shown = NiftiVolume(save(tmp_path / "c.nii", packed, np.eye(4)), "axial").slice(2)
    for band in range(3):
        assert np.array_equal(shown[..., band], world_slices(colours[..., band], np.eye(4), "axial")[2])


def test_voxels_without_value(tmp_path):
    array = RNG.normal(size=SIDES).astype(np.float32)
    array[2, 3, 4] = np.nan
    sources = [source for _, source in NiftiVolume(save(tmp_path / "x.nii", array, np.eye(4)), "axial").frames()]
    windows = [source.read(0, 0, 6, 5) for source in sources]
    assert [window.nodata is not None for window in windows] == [number == 4 for number in range(7)]
    assert np.isfinite(windows[4].pixels).all()
    assert windows[4].nodata.sum() == 1


def test_units_that_are_not_told_are_not_guessed(tmp_path):
    assert NiftiVolume(save(tmp_path / "x.nii", np.zeros(SIDES, np.uint8), np.eye(4), unit="unknown")).metres is None


def test_a_volume_without_orientation_says_so(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SIDES, np.uint8), None)
    nibabel.save(image, tmp_path / "x.nii")
    assert "does not tell how it lies" in NiftiVolume(tmp_path / "x.nii").notes[0]


def test_no_word_on_a_patient_is_passed_on(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SIDES, np.uint8), np.eye(4))
    image.header["descrip"], image.header["db_name"], image.header["aux_file"] = b"SECRET JANE", b"SECRET", b"SECRET"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"SECRET extension"))
    nibabel.save(image, tmp_path / "x.nii")
    assert (tmp_path / "x.nii").read_bytes().count(b"SECRET") == 4
    volume = NiftiVolume(tmp_path / "x.nii")
    write_classes(tmp_path / "y.nii", np.zeros(volume.shape, np.uint8), volume)
    assert b"SECRET" not in (tmp_path / "y.nii").read_bytes()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_cut_off_and_damaged_files(ending, tmp_path):
    path = save(tmp_path / f"x{ending}", RNG.integers(0, 200, (40, 41, 42)).astype(np.uint8), np.eye(4))
    content = path.read_bytes()
    for length in (0, 1, 200, len(content) // 2, len(content) - 4):
        path.write_bytes(content[:length])
        with pytest.raises(FileError) as told:
            NiftiVolume(path)
        assert told.value.code in ("E_EMPTY", "E_NOT_IMAGE", "E_TRUNCATED")
        if length > 1000:
            assert told.value.code == "E_TRUNCATED"
    if ending == ".nii.gz":
        for place in (len(content) // 2, len(content) - 6):  # within, and in the checksum
            damaged = bytearray(content)
            damaged[place] ^= 0xFF
            path.write_bytes(damaged)
            with pytest.raises(FileError) as told:
                NiftiVolume(path)
            assert told.value.code in ("E_CORRUPT", "E_TRUNCATED")


def test_headers_that_cannot_be_true(tmp_path):
    path = save(tmp_path / "x.nii", np.zeros(SIDES, np.uint8), affine_of("RAS"))
    content = path.read_bytes()
    cases = {
        (40, np.array([3, 30000, 30000, 30000], np.int16).tobytes()): "E_TRUNCATED",
        (40, np.array([3, 0, 6, 7], np.int16).tobytes()): "E_DIM",
        (280, np.zeros(12, np.float32).tobytes()): "E_CORRUPT",  # the affine
        (280, np.full(12, np.nan, np.float32).tobytes()): "E_CORRUPT",
        (70, np.array([9999], np.int16).tobytes()): "E_CORRUPT",  # the kind of number
        (344, b"ni1\0"): "E_NOT_IMAGE",
        (344, b"abcd"): "E_NOT_IMAGE",
    }
    for (place, part), code in cases.items():
        path.write_bytes(content[:place] + part + content[place + len(part) :])
        with pytest.raises(FileError) as told:
            NiftiVolume(path)
        assert told.value.code == code, (place, part)
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(content + bytes(70 << 20)))
    with pytest.raises(FileError, match="much more follows"):
        NiftiVolume(bomb)
    for array in (np.zeros(SIDES, np.complex64), np.zeros((*SIDES, 1, 3), np.float32)):
        with pytest.raises(FileError) as told:
            NiftiVolume(save(tmp_path / "z.nii", array, np.eye(4)))
        assert told.value.code in ("E_MODE", "E_BANDS")


def test_any_damage_is_an_error_of_the_file_or_none(tmp_path):
    path = save(tmp_path / "x.nii", np.zeros(SIDES, np.int16), affine_of("LPS"))
    content, refused = path.read_bytes(), 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[RNG.integers(352)] = RNG.integers(256)
        path.write_bytes(damaged)
        try:
            assert [source.metres for _, source in NiftiVolume(path).frames()]
        except FileError:
            refused += 1
    assert 0 < refused < 200


def test_what_is_refused(tmp_path):
    path = save(tmp_path / "x.nii", np.zeros(SIDES, np.uint8), np.eye(4))
    with pytest.raises(ConfigError, match="must be axial, coronal or sagittal, got 'oblique'"):
        NiftiVolume(path, "oblique")
    volume = NiftiVolume(path)
    classes = np.zeros(volume.shape, np.uint8)
    for name, value in (("y.nii", classes[1:]), ("y.nii", classes.astype(np.int64)), ("y.png", classes)):
        with pytest.raises(SaveError):
            write_classes(tmp_path / name, value, volume)
    with pytest.raises(SaveError, match="cannot be written"):
        write_classes(tmp_path / "none" / "y.nii", classes, volume)
    assert [each.name for each in tmp_path.iterdir()] == ["x.nii"]


def test_files_are_told_by_content(tmp_path):
    path = save(tmp_path / "x.nii.gz", np.zeros(SIDES, np.uint8), np.eye(4))
    assert is_nifti(path)
    assert is_nifti(save(tmp_path / "y.nii", np.zeros(SIDES, np.uint8), np.eye(4)))
    text = tmp_path / "z.nii"
    text.write_text("no volume")
    packed = tmp_path / "z.nii.gz"
    packed.write_bytes(gzip.compress(b"no volume"))
    for other in (text, packed, tmp_path, tmp_path / "none.nii"):
        assert not is_nifti(other)
