"""Numbers of a data set, images that look alike, sheets, and a scan that goes on where it was stopped."""

import time

import numpy as np
import pytest
from PIL import Image

from intarsia.data import FolderConfig
from intarsia.data.duplicates import alike, look_of
from intarsia.data.inspection import inspect_dataset
from intarsia.data.sheet import GAP, TILE, sheet_of_findings, sheet_of_split
from intarsia.data.stats import Stats
from intarsia.losses.class_weights import WEIGHTINGS, class_weights
from intarsia.progress import Silent
from tests.conftest import write

RNG = np.random.default_rng(3)


def opened(root, **settings):
    return FolderConfig(path=str(root), **settings).open(Silent())


def scene(seed, size=(90, 120)):
    """Something smooth with contrast, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def test_copies_look_alike_and_other_images_do_not():
    first = scene(0)
    noisy = np.clip(first + RNG.normal(0, 4, first.shape), 0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(first).resize((60, 45)))
    deep = first[..., 1].astype(np.uint16) * 200 + 300
    looks = [look_of(each) for each in (noisy, small, first // 2)]
    assert alike([look_of(first)], looks) == [(0, 0), (0, 1), (0, 2)]
    assert alike([look_of(first[..., 1])], [look_of(deep)]) == [(0, 0)]
    others = [look_of(scene(seed)) for seed in range(1, 300)]
    assert alike([look_of(first)], others) == []
    assert look_of(np.full((30, 30), 7, np.uint8)) == ""
    assert look_of(np.array([[3]], np.uint8)) == ""
    assert alike(["", ""], ["", looks[0]]) == []


def test_bits_are_counted_alike_without_numpy_2(monkeypatch):
    looks = [look_of(scene(seed)) for seed in range(40)]
    flipped = [f"{int(look, 16) ^ (0b1011 << 70):032x}" for look in looks]
    fast = alike(looks, flipped)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert alike(looks, flipped) == fast == [(index, index) for index in range(40)]


def test_ten_thousand_images_are_compared_without_a_loop():
    looks = [RNG.bytes(16).hex() for _ in range(10_000)]
    start = time.monotonic()
    assert alike(looks[:3000], looks[2999:]) == [(2999, 0)]
    assert time.monotonic() - start < 20  # 21 million pairs; a loop takes minutes


def test_constant_images_and_equal_ones_within_a_split(folder):
    root = folder(6)
    write(root / "images" / "i0.png", np.full((24, 32, 3), (1, 2, 3), np.uint8))
    (root / "images" / "i2.png").write_bytes((root / "images" / "i1.png").read_bytes())
    (root / "splits.json").write_text('{"train": ["i0", "i1", "i2", "i3"], "val": ["i4"], "test": ["i5"]}')
    found = {finding.code: finding for finding in inspect_dataset(opened(root), Silent())}
    assert found["W_CONSTANT"].examples == ("images/i0.png",)
    assert found["W_TWICE"].examples == ("images/i2.png = images/i1.png",)
    assert "W_LEAK" not in found


def test_clean_data_has_nothing_to_look_at(cells):
    assert inspect_dataset(opened(cells), Silent()) == []


def test_odd_mask_files_are_told(folder):
    root = folder(4)
    with (root / "masks" / "i1.png").open("ab") as file:
        file.write(b"junk")
    (finding,) = inspect_dataset(opened(root), Silent())
    assert (finding.code, finding.examples) == ("W_MASK_FILE", ("masks/i1.png",))


def test_stats_are_those_of_the_pixels(folder):
    data = opened(folder(6, values=(0, 0, 0, 1, 255)))
    numbers = Stats(data).to_dict()
    masks = np.concatenate([data.read_mask(item).ravel() for item in data.items("train")])
    ones, zeros = int((masks == 1).sum()), int((masks == 0).sum())
    assert numbers["class_shares"]["train"] == pytest.approx([zeros / (zeros + ones), ones / (zeros + ones)], abs=1e-6)
    assert numbers["ignored_share"]["train"] == pytest.approx((masks == 255).mean(), abs=1e-6)
    assert numbers["imbalance"] == pytest.approx(zeros / ones, abs=1e-3)
    assert set(numbers["class_weights"]) == set(WEIGHTINGS)
    expected = class_weights("enet", [zeros, ones], [0, 0])
    assert numbers["class_weights"]["enet"] == pytest.approx(expected)
    text = Stats(data).text()
    assert "24 x 32 (6)" in text
    assert "median_frequency_global" in text


def test_sheets_hold_tiles_headings_and_a_legend(cells, folder):
    sheet = sheet_of_split(opened(cells), "train", 4)
    assert sheet.shape[1] == 4 * (TILE + GAP) + GAP
    assert sheet.shape[0] > TILE
    root = folder(5)
    write(root / "images" / "i0.png", np.full((24, 32, 3), 9, np.uint8))
    data = opened(root)
    findings = inspect_dataset(data, Silent())
    assert sheet_of_findings(data, findings).shape[0] > sheet_of_findings(data, []).shape[0]


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_sheets_of_any_size_of_image(folder, size):
    assert sheet_of_split(opened(folder(3, size=size)), "train", 9).ndim == 3


def test_a_scan_that_is_stopped_goes_on_where_it_was(folder, monkeypatch):
    root = folder(8, name="stopped")
    from intarsia.data import scan as module

    whole, calls = module.image_facts, []

    def stopping(path, bands=None):
        if path.stem == "i6":
            raise KeyboardInterrupt
        return whole(path)

    monkeypatch.setattr(module, "cores", lambda: 1)
    monkeypatch.setattr(module, "image_facts", stopping)
    with pytest.raises(KeyboardInterrupt):
        opened(root)
    monkeypatch.setattr(module, "image_facts", lambda path, bands=None: calls.append(path.stem) or whole(path))
    opened(root)
    assert set(calls) <= {"i6", "i7"}
    assert "i6" in calls
