"""`intarsia data`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from intarsia.cli.data_convert_command import convert
from intarsia.cli.data_sets_command import download, list_data

if TYPE_CHECKING:
    from intarsia.data.base import Dataset
    from intarsia.data.fix import FixReport
    from intarsia.data.inspection import Finding
    from intarsia.evaluation.label_errors import Doubt
    from intarsia.progress import Progress
    from intarsia.recipes.recipe import Recipe


@click.group("data")
def command() -> None:
    """Check, mend, list and download data, or look at them."""


command.add_command(list_data)
command.add_command(download)
command.add_command(convert)


@command.command("check")
@click.argument("path")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--fix", metavar="DIR", help="Write a copy in which all is mended that needs no guess; PATH stays as it is."
)
@click.option("--nearest-colour", is_flag=True, help="With --fix: take unknown colours of masks for the nearest known.")
@click.option(
    "--resize-masks", is_flag=True, help="With --fix: bring masks to their image's size, by nearest neighbour."
)
@click.option("--model", metavar="RUN", help="Also list the masks that the model of a run doubts most.")
@click.option("--picture", metavar="FILE", help="Also draw what was found, as a contact sheet.")
@click.option("--strict", is_flag=True, help="Exit code 6 also for what one should look at, such as leaks.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(
    path: str,
    settings: tuple[str, ...],
    fix: str | None,
    nearest_colour: bool,
    resize_masks: bool,
    model: str | None,
    picture: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Read every image and mask of PATH once and say what is in them, and what is wrong (exit code 6)."""
    from intarsia.data.checks import FolderProblems
    from intarsia.errors import DataError, PartialFailure, UsageError
    from intarsia.progress import default_progress

    if (nearest_colour or resize_masks) and not fix:
        given = "--nearest-colour" if nearest_colour else "--resize-masks"
        raise UsageError(f"{given} says how masks are mended: give --fix DIR as well.")
    recipe, progress = _recipe_of(path, settings), default_progress()
    facts: dict[str, Any] = {"path": path}
    report = (
        _fixed(recipe, fix, progress, nearest_colour=nearest_colour, resize_masks=resize_masks, quiet=as_json)
        if fix
        else None
    )
    if report:
        facts["fix"] = report.to_dict()
        recipe = _recipe_of(
            str(fix), [each for each in settings if not each.startswith(("data.classes", "data.splits"))]
        )
    try:
        dataset = recipe.data.open(progress)
    except FolderProblems as problems:
        if as_json:
            found = [problem.to_dict() for problem in problems.problems]
            click.echo(json.dumps({**facts, "usable": False, "problems": found}))
        _draw_problems(picture, problems)
        raise
    findings, doubts = _look(dataset, recipe, facts, model, progress, as_json=as_json)
    if picture:
        _draw(picture, dataset, findings, doubts, as_json=as_json)
    if report and report.not_mended:
        raise PartialFailure(f"{len(report.not_mended)} things are not mended; {fix}/fix.json says which, and why.")
    if strict and findings:
        raise DataError(f"{path}: --strict refuses {len(findings)} of the things to look at.")


def _recipe_of(path: str, settings: Any) -> Recipe:
    from pathlib import Path

    from intarsia.recipes.recipe import Recipe, load_recipe

    start = path if Path(path).expanduser().exists() else Recipe().replace(data={"path": path})
    return load_recipe(start, list(settings))


def _fixed(
    recipe: Recipe, fix: str, progress: Progress, *, nearest_colour: bool, resize_masks: bool, quiet: bool
) -> FixReport:
    """Write the mended copy; the faults of the source and what was done to them are printed."""
    from pathlib import Path

    from intarsia.data.checks import FolderProblems
    from intarsia.data.fix import fix_folder
    from intarsia.data.folder import FolderConfig
    from intarsia.errors import UsageError

    data = recipe.data
    if not isinstance(data, FolderConfig):
        raise UsageError(f"--fix: mends folders of images and masks; {data.name} is a data set of its own form.")
    try:
        data.open(progress)
    except FolderProblems as problems:
        if not quiet:
            click.echo(f"{problems}\n")
    classes, splits = (Path(file).expanduser() if file else None for file in (data.classes, data.splits))
    source = Path(data.path).expanduser()
    report = fix_folder(
        source,
        Path(fix).expanduser(),
        progress,
        classes=classes,
        splits=splits,
        nearest_colour=nearest_colour,
        resize_masks=resize_masks,
        skip_unlabelled=data.unlabelled == "skip",
    )
    if not quiet:
        click.echo(f"{report.text()}\n")
    return report


def _look(
    dataset: Dataset, recipe: Recipe, facts: dict[str, Any], model: str | None, progress: Progress, *, as_json: bool
) -> tuple[list[Finding], list[Doubt]]:
    """Everything on a data set that can be used, printed."""
    from intarsia.data.describe import describe
    from intarsia.data.inspection import inspect_dataset
    from intarsia.evaluation.batch_size import largest_batch
    from intarsia.evaluation.label_errors import find_label_errors

    findings, batch = inspect_dataset(dataset, progress), largest_batch(recipe, dataset)
    description = describe(dataset, findings, batch.text() if batch else "")
    if not as_json:
        click.echo(description.text())
    doubts = find_label_errors(model, dataset, progress) if model else []
    if as_json:
        more = {"largest_batch": batch.to_dict() if batch else None}
        if model:
            more["label_errors"] = [doubt.to_dict() for doubt in doubts]  # type: ignore[assignment]
        click.echo(json.dumps({**facts, "usable": True, **description.to_dict(), **more}))
    elif model:
        click.echo(f"\nmasks that the model of {model} doubts most (sure of another class, share of pixels):\n")
        click.echo("\n".join(doubt.line() for doubt in doubts) or "  none")
    return findings, doubts


def _draw(picture: str, dataset: Dataset, findings: list[Finding], doubts: list[Doubt], *, as_json: bool) -> None:
    """The sheet of findings; that of doubts beside it, FILE-doubts.png."""
    from pathlib import Path

    from intarsia.data.sheet import sheet_of_findings, write_picture
    from intarsia.evaluation.label_errors import sheet_of_doubts

    path = Path(picture)
    click.echo(err=as_json)
    sheets = {path: sheet_of_findings(dataset, findings)}
    if doubts:
        sheets[path.with_stem(f"{path.stem}-doubts")] = sheet_of_doubts(dataset, doubts)
    for place, sheet in sheets.items():
        write_picture(place, sheet, "--picture")
        click.echo(f"picture  {place}", err=as_json)


def _draw_problems(picture: str | None, problems: Any) -> None:
    from pathlib import Path

    from intarsia.data.sheet import sheet_of_problems, write_picture

    if picture:
        write_picture(Path(picture), sheet_of_problems(problems), "--picture")
        click.echo(f"picture  {picture}", err=True)


@command.command("stats")
@click.argument("path")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def stats(path: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Numbers of the data in PATH: sizes, channels, shares of classes, and the class weights that they imply."""
    from intarsia.data.stats import Stats
    from intarsia.progress import default_progress

    numbers = Stats(_recipe_of(path, settings).data.open(default_progress()))
    click.echo(json.dumps({"path": path, **numbers.to_dict()}) if as_json else numbers.text())


@command.command("view")
@click.argument("target")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--split", default="train", show_default=True, help="Which images: train, val or test.")
@click.option("--count", type=click.IntRange(1), help="How many, evenly over the split; default: 4, of a sheet 24.")
@click.option("--sheet", is_flag=True, help="One picture of small ones with the classes over them, and a legend.")
@click.option(
    "--augment", is_flag=True, help="A sheet of what training makes of the images: transforms=PRESET chooses."
)
@click.option("--weights", is_flag=True, help="Also the weights of borders between objects (U-Net, equation 2).")
@click.option("--w0", type=float, help="Largest border weight; default: the loss's, else 10.")
@click.option("--sigma", type=float, help="How fast it falls, in pixels; default: the loss's, else 5.")
@click.option("--out", metavar="DIR", default="data-view", show_default=True, help="Folder of the pictures.")
def view(
    target: str,
    settings: tuple[str, ...],
    split: str,
    count: int | None,
    sheet: bool,
    augment: bool,
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

    from intarsia.data.augmented import sheet_of_samples
    from intarsia.data.sheet import sheet_of_split, write_picture
    from intarsia.data.view import write_views
    from intarsia.errors import UsageError
    from intarsia.losses.base import Border
    from intarsia.progress import default_progress
    from intarsia.recipes.recipe import load_recipe

    if not weights and (w0 is not None or sigma is not None):
        raise UsageError("--w0 and --sigma say what the border weights are: give --weights as well.")
    if sheet + augment + weights > 1:
        raise UsageError("--sheet, --augment and --weights are pictures of their own: give one of them.")
    recipe = load_recipe(target, list(settings))
    ours = recipe.loss.border or Border(10.0, 5.0)
    border = Border(ours.w0 if w0 is None else w0, ours.sigma if sigma is None else sigma) if weights else None
    dataset = recipe.data.open(default_progress())
    if sheet:
        path = Path(out) / f"{split}-sheet.png"
        write_picture(path, sheet_of_split(dataset, split, count or 24), "--out")
        click.echo(path)
        return
    if augment:
        path, data = Path(out) / f"{split}-augmented.png", recipe.data
        samples = sheet_of_samples(
            dataset, recipe.transforms, split, count or 4, size=data.size, scale=data.scale, seed=recipe.train.seed
        )
        write_picture(path, samples, "--out")
        click.echo(path)
        return
    for written in write_views(dataset, Path(out), split=split, count=count or 4, border=border):
        click.echo(f"{written.path}   {written.caption}")
