"""`intarsia data convert`: a data set as shards, or in the form of an annotation tool."""

from __future__ import annotations

import click

SHARDS = ("litdata", "webdataset")
KINDS = (
    "coco",
    "coco_panoptic",
    "cvat",
    "label_studio",
    "labelme",
    "litdata",
    "masks",
    "qupath",
    "voc",
    "webdataset",
    "yolo",
)
"""A test holds this against the formats that can be written."""


@click.command("convert")
@click.argument("source")
@click.argument("target")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--to", "kind", type=click.Choice(KINDS), required=True, help="Format; litdata and webdataset are shards."
)
@click.option(
    "--megabytes", type=click.FloatRange(0, min_open=True), default=256.0, show_default=True, help="Of a shard."
)
def convert(source: str, target: str, settings: tuple[str, ...], kind: str, megabytes: float) -> None:
    """Write SOURCE (a folder, an annotation export, a YAML file or a recipe) in another form into the new folder TARGET.

    An export's format is told by its content. What is said last: whether reading it back gives the same class maps; it is
    kept in conversion.json, with the notes on what was read.
    """
    from pathlib import Path

    from intarsia.data.assemble import SourceConfig
    from intarsia.data.stream.config import StreamConfig
    from intarsia.data.stream.convert import convert as write
    from intarsia.errors import UsageError
    from intarsia.importers.base import FORMATS
    from intarsia.progress import default_progress
    from intarsia.recipes.recipe import load_recipe
    from intarsia.runs import write_json

    data, folder, progress = load_recipe(source, list(settings)).data, Path(target).expanduser(), default_progress()
    if kind not in SHARDS:
        writer = FORMATS[kind].write
        assert writer
        dataset = data.open(progress)
        written = writer(dataset, folder, progress)
        state = "lossless" if written.lossless else "LOSSY"
        facts = {
            "from": source,
            "to": kind,
            "lossless": written.lossless,
            "reason": written.reason,
            "notes": dataset.notes,
        }
        write_json(folder / "conversion.json", facts)
        click.echo(f"{written.path}: {written.files} images as {FORMATS[kind].title}")
        for note in dataset.notes:
            click.echo(f"note     {note}")
        click.echo(f"{state:<8} {written.reason}")
        return
    if not isinstance(data, SourceConfig) or isinstance(data, StreamConfig):
        raise UsageError(f"{source}: {data.name} does not lie in files; only data that does can be converted.")
    done = write(data, folder, kind, progress, most=int(megabytes * 2**20))  # type: ignore[arg-type]
    click.echo(done.text())
    click.echo(f"use      data=stream data.path={target}")
