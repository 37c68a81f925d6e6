"""Write docs/reference and docs/papers from registries, field strings and docstrings; the tests hold them to the code."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import click
import torch

from intarsia import errors
from intarsia.anatomy.listing import WRITTEN, facts_text
from intarsia.cli.main import COMMANDS, group
from intarsia.config import Config
from intarsia.data import DATASETS
from intarsia.losses import LOSSES
from intarsia.models import MODELS, create_model, decoders
from intarsia.ops.crf import CRFS
from intarsia.prediction.config import PredictConfig
from intarsia.recipes import RECIPES, Recipe
from intarsia.registry import Registry

sys.path.insert(0, str(Path(__file__).parent))
from formats_page import formats_page

ROOT = Path(__file__).resolve().parents[1] / "docs"
NOTE = "<!-- written by scripts/docs; change the code instead -->\n\n"


def settings_table(config: Config, prefix: str) -> str:
    """One row a setting; nested configs with their path."""
    rows = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(value, Config):
            rows.append(settings_table(value, path))
        else:
            text = " ".join((field.description or "").split()).replace("|", "\\|")
            rows.append(f"| `{path}` | `{config.to_dict()[name]}` | {text} |")
    return "\n".join(rows)


def settings_page() -> str:
    """Every setting of the default recipe, then those of each other loss and data set."""
    head = "| setting | default | meaning |\n|---|---|---|\n"
    parts = [NOTE + "# Settings\n\nOf the default recipe:\n\n" + head + settings_table(Recipe(), "")]
    parts.append("\nThose of each model are on the page of its paper, under `docs/papers/`.")
    registries: tuple[tuple[str, Registry], ...] = (("loss", LOSSES), ("data", DATASETS))
    for kind, registry in registries:
        for name in registry.names():
            parts.append(f"\n## {kind}={name}\n\n{head}{settings_table(registry[name], kind)}")
    parts.append(
        f"\n## Prediction\n\nOf `intarsia predict` and `intarsia evaluate`:\n\n{head}{settings_table(PredictConfig(), '')}"
    )
    for name in CRFS.names():
        parts.append(f"\n### crf={name}\n\n{head}{settings_table(CRFS[name], 'crf')}")
    return "\n".join(parts) + "\n"


def commands_page() -> str:
    """The help of each command."""
    parts = [NOTE + "# Commands\n"]
    context = click.Context(group, info_name="intarsia", **group.context_settings)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, max_content_width=110)
        parts.append(f"## intarsia {name}\n\n```\n{command.get_help(inner)}\n```\n")
        for sub, child in getattr(command, "commands", {}).items():
            nested = click.Context(child, info_name=sub, parent=inner, max_content_width=110)
            parts.append(f"```\n{child.get_help(nested)}\n```\n")
    return "\n".join(parts)


def errors_page() -> str:
    """Exit codes and the tree of exceptions."""
    return f"{NOTE}# Errors and exit codes\n\n```\n{inspect.cleandoc(errors.__doc__ or '')}\n```\n"


def recipes_page() -> str:
    """The recipes by name."""
    rows = "\n".join(f"| `{n}` | `{RECIPES[n].model.name}` | `{RECIPES[n].loss.name}` |" for n in RECIPES.names())
    return f"{NOTE}# Recipes\n\n`intarsia show NAME` prints one.\n\n| name | model | loss |\n|---|---|---|\n{rows}\n"


def preset_rows(names: list[str]) -> str:
    """One row a preset: what it changes of its family's defaults, and its weights for RGB and 21 classes."""
    rows = []
    for name in names:
        config = MODELS[name]
        plain = type(config)()
        changed = {
            key: value for key, value in config.to_dict().items() if key != "name" and value != plain.to_dict()[key]
        }
        settings = ", ".join(f"`{key}={value}`" for key, value in changed.items()).replace("|", "\\|") or "the defaults"
        with torch.device("meta"):
            none = {"pretrained": "none"} if "pretrained" in type(config).model_fields else {}
            count = create_model(name, num_classes=21, in_channels=3, **none).count_parameters()
        rows.append(f"| `{name}` | {settings} | {count:,} |")
    return "\n".join(rows)


def paper_pages() -> dict[Path, str]:
    """A page for each file of models/ that holds presets: the paper, presets, settings, how to train."""
    pages: dict[str, list[str]] = {}
    for name in MODELS.names():
        pages.setdefault(type(MODELS[name]).__module__, []).append(name)
    found = {}
    for module, names in pages.items():
        short = module.rpartition(".")[2]
        text = inspect.cleandoc(sys.modules[module].__doc__ or "")
        tests = f"tests/papers/test_{short}.py"
        families = {type(MODELS[name]): name for name in reversed(names)}
        settings = "\n".join(
            f"\n### {cls.__name__}\n\n| setting | default | meaning |\n|---|---|---|\n{settings_table(cls(), 'model')}"
            for cls in reversed(families)
        )
        checked = f"\nNumbers of the paper are asserted in `{tests}`.\n" if (ROOT.parent / tests).is_file() else ""
        found[ROOT / "papers" / f"{short}.md"] = (
            f"{NOTE}# {short}\n\n```\n{text}\n```\n\n## Presets\n\n"
            "| preset | differs from the defaults below in | weights (3 channels, 21 classes) |\n|---|---|---|\n"
            f"{preset_rows(names)}\n{checked}\n## Train it\n\n```bash\nintarsia train DATA model={names[0]}\n"
            f"intarsia show default model={names[0]} > mine.yaml    # every setting, to change and read back\n```\n"
            f"\n## Settings\n{settings}\n"
        )
    for module in (value for _, value in inspect.getmembers(decoders, inspect.ismodule)):
        short = module.__name__.rpartition(".")[2]
        preset = "encdec" if short == "unet" else f"encdec_{short}"
        if preset in MODELS:
            found[ROOT / "papers" / f"decoder_{short}.md"] = (
                f"{NOTE}# {short} as a decoder\n\n```\n{inspect.cleandoc(module.__doc__ or '')}\n```\n\n"
                f"Preset `{preset}`; with any encoder: `intarsia train DATA model={preset} model.encoder=resnet50`. "
                "Its settings are on the page [encdec](encdec.md).\n"
            )
    return found


EXPORTS = """# Exported models beside PyTorch

Each preset at full width with drawn weights and 21 classes, exported at {example} (images, height, width) and run on smooth
pictures of other sizes: {sizes}, or {fewer} where a network's margins are wider than these. All in float32 on the processor.
The difference is the largest between two logits, beside the largest logit; then the share of pixels of equal class.

| preset | weights | MB | onnxruntime: difference / largest | equal classes | OpenVINO: difference / largest | equal classes |
|---|---|---|---|---|---|---|
{rows}
"""
FLIPS = """
`segnet` and `segnet_basic` remember where each maximum was. Where the two largest values of a cell differ in their last bits
alone, the order in which a sum is computed decides which of them it was, and the decoder puts a value elsewhere; all pixels
that see that place change. With drawn weights this happens in few cells of large pictures, and no engine can repeat PyTorch's
choice: PyTorch in float64 makes other ones than PyTorch in float32. Pictures without such a cell agree to 1e-5.

| preset | PyTorch in float64: difference / largest | equal classes |
|---|---|---|
{rows}
"""


def exports_page() -> str:
    """How each preset's exported files compare with PyTorch, from results/export_parity.json."""
    found = json.loads((ROOT.parent / "results" / "export_parity.json").read_text(encoding="utf-8"))
    presets = found["presets"]
    rows = "\n".join(
        f"| `{name}` | {row['parameters']:,} | {row.get('megabytes', '')} | "
        f"{parity_cells(row, 'onnxruntime')} | {parity_cells(row, 'openvino')} |"
        for name, row in presets.items()
    )
    again = [f"| `{name}` | {shares(row['float64'])} |" for name, row in presets.items() if "float64" in row]
    versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    return (
        NOTE
        + EXPORTS.format(
            example=" x ".join(map(str, found["example"])),
            **{key: " and ".join(" x ".join(map(str, size)) for size in found[key]) for key in ("sizes", "fewer")},
            rows=rows,
        )
        + (FLIPS.format(rows="\n".join(again)) if again else "")
        + f"\n{found['date']}, {found['machine']['processor']}, {versions}. Command: `{found['command']}`\n"
    )


def parity_cells(row: dict[str, Any], engine: str) -> str:
    """Two cells, or the reason why there is nothing to say."""
    found = row["engines"].get(engine, row)
    return f"{found['reason']} | " if "reason" in found else shares(found)


def shares(found: dict[str, Any]) -> str:
    share = int(100_000 * found["agreement"]) / 1000  # rounded down, so that 100 is all of them
    return f"{found['max_difference']:.1e} / {found['largest_logit']:.2g} | {share:g} %"


def pages() -> dict[Path, str]:
    """Path to text of every generated page."""
    reference = ROOT / "reference"
    return {
        reference / "settings.md": settings_page(),
        reference / "commands.md": commands_page(),
        reference / "errors.md": errors_page(),
        reference / "recipes.md": recipes_page(),
        reference / "formats.md": NOTE + formats_page(),
        reference / "exports.md": exports_page(),
        **paper_pages(),
        WRITTEN: facts_text(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT.parent))
