"""Any folder of images and masks as a data set; `layout.py` says how files are found, `checks.py` what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from intarsia.classes import ClassTable, find_class_file, read_class_table
from intarsia.config import read_yaml
from intarsia.data.assemble import Reading, SourceConfig, counts_in_words, notes_on, reading_of
from intarsia.data.base import DATASETS
from intarsia.data.checks import Findings, FolderProblems, check_files, check_values, infer_table
from intarsia.data.hashes import check_hashes
from intarsia.data.layout import find_pairs
from intarsia.data.scan import ScannedPair, scan
from intarsia.errors import ConfigError, DataError
from intarsia.progress import Progress


@DATASETS.family("folder")
class FolderConfig(SourceConfig):
    """A folder: images/ and masks/, with or without train, val and test, and perhaps a classes.yaml."""

    path: str = ""
    """The folder."""
    classes: str | None = None
    """Class table (YAML or JSON); null: classes.yaml or classes.json in the folder, else inferred from the masks."""
    splits: str | None = None
    """File of names, {train: [...], val: [...], test: [...]}; null: splits.json in the folder, else its train/, val/ and
    test/, else drawn."""
    unlabelled: Literal["fail", "skip"] = "fail"
    """Images without mask: refuse the folder, or leave them out (and say how many)."""

    def of_run(self, folder: Path) -> Self:
        changes: dict[str, Any] = {}
        if (file := folder / "classes.yaml").is_file() and not self.class_map:
            changes["classes"] = str(file)
        if (file := folder / "splits.json").is_file() and read_yaml(file).get("source") != "folders":
            changes.update(splits=str(file), folds=None, group=None)
        return self.replace(changes)

    def read(self, progress: Progress) -> Reading:
        if not self.path:
            raise ConfigError("data.path: is not set; give the folder, such as data.path=cells/.")
        root = Path(self.path).expanduser()
        layout = find_pairs(root, Path(self.splits).expanduser() if self.splits else None)
        scanned = scan(root, layout.pairs, progress, self.bands)
        found = check_files(layout, scanned, root, skip_unlabelled=self.unlabelled == "skip")
        check_hashes(found, scanned, root)
        table, source, notes = self._table(root, found, scanned)
        if found.problems or table is None:
            raise FolderProblems(root, counts_in_words(layout), found.problems)
        notes = [*layout.notes, *notes, *notes_on(layout, scanned, found)]
        return reading_of(root, layout, scanned, self.bands, table, source, notes)

    def _table(
        self, root: Path, found: Findings, scanned: Sequence[ScannedPair]
    ) -> tuple[ClassTable | None, str, list[str]]:
        """The class table, where it came from, and notes; problems go to `found`."""
        file = Path(self.classes).expanduser() if self.classes else find_class_file(root)
        if file is None:
            table = infer_table(found, scanned)
            return table, "inferred from the masks", []
        if not file.is_file():
            raise DataError(f"data.classes: {file} does not exist.")
        table, notes = read_class_table(file)
        check_values(found, scanned, table)
        return table, file.name, notes
