"""`intarsia train`."""

from __future__ import annotations

import json

import click


@click.command("train")
@click.argument("target")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", metavar="DIR", help="The run folder; default: runs/NAME-N, never an existing one.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, from its newest good checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print run folder, report and scores as JSON.")
def command(target: str, settings: tuple[str, ...], out: str | None, resume: bool, as_json: bool) -> None:
    """Train on TARGET: a folder of images and masks, a YAML file, or a recipe's name.

    \b
    intarsia train cells/                            images/ + masks/, split and classes found by themselves
    intarsia train cells/ model=unet_same model.width=32 train.minutes=10
    intarsia train street data.path=camvid/ train.epochs=30
    intarsia train cells/ --out runs/cells-3 --resume

    Settings: `intarsia show default` prints all of them with their help.
    """
    from intarsia.evaluation.experiment import train
    from intarsia.evaluation.scores import read_scores

    run = train(target, list(settings), out=out, resume=resume)
    if as_json:
        scores = {split: stored["scores"] for split, stored in read_scores(run.path).items()}
        click.echo(json.dumps({"run": str(run.path), "report": str(run.report or ""), "scores": scores}))
        return
    from intarsia.cli.results import print_run

    print_run(run)
