"""What is in a data set, and what to look at in it, in words: for `intarsia data check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.data.base import Dataset
from intarsia.data.checks import Problem, problem_lines
from intarsia.data.stats import Stats
from intarsia.images.ranges import BYTES, kind_in_words, range_in_words


@dataclass(frozen=True)
class Description:
    """Facts on an opened data set."""

    dataset: Dataset
    findings: tuple[Problem, ...] = ()
    """What `inspect_dataset` found."""
    batch: str = ""
    """The largest batch that should fit, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        data, numbers = self.dataset, Stats(self.dataset).to_dict()
        return {
            "classes": list(data.table.names),
            "class_table": data.table_source,
            "splits": {split: len(items) for split, items in data.splits.items()},
            "split_source": data.split_source,
            "channels": data.channels,
            "value_range": data.value_range,
            "mean": data.mean,
            "std": data.std,
            "class_pixels": {split: counts.tolist() for split, counts in data.class_pixels.items()},
            **{key: numbers[key] for key in ("sizes", "class_shares", "imbalance", "class_weights")},
            "notes": list(data.notes),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def text(self) -> str:
        """One fact a line, and a table of classes."""
        data = self.dataset
        sizes = Stats(data).sizes
        shown = ", ".join(f"{height} x {width} ({count})" for (height, width), count in sizes[:4])
        more = f" and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
        kind = kind_in_words(data.channels)
        depth = "" if data.value_range == BYTES else f", values {range_in_words(data.value_range)}"
        counts = " · ".join(f"{len(items)} {split}" for split, items in data.splits.items() if items)
        lines = [
            f"{data.root}: usable.",
            f"images   {counts}   (split: {data.split_source})",
            f"sizes    {shown}{more}   {kind}{depth}",
            f"classes  {data.table.count}, {data.table_source}",
            *([f"batch    {self.batch}"] if self.batch else []),
            *(f"note     {note}" for note in data.notes),
            "",
            *self._table(),
        ]
        if self.findings:
            number = "One thing" if len(self.findings) == 1 else f"{len(self.findings)} things"
            lines += ["", f"{number} to look at:", ""]
            for index, finding in enumerate(self.findings, 1):
                lines += problem_lines(index, finding)
        return "\n".join(lines)

    def _table(self) -> list[str]:
        data = self.dataset
        width = max(5, *(len(name) for name in data.table.names))
        splits = list(data.class_pixels)
        weights = Stats(data).weights()["median_frequency"]
        head = "".join(f"{split + ' pixels':>16}{'share':>8}" for split in splits)
        lines = [f"  {'class':<{width}}{head}{'weight':>9}"]
        totals = {split: max(1, int(data.class_pixels[split].sum())) for split in splits}
        for index, name in enumerate(data.table.names):
            cells = ""
            for split in splits:
                pixels = int(data.class_pixels[split][index])
                cells += f"{f'{pixels:,}'.replace(',', ' '):>16}{100 * pixels / totals[split]:>6.1f} %"
            lines.append(f"  {name:<{width}}{cells}{weights[index]:>9.2f}")
        return [*lines, "  (weight: median frequency in train, as loss.class_weights=median_frequency takes it)"]


def describe(dataset: Dataset, findings: Sequence[Problem] = (), batch: str = "") -> Description:
    """The description of a data set."""
    return Description(dataset, tuple(findings), batch)
