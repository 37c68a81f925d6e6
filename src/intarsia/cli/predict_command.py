"""`intarsia predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click


@click.command("predict")
@click.argument("run")
@click.argument("images", nargs=-1, required=True, metavar="IMAGES... [KEY=VALUE]...")
@click.option("--out", required=True, metavar="DIR", help="Folder of the results; made if need be.")
@click.option("--probabilities", is_flag=True, help="Also NAME_probabilities.npz: (K, H, W) float16.")
@click.option("--binary", is_flag=True, help="Also one black and white mask a class: NAME_CLASS.png.")
@click.option("--stored-frame", is_flag=True, help="Results of images that EXIF turns, as stored, not upright.")
@click.option("--overlay/--no-overlay", default=True, show_default=True, help="NAME_overlay.png with a legend.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: on every node of the cluster that RAY_ADDRESS names, or on all cores here.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of text.")
def command(
    run: str,
    images: tuple[str, ...],
    out: str,
    probabilities: bool,
    binary: bool,
    stored_frame: bool,
    overlay: bool,
    device: str,
    engine: Literal["local", "ray"],
    as_json: bool,
) -> None:
    """Segment IMAGES with the model of RUN: files, folders, patterns, @LIST, or - for names from standard input.

    RUN is a run folder, a model folder, or an exported file (.onnx, .xml), which runs without torch. For each image,
    DIR/NAME.png holds its class map, of the image's own size: a palette PNG whose values are class numbers; of a
    GeoTIFF, NAME.tif with its coordinates. DIR/manifest.jsonl tells what was done; the same command again does only
    what is missing. Images that cannot be read are listed at the end (exit code 3); all others are done.

    \b
    intarsia predict runs/street-1 photos/ --out seen
    intarsia predict runs/street-1 photos/ --out seen crf=deeplab mirrors=horizontal
    intarsia predict street.onnx photos/ --out seen backend=auto
    intarsia predict runs/land-1 scene.tif --out land outputs=[classes,polygons,areas] polygons=gpkg

    Settings: `intarsia show predict` prints all of them with their help.
    """
    from intarsia.prediction.predict import Written, predict
    from intarsia.progress import default_progress

    given, settings = _divided(images)
    flags = {"overlay": overlay, "probabilities": probabilities, "binary": binary}
    if "outputs" not in settings:
        settings["outputs"] = ("classes", *(name for name, wanted in flags.items() if wanted))
    if stored_frame:
        settings["stored_frame"] = True

    def tell(written: Written) -> None:
        if as_json:
            facts = {
                "image": str(written.image),
                "classes": str(written.classes),
                "size": written.size,
                "outputs": [str(path) for path in written.outputs],
                "skipped": written.skipped,
            }
            click.echo(json.dumps({**facts, "shares": written.shares}))
        else:
            click.echo(written.line())

    predict(
        run,
        given,
        out=out,
        device=device,
        engine=engine,
        done=tell,
        progress=default_progress(),
        **settings,
    )


def _divided(words: tuple[str, ...]) -> tuple[list[str], dict[str, Any]]:
    """Images, and settings: what is written KEY=VALUE and is no file."""
    from intarsia.config import parse_settings

    def is_setting(word: str) -> bool:
        key, sign, _ = word.partition("=")
        return bool(sign) and all(part.isidentifier() for part in key.split(".")) and not Path(word).exists()

    settings = [word for word in words if is_setting(word)]
    return [word for word in words if word not in settings], parse_settings(settings)
