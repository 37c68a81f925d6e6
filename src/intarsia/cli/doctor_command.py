"""`intarsia doctor`."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(as_json: bool) -> None:
    """Say what this installation can do, and what to install for the rest."""
    facts = examine()
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts["found"].items():
        click.echo(f"{key:<12} {value}")
    click.echo("")
    for extra, state in facts["extras"].items():
        missing = state["missing"]
        text = "installed" if not missing else f"lacks {', '.join(missing)}:  pip install 'intarsia[{extra}]'"
        click.echo(f"{extra:<12} {text}")


def examine() -> dict[str, Any]:
    """Facts on the installation."""
    import torch

    from intarsia import __version__
    from intarsia.compiled import Compiled, summary
    from intarsia.devices import available_memory, choose_device, cores, cpu_flags, cpu_has_bf16, cpu_name
    from intarsia.downloads import cache_folder
    from intarsia.losses import border
    from intarsia.losses.kernel import KERNEL
    from intarsia.metrics.confusion import LIBRARY as COUNTS
    from intarsia.ops import class_map, distance, running_mean
    from intarsia.ops.crf.compiled_field import FIELD, GAUSSIAN
    from intarsia.ops.crf.compiled_lattice import LATTICE
    from intarsia.optional import EXTRAS, found
    from intarsia.transforms import warp

    libraries: dict[str, Compiled[Any]] = {
        "softmax": KERNEL,
        "border weights": border.LIBRARY,
        "distances": distance.LIBRARY,
        "class maps": class_map.LIBRARY,
        "tiles": running_mean.LIBRARY,
        "counts": COUNTS,
        "warps": warp.LIBRARY,
        "CRF lattice": LATTICE,
        "CRF smoothing": GAUSSIAN,
        "CRF mean field": FIELD,
    }
    flags = sorted({"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"} & cpu_flags())
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts = {
        "intarsia": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torchvision": installed("torchvision"),
        "timm": installed("timm"),
        "device": choose_device().describe(),
        "processor": f"{cpu_name()}, {cores()} cores ({', '.join(flags) or 'no special features'})",
        "bf16": "computed natively" if cpu_has_bf16() else "not on this processor: fp32 is used",
        "cuda": ", ".join(cuda) or "none",
        "compiled C": summary(libraries),
        "memory": f"{available_memory() / 2**30:.1f} GiB free",
        "cache": str(cache_folder()),
    }
    extras = {
        extra: {"missing": [module for module in modules if not found(module)]} for extra, modules in EXTRAS.items()
    }
    return {"found": facts, "extras": extras}


def installed(package: str) -> str:
    """A package's version, read without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
