"""`intarsia predict`."""

from __future__ import annotations

import json

import click


@click.command("predict")
@click.argument("run")
@click.argument("images", nargs=-1, required=True)
@click.option("--out", required=True, metavar="DIR", help="Folder of the results; made if need be.")
@click.option("--probabilities", is_flag=True, help="Also NAME_probabilities.npz: (K, H, W) float16.")
@click.option("--binary", is_flag=True, help="Also one black and white mask a class: NAME_CLASS.png.")
@click.option("--stored-frame", is_flag=True, help="Results of images that EXIF turns, as stored, not upright.")
@click.option("--overlay/--no-overlay", default=True, show_default=True, help="NAME_overlay.png with a legend.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
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
    as_json: bool,
) -> None:
    """Segment IMAGES (files or folders) with the model of RUN.

    For each image, DIR/NAME.png holds its class map, of the image's own size: a palette PNG whose values are class
    numbers. Images that cannot be read are listed at the end (exit code 3); all others are done.
    """
    from intarsia.prediction.batch import Written, predict

    def tell(written: Written) -> None:
        if as_json:
            facts = {"image": str(written.image), "classes": str(written.classes), "size": written.size}
            click.echo(json.dumps({**facts, "shares": written.shares}))
        else:
            click.echo(written.line())

    predict(
        run,
        list(images),
        out=out,
        overlays=overlay,
        probabilities=probabilities,
        binary=binary,
        stored_frame=stored_frame,
        device=device,
        done=tell,
    )
