"""A model repository for NVIDIA's Triton Inference Server (OIP v2 over HTTP and gRPC).

    FOLDER/NAME/config.pbtxt    tensors, batching, a queue with an end
    FOLDER/NAME/1/model.onnx    the network
    FOLDER/NAME/labels.txt      a class a line
    FOLDER/NAME/README.md       what the input must look like, and a request

Triton's own queue has no end and no deadline, so that a server that falls behind keeps falling; both are set here.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from intarsia import __version__
from intarsia.engines.card import Card
from intarsia.engines.files import read_card
from intarsia.errors import ConfigError, SaveError
from intarsia.images.ranges import BYTES, range_in_words
from intarsia.runs import write_text

QUEUE_DELAY = 5_000
"""Microseconds that a request waits for others of its size to be computed with."""
DEADLINE = 30_000_000
"""Microseconds after which a waiting request is refused."""
QUEUE_SIZE = 32
"""Requests that wait; one more is refused at once."""
_KNOWN = {"config.pbtxt", "labels.txt", "README.md", "1"}
_CONFIG = """\
# {model}, weights {weights}. Written by intarsia {version}.
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch}

# Height and width are free; the batch is not named here. Only requests of one size are computed together.
input [
  {{
    name: "image"
    data_type: {input_type}
    dims: [ {input_dims} ]
  }}
]
output [
  {{
    name: "{output}"
    data_type: {output_type}
    dims: [ {output_dims} ]
  }}
]

# Triton's own queue has neither a deadline nor an end.
dynamic_batching {{
  max_queue_delay_microseconds: {delay}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {deadline}
    allow_timeout_override: true
    max_queue_size: {queue}
  }}
}}

# Without an instance_group there is one instance on each GPU that Triton finds, else one on the processor. To choose:
# instance_group [ {{ kind: KIND_GPU count: 1 gpus: [ 0 ] }} ]
# instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""


def write_triton(onnx: Path, folder: Path, *, name: str, max_batch: int = 8) -> Path:
    """A model repository, or one more model in one that is there.

    Args:
        onnx: an exported model with its card.
        folder: the repository, --model-repository of tritonserver.
        name: of the model there: letters, digits, dots, dashes, underscores.
        max_batch: most images that are computed at once, at least 1.

    Returns:
        The model's folder, folder/name.

    Raises:
        ConfigError: a name or batch that Triton does not take, or a folder of that name with other files.
        SaveError: the disk does not take it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"--name {name!r}: is no name for Triton. Use letters, digits, dots, dashes and underscores.")
    if max_batch < 1:
        raise ConfigError(f"--max-batch {max_batch}: must be at least 1, for one image at a time.")
    card, place = read_card(onnx), folder / name
    if card.precision == "bf16":
        raise ConfigError(
            f"{onnx}: is of bf16, which onnxruntime does not run. Export it with  --precision fp32  or int8."
        )
    _check_place(place)
    aside = place / "1" / ".model.onnx.tmp"
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(onnx, aside)
        aside.replace(aside.with_name("model.onnx"))
    except OSError as error:
        raise SaveError(
            f"{place}: cannot be written ({error.strerror or error}). Make room, or choose another."
        ) from None
    finally:
        aside.unlink(missing_ok=True)
    write_text(place / "labels.txt", "".join(f"{' '.join(each.split())}\n" for each in card.classes.names))
    write_text(place / "README.md", readme(card, name, max_batch))
    write_text(place / "config.pbtxt", config(card, name, max_batch))
    return place


def config(card: Card, name: str, max_batch: int) -> str:
    """The text of config.pbtxt; dims are those of one image."""
    channels, count = str(card.preprocess.channels), str(card.classes.count)
    free = ["-1", "-1"]
    return _CONFIG.format(
        model=" ".join(card.model.split()),
        weights=card.weights,
        version=__version__,
        name=name,
        max_batch=max_batch,
        input_type=f"TYPE_{_input_type(card)}",
        input_dims=", ".join([*free, channels] if card.input == "pixels" else [channels, *free]),
        output=card.output,
        output_type="TYPE_FP32" if card.output == "logits" else "TYPE_UINT8",
        output_dims=", ".join([count, *free] if card.output == "logits" else free),
        delay=QUEUE_DELAY,
        deadline=DEADLINE,
        queue=QUEUE_SIZE,
    )


def _input_type(card: Card) -> str:
    return "UINT8" if card.input == "pixels" and card.preprocess.value_range == BYTES else "FP32"


def _check_place(place: Path) -> None:
    """Only what an earlier export wrote may be written over."""
    if place.exists() and not place.is_dir():
        raise ConfigError(f"{place}: is a file; a model of a repository is a folder. Choose another --name.")
    met = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    if others := [name for name in met if name not in _KNOWN]:
        raise ConfigError(f"{place}: holds other files ({', '.join(others[:3])}). Choose another --name or --out.")


def readme(card: Card, name: str, max_batch: int) -> str:
    """What a client must know, with code that makes the input of an image."""
    channels, kind = card.preprocess.channels, _input_type(card)
    stored = "uint8" if kind == "UINT8" else "float32"
    shape = f"(N, height, width, {channels})" if card.input == "pixels" else f"(N, {channels}, height, width)"
    one = f"[1, 64, 96, {channels}]" if card.input == "pixels" else f"[1, {channels}, 64, 96]"
    zeros = (
        f"{{'inputs': [{{'name': 'image', 'datatype': '{kind}', 'shape': {one}, 'data': [0] * {64 * 96 * channels}}}]}}"
    )
    made = (
        f"(N, {card.classes.count}, height, width) float32" if card.output == "logits" else "(N, height, width) uint8"
    )
    meaning = (
        "the class is that of the largest" if card.output == "logits" else "class numbers; probabilities are not there"
    )
    lines = [
        f"# {name}",
        "",
        f"{card.model}, {card.precision}, {card.classes.count} classes (`labels.txt`). Written by intarsia {__version__}.",
        "",
        f"- `image`: {shape} {stored}, N up to {max_batch}, any height and width: {_input_in_words(card)}",
        f"- `{card.output}`: {made}: {meaning}",
        "",
        "```bash",
        "docker run --rm -p 8000:8000 -v REPOSITORY:/models nvcr.io/nvidia/tritonserver:YY.MM-py3 \\",
        "  tritonserver --model-repository /models",
        "curl -sf localhost:8000/v2/health/ready && echo ready",
        f'python -c "import json; print(json.dumps({zeros}))" \\',
        f"  | curl -s -X POST localhost:8000/v2/models/{name}/infer -d @-",
        "```",
        "",
        "A request that waits longer than 30 s, or that meets 32 others in the queue, is refused (HTTP 503).",
        "",
        f"The input of an image, given as an array (height, width{', 3' if channels in (1, 3) else f', {channels}'}):",
        "",
        "```python",
        *_prepare(card),
        "```",
        "",
        "A request (`pip install tritonclient[http] pillow`):",
        "",
        "```python",
        *_request(card, name, kind),
        "```",
        "",
    ]
    return "\n".join(lines)


def _input_in_words(card: Card) -> str:
    preprocess = card.preprocess
    kind = {1: "grey", 3: "RGB"}.get(preprocess.channels, f"{preprocess.channels} bands")
    words = [f"{kind}, stored values {range_in_words(preprocess.value_range)}"]
    if card.input == "normalised":
        words.append("brought to 0..1, less the mean, divided by the standard deviation")
    if preprocess.scale != 1:
        words.append(f"resized by {preprocess.scale:g} before, and the result back")
    if card.border:
        words.append(f"with a mirrored border, because the network gives {card.border.lost} pixels fewer than it takes")
    return "; ".join(words)


def _prepare(card: Card) -> list[str]:
    """Lines of a function from pixels to the input."""
    preprocess = card.preprocess
    low, high = (list(bound) if isinstance(bound, tuple) else bound for bound in preprocess.value_range)
    lines = ["import numpy as np", "from PIL import Image", "", "def prepare(pixels):"]
    if preprocess.channels == 1:
        lines.append(
            "    pixels = np.round(pixels @ np.float32([0.299, 0.587, 0.114]))[..., None].astype(pixels.dtype)"
        )
    if preprocess.scale != 1:
        lines += [
            f"    size = [max(1, round(side * {preprocess.scale})) for side in pixels.shape[:2]]",
            "    bands = [Image.fromarray(np.ascontiguousarray(pixels[..., i])) for i in range(pixels.shape[2])]",
            "    pixels = np.stack([np.asarray(b.resize(size[::-1], Image.Resampling.BILINEAR)) for b in bands], 2)",
        ]
    if card.border:
        first, lost, stride = card.border.first, card.border.lost, card.border.stride
        lines += [
            f"    need = [{first} + -(-max(0, side + {lost - first}) // {stride}) * {stride} for side in pixels.shape[:2]]",
            f"    around = [({lost // 2}, n - side - {lost // 2}) for n, side in zip(need, pixels.shape)]",
            '    pixels = np.pad(pixels, [*around, (0, 0)], mode="reflect")',
        ]
    if card.input == "pixels":
        kind = "uint8" if _input_type(card) == "UINT8" else "float32"
        return [*lines, f"    return pixels[None].astype(np.{kind})"]
    return [
        *lines,
        f"    low, high = np.float32({low}), np.float32({high})",
        f"    mean, std = np.float32({list(preprocess.mean)}), np.float32({list(preprocess.std)})",
        "    image = ((pixels.astype(np.float32) - low) / (high - low) - mean) / std",
        "    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])",
    ]


def _request(card: Card, name: str, kind: str) -> list[str]:
    lines = [
        "import tritonclient.http as triton",
        "",
        'pixels = np.asarray(Image.open("image.png").convert("RGB"))',
        "image = prepare(pixels)",
        f'given = triton.InferInput("image", list(image.shape), "{kind}")',
        "given.set_data_from_numpy(image)",
        'client = triton.InferenceServerClient("localhost:8000")',
        f'found = client.infer("{name}", [given]).as_numpy("{card.output}")',
        "maps = found[0]",
    ]
    scale, resized = card.preprocess.scale, card.preprocess.scale != 1
    if resized and card.output == "classes":
        lines.append(f"maps = (maps == np.arange({card.classes.count})[:, None, None]).astype(np.float32)")
    if card.border:
        inner = f"[max(1, round(side * {scale})) for side in pixels.shape[:2]]" if resized else "pixels.shape[:2]"
        lines += [f"height, width = {inner}", "maps = maps[..., :height, :width]  # beyond it lies border only"]
    if resized:
        lines.append("maps = [Image.fromarray(m).resize(pixels.shape[1::-1], Image.Resampling.BILINEAR) for m in maps]")
        lines.append("maps = np.stack([np.asarray(m) for m in maps])")
    last = "maps.argmax(0)" if resized or card.output == "logits" else "maps"
    return [*lines, f"classes = {last}  # (height, width)"]
