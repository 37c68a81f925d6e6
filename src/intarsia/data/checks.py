"""What is wrong with a folder, in words: one `Problem` a kind of fault, with counts, first files, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.classes import UNKNOWN, ClassTable, numbered_table
from intarsia.data.base import MaskDecoder, pack
from intarsia.data.layout import Layout
from intarsia.data.scan import ScannedPair
from intarsia.errors import DataError
from intarsia.images.files import read_mask

SHOWN = 3
"""Files that a problem names; the rest are counted."""
MENDABLE = frozenset({"E_0_255", "E_SIZE_EXIF"})
"""Codes whose files `fix.py` writes anew, nothing being guessed."""


@dataclass(frozen=True)
class Problem:
    """One kind of fault."""

    code: str
    title: str
    examples: tuple[str, ...]
    count: int
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "title": self.title,
            "count": self.count,
            "examples": list(self.examples),
            "advice": self.advice,
        }


class FolderProblems(DataError):
    """Everything that keeps a folder from being used."""

    def __init__(self, root: Path, counts: str, problems: Sequence[Problem]) -> None:
        self.root, self.counts, self.problems = root, counts, tuple(problems)
        number = "One thing" if len(problems) == 1 else f"{len(problems)} things"
        lines = [f"{root}: {counts}. {number} to mend; nothing was changed.", ""]
        for index, problem in enumerate(problems, 1):
            lines += problem_lines(index, problem)
        if mendable := [str(index) for index, problem in enumerate(problems, 1) if problem.code in MENDABLE]:
            lines += ["", f"`intarsia data check {root} --fix DIR` writes a copy with {' and '.join(mendable)} mended."]
        super().__init__("\n".join(lines))


def problem_lines(index: int, problem: Problem) -> Iterable[str]:
    """A problem as numbered lines: title, first files, what mends it."""
    single = problem.count == 1 and len(problem.examples) == 1
    yield f"{index}  {problem.title}" + ("" if single else f"  ({problem.count})")
    for example in problem.examples:
        yield f"     {example}"
    if problem.count > len(problem.examples):
        yield f"     ... and {problem.count - len(problem.examples)} more"
    for line in problem.advice.splitlines():
        yield f"   {line}"


@dataclass
class Findings:
    """Collects faults by kind, in the order in which a person would mend them."""

    root: Path
    problems: list[Problem] = field(default_factory=list)

    def add(self, code: str, title: str, found: Sequence[str], advice: str = "") -> None:
        if found:
            self.problems.append(Problem(code, title, tuple(found[:SHOWN]), len(found), advice))

    def name(self, path: Path | None) -> str:
        if path is None:
            return ""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def check_files(layout: Layout, scanned: Sequence[ScannedPair], root: Path, *, skip_unlabelled: bool) -> Findings:
    """Faults that need no class table: unreadable, unpaired, double, of different size, lossy."""
    found = Findings(root)
    _unreadable(found, scanned)
    pairs = layout.pairs
    if not skip_unlabelled:
        lower = {pair.name.lower() for pair in pairs if pair.image is None}
        lonely = [pair for pair in pairs if pair.image and not pair.mask]
        clash = any(pair.name.lower() in lower for pair in lonely)
        found.add(
            "E_NO_MASK",
            "image without mask",
            [found.name(pair.image) for pair in lonely],
            "names differ only in upper and lower case: rename one side"
            if clash
            else "add the masks, or leave these images out with:  data.unlabelled=skip",
        )
    found.add(
        "E_NO_IMAGE",
        "mask without image",
        [found.name(pair.mask) for pair in pairs if pair.mask and not pair.image],
        "add the images, or move these masks away",
    )
    found.add(
        "E_DOUBLE",
        "two files of the same name",
        [f"{found.name(first)} and {found.name(second)}" for first, second in layout.doubles],
        "keep one of them: which belongs to the other folder's file cannot be told",
    )
    found.add(
        "E_JPEG_MASK",
        "mask stored as JPEG, which changes class numbers at every border",
        [found.name(one.pair.mask) for one in _readable_masks(scanned) if _fact(one.mask, "format") in ("JPEG", "MPO")],
        "export the masks again as PNG",
    )
    found.add(
        "E_WEBP_MASK",
        "mask stored as WebP, which may be lossy",
        [found.name(one.pair.mask) for one in _readable_masks(scanned) if _fact(one.mask, "format") == "WEBP"],
        "export the masks again as PNG",
    )
    _sizes(found, scanned)
    _depths(found, scanned)
    return found


def _fact(facts: dict[str, Any] | None, key: str) -> Any:
    return (facts or {}).get(key)


def _readable_masks(scanned: Sequence[ScannedPair]) -> list[ScannedPair]:
    return [one for one in scanned if one.mask and "error" not in one.mask]


def _unreadable(found: Findings, scanned: Sequence[ScannedPair]) -> None:
    titles = {
        "E_EMPTY": ("empty file", "copy it again from its source"),
        "E_NOT_IMAGE": ("not an image, whatever its ending says", "replace it by the image that it should be"),
        "E_TRUNCATED": ("file is cut off", "copy it again from its source"),
        "E_CORRUPT": ("file is damaged", "copy it again from its source"),
        "E_TOO_LARGE": ("file has more pixels than allowed", "cut it into parts, or set INTARSIA_MAX_PIXELS"),
        "E_PAGES": ("several pages or frames in one file", "save each page as a file of its own"),
        "E_MODE": (
            "pixel format that is not read",
            "save images as 8-bit, 16-bit or floating-point, masks as 8-bit PNG",
        ),
        "E_BANDS": ("image without the bands that are asked for", "correct data.bands"),
        "E_DIM": ("image without pixels", "export it again"),
        "E_METADATA_BOMB": ("text in the file unpacks to many megabytes", "save the image again without its text"),
        "E_NOT_FILE": ("no regular file", "put the image itself there"),
    }
    by_code: dict[str, list[str]] = {}
    for one in scanned:
        for path, facts in ((one.pair.image, one.image), (one.pair.mask, one.mask)):
            if error := _fact(facts, "error"):
                by_code.setdefault(error["code"], []).append(f"{found.name(path)}: {error['reason']}")
    for code, lines in by_code.items():
        title, advice = titles.get(code, ("file cannot be read", ""))
        found.add(code, title, lines, advice)


def _sizes(found: Findings, scanned: Sequence[ScannedPair]) -> None:
    swapped: list[str] = []
    turned: list[str] = []
    other: list[str] = []
    for one in _readable_masks(scanned):
        image, mask = one.image, one.mask
        if image is None or mask is None or "error" in image:
            continue
        size, mask_size = (image["height"], image["width"]), (mask["height"], mask["width"])
        if size == mask_size:
            continue
        line = f"{found.name(one.pair.image)} {size[0]} x {size[1]}, mask {mask_size[0]} x {mask_size[1]}"
        is_swapped = size == mask_size[::-1]
        (turned if is_swapped and image["swapped"] else swapped if is_swapped else other).append(line)
    found.add(
        "E_SIZE_EXIF",
        "image and mask differ in size: height and width are swapped",
        turned,
        "the images are stored turned (EXIF orientation) and the masks were drawn without it: turn the masks",
    )
    found.add(
        "E_SIZE_SWAPPED",
        "image and mask differ in size: height and width are swapped",
        swapped,
        "one of the two was turned by a quarter: turn it back",
    )
    found.add(
        "E_SIZE",
        "image and mask differ in size",
        other,
        "export them at one size; if each mask shows its whole image, --fix DIR --resize-masks writes a copy with masks "
        "resized by nearest neighbour",
    )


def _depths(found: Findings, scanned: Sequence[ScannedPair]) -> None:
    """Images whose values, or whose bands, mean different things."""
    names = {8: "8-bit", 16: "16-bit", 32: "floating-point"}
    by_depth: dict[int, list[str]] = {}
    by_bands: dict[int, list[str]] = {}
    for one in scanned:
        if depth := _fact(one.image, "depth"):
            by_depth.setdefault(depth, []).append(found.name(one.pair.image))
            by_bands.setdefault(_fact(one.image, "channels"), []).append(found.name(one.pair.image))
    if len(by_depth) > 1:
        usual = max(by_depth, key=lambda depth: (len(by_depth[depth]), -depth))
        odd = [line for depth, lines in sorted(by_depth.items()) if depth != usual for line in lines]
        kinds = " and ".join(names[depth] for depth in sorted(by_depth) if depth != usual)
        found.add(
            "E_DEPTH",
            f"{kinds} images among {names[usual]} ones ({len(odd)} of {sum(map(len, by_depth.values()))})",
            odd,
            "bring all images to one depth: their values cannot be compared",
        )
    if len(by_bands) > 1 and set(by_bands) != {1, 3}:  # grey among colour is repeated
        usual = max(by_bands, key=lambda bands: len(by_bands[bands]))
        found.add(
            "E_BAND_COUNT",
            f"images whose number of bands is not that of the others ({usual})",
            [f"{line}: {bands}" for bands, lines in sorted(by_bands.items()) if bands != usual for line in lines],
            "export all with the same bands, or name the ones to take:  data.bands=[1,2,3]",
        )


def check_values(found: Findings, scanned: Sequence[ScannedPair], table: ClassTable) -> None:
    """Values and colours of masks that the class table does not know."""
    decoder = MaskDecoder(table)
    values = _unknown(
        found, [one for one in _readable_masks(scanned) if not _fact(one.mask, "coloured")], lambda v: decoder.values[v]
    )
    colours = _unknown(
        found, [one for one in _readable_masks(scanned) if _fact(one.mask, "coloured")], decoder.of_colours
    )
    unsaid = table.values is None and "ignore_index" not in table.model_fields_set
    wide = 255 in values.seen and (255 in values.numbers or unsaid)
    if wide and values.seen <= {0, 255} and table.count == 2:
        found.add(
            "E_0_255",
            "masks hold 0 and 255, the class table has 2 classes (0, 1)",
            values.lines or [found.name(one.pair.mask) for one in _readable_masks(scanned)],
            f"put this line into classes.yaml:\n  values: {{0: {table.names[0]}, 255: {table.names[1]}}}",
        )
    elif values.numbers:
        found.add(
            "E_VALUE",
            f"masks hold values that are not in the class table: {_listed(values.numbers)}",
            values.lines,
            f"the table has {table.count} classes"
            + (
                f", {', '.join(map(str, sorted(table.values)))} in files"
                if table.values
                else f" (0..{table.count - 1})"
            )
            + ". Add the values to classes.yaml, or set  ignore_index",
        )
    if colours.numbers:
        shown = [f"({v >> 16}, {v >> 8 & 255}, {v & 255}) {colours.totals[v]} px" for v in colours.numbers]
        more = ", ..." if len(shown) > 6 else ""
        found.add(
            "E_COLOUR",
            f"masks hold {len(shown)} colours that are not in the class table: {', '.join(shown[:6])}{more}",
            colours.lines,
            "add them to  colors  in classes.yaml; colours along borders come from smoothing: export without it",
        )


@dataclass
class _Unknown:
    totals: dict[int, int]
    """Pixels of each unknown number, the most frequent first."""
    lines: list[str]
    seen: set[int]

    @property
    def numbers(self) -> list[int]:
        return list(self.totals)


def _unknown(found: Findings, masks: Sequence[ScannedPair], classes_of: Callable[[Any], Any]) -> _Unknown:
    totals: dict[int, int] = {}
    lines: list[str] = []
    seen: set[int] = set()
    for one in masks:
        pairs = np.asarray(_fact(one.mask, "values"), np.int64).reshape(-1, 2)
        seen.update(int(value) for value in pairs[:, 0])
        unknown = pairs[np.asarray(classes_of(pairs[:, 0])) == UNKNOWN]
        if len(unknown):
            first = _first_place(one, unknown[:, 0]) if len(lines) < SHOWN else ""
            lines.append(f"{found.name(one.pair.mask)}: {int(unknown[:, 1].sum())} pixels{first}")
            for value, count in unknown:
                totals[int(value)] = totals.get(int(value), 0) + int(count)
    return _Unknown(dict(sorted(totals.items(), key=lambda entry: -entry[1])), lines, seen)


def _first_place(one: ScannedPair, unknown: Any) -> str:
    """Where the first unknown pixel of a mask lies: ", first 7 at row 0, column 3"."""
    if one.pair.mask is None:
        return ""
    pixels = read_mask(one.pair.mask).pixels
    places = np.argwhere(np.isin(pack(pixels) if pixels.ndim == 3 else pixels, unknown))
    if not len(places):
        return ""
    row, column = (int(number) for number in places[0])
    return f", first {pixels[row, column].tolist()} at row {row}, column {column}"


def _listed(numbers: Sequence[int], most: int = 12) -> str:
    return ", ".join(map(str, sorted(numbers)[:most])) + (", ..." if len(numbers) > most else "")


def infer_table(found: Findings, scanned: Sequence[ScannedPair]) -> ClassTable | None:
    """A class table from the masks alone; None, and a problem, where they do not tell.

    Values 0..K-1 are classes; 255 beside at least two of them is ignored; colours become classes, black the first.
    """
    masks = _readable_masks(scanned)
    if not masks:
        return None
    coloured = [one for one in masks if _fact(one.mask, "coloured") and not _fact(one.mask, "grey")]
    if coloured:
        return _infer_from_colours(found, masks, coloured)
    seen: set[int] = set()
    for one in masks:
        numbers = [value for value, _ in _fact(one.mask, "values")]
        seen.update(number & 255 if _fact(one.mask, "coloured") else number for number in numbers)
    examples = [found.name(one.pair.mask) for one in masks]
    if seen <= {0} or len(seen) < 2:
        found.add(
            "E_ONE_VALUE", f"every mask holds only the value {_listed(sorted(seen))}", examples, "draw the classes"
        )
        return None
    if seen == {0, 255}:
        found.add(
            "E_0_255",
            "masks hold 0 and 255; classes are numbered 0, 1",
            examples,
            "make a file classes.yaml beside the images with these two lines:\n"
            "  names: [background, foreground]\n  values: {0: background, 255: foreground}",
        )
        return None
    classes = sorted(seen - {255})
    count = classes[-1] + 1
    if count > 254 or len(classes) * 2 < count:
        pairs = ", ".join(f"{value}: class {index}" for index, value in enumerate(classes[:8]))
        names = ", ".join(f"class {index}" for index in range(len(classes[:8])))
        more = ", ..." if len(classes) > 8 else ""
        found.add(
            "E_VALUE",
            f"masks hold the values {_listed(classes)}, which are not 0..K-1",
            examples,
            f"make a file classes.yaml that names them:\n  names: [{names}{more}]\n  values: {{{pairs}{more}}}",
        )
        return None
    return numbered_table(count, ignore_index=255 if 255 in seen else None)


def _infer_from_colours(
    found: Findings, masks: Sequence[ScannedPair], coloured: Sequence[ScannedPair]
) -> ClassTable | None:
    if len(coloured) < len([one for one in masks if not _fact(one.mask, "coloured")]):
        found.add("E_MIXED", "masks in colours among masks of values", [found.name(o.pair.mask) for o in coloured])
        return None
    totals: dict[int, int] = {}
    for one in masks:
        for value, count in _fact(one.mask, "values"):
            packed = value if _fact(one.mask, "coloured") else value << 16 | value << 8 | value
            totals[packed] = totals.get(packed, 0) + count
    if len(totals) > 64:
        found.add(
            "E_COLOUR",
            f"masks hold {len(totals)} colours and there is no class table",
            [found.name(one.pair.mask) for one in coloured],
            "make a file classes.yaml with  names  and  colors; colours along borders come from smoothing",
        )
        return None
    packed = sorted(totals, key=lambda value: (value != 0, -totals[value]))
    colors = tuple((value >> 16, value >> 8 & 255, value & 255) for value in packed)
    names = tuple("background" if color == (0, 0, 0) else "#{:02x}{:02x}{:02x}".format(*color) for color in colors)
    return ClassTable(names=names, colors=colors, ignore_index=None)
