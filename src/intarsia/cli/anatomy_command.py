"""`intarsia anatomy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import nn

    from intarsia.images.preprocess import Preprocess


@click.command("anatomy")
@click.argument("model")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--input", "size", metavar="HxW", help="Size of the image; default: 360x480, or that of --image.")
@click.option("--all", "every_layer", is_flag=True, help="A row for every layer, not for the parts alone.")
@click.option(
    "--picture", metavar="FILE", help="Write the effective receptive field, a PNG; runs the model with its weights."
)
@click.option("--image", metavar="FILE", help="Image for --picture; without one, noise.")
@click.option("--json", "as_json", is_flag=True, help="Print every number as JSON.")
def command(
    model: str,
    settings: tuple[str, ...],
    size: str | None,
    every_layer: bool,
    picture: str | None,
    image: str | None,
    as_json: bool,
) -> None:
    """Say what MODEL sees, costs and holds in memory: a preset, or a run folder.

    \b
    intarsia anatomy unet
    intarsia anatomy encdec encoder=resnet18 --input 512x512 --all
    intarsia anatomy runs/street-1 --picture seen.png --image photo.jpg

    Settings are those of the model. Without --picture nothing is computed but sizes: no memory, no GPU, a second or two.
    """
    from intarsia.anatomy.describe import SIZE, anatomy
    from intarsia.config import parse_settings
    from intarsia.errors import ConfigError

    if image and not picture:
        raise ConfigError("--image: is used for --picture alone. Give --picture FILE as well.")
    given = parse_settings(settings)
    trained, preprocess = _of_run(model, given)
    wanted = _size(size) if size else _size_of(image) if image else SIZE
    found = anatomy(trained, wanted) if trained is not None else anatomy(model, wanted, **given)
    if picture:
        _draw(model, trained, given, preprocess, found, wanted, Path(picture), image)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    click.echo(found.text(every_layer=every_layer))
    if picture:
        click.echo(f"\npicture   {picture}")


def _of_run(name: str, settings: dict[str, Any]) -> tuple[nn.Module | None, Preprocess | None]:
    """Network and preparation of a run folder; None of a preset."""
    from intarsia.errors import ConfigError
    from intarsia.models.base import MODELS

    if name in MODELS or not Path(name).exists():
        return None, None
    if settings:
        raise ConfigError(f"{next(iter(settings))}: a trained model has its settings. Leave them out.")
    from intarsia.prediction.predictor import load

    predictor = load(name, device="cpu", precision="fp32")
    return predictor.model, predictor.preprocess


def _draw(
    name: str,
    trained: nn.Module | None,
    settings: dict[str, Any],
    preprocess: Preprocess | None,
    found: Any,
    size: tuple[int, int],
    path: Path,
    image: str | None,
) -> None:
    """Measure the effective field on an image, or on noise, and write its picture."""
    import numpy as np
    import torch
    from PIL import Image

    from intarsia.anatomy.effective import effective_field
    from intarsia.anatomy.picture import draw_effective, write_picture
    from intarsia.images.files import read_image
    from intarsia.images.overlay import to_rgb8
    from intarsia.images.preprocess import Preprocess
    from intarsia.models.base import MODELS, create_model

    if trained is None:
        start_weights = {"pretrained": "none"} if "pretrained" in type(MODELS[name]).model_fields else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same picture again
            trained = create_model(name, **{**start_weights, **settings})
    behind, tensor = None, None
    if image:
        behind = np.asarray(Image.fromarray(to_rgb8(read_image(image).pixels)).resize(size[::-1]))
        start: Any = trained
        channels = found.channels
        mean, std = start.mean or (0.5,) * channels, start.std or (0.5,) * channels
        prepare = preprocess or Preprocess(channels=channels, mean=mean, std=std)
        tensor = torch.from_numpy(prepare(behind))[None]
    measured = effective_field(trained, tensor, size=size)
    weights = getattr(trained, "start", "") if preprocess is None else "trained"
    title = f"{found.name}, {weights}, {'on ' + Path(image).name if image else 'on noise'}, {size[0]} x {size[1]}"
    write_picture(draw_effective(measured, found.field, title=title, image_HW3=behind), path)


def _size(text: str) -> tuple[int, int]:
    """ "360x480" as (360, 480)."""
    from intarsia.errors import ConfigError

    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise ConfigError(f"--input: must be HEIGHTxWIDTH, such as 360x480, got {text!r}.")
    return int(sides[0]), int(sides[1])


def _size_of(image: str) -> tuple[int, int]:
    from intarsia.images.files import read_image

    pixels = read_image(image).pixels
    return pixels.shape[0], pixels.shape[1]
