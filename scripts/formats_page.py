"""The page of annotation formats: what each reads and writes, and every way from one to another, tried out while it is made."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from intarsia.data.base import Dataset
from intarsia.data.folder import FolderConfig
from intarsia.errors import IntarsiaError
from intarsia.importers.base import FORMATS
from intarsia.progress import Silent
from intarsia.recipes.recipe import load_recipe

NAMES = ("background", "cell", "wall")
MATRIX = """\
Class maps with holes, single pixels, regions that touch at corners and ignored pixels were written in the row's format, read
(`data.uncovered=ignore`), written in the column's, and read again. *equal*: every pixel of every class map
is what it was at first.
"""
Maps = dict[str, np.ndarray]


def drawn() -> Maps:
    """Class maps with holes, single pixels, regions that touch at corners, and an ignored block."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, (17, 23)).astype(np.uint8)
    rings = np.zeros((24, 20), np.uint8)
    rings[3:20, 2:18], rings[6:16, 5:14], rings[9:12, 8:11] = 1, 0, 2
    rings[:4, :5] = 255
    whole = np.kron(rng.integers(0, 3, (4, 5)), np.ones((5, 4))).astype(np.uint8)
    return {"noise": noise, "rings": rings, "whole": whole}


def formats_page() -> str:
    """Markdown: formats, then the matrix."""
    lines = [
        "# Annotation formats\n",
        "`intarsia data convert SRC DST --to FORMAT`; the guide is [annotations](../guides/annotations.md).\n",
        "| format | | read | written |",
        "|---|---|---|---|",
    ]
    for name, each in sorted(FORMATS.items()):
        lines.append(f"| `{name}` | {each.title} | {'yes' if each.read else ''} | {each.loss if each.write else ''} |")
    writers = sorted(name for name, each in FORMATS.items() if each.write)
    lines += [
        "\n## From each to each\n",
        MATRIX,
        "| from \\ to | " + " | ".join(f"`{name}`" for name in writers) + " |",
        "|---" * (len(writers) + 1) + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("INTARSIA_CACHE")
        os.environ["INTARSIA_CACHE"] = f"{folder}/cache"
        try:
            table = _table(Path(folder), writers)
        finally:
            os.environ.pop("INTARSIA_CACHE")
            if before is not None:
                os.environ["INTARSIA_CACHE"] = before
    lines += [f"| `{source}` | " + " | ".join(table[source, target] for target in writers) + " |" for source in writers]
    return "\n".join(lines) + "\n"


def _table(folder: Path, writers: list[str]) -> dict[tuple[str, str], str]:
    maps, first = drawn(), folder / "first"
    for name, classes in maps.items():
        for kind, pixels in (("images", np.zeros((*classes.shape, 3), np.uint8)), ("masks", classes)):
            (first / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(first / kind / f"{name}.png")
    (first / "classes.yaml").write_text(f"names: [{', '.join(NAMES)}]\n")
    start = FolderConfig(path=str(first)).open(Silent())
    table = {}
    for source in writers:
        once = _through(start, source, folder / f"once-{source}")
        for target in writers:
            twice = once if isinstance(once, str) else _through(once, target, folder / f"{source}-{target}")
            table[source, target] = twice if isinstance(twice, str) else _compared(twice, maps)
    return table


def _through(data: Dataset, kind: str, target: Path) -> Dataset | str:
    """The data set written in a format and read again, by its content; or why not."""
    writer = FORMATS[kind].write
    assert writer
    try:
        writer(data, target, Silent())
        recipe = load_recipe(str(target))
        usable = recipe.replace(data={"uncovered": "ignore"}) if recipe.data.name == "annotations" else recipe
        return usable.data.open(Silent())
    except IntarsiaError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][-60:]}"


def _compared(data: Dataset, maps: Maps) -> str:
    """How what came back differs from what was drawn; classes are compared by name."""
    wrong = ignored = 0
    found = {item.name.rsplit("/", 1)[-1]: item for items in data.splits.values() for item in items}
    for name, classes in maps.items():
        if name not in found:
            return "images are missing"
        names = np.array([*data.table.names, "ignored"], object)
        back = data.read_mask(found[name])
        ours = np.array([*NAMES, "ignored"], object)[np.minimum(classes, len(NAMES))]
        theirs = names[np.minimum(back, data.table.count)]
        wrong += int(((ours != theirs) & (classes != 255)).sum())
        ignored += int(((ours != theirs) & (classes == 255)).sum())
    if wrong:
        return f"{wrong} pixels differ"
    return "but ignored" if ignored else "equal"


if __name__ == "__main__":
    print(formats_page())
