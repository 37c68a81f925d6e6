"""`data=stream`: data sets in shards.

    intarsia data convert cells/ shards/ --to webdataset
    intarsia train default data=stream data.path=shards/

Images are read one by one from where they lie in a shard (shards.py), so that all else is as with a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from intarsia.classes import UNKNOWN, ClassTable, find_class_file, read_class_table
from intarsia.data.assemble import Reading, SourceConfig, assemble, counts_in_words, mapped, notes_on, reading_of
from intarsia.data.base import DATASETS, Bands, Dataset, Item, MaskDecoder
from intarsia.data.cache import VERSION, ScanCache
from intarsia.data.checks import FolderProblems, check_files, infer_table
from intarsia.data.layout import SPLIT_FOLDERS, Layout, Pair, apply_split_file
from intarsia.data.scan import ScannedPair, image_facts, mask_facts
from intarsia.data.stream import litdata, manifest, webdataset
from intarsia.data.stream.manifest import Manifest
from intarsia.data.stream.shards import Member, Record, Shard, as_file
from intarsia.devices import cores
from intarsia.errors import ConfigError, DataError, FileError
from intarsia.images.files import Array
from intarsia.progress import Progress

if TYPE_CHECKING:
    from intarsia.losses.base import Border


@dataclass(frozen=True)
class StreamDataset(Dataset):
    """A data set whose items' paths name members of shards."""

    members: Mapping[Path, Member] = field(default_factory=dict, repr=False)

    def read_image(self, item: Item) -> Array:
        with self._unpacked(item, "image") as plain:
            return super().read_image(plain)

    def read_mask(self, item: Item) -> NDArray[np.uint8]:
        with self._unpacked(item, "mask", *(["image"] if item.nodata else [])) as plain:
            return super().read_mask(plain)

    def read_instances(self, item: Item) -> NDArray[Any]:
        with self._unpacked(item, "instances") as plain:
            return super().read_instances(plain)

    def border_weights(self, item: Item, border: Border) -> NDArray[np.float32]:
        with self._unpacked(item, "instances" if item.instances else "mask") as plain:  # kept by the file's content
            return super().border_weights(plain, border)

    @contextmanager
    def _unpacked(self, item: Item, *kinds: str) -> Iterator[Item]:
        """The item with files for some of its members, while they are read."""
        with ExitStack() as stack:
            files: dict[str, Any] = {}
            for kind in kinds:
                member = self.members.get(getattr(item, kind))
                if member is not None:  # else a file already
                    files[kind] = stack.enter_context(as_file(member))
            yield replace(item, **files)


@DATASETS.family("stream")
class StreamConfig(SourceConfig):
    """A folder of shards, WebDataset's or litdata's, as `intarsia data convert` writes them or from elsewhere."""

    path: str = ""
    """The folder of the shards."""
    classes: str | None = None
    """Class table (YAML or JSON); null: intarsia.json's, else classes.yaml in the folder, else inferred from the masks."""
    splits: str | None = None
    """File of names, {train: [...], val: [...], test: [...]}; null: the split that the shards were written with, or that
    their names begin with, else drawn."""
    verify: bool = False
    """Read every shard when it is opened and hold it against its sha256 in intarsia.json."""

    def of_run(self, folder: Path) -> Self:
        config = super().of_run(folder)
        file = folder / "classes.yaml"
        return config.replace({"classes": str(file)} if file.is_file() and not self.class_map else {})

    def read(self, progress: Progress) -> Reading:
        raise ConfigError(
            "data.parts: shards are not combined. Combine the data sets that they were made of, and convert that: "
            "`intarsia data convert combined.yaml DIR --to webdataset`."
        )

    def open(self, progress: Progress) -> Dataset:
        if not self.path:
            raise ConfigError("data.path: is not set; give the folder of the shards, such as data.path=shards/.")
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: {'is a file, not a folder' if root.exists() else 'does not exist'}.")
        reading, members = self._reading(root, progress)
        if self.class_map:
            reading = mapped(reading, self.class_map)
        dataset = assemble(reading, self)
        return StreamDataset(**{one.name: getattr(dataset, one.name) for one in fields(Dataset)}, members=members)

    def _reading(self, root: Path, progress: Progress) -> tuple[Reading, dict[Path, Member]]:
        noted = manifest.read_manifest(root)
        if noted:
            manifest.check_files(root, noted, progress, verify=self.verify)
        elif self.verify:
            raise ConfigError(f"data.verify: {root} has no {manifest.NAME} to hold the shards against.")
        shards = _shards(root, noted)
        bands = self.bands or (noted.bands if noted else None)
        if noted:
            manifest.check_records(root, noted, shards)
        if noted and noted.scan == VERSION and noted.bands == bands:
            found = _noted(noted, shards)
        else:
            found = _named(_scanned(root, shards, bands, progress), noted)
        scanned = [ScannedPair(one.pair, one.image, one.mask) for one in found]
        scanned.sort(
            key=lambda one: (one.pair.split or "", one.pair.name)
        )  # as in a folder, so that samples are the same
        layout = Layout(pairs=[one.pair for one in scanned], notes=[note for each in shards for note in each.notes])
        layout.split_source = manifest.NAME if noted else "names of the shards"
        if self.splits:
            layout.pairs = [replace(pair, split=None) for pair in layout.pairs]
            apply_split_file(root, layout, Path(self.splits).expanduser())
            of_name = {pair.name: pair for pair in layout.pairs}
            scanned = [replace(s, pair=of_name[s.pair.name]) for s in scanned if s.pair.name in of_name]
        elif all(pair.split is None for pair in layout.pairs):
            layout.split_source = ""
        if not noted:
            layout.notes.append(f"there is no {manifest.NAME}: counts and content of the shards are not verified")
        problems = check_files(layout, scanned, root, skip_unlabelled=True)
        table, source = self._table(root, noted)
        if table is None:
            table, source = infer_table(problems, scanned), "inferred from the masks"
        if problems.problems or table is None:
            raise FolderProblems(root, counts_in_words(layout), problems.problems)
        _check_values(scanned, table)
        notes = [*layout.notes, *notes_on(layout, scanned, problems)]
        members = {each.path: each for one in found for each in one.record.members.values()}
        reading = reading_of(root, layout, scanned, bands, table, source, notes)
        if noted:
            said = reading.split_source if self.splits else noted.split_source
            reading = replace(reading, label=noted.label, split_source=said)
        return reading, members

    def _table(self, root: Path, noted: Manifest | None) -> tuple[ClassTable | None, str]:
        """The class table, if anybody says it, and where it came from."""
        file = Path(self.classes).expanduser() if self.classes else None if noted else find_class_file(root)
        if noted and file is None:
            return ClassTable(**noted.classes), manifest.NAME
        if file is None:
            return None, ""
        if not file.is_file():
            raise DataError(f"data.classes: {file} does not exist.")
        return read_class_table(file)[0], file.name


@dataclass(frozen=True)
class _Found:
    """A record as a pair, and what its files hold."""

    record: Record
    pair: Pair
    image: dict[str, Any]
    mask: dict[str, Any] | None


def _found(record: Record, name: str, split: str | None, image: dict[str, Any], mask: dict[str, Any] | None) -> _Found:
    paths = {kind: member.path for kind, member in record.members.items()}
    return _Found(record, Pair(name, split, paths["image"], paths.get("mask"), paths.get("instances")), image, mask)


def _shards(root: Path, noted: Manifest | None) -> list[Shard]:
    """The shards' records.

    Raises:
        DataError: there are no shards, or one is damaged.
    """
    if noted is None:
        names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.tar")) if path.is_file()]
        folders = sorted(path.parent for path in root.rglob(litdata.INDEX) if path.is_file())
        if not names and not folders:
            raise _no_shards(root)
    else:
        shards = [shard.name for shard in noted.shards]
        names = shards if noted.kind == "webdataset" else []
        folders = [] if names else list(dict.fromkeys((root / name).parent for name in shards))
    single = {(i.split, int(i.key)): i.instances for i in noted.items if i.key.isdigit()} if noted and folders else None
    found = [webdataset.read_shard(root / name, name, _split_of(name)) for name in names]
    for folder in folders:
        split = _split_of(folder.relative_to(root).as_posix())
        known = None if single is None else {number: has for (of, number), has in single.items() if of == split}
        found += litdata.read_shards(root, folder, split, known)
    return found


def _no_shards(root: Path) -> DataError:
    met = ", ".join(sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())[:8]) or "nothing"
    packed = any(root.rglob("*.tar.gz")) or any(root.rglob("*.tgz"))
    more = " Packed shards cannot be read in any order: unpack them with gunzip." if packed else ""
    return DataError(
        f"{root}: holds no shards. Expected *.tar (WebDataset) or {litdata.INDEX} with chunk-*.bin (litdata); met: {met}.{more}"
    )


def _split_of(name: str) -> str | None:
    """train, val or test, if the name of a shard, or of a folder that it lies in, begins so."""
    for part in reversed(name.lower().split("/")):
        for split, words in SPLIT_FOLDERS.items():
            if any(part == word or part.startswith((f"{word}-", f"{word}_", f"{word}.")) for word in words):
                return split
    return None


def _noted(noted: Manifest, shards: Sequence[Shard]) -> list[_Found]:
    """The items that intarsia.json lists."""
    records = {(shard.name, record.key): record for shard in shards for record in shard.records}
    return [_found(records[one.shard, one.key], one.name, one.split, one.image, one.mask) for one in noted.items]


def _scanned(root: Path, shards: Sequence[Shard], bands: Bands, progress: Progress) -> list[tuple[Shard, _Found]]:
    """The records that hold an image, each read once; what was found is kept as long as the shard does not change."""
    cache, found = ScanCache(root), list[tuple[Shard, _Found]]()
    kind, look = f"stream {bands}", partial(_facts, bands)
    total = sum(len(shard.records) for shard in shards)
    try:
        with progress.task("read", total) as task, ThreadPoolExecutor(cores()) as pool:
            for shard in shards:
                kept = cache.get(shard.path, kind)
                records = [record for record in shard.records if "image" in record.members]
                if kept is None:
                    facts = dict(zip((record.key for record in records), pool.map(look, records), strict=True))
                    kept = cache.put(shard.path, kind, {"facts": facts})
                found += [(shard, _found(one, one.key, shard.split, *kept["facts"][one.key])) for one in records]
                task.update(len(found), f"{len(found)} of {total} images and masks")
                cache.save_now_and_then()
    finally:
        cache.save()
    return found


def _named(found: Sequence[tuple[Shard, _Found]], noted: Manifest | None) -> list[_Found]:
    """With names and splits as intarsia.json has them; without it, the shard's name before names that are met twice."""
    if noted:
        known = {(one.shard, one.key): one for one in noted.items}
        pairs = [(known[s.name, one.record.key], one) for s, one in found if (s.name, one.record.key) in known]
        return [replace(one, pair=replace(one.pair, name=of.name, split=of.split)) for of, one in pairs]
    if len({one.pair.name for _, one in found}) == len(found):
        return [one for _, one in found]
    before = [Path(shard.name).with_suffix("").as_posix() for shard, _ in found]
    return [
        replace(one, pair=replace(one.pair, name=f"{name}/{one.pair.name}"))
        for name, (_, one) in zip(before, found, strict=True)
    ]


def _facts(bands: Bands, record: Record) -> list[dict[str, Any] | None]:
    """What scan.py notes of an image and of its mask."""
    found: list[dict[str, Any] | None] = []
    for kind, look in (("image", partial(image_facts, bands=bands)), ("mask", mask_facts)):
        member = record.members.get(kind)
        if member is None:
            found.append(None)
            continue
        try:
            with as_file(member) as file:
                found.append(look(file))
        except FileError as error:
            found.append({"error": {"code": error.code, "reason": error.reason}})
    return found


def _check_values(scanned: Sequence[ScannedPair], table: ClassTable) -> None:
    """Raise DataError if a mask holds what the class table does not know."""
    decoder = MaskDecoder(table)
    for one in scanned:
        if one.mask and (decoder.of_scanned(one.mask)[0] == UNKNOWN).any():
            values = [value for value, _ in one.mask["values"]]
            unknown = [v for v, c in zip(values, decoder.of_scanned(one.mask)[0], strict=True) if c == UNKNOWN]
            shown = [f"({v >> 16}, {v >> 8 & 255}, {v & 255})" if one.mask["coloured"] else str(v) for v in unknown[:6]]
            raise DataError(
                f"{one.pair.mask}: holds {', '.join(shown)}, which the class table does not know. "
                "Add it to classes.yaml, or set ignore_index."
            )
