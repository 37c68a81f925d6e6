"""What is in a data set, in words: for `intarsia data check`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from intarsia.data.base import Dataset


@dataclass(frozen=True)
class Description:
    """Facts on an opened data set."""

    dataset: Dataset

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        data = self.dataset
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
            "notes": list(data.notes),
        }

    def text(self) -> str:
        """One fact a line, and a table of classes."""
        data = self.dataset
        sizes = Counter((item.height, item.width) for items in data.splits.values() for item in items)
        shown = ", ".join(f"{height} x {width} ({count})" for (height, width), count in sizes.most_common(4))
        more = f" and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
        kind = "grey" if data.channels == 1 else "colour"
        depth = (
            "" if data.value_range == (0.0, 255.0) else f", values {data.value_range[0]:g} to {data.value_range[1]:g}"
        )
        counts = " · ".join(f"{len(items)} {split}" for split, items in data.splits.items() if items)
        lines = [
            f"{data.root}: usable.",
            f"images   {counts}   (split: {data.split_source})",
            f"sizes    {shown}{more}   {kind}{depth}",
            f"classes  {data.table.count}, {data.table_source}",
            *(f"note     {note}" for note in data.notes),
            "",
            *self._table(),
        ]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        data = self.dataset
        width = max(5, *(len(name) for name in data.table.names))
        splits = list(data.class_pixels)
        lines = [f"  {'class':<{width}}" + "".join(f"{split + ' pixels':>16}{'share':>8}" for split in splits)]
        totals = {split: max(1, int(data.class_pixels[split].sum())) for split in splits}
        for index, name in enumerate(data.table.names):
            cells = ""
            for split in splits:
                pixels = int(data.class_pixels[split][index])
                cells += f"{f'{pixels:,}'.replace(',', ' '):>16}{100 * pixels / totals[split]:>6.1f} %"
            lines.append(f"  {name:<{width}}{cells}")
        return lines


def describe(dataset: Dataset) -> Description:
    """The description of a data set."""
    return Description(dataset)
