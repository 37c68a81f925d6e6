"""`intarsia show`."""

from __future__ import annotations

import click


@click.command("show")
@click.argument("recipe")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def command(recipe: str, settings: tuple[str, ...]) -> None:
    """Print RECIPE (a name, a YAML file or a data folder) with every setting and its help.

    `intarsia show default > mine.yaml`, change what you like, `intarsia train mine.yaml`. `intarsia show predict` prints the
    settings of prediction.
    """
    from intarsia.config import override, to_yaml

    if recipe == "predict":
        from intarsia.prediction.config import PredictConfig

        click.echo(to_yaml(override(PredictConfig(), list(settings))), nl=False)
        return
    from intarsia.recipes import load_recipe

    click.echo(to_yaml(load_recipe(recipe, list(settings))), nl=False)
