"""What commands print when a run is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from intarsia.evaluation.experiment import Run


def print_run(run: Run) -> None:
    """The per-class table of the newest scores, and where things lie."""
    from intarsia.evaluation.scores import table_text_of

    if text := table_text_of(run.path):
        click.echo("\n" + text)
    click.echo(f"\nrun      {run.path}")
    if run.report:
        click.echo(f"report   {run.report}")
    click.echo(f"next     intarsia predict {run.path} IMAGES --out DIR")
