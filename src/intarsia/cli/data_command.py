"""`intarsia data`."""

from __future__ import annotations

import json

import click


@click.group("data")
def command() -> None:
    """Check a data folder, or look at it."""


@command.command("check")
@click.argument("path")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(path: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Read every image and mask of PATH once and say what is in them, and what is wrong (exit code 6)."""
    from intarsia.data.checks import FolderProblems
    from intarsia.data.describe import describe
    from intarsia.progress import default_progress
    from intarsia.recipes.recipe import Recipe, load_recipe

    recipe = load_recipe(Recipe().replace(data={"path": path}), list(settings))
    try:
        dataset = recipe.data.open(default_progress())
    except FolderProblems as problems:
        if as_json:
            found = [problem.to_dict() for problem in problems.problems]
            click.echo(json.dumps({"path": path, "usable": False, "problems": found}))
        raise
    facts = describe(dataset)
    click.echo(json.dumps({"path": path, "usable": True, **facts.to_dict()}) if as_json else facts.text())


@command.command("view")
@click.argument("target")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--split", default="train", show_default=True, help="Which images: train, val or test.")
@click.option("--count", type=click.IntRange(1), default=4, show_default=True, help="How many, evenly over the split.")
@click.option("--weights", is_flag=True, help="Also the weights of borders between objects (U-Net, equation 2).")
@click.option("--w0", type=float, help="Largest border weight; default: the loss's, else 10.")
@click.option("--sigma", type=float, help="How fast it falls, in pixels; default: the loss's, else 5.")
@click.option("--out", metavar="DIR", default="data-view", show_default=True, help="Folder of the pictures.")
def view(
    target: str,
    settings: tuple[str, ...],
    split: str,
    count: int,
    weights: bool,
    w0: float | None,
    sigma: float | None,
    out: str,
) -> None:
    """Write pictures of TARGET (a folder, a YAML file or a recipe): image, classes over it, border weights.

    Objects are those of instances/ beside masks/, else the connected parts of each class but the first. Prints one path a
    line, with the size and the range of the weights.
    """
    from pathlib import Path

    from intarsia.data.view import write_views
    from intarsia.errors import UsageError
    from intarsia.losses.base import Border
    from intarsia.progress import default_progress
    from intarsia.recipes.recipe import load_recipe

    if not weights and (w0 is not None or sigma is not None):
        raise UsageError("--w0 and --sigma say what the border weights are: give --weights as well.")
    recipe = load_recipe(target, list(settings))
    ours = recipe.loss.border or Border(10.0, 5.0)
    border = Border(ours.w0 if w0 is None else w0, ours.sigma if sigma is None else sigma) if weights else None
    dataset = recipe.data.open(default_progress())
    for written in write_views(dataset, Path(out), split=split, count=count, border=border):
        click.echo(f"{written.path}   {written.caption}")
