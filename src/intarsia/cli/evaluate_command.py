"""`intarsia evaluate`."""

from __future__ import annotations

import json

import click


@click.command("evaluate")
@click.argument("run")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--split", metavar="SPLIT", help="train, val or test; default: test, or val where there is none.")
@click.option("--data", metavar="FOLDER", help="Another data folder with the same classes.")
@click.option(
    "--metrics",
    metavar="NAMES",
    help="Beside overlap: boundary, objects, calibration, em, with commas between, or all that apply.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print every score as JSON.")
def command(
    run: str,
    settings: tuple[str, ...],
    split: str | None,
    data: str | None,
    metrics: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Score RUN on images it was not trained on, at the masks' own size, and write RUN/report/index.html.

    \b
    intarsia evaluate runs/cells-1
    intarsia evaluate runs/cells-1 --metrics boundary,objects
    intarsia evaluate runs/cells-1 crf=deeplab mirrors=horizontal     the report goes beside: RUN/report_crf-deeplab_...
    intarsia evaluate runs/cells-1 crf=search                         parameters of the CRF, found on the validation images

    Settings are those of prediction: `intarsia show predict` prints them.
    """
    from intarsia.config import parse_settings
    from intarsia.evaluation.evaluate import evaluate

    given = parse_settings(settings)

    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    if given.get("crf") == "search":
        from intarsia.evaluation.crf import search_on_validation

        found = search_on_validation(run, data=data, device=device, settings={**given, "crf": None})
        given["crf"] = found.config
        if not as_json:
            click.echo(found.text() + "\n")
    evaluation = evaluate(run, split, data=data, metrics=names, device=device, settings=given)
    if as_json:
        click.echo(json.dumps(evaluation.to_dict()))
        return
    click.echo(evaluation.table_text())
    click.echo(f"\nreport   {evaluation.report}")
