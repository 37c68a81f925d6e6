"""`intarsia export`."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command("export")
@click.argument("run")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "openvino", "torch-export", "triton", "web"]),
    default="onnx",
    show_default=True,
    help="web: a page that runs in the browser; triton: a model repository.",
)
@click.option("--out", metavar="FILE", help="The file, or folder of triton and web; default: RUN/export/NAME...")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="int8 is calibrated on training images, and what it costs is measured.",
)
@click.option("--with-pre", is_flag=True, help="Normalisation inside: the network takes stored values (N, H, W, C).")
@click.option("--with-argmax", is_flag=True, help="The network gives class numbers; probabilities are lost.")
@click.option("--data", metavar="FOLDER", help="Data to calibrate and compare on; default: the run's.")
@click.option("--images", default=64, show_default=True, metavar="N", help="Training images for int8.")
@click.option("--runtime", metavar="DIR", help="web: the npm package onnxruntime-web; default: fetched once.")
@click.option("--sample", metavar="IMAGE", help="web: an image that the page offers to try.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(run: str, kind: Any, as_json: bool, **settings: Any) -> None:
    """Write the model of RUN for other programs, and prove that it computes the same.

    Before the file is kept, it is run at other sizes and batches than it was made with, and compared with the model in
    PyTorch. A file that differs is removed, and why is said.

    \b
    intarsia export runs/street-1                                   ONNX, for onnxruntime
    intarsia export runs/street-1 --format openvino --precision int8
    intarsia export runs/street-1 --with-pre --with-argmax          bytes in, class numbers out
    intarsia export runs/street-1 --format web --out page
    """
    from intarsia.evaluation.exporting import export

    exported = export(run, format=kind, **settings)
    click.echo(json.dumps(exported.to_dict()) if as_json else "\n".join(exported.lines))
