"""`intarsia compare`."""

from __future__ import annotations

import json

import click


@click.command("compare")
@click.argument("runs", nargs=-1, metavar="RUN RUN ...")
@click.option(
    "--paired", is_flag=True, help="Also the difference to the first run on the same images, with its interval."
)
@click.option("--split", metavar="SPLIT", help="train, val or test; default: test, or val where there is none.")
@click.option("--json", "as_json", is_flag=True, help="Print every number as JSON.")
def command(runs: tuple[str, ...], paired: bool, split: str | None, as_json: bool) -> None:
    """Scores of RUNs side by side, with intervals over images; a run that was not scored on the split is scored first.

    \b
    intarsia compare runs/cells-1 runs/cells-2
    intarsia compare runs/cells-1 runs/cells-2 --paired     which is better, and how sure that is
    """
    from intarsia.evaluation.compare import compare

    comparison = compare(runs, split=split, paired=paired)
    click.echo(json.dumps(comparison.to_dict()) if as_json else comparison.table_text())
