"""`intarsia demo`."""

from __future__ import annotations

import click


@click.command("demo")
@click.option(
    "--images",
    type=click.Choice(["brain", "cells"]),
    default="brain",
    show_default=True,
    help="brain: slices of a real template (extra demo); cells: drawn, needs no package.",
)
@click.option("--out", default="intarsia-demo", show_default=True, metavar="DIR", help="Where everything is written.")
def command(images: str, out: str) -> None:
    """Train on images that come along, score, predict and report: the whole path in two minutes on a laptop."""
    from intarsia.evaluation.demo import run_demo

    result = run_demo(images, out)
    click.echo("\n" + result.evaluation.table_text())
    click.echo(f"\nreport   {result.report}")
    click.echo(f"masks    {result.predictions}/   (class maps and overlays)")
    click.echo("\nnext     intarsia data check FOLDER          what is in your own images and masks")
    click.echo("         intarsia train FOLDER               a model of your own; add train.minutes=10 to bound it")
    click.echo(f"         intarsia predict {result.run} IMAGE --out DIR")
