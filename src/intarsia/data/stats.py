"""Numbers of a data set: sizes, channels, depth, shares of classes, and the weights of classes that they imply."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from intarsia.data.base import Dataset
from intarsia.images.ranges import range_in_words


@dataclass(frozen=True)
class Stats:
    """Numbers of an opened data set."""

    dataset: Dataset

    @property
    def sizes(self) -> list[tuple[tuple[int, int], int]]:
        """(height, width) and how many images have it, the most frequent first."""
        return Counter(
            (item.height, item.width) for items in self.dataset.splits.values() for item in items
        ).most_common()

    @property
    def shares(self) -> dict[str, list[float]]:
        """Split to the share of each class among its pixels that count."""
        return {
            split: [round(float(count), 6) for count in pixels / max(1, int(pixels.sum()))]
            for split, pixels in self.dataset.class_pixels.items()
        }

    @property
    def imbalance(self) -> float:
        """Pixels of the most frequent class over those of the rarest that occurs, in training."""
        pixels = self.dataset.class_pixels["train"]
        there = pixels[pixels > 0]
        return float(there.max() / there.min()) if len(there) else 1.0

    @property
    def ignored_share(self) -> dict[str, float]:
        """Split to the share of its pixels that do not count."""
        every = {s: sum(item.height * item.width for item in items) for s, items in self.dataset.splits.items()}
        return {
            split: round(1 - float(pixels.sum()) / max(1, every[split]), 6)
            for split, pixels in self.dataset.class_pixels.items()
        }

    def weights(self) -> dict[str, tuple[float, ...]]:
        """Name of a weighting (losses/class_weights.py) to the weight of each class."""
        from intarsia.losses.class_weights import WEIGHTINGS, class_weights

        pixels, holding = self.dataset.class_pixels["train"], self.dataset.holding_pixels["train"]
        return {how: class_weights(how, pixels, holding) for how in WEIGHTINGS}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        data = self.dataset
        return {
            "images": {split: len(items) for split, items in data.splits.items()},
            "sizes": [{"size": list(size), "count": count} for size, count in self.sizes],
            "channels": data.channels,
            "value_range": list(data.value_range),
            "mean": list(data.mean),
            "std": list(data.std),
            "classes": list(data.table.names),
            "class_pixels": {split: counts.tolist() for split, counts in data.class_pixels.items()},
            "class_shares": self.shares,
            "ignored_share": self.ignored_share,
            "imbalance": round(self.imbalance, 3),
            "class_weights": {name: list(weights) for name, weights in self.weights().items()},
        }

    def text(self) -> str:
        """One fact a line, then a table of shares and one of weights."""
        data, sizes = self.dataset, self.sizes
        heights, widths = zip(*(size for size, _ in sizes), strict=True)
        counts = " · ".join(f"{len(items)} {split}" for split, items in data.splits.items() if items)
        kind = {1: "1, grey", 3: "3, colour"}.get(data.channels, str(data.channels))
        most = ", ".join(f"{height} x {width} ({count})" for (height, width), count in sizes[:4])
        more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        ignored = " · ".join(f"{100 * share:.1f} % {split}" for split, share in self.ignored_share.items())
        lines = [
            f"{data.root}",
            f"images     {counts}   (split: {data.split_source})",
            f"sizes      {most}{more}",
            f"           height {min(heights)} to {max(heights)}, width {min(widths)} to {max(widths)}",
            f"channels   {kind}; values {range_in_words(data.value_range)}",
            f"mean       {', '.join(f'{value:.3f}' for value in data.mean)}   of train, on a scale of 0 to 1",
            f"deviation  {', '.join(f'{value:.3f}' for value in data.std)}",
            f"ignored    {ignored}",
            f"imbalance  {self.imbalance:.1f}   pixels of the most frequent class over those of the rarest, in train",
            "",
            *self._shares(),
            "",
            *self._weights(),
        ]
        return "\n".join(lines)

    def _shares(self) -> list[str]:
        shares, width = self.shares, self._name_width()
        lines = [f"  {'share':<{width}}" + "".join(f"{split:>10}" for split in shares)]
        for index, name in enumerate(self.dataset.table.names):
            lines.append(f"  {name:<{width}}" + "".join(f"{100 * each[index]:>8.2f} %" for each in shares.values()))
        return lines

    def _weights(self) -> list[str]:
        weights, width = self.weights(), self._name_width()
        wide = {name: max(len(name), 9) + 3 for name in weights}
        lines = [f"  {'weight':<{width}}" + "".join(f"{name:>{wide[name]}}" for name in weights)]
        for index, name in enumerate(self.dataset.table.names):
            lines.append(f"  {name:<{width}}" + "".join(f"{weights[how][index]:>{wide[how]}.3f}" for how in weights))
        return [*lines, "", "  a weighting is used with  loss=ce loss.class_weights=NAME"]

    def _name_width(self) -> int:
        return max(6, *(len(name) for name in self.dataset.table.names))
