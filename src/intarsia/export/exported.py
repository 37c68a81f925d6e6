"""What an export made, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from intarsia.engines.card import Card

Format = Literal["onnx", "openvino", "torch-export", "triton", "web"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino", "torch-export", "triton", "web")


@dataclass(frozen=True)
class Exported:
    """A model that was exported and proved."""

    path: Path
    """The file; of triton the model's folder, of web the page."""
    card: Card
    format: Format
    bytes: int
    """Of the network's files."""
    milliseconds: float
    """Best time for one picture, by the engine that the file is made for."""
    timed: str
    """What was timed, in words."""
    notes: tuple[str, ...] = ()
    """What a person should know, one line each."""

    @property
    def lines(self) -> list[str]:
        """What a person reads, aligned."""
        card, parity = self.card, self.card.parity
        assert parity is not None
        table = [("file", f"{self.path}   {self.bytes / 1e6:.1f} MB   {card.model} {card.precision}")]
        table += [("input", _input_in_words(card)), ("output", _output_in_words(card))]
        sizes = ", ".join(" x ".join(map(str, size)) for size in parity.sizes)
        table.append(("compared", f"with PyTorch in fp32, {sizes} pixels"))
        if card.output == "logits":
            logits = f"differ by at most {parity.max_difference:.2g}, the largest is {parity.largest_logit:.3g}"
            table.append(("  logits", logits))
        table.append(("  classes", f"{100 * parity.agreement:.3f} % of pixels alike"))
        for precision, share in card.agreement.items():
            table.append((precision, f"{100 * share:.2f} % of the pixels of validation images have the class of fp32"))
        if {"fp32", "int8"} <= set(card.mean_iou):
            before, after = 100 * card.mean_iou["fp32"], 100 * card.mean_iou["int8"]
            table.append(("mean IoU", f"fp32 {before:.2f}, int8 {after:.2f}: {_change(before - after)}"))
        table.append(("time", f"{self.milliseconds:.1f} ms, {self.timed}"))
        table += [("note", note) for note in self.notes]
        table += [("", ""), ("next", self.next)]
        return [f"{name:<10} {text}".rstrip() for name, text in table]

    @property
    def next(self) -> str:
        """What to type next."""
        if self.format == "torch-export":
            return f"python -c 'import torch; program = torch.export.load(\"{self.path}\").module()'"
        if self.format == "triton":
            return f"tritonserver --model-repository={self.path.parent}"
        if self.format == "web":
            return f"python -m http.server --directory {self.path.parent}   and open http://localhost:8000"
        return f"intarsia predict {self.path} IMAGES --out DIR"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {"path": str(self.path), "format": self.format, "bytes": self.bytes}
        return {**told, "milliseconds": self.milliseconds, "notes": list(self.notes), "card": self.card.to_dict()}


def _change(lost: float) -> str:
    return f"{lost:.2f} points lost" if lost >= 0 else f"{-lost:.2f} points gained"


def _input_in_words(card: Card) -> str:
    channels, (low, high) = card.preprocess.channels, card.preprocess.value_range
    if card.input == "normalised":
        return f"image (N, {channels}, H, W) float32, normalised as the card says"
    kind = f"stored values {low:g} to {high:g}" if isinstance(low, (int, float)) else "stored values"
    return f"image (N, H, W, {channels}) {'uint8' if (low, high) == (0, 255) else 'float32'}, {kind}"


def _output_in_words(card: Card) -> str:
    less = f" - {card.border.lost}" if card.border else ""
    size = f"H{less}, W{less}"
    if card.output == "classes":
        return f"classes (N, {size}) uint8, of {card.classes.count} classes"
    return f"logits (N, {card.classes.count}, {size}) float32"
