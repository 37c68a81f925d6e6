"""`intarsia list`."""

from __future__ import annotations

import fnmatch
import json
import sys

import click

KINDS = ("models", "losses", "recipes", "data", "encoders")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(kind: str, pattern: str, as_json: bool) -> None:
    """List names of KIND that match PATTERN, such as 'unet*', each with a line on what it is."""
    rows = [(name, text) for name, text in entries(kind) if fnmatch.fnmatch(name, pattern)]
    if as_json:
        click.echo(json.dumps([{"name": name, "about": text} for name, text in rows]))
        return
    if not rows:
        raise click.UsageError(f"no {kind} match {pattern!r}.")
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"{name:<{width}}  {text}".rstrip())


def entries(kind: str) -> list[tuple[str, str]]:
    """Name and one line on each entry of a kind."""
    if kind == "encoders":
        from intarsia.models.encoders.timm import encoder_names

        return [(name, "") for name in encoder_names()]
    from intarsia.data import DATASETS
    from intarsia.losses import LOSSES
    from intarsia.models import MODELS
    from intarsia.recipes import RECIPES

    if kind == "recipes":
        found = []
        for name in RECIPES.names():
            recipe = RECIPES[name]
            found.append((name, f"{recipe.model.name} on {recipe.data.name}, loss {recipe.loss.name}"))
        return found
    if kind == "models":
        return [(name, first_line(sys.modules[type(MODELS[name]).__module__].__doc__)) for name in MODELS.names()]
    if kind == "losses":
        return [(name, first_line(type(LOSSES[name]).__doc__)) for name in LOSSES.names()]
    return [(name, first_line(type(DATASETS[name]).__doc__)) for name in DATASETS.names()]


def first_line(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().splitlines()[0] if text else ""
