"""`intarsia list`."""

from __future__ import annotations

import fnmatch
import json
import re
import sys
import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from intarsia.config import NamedConfig
    from intarsia.importers.base import Format

KINDS = ("models", "losses", "transforms", "recipes", "data", "formats", "crfs", "encoders", "weights")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(kind: str, pattern: str, as_json: bool) -> None:
    """List names of KIND that match PATTERN, such as 'unet*', each with a line on what it is."""
    if kind == "weights":
        list_weights(pattern, as_json)
        return
    if kind == "models":
        list_models(pattern, as_json)
        return
    rows = [(name, text) for name, text in entries(kind) if fnmatch.fnmatch(name, pattern)]
    if as_json:
        click.echo(json.dumps([{"name": name, "about": text} for name, text in rows]))
        return
    if not rows:
        raise click.UsageError(f"no {kind} match {pattern!r}.")
    for line in shown(rows):
        click.echo(line)


def shown(rows: list[tuple[str, str]]) -> list[str]:
    """A line each; names that share a text stand together below it."""
    together: dict[str, list[str]] = {}
    for name, text in rows:
        together.setdefault(text, []).append(name)
    if len(together) == len(rows) or set(together) == {""}:
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {text}".rstrip() for name, text in rows]
    lines = []
    for text, names in together.items():
        lines += [text, *textwrap.wrap("  ".join(names), 110, initial_indent="    ", subsequent_indent="    "), ""]
    return lines[:-1]


def entries(kind: str) -> list[tuple[str, str]]:
    """Name and one line on each entry of a kind."""
    if kind == "encoders":
        from intarsia.models.encoders.timm import encoder_names

        return [(name, "") for name in encoder_names()]
    if kind == "crfs":
        from intarsia.ops.crf.config import CRFS, CrfConfig

        return [(name, _changes(CRFS[name], CrfConfig()) or "the defaults") for name in CRFS.names()]
    if kind == "formats":
        from intarsia.importers.base import FORMATS

        return [(name, _ways(each)) for name, each in sorted(FORMATS.items())]
    from intarsia.data import DATASETS
    from intarsia.losses import LOSSES
    from intarsia.recipes import RECIPES
    from intarsia.transforms.pipeline import AUGMENTS

    if kind == "recipes":
        found = []
        for name in RECIPES.names():
            recipe = RECIPES[name]
            found.append((name, f"{recipe.model.name} on {recipe.data.name}, loss {recipe.loss.name}"))
        return found
    if kind == "transforms":
        return [(name, _changes(AUGMENTS[name], AUGMENTS["none"])) for name in AUGMENTS.names()]
    if kind == "losses":
        return [(name, first_line(type(LOSSES[name]).__doc__)) for name in LOSSES.names()]
    return [(name, first_line(type(DATASETS[name]).__doc__)) for name in DATASETS.names()]


def _ways(format_: Format) -> str:
    """ "read, written (lossless): labelme JSON" """
    ways = [*(["read"] if format_.read else []), *([f"written ({format_.loss})"] if format_.write else [])]
    return f"{', '.join(ways)}: {format_.title}"


def _changes(value: NamedConfig, start: NamedConfig) -> str:
    """What a preset has that another has not: "mirror=both, zoom=(0.7, 1.4)"."""
    known = start.to_dict()
    found = [f"{key}={new}" for key, new in value.to_dict().items() if key != "name" and new != known[key]]
    return ", ".join(found).replace("[", "(").replace("]", ")")


def list_models(pattern: str, as_json: bool) -> None:
    """Print a row a preset: paper, year, parameters, MACs, output stride, receptive field."""
    from dataclasses import asdict

    from intarsia.anatomy.listing import all_facts
    from intarsia.anatomy.table import aligned, count, number
    from intarsia.models.base import MODELS

    names = [name for name in MODELS.names() if fnmatch.fnmatch(name, pattern)]
    if not names and not as_json:
        raise click.UsageError(f"no models match {pattern!r}.")
    facts = all_facts(names)
    if as_json:
        click.echo(json.dumps([{"about": about_model(each.name), **asdict(each)} for each in facts]))
        return
    rows = [
        (
            each.name,
            each.paper,
            str(each.year or "-"),
            count(each.parameters),
            "?" if each.macs is None else count(each.macs),
            "?" if each.output_stride is None else number(each.output_stride),
            each.field,
        )
        for each in facts
    ]
    heads = ("model", "paper", "year", "parameters", "MACs", "stride", "sees")
    click.echo("\n".join(aligned([heads, *rows], left=2)))
    click.echo(
        "\n2 classes, 3 channels, 360 x 480 pixels; stride: of the coarsest map; sees: receptive field of a logit, in pixels."
    )
    click.echo("\n".join(f"{each.name}: {each.why}" for each in facts if each.why) or "next   intarsia anatomy MODEL")


def about_model(name: str) -> str:
    """The first sentence of the preset's file."""
    from intarsia.models.base import MODELS

    return first_sentence(sys.modules[type(MODELS[name]).__module__].__doc__)


def list_weights(pattern: str, as_json: bool) -> None:
    """Print the published weights, whether each lies in the folder already, and the folder."""
    from intarsia.models.weights import PUBLISHED, weights_folder

    rows = [(name, known) for name, known in PUBLISHED.items() if fnmatch.fnmatch(name, pattern)]
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "name": name,
                        "about": known.holds,
                        "licence": known.licence,
                        "url": known.url,
                        "sha256": known.sha256,
                        "path": str(known.path),
                        "present": known.path.is_file(),
                    }
                    for name, known in rows
                ]
            )
        )
        return
    if not rows:
        raise click.UsageError(f"no weights match {pattern!r}.")
    widths = [max(len(text) for text in column) for column in zip(*((n, k.file_name) for n, k in rows), strict=True)]
    for name, known in rows:
        here = "here" if known.path.is_file() else "not here"
        click.echo(f"{name:<{widths[0]}}  {known.file_name:<{widths[1]}}  {here:<8}  {known.holds}. {known.licence}")
    click.echo(f"folder: {weights_folder()}")


def first_sentence(text: str | None) -> str:
    """The first paragraph of a docstring as one line, to its first full stop."""
    paragraph = " ".join((text or "").strip().partition("\n\n")[0].split())
    return re.split(r"\.(?= |$)", paragraph)[0]


def first_line(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().splitlines()[0] if text else ""
