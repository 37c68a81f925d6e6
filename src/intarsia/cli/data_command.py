"""`intarsia data`."""

from __future__ import annotations

import json

import click


@click.group("data")
def command() -> None:
    """Check a data folder."""


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
