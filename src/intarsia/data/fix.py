"""A copy of a folder in which everything is mended that needs no guess; the source is never touched.

| met | in the copy |
|---|---|
| masks of 0 and 255 for two classes, or of values or colours that the class table knows; alpha, 16 bits | PNGs of 0..K-1 |
| an image stored turned (EXIF) | upright, PNG |
| its mask, drawn without the turn, sides swapped | turned as the image is |
| bytes after the end of a PNG or JPEG, an ending that lies | cut off; the right ending |
| an image of val or test, byte for byte in train | left out of train |

All else that is wrong lies in `not-mended/` of the copy, with the reason in `fix.json`: a person must say what is right.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.classes import IGNORE, UNKNOWN, ClassTable, find_class_file, read_class_table
from intarsia.data.base import MaskDecoder, pack
from intarsia.data.checks import Findings, check_values, infer_table
from intarsia.data.layout import Layout, Pair, find_pairs
from intarsia.data.scan import ScannedPair, scan
from intarsia.errors import ConfigError, DataError, SaveError
from intarsia.images.files import TURNS, frame_of, read_image, read_mask, write_class_map
from intarsia.images.sniff import junk_after, true_ending
from intarsia.progress import Progress
from intarsia.runs import write_json

NOT_MENDED = "not-mended"


@dataclass
class FixReport:
    """What was done to which file; paths are below the source or the copy."""

    source: Path
    copy: Path
    copied: int = 0
    """Files that are as they were."""
    mended: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    not_mended: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": str(self.source),
            "copied": self.copied,
            "mended": self.mended,
            "left_out": self.left_out,
            "not_mended": self.not_mended,
        }

    def text(self, most: int = 5) -> str:
        """Counts by kind, and the first files of what is not mended."""
        kinds: dict[str, list[str]] = {}
        for entry in self.mended:
            for what in entry["what"]:
                kinds.setdefault(what, []).append(entry["file"])
        lines = [f"{self.copy}: {len(self.mended)} files mended, {self.copied} copied as they are."]
        lines += [f"  {what}   {len(files)}, first {files[0]}" for what, files in kinds.items()]
        for title, entries in (("left out", self.left_out), (f"not mended, in {NOT_MENDED}/", self.not_mended)):
            if entries:
                lines.append(f"{title}: {len(entries)}")
                lines += [f"  {entry['file']}: {entry['why']}" for entry in entries[:most]]
                lines += [f"  ... and {len(entries) - most} more, see fix.json"] * (len(entries) > most)
        return "\n".join(lines)


def fix_folder(
    root: Path,
    copy: Path,
    progress: Progress,
    *,
    classes: Path | None = None,
    splits: Path | None = None,
    nearest_colour: bool = False,
    resize_masks: bool = False,
    skip_unlabelled: bool = False,
) -> FixReport:
    """Write the mended copy.

    Args:
        copy: a folder that does not exist or is empty, outside of the source.
        classes: the class table; None: that of the folder, else inferred as `data check` does.
        splits: file of names; None: that of the folder.
        nearest_colour: take each colour that the class table does not know for the nearest that it knows.
        resize_masks: bring masks of another size to their image's, by nearest neighbour.
        skip_unlabelled: leave images without mask out of the copy, and do not count them as not mended.

    Raises:
        ConfigError: the copy would lie in a folder that is not empty, or within the source.
        DataError: it is no data folder, or its masks do not tell the classes.
        SaveError: something cannot be written.
    """
    _check_place(root, copy)
    layout = find_pairs(root, splits)
    scanned = scan(root, layout.pairs, progress)
    table = _table(root, scanned, classes)
    report = FixReport(root, copy)
    try:
        copy.mkdir(parents=True, exist_ok=True)
        work = _Work(root, copy, layout, table, report, nearest_colour=nearest_colour, resize_masks=resize_masks)
        leaks = _leaks(scanned)
        with progress.task("mend", len(scanned)) as task:
            for number, one in enumerate(scanned, 1):
                if skip_unlabelled and one.pair.mask is None:
                    report.left_out.append({"file": work.name(one.pair.image), "why": "has no mask"})
                elif id(one) in leaks:
                    report.left_out.append({"file": work.name(one.pair.image), "why": leaks[id(one)]})
                else:
                    work.pair(one)
                task.update(number, f"{number} of {len(scanned)} images and masks")
        work.close()
    except OSError as error:
        raise SaveError(f"{copy}: cannot be written ({error.strerror or error}). Choose another --fix DIR.") from None
    return report


def _check_place(root: Path, copy: Path) -> None:
    if copy.exists() and (not copy.is_dir() or any(copy.iterdir())):
        raise ConfigError(f"--fix: {copy} exists and is not an empty folder; name one that does not exist.")
    inner, outer = copy.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ConfigError(f"--fix: {copy} lies within {root}, or around it; name a folder beside it.")


def _table(root: Path, scanned: Sequence[ScannedPair], given: Path | None) -> ClassTable:
    """The class table, with 0 and 255 told apart where there are two classes."""
    file, found = given or find_class_file(root), Findings(root)
    table: ClassTable | None
    if file is not None:
        if not file.is_file():
            raise DataError(f"data.classes: {file} does not exist.")
        table = read_class_table(file)[0]
        check_values(found, scanned, table)
    else:
        table = infer_table(found, scanned)
    if any(problem.code == "E_0_255" for problem in found.problems):
        names = table.names if table else ("background", "foreground")
        colors = table.colors if table else ()
        return ClassTable(names=names, colors=colors, values={0: names[0], 255: names[1]}, ignore_index=None)
    if table is None:
        told = found.problems[0] if found.problems else None
        raise DataError(
            f"{root}: {told.title if told else 'holds no mask that can be read'}. What the classes are cannot be told: "
            "write classes.yaml first."
        )
    return table


def _leaks(scanned: Sequence[ScannedPair]) -> dict[int, str]:
    """Pairs of train whose image is also in val or test, and why they are left out."""
    held = {
        one.image["sha256"]: one.pair
        for one in scanned
        if one.pair.split in ("val", "test") and one.pair.mask and one.image and "sha256" in one.image
    }
    leaks = {
        id(one): f"also in {held[one.image['sha256']].split}, as {held[one.image['sha256']].name}"
        for one in scanned
        if one.pair.split == "train" and one.image and one.image.get("sha256") in held
    }
    training = sum(1 for one in scanned if one.pair.split == "train")
    return leaks if len(leaks) < training else {}


class _Work:
    """The copy while it is made."""

    def __init__(
        self,
        root: Path,
        copy: Path,
        layout: Layout,
        table: ClassTable,
        report: FixReport,
        *,
        nearest_colour: bool,
        resize_masks: bool,
    ) -> None:
        self.root, self.copy, self.layout, self.table, self.report = root, copy, layout, table, report
        self.nearest_colour, self.resize_masks, self.decoder = nearest_colour, resize_masks, MaskDecoder(table)
        self.by_folder = layout.split_source == "folders"
        self.double = {path for paths in layout.doubles for path in paths}
        self.splits: dict[str, list[str]] = {}
        ignores = table.ignore_index is not None or "ignore" in (table.values or {}).values()
        self.written = ClassTable(names=table.names, colors=table.colors, ignore_index=IGNORE if ignores else None)

    def name(self, path: Path | None) -> str:
        if path is None:
            return ""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def pair(self, one: ScannedPair) -> None:
        """Copy or mend an image and its mask, or say why not."""
        if why := self._hopeless(one):
            self._leave(one.pair, why)
            return
        assert one.pair.image
        assert one.pair.mask
        classes, what, why = self._classes(one)
        if classes is None:
            self._leave(one.pair, why)
            return
        self._image(one.pair, one.image or {})
        self._mask(one.pair, one.mask or {}, classes, what)
        if one.pair.instances:
            self._instances(one.pair, (one.image or {}, one.mask or {}))
        self.splits.setdefault(one.pair.split or "", []).append(one.pair.name)

    def _hopeless(self, one: ScannedPair) -> str:
        """Why nothing can be done for a pair; "" if something can."""
        image, mask = one.image, one.mask
        if image is None or mask is None:
            return "image without mask" if mask is None else "mask without image"
        if {one.pair.image, one.pair.mask} & self.double:
            return "two files of the same name; which one is meant cannot be told"
        for facts, kind in ((image, "image"), (mask, "mask")):
            if "error" in facts:
                return f"{kind} {facts['error']['reason']}"
        if mask["format"] in ("JPEG", "MPO", "WEBP"):
            return f"mask stored as {mask['format']}: compression has changed class numbers"
        size, mask_size = (image["height"], image["width"]), (mask["height"], mask["width"])
        if size == mask_size or (size == mask_size[::-1] and image["swapped"]):
            return ""
        if size == mask_size[::-1]:
            return "height and width of the mask are swapped; which way it was turned cannot be told"
        if self.resize_masks:
            return ""
        sizes = f"image {size[0]} x {size[1]}, mask {mask_size[0]} x {mask_size[1]}"
        return f"{sizes}: how they lie on each other cannot be told (--resize-masks: as a whole)"

    def _classes(self, one: ScannedPair) -> tuple[NDArray[np.uint8] | None, list[str], str]:
        """Class numbers of a mask, what was done to get them, and why there are none."""
        assert one.pair.mask
        what, mask = [], one.mask or {}
        decoded = read_mask(one.pair.mask)
        pixels = decoded.pixels
        if pixels.ndim == 2:
            classes = self.decoder.values[pixels]
            if not np.array_equal(classes, pixels):
                what.append("values mapped to class numbers")
            elif pixels.dtype != np.uint8 or decoded.mode not in ("L", "P", "1"):
                what.append("written with 8 bits and one channel")
        else:
            classes = self.decoder.of_colours(pack(pixels))
            what.append("colours turned into class numbers")
            if (classes == UNKNOWN).any() and self.nearest_colour:
                what.append("unknown colours taken for the nearest")
                classes = np.where(classes == UNKNOWN, self._nearest(pixels), classes)
        if (lost := int((classes == UNKNOWN).sum())) > 0:
            return None, [], f"mask holds {lost} pixels that the class table does not know"
        if mask["format"] != "PNG" or "ending" in " ".join(decoded.notes):
            what.append("written as PNG")
        if junk_after(one.pair.mask, decoded.format):
            what.append("bytes after its end cut off")
        fitted, how = self._fitted(one.pair, classes.astype(np.uint8), one.image or {})
        return fitted, [*what, *how], ""

    def _fitted(self, pair: Pair, numbers: NDArray[Any], image: dict[str, Any]) -> tuple[NDArray[Any], list[str]]:
        """A mask of the image's size, and what was done to it."""
        size = image["height"], image["width"]
        if numbers.shape == size:
            return numbers, []
        if numbers.shape == size[::-1]:
            return TURNS[self._orientation(pair)](numbers), ["turned as its image"]
        rows, columns = ((np.arange(new) + 0.5) * old // new for new, old in zip(size, numbers.shape, strict=True))
        return numbers[np.ix_(rows.astype(int), columns.astype(int))], ["resized to its image by nearest neighbour"]

    def _nearest(self, pixels: NDArray[Any]) -> NDArray[np.int16]:
        colours = np.asarray(self.table.colors, np.int32)
        flat, back = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        apart = ((flat[:, None].astype(np.int32) - colours[None]) ** 2).sum(-1)
        nearest: NDArray[np.int16] = apart.argmin(1).astype(np.int16)[back.ravel()].reshape(pixels.shape[:2])
        return nearest

    def _orientation(self, pair: Pair) -> int:
        assert pair.image
        return frame_of(pair.image)[1]

    def _place(self, pair: Pair, kind: str, ending: str) -> Path:
        below = Path(pair.split or "") / kind if self.by_folder else Path(kind)
        path = self.copy / below / (pair.name + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _image(self, pair: Pair, facts: dict[str, Any]) -> None:
        assert pair.image
        fmt, what = facts["format"], []
        ending = pair.image.suffix
        if any("ending" in note for note in facts["notes"]):
            what.append("given the right ending")
            ending = true_ending(fmt)
        if facts["turned"]:
            path = self._place(pair, "images", ".png")
            Image.fromarray(read_image(pair.image).pixels).save(path)
            what.append("turned upright")
        else:
            path = self._place(pair, "images", ending)
            junk = junk_after(pair.image, fmt)
            if junk:
                path.write_bytes(pair.image.read_bytes().rstrip(b"\0\r\n ")[:-junk])
                what.append("bytes after its end cut off")
            else:
                shutil.copyfile(pair.image, path)
        self._note(pair.image, path, what)

    def _mask(self, pair: Pair, facts: dict[str, Any], classes: NDArray[np.uint8], what: list[str]) -> None:
        assert pair.mask
        path = self._place(pair, "masks", ".png")
        if what:
            write_class_map(path, classes, self.written)
        else:
            shutil.copyfile(pair.mask, path)
        self._note(pair.mask, path, what)

    def _instances(self, pair: Pair, facts: tuple[dict[str, Any], dict[str, Any]]) -> None:
        assert pair.instances
        image, mask = facts
        path = self._place(pair, "instances", pair.instances.suffix)
        if (image["height"], image["width"]) == (mask["height"], mask["width"]):
            shutil.copyfile(pair.instances, path)
            self._note(pair.instances, path, [])
            return
        fitted, what = self._fitted(pair, read_mask(pair.instances).pixels, image)
        Image.fromarray(np.ascontiguousarray(fitted)).save(path)
        self._note(pair.instances, path, what)

    def _note(self, source: Path, path: Path, what: list[str]) -> None:
        if not what:
            self.report.copied += 1
            return
        written = path.relative_to(self.copy).as_posix()
        self.report.mended.append({"file": self.name(source), "what": what, "written": written})

    def _leave(self, pair: Pair, why: str) -> None:
        """Put what a pair has aside, as it is."""
        for path in (pair.image, pair.mask, pair.instances):
            if path is None:
                continue
            others = [second for first, second in self.layout.doubles if first == path]
            for each in (path, *others):
                aside = self.copy / NOT_MENDED / (self.name(each) if each.is_relative_to(self.root) else each.name)
                aside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(each, aside)
        shown = pair.mask if why.startswith("mask") and pair.mask else pair.image or pair.mask
        self.report.not_mended.append({"file": self.name(shown), "why": why})

    def close(self) -> None:
        """The class table, the split and the report."""
        if not self.splits:
            shutil.rmtree(self.copy / NOT_MENDED, ignore_errors=True)
            first = self.report.not_mended[0]
            raise DataError(f"{self.root}: nothing can be mended; first {first['file']}: {first['why']}.")
        (self.copy / "classes.yaml").write_text(self.written.to_text(), encoding="utf-8")
        named = {split: sorted(names) for split, names in self.splits.items() if split}
        if named and not self.by_folder:
            write_json(self.copy / "splits.json", named)
        write_json(self.copy / "fix.json", self.report.to_dict())
