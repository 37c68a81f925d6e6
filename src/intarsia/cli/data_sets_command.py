"""`intarsia data list` and `intarsia data download`: the published data sets."""

from __future__ import annotations

import json

import click


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print the sheets as JSON.")
def list_data(pattern: str, as_json: bool) -> None:
    """List the published data sets that match PATTERN: images, classes, licence, and how one gets each."""
    import dataclasses
    import fnmatch

    from intarsia.data.published.download import published, published_names

    sheets = {name: published(name).sheet for name in published_names() if fnmatch.fnmatch(name, pattern)}
    if as_json:
        click.echo(json.dumps([{"name": name, **dataclasses.asdict(sheet)} for name, sheet in sheets.items()]))
        return
    if not sheets:
        raise click.UsageError(f"no data sets match {pattern!r}.")
    head = ("name", "images", "classes", "how", "licence")
    rows = [
        (name, sheet.images, sheet.classes, "download" if sheet.open else "by hand", sheet.licence)
        for name, sheet in sheets.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    click.echo("\n`intarsia data download NAME` fetches one, or says what to do by hand.")


@click.command("download")
@click.argument("name")
@click.option("--to", "folder", metavar="DIR", help="Folder; default: one of the data set's name here.")
def download(name: str, folder: str | None) -> None:
    """Fetch data set NAME, or say in steps how to get it; a folder that is there already is checked.

    What is openly downloadable is resumed where it stopped, held against its hash, unpacked and opened.
    """
    from pathlib import Path

    from intarsia.data.published.download import download as fetch
    from intarsia.data.published.download import published, steps
    from intarsia.progress import default_progress

    if folder is None and not published(name).sheet.open:
        click.echo(steps(name))
        return
    target = Path(folder or name)
    dataset = fetch(name, target, default_progress())
    counts = " · ".join(f"{len(items)} {split}" for split, items in dataset.splits.items() if items)
    click.echo(f"{target}: {published(name).sheet.title}, {counts}, {dataset.table.count} classes")
    for note in dataset.notes:
        click.echo(f"note     {note}")
    click.echo(f"use      data={name} data.path={target}")
