"""A row a preset: what `intarsia list models` prints."""

from __future__ import annotations

import gc
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from intarsia.anatomy.cost import trace_costs
from intarsia.anatomy.describe import SIZE, preset_on_meta
from intarsia.anatomy.receptive_field import trace_fields
from intarsia.config import digest_of
from intarsia.errors import reason_of
from intarsia.models.base import MODELS, ModelConfig

WRITTEN = Path(__file__).with_name("facts.json")
"""Rows of intarsia's own presets, written by scripts/docs: to trace all of them takes six seconds."""
_SECOND = (("deeplab2", "DeepLab v2", "1606.00915"), ("deeplab3plus", "DeepLabv3+", "1802.02611"))
"""Presets whose file holds a second paper: how their names begin, its title, its arXiv number."""


@dataclass(frozen=True)
class Facts:
    """One preset with 2 classes and 3 channels, where it names none."""

    name: str
    paper: str
    """ "FCN, arXiv:1411.4038" """
    year: int | None
    """Of the preprint; None: there is none."""
    parameters: int
    macs: int | None
    """At an image of 360 x 480."""
    output_stride: float | None
    """Image pixels between places of the coarsest map."""
    field: str
    """Receptive field of a logit along rows, in pixels: "404", "188–204", "image" where it sees all of it, "?"."""
    why: str = ""
    """Why a number is missing."""


def all_facts(names: list[str]) -> list[Facts]:
    """A row for each preset: the written one of a preset that is as it was then, else traced (of a plug-in, say)."""
    known = written_facts()
    known |= {row.name: row for row in traced_facts([name for name in names if name not in known])}
    return [known[name] for name in names]


def written_facts() -> dict[str, Facts]:
    """Name to row, of presets whose settings are those that the row was traced with."""
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    now = {name: digest_of(MODELS[name].to_dict()) for name in written if name in MODELS}
    return {name: Facts(**row["facts"]) for name, row in written.items() if row["settings"] == now.get(name)}


def facts_text() -> str:
    """What is written: a row for each preset of intarsia's own, traced."""
    names = [name for name in MODELS.names() if type(MODELS[name]).__module__.partition(".")[0] == "intarsia"]
    rows = {
        row.name: {"settings": digest_of(MODELS[row.name].to_dict()), "facts": asdict(row)}
        for row in traced_facts(names)
    }
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def traced_facts(names: list[str]) -> list[Facts]:
    """A row for each preset, also for one that cannot be built or run here: it says why."""
    collects = gc.isenabled()
    gc.disable()  # the many small objects of tracing are no garbage; looking through them takes a third of the time
    try:
        return [_facts_or_why(name) for name in names]
    finally:
        if collects:
            gc.enable()


def _facts_or_why(name: str) -> Facts:
    try:
        return facts_of(name)
    except Exception as error:
        paper, year = paper_of(MODELS[name])
        reason = reason_of(error)
        return Facts(name, paper, year, 0, None, None, "?", reason)


def facts_of(name: str) -> Facts:
    """Build a preset without numbers, run it twice, and say what it is.

    >>> found = facts_of("unet")
    >>> found.paper, found.year, found.output_stride, found.field
    ('U-Net, arXiv:1505.04597', 2015, 16.0, '188–204')
    """
    paper, year = paper_of(MODELS[name])
    model = preset_on_meta(name)
    size = model.input_size(*SIZE)
    costs = trace_costs(model, size, memory=False)
    fields = list(trace_fields(model, size).values())
    last = fields[-1]
    strides = [field.rows.stride for field in fields if field.rows]
    seen = "image" if last.wide else last.rows.size if last.rows else "?"
    macs = sum(layer.macs for layer in costs.layers.values())
    return Facts(name, paper, year, model.count_parameters(), macs, max(strides, default=None), seen, last.unknown)


def paper_of(config: ModelConfig) -> tuple[str, int | None]:
    """Title and arXiv number of the paper, and the year of its preprint, as the head of its file names them."""
    for start, title, number in _SECOND:
        if config.name.startswith(start):
            return f"{title}, arXiv:{number}", 2000 + int(number[:2])
    text = sys.modules[type(config).__module__].__doc__ or ""
    decoder = getattr(config, "decoder", None)
    if decoder is not None:
        from intarsia.models import decoders

        text = sys.modules[f"{decoders.__name__}.{decoder}"].__doc__ or ""
    head = " ".join(text.strip().partition("\n\n")[0].split())
    title = re.split(r": |\. ", head)[0].removesuffix(" v1 and v2")
    found = re.search(r"arXiv:(\d\d)(\d\d\.\d{4,5})", head)
    if found is None:
        return title, None
    return f"{title}, arXiv:{found[1]}{found[2]}", 2000 + int(found[1])
