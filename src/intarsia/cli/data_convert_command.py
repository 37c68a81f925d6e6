"""`intarsia data convert`: a data set as shards."""

from __future__ import annotations

import click


@click.command("convert")
@click.argument("source")
@click.argument("target")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--to", "kind", type=click.Choice(["webdataset", "litdata"]), required=True, help="Kind of shards.")
@click.option(
    "--megabytes", type=click.FloatRange(0, min_open=True), default=256.0, show_default=True, help="Of a shard."
)
def convert(source: str, target: str, settings: tuple[str, ...], kind: str, megabytes: float) -> None:
    """Write SOURCE (a folder, a YAML file or a recipe) as shards into the new folder TARGET, split as it is.

    Files go in as they are; intarsia.json beside the shards holds classes, splits, and size, count and hash of each shard.
    """
    from pathlib import Path

    from intarsia.data.assemble import SourceConfig
    from intarsia.data.stream.config import StreamConfig
    from intarsia.data.stream.convert import convert as write
    from intarsia.errors import UsageError
    from intarsia.progress import default_progress
    from intarsia.recipes.recipe import load_recipe

    data = load_recipe(source, list(settings)).data
    if not isinstance(data, SourceConfig) or isinstance(data, StreamConfig):
        raise UsageError(f"{source}: {data.name} does not lie in files; only data that does can be converted.")
    done = write(data, Path(target).expanduser(), kind, default_progress(), most=int(megabytes * 2**20))  # type: ignore[arg-type]
    click.echo(done.text())
    click.echo(f"use      data=stream data.path={target}")
