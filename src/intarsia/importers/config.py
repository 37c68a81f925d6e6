"""Annotation exports as data sets: shapes are filled once into class maps in the cache folder; the export is never written to.

Class maps hold class numbers, 254 where no shape lies and 255 what is ignored. What 254 means, background or nothing known,
must be said: in one export the rest of an image is background, in the next it was not looked at.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intarsia.classes import ClassTable
from intarsia.data.assemble import Reading, SourceConfig
from intarsia.data.base import DATASETS
from intarsia.data.checks import FolderProblems, Problem
from intarsia.data.layout import Layout, Pair, apply_split_file
from intarsia.data.published.base import sound_reading
from intarsia.data.published.convert import Converter
from intarsia.data.scan import ScannedPair, scan
from intarsia.errors import ConfigError, DataError
from intarsia.images.files import FORMATS as IMAGE_FORMATS
from intarsia.images.files import TURNS, frame_of, max_pixels, orientation_of
from intarsia.importers.base import Files, Picture, Project, find_format
from intarsia.importers.rasterize import Order, Rendered, Rule, render
from intarsia.progress import Progress

UNCOVERED = 254
MOST_CLASSES = 253
BACKGROUNDS = ("background", "_background_", "bg", "__background__")


@DATASETS.family("annotations")
class AnnotationsConfig(SourceConfig):
    """An annotation tool's export: shapes or masks, beside the images or in a folder of their own."""

    path: str = ""
    """The export: a folder or a single file."""
    format: str | None = None
    """Its format (`intarsia list formats`); null: told by its content."""
    attribute: str | None = None
    """Which of a shape's attributes is its class, where the tool leaves that to its users (VGG Image Annotator)."""
    images: str | None = None
    """Folder of the images, if they are not with the export."""
    uncovered: Literal["background", "ignore"] | None = None
    """What pixels are that no shape covers; must be said where there are any."""
    order: Order = "document"
    """Which shape lies on top: the later one, the one of larger z, or the smaller one (area)."""
    fill: Rule = "centre"
    """When a pixel belongs to a polygon (importers/rasterize.py): centre; or as labelme, opencv or coco have it."""
    crowds: Literal["ignore", "label"] = "ignore"
    """Regions that are marked as crowds (COCO): ignored, or of their class; some tools mark all that was brushed."""
    missing: Literal["fail", "skip"] = "fail"
    """Annotations whose image is not there: refuse the export, or leave them out (and say how many)."""
    splits: str | None = None
    """File of names, {train: [...], val: [...], test: [...]}; null: as the export says, else drawn."""

    def read(self, progress: Progress) -> Reading:
        if not self.path:
            raise ConfigError("data.path: is not set; give the export's folder or file.")
        root = Path(self.path).expanduser()
        files = Files(root, self.attribute)
        project = self._project(files)
        layout, facts = self._rendered(project, progress)
        if self.splits:
            layout.pairs = [Pair(p.name, None, p.image, p.mask, p.instances) for p in layout.pairs]
            apply_split_file(files.folder, layout, Path(self.splits).expanduser())
        layout.pairs.sort(key=lambda pair: (pair.split or "", pair.name))
        scanned = scan(files.folder, layout.pairs, progress, self.bands)
        table = self._table(root, project, scanned)
        layout.notes[:0] = self._notes(project, facts)
        return sound_reading(files.folder, layout, scanned, self.bands, table, project.format, called=root)

    def _project(self, files: Files) -> Project:
        """The export, with images of the folder that was named.

        Raises:
            DataError: it is of no known format, holds no picture, too many classes, or images are missing.
        """
        format_ = find_format(files, self.format)
        assert format_.read
        project = format_.read(files)
        if len(project.classes) > MOST_CLASSES:
            raise DataError(
                f"{files.root}: has {len(project.classes)} classes; a class map here has at most {MOST_CLASSES}."
            )
        elsewhere = Files(Path(self.images).expanduser()) if self.images else None
        pictures, lost = [], []
        for picture in project.pictures:
            image = picture.image
            if elsewhere is not None:
                image = elsewhere.image(picture.missing or (image.name if image else picture.name)) or image
            if image is None and picture.embedded is None:
                lost.append(picture.missing or picture.name)
            else:
                pictures.append(self._with(picture, image))
        if lost and (self.missing == "fail" or not pictures):
            problem = Problem(
                "E_NO_IMAGE",
                "annotated images that are not there",
                tuple(lost[:3]),
                len(lost),
                "put them beside the export, name their folder with data.images=DIR, or leave them out with data.missing=skip",
            )
            raise FolderProblems(files.root, f"{format_.title}, {len(project.pictures)} images", [problem])
        if not pictures:
            raise DataError(f"{files.root}: is {format_.title}, but no image in it is annotated.")
        left = [f"{len(lost)} annotated images are not there and left out, first {lost[0]}"] if lost else []
        return Project(
            project.format, tuple(pictures), project.classes, project.colors, project.left_out, (*project.notes, *left)
        )

    def _with(self, picture: Picture, image: Path | None) -> Picture:
        shapes = picture.shapes
        if self.crowds == "label":
            shapes = tuple(replace(one, ignored=False) if one.ignored and one.label else one for one in shapes)
        return replace(picture, image=image, shapes=shapes, embedded=None if image else picture.embedded)

    def _rendered(self, project: Project, progress: Progress) -> tuple[Layout, list[Path]]:
        """The pairs of images and class maps, and where the counts of overlaps lie."""
        settings = repr((project.format, self.order, self.fill, project.classes))
        converter = Converter("annotations", settings)
        layout, facts = Layout(), []
        splits = {picture.split for picture in project.pictures}
        own = len(splits) > 1
        layout.split_source = "the export's own" if own else ""
        loose = sum(picture.split is None for picture in project.pictures) if own else 0
        if loose:
            layout.notes.append(f"{loose} images are of no split of the export; they are taken for training")
        if not own and splits != {None}:
            layout.notes.append(f"all images are of its split {splits.pop()!r}, which is passed over")
        for picture in project.pictures:
            kinds = ["mask", "objects", "counts", *([] if picture.image else ["image"])]
            made = converter.ask(
                picture.name,
                [picture.image] if picture.image else [],
                kinds,
                partial(_drawn, picture, project.classes, self.order, self.fill),
                _content(picture),
            )
            mask, objects, counts, *image = made
            layout.pairs.append(
                Pair(
                    picture.name, (picture.split or "train") if own else None, picture.image or image[0], mask, objects
                )
            )
            facts.append(counts)
        converter.run(progress)
        return layout, facts

    def _table(self, root: Path, project: Project, scanned: Sequence[ScannedPair]) -> ClassTable:
        """What the values of the class maps mean.

        Raises:
            DataError: pixels lie under no shape, and nobody said what they are.
        """
        bare = [one for one in scanned if any(value == UNCOVERED for value, _ in (one.mask or {}).get("values", ()))]
        if bare and self.uncovered is None:
            raise DataError(
                f"{root}: in {len(bare)} of {len(scanned)} images there are pixels that no shape covers, first in "
                f"{bare[0].pair.name}. Say what they are: data.uncovered=background or data.uncovered=ignore."
            )
        names = list(project.classes)
        values = dict(enumerate(names)) | {255: "ignore"}
        own = next((name for name in names if name.lower() in BACKGROUNDS), None)
        if bare and self.uncovered == "background":
            if own is None:
                own = "background"
                names.insert(0, own)
            values[UNCOVERED] = own
        elif bare:
            values[UNCOVERED] = "ignore"
        if not names:
            raise DataError(f"{root}: has no class: every shape in it is ignored.")
        usual = ClassTable(names=tuple(names)).colors
        colors = [project.colors.get(name, color) for name, color in zip(names, usual, strict=True)]
        return ClassTable(names=tuple(names), colors=tuple(colors), values=values, ignore_index=None)

    def _notes(self, project: Project, facts: Sequence[Path]) -> list[str]:
        tops = {"document": "later shapes on top", "z": "shapes of larger z on top", "area": "smaller shapes on top"}
        rules = {"centre": "pixel centres, even-odd"}.get(self.fill, f"the rule of {self.fill}")
        notes = [f"read as {project.format}; polygons filled by {rules}; {tops[self.order]}", *project.notes]
        notes += [f"{count} {what} have no area and are left out" for what, count in sorted(project.left_out.items())]
        overlapped, vanished = np.sum([_counts(path) for path in facts], axis=0)
        if overlapped:
            notes.append(f"{overlapped} pixels lie under shapes of different classes; data.order says which is on top")
        if vanished:
            notes.append(f"{vanished} objects are wholly under others and vanish; look at data.order")
        return notes


def _content(picture: Picture) -> str:
    """A hash of all that is drawn."""
    digest = hashlib.sha256(repr((picture.size, len(picture.shapes))).encode())
    digest.update(picture.embedded or b"")
    for shape in picture.shapes:
        facts = (shape.label, shape.origin, shape.z, shape.ignored, shape.object_id)
        digest.update(repr((facts, [len(ring) for ring in shape.rings])).encode())
        for ring in shape.rings:
            digest.update(np.ascontiguousarray(ring).tobytes())
        if shape.pixels is not None:
            digest.update(repr(shape.pixels.shape).encode() + np.packbits(np.asarray(shape.pixels)).tobytes())
    return digest.hexdigest()


def _drawn(picture: Picture, classes: Sequence[str], order: Order, fill: Rule) -> list[NDArray[Any]]:
    """Class map, objects, counts; and the image, if the export holds it itself."""
    pixels = None if picture.image else _embedded(picture)
    size, orientation = _frame(picture, pixels)
    own = picture.size or size
    if own == size:
        made = render(picture.shapes, size, classes, order=order, rule=fill)
        maps: list[NDArray[Any]] = [_stored(made), made.objects]
    elif own == size[::-1] and orientation in range(5, 9):  # the tool did not look at EXIF
        made = render(picture.shapes, own, classes, order=order, rule=fill)
        maps = [TURNS[orientation](each) for each in (_stored(made), made.objects)]
    else:
        where = picture.image or picture.name
        raise DataError(
            f"{where}: is {size[0]} x {size[1]}, but its annotation is of an image of {own[0]} x {own[1]}. "
            "Use the images that were annotated."
        )
    counts = np.array(
        [[made.overlapped >> 16, made.overlapped & 65535, made.vanished >> 16, made.vanished & 65535]], np.uint16
    )
    kept: list[NDArray[Any]] = [maps[0], maps[1].astype(np.uint16), counts]
    return kept if pixels is None else [*kept, pixels]


def _stored(made: Rendered) -> NDArray[np.uint8]:
    return np.where(made.uncovered, np.uint8(UNCOVERED), made.classes)


def _counts(path: Path) -> NDArray[np.int64]:
    high_low = np.asarray(Image.open(path)).astype(np.int64).ravel()
    return high_low[0::2] << 16 | high_low[1::2]


def _embedded(picture: Picture) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(picture.embedded or b""), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels():
                raise DataError(f"{picture.name}: the image within the export has too many pixels.")
            turn = TURNS.get(orientation_of(image), np.asarray)
            return np.ascontiguousarray(turn(np.asarray(image.convert("L" if image.mode == "L" else "RGB"))))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{picture.name}: the image within the export cannot be read ({str(error)[:80]}).") from None


def _frame(picture: Picture, pixels: NDArray[np.uint8] | None) -> tuple[tuple[int, int], int]:
    """Height and width of the upright image, and the orientation of the stored one."""
    if pixels is not None:
        return (pixels.shape[0], pixels.shape[1]), 1
    assert picture.image
    return frame_of(picture.image)
