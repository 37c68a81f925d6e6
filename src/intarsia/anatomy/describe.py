"""`anatomy(model)`: what a model sees, costs and holds, before anyone has trained it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from intarsia.anatomy.checkerboard import Coverage, checkerboard
from intarsia.anatomy.cost import Costs, TrainingMemory, trace_costs, trace_training
from intarsia.anatomy.layers import Layer, layers_of, parts_of
from intarsia.anatomy.receptive_field import LayerField, trace_fields
from intarsia.anatomy.table import text_of
from intarsia.anatomy.trace import channels_of, on_meta
from intarsia.errors import ConfigError
from intarsia.models.base import MODELS, SegmentationModel, create_model

SIZE = (360, 480)


@dataclass(frozen=True)
class Anatomy:
    """A model at one input size, one image in float32."""

    name: str
    image: tuple[int, int]
    """(H, W) of the image."""
    input: tuple[int, int]
    """(H, W) that the network is given: more, if it loses its border."""
    channels: int
    output: tuple[int, ...]
    """(K, h, w) of the logits."""
    layers: tuple[Layer, ...]
    """Every layer, in the order of the calls."""
    parts: tuple[Layer, ...]
    """The same gathered into the parts that a person reads."""
    field: LayerField
    """Receptive field of a logit."""
    parameters: int
    macs: int
    peak_bytes: int
    """Most bytes of activations alive at once at rest."""
    training: TrainingMemory
    """Of a step of training."""
    checkerboard: tuple[Coverage, ...]
    """Each transposed convolution."""

    @property
    def coarsest_stride(self) -> float | None:
        """The output stride: image pixels between places of the coarsest map; None: no layer's field can be told."""
        return max((layer.stride for layer in self.layers if layer.stride and layer.field.rows), default=None)

    def resolutions(self) -> list[tuple[float, Layer]]:
        """(stride, layer) wherever the resolution changes from one row of `parts` to the next: where it is lost, regained."""
        changes: list[tuple[float, Layer]] = []
        for layer in self.layers:
            stride = layer.stride
            if stride is None or len(layer.shape) != 3:
                continue
            if not changes or abs(stride / changes[-1][0] - 1) > 0.02:  # scales such as 0.75 are met to a hundredth
                changes.append((stride, layer))
        return changes

    def text(self, *, every_layer: bool = False) -> str:
        """The page that the command prints."""
        return text_of(self, every_layer=every_layer)

    def __str__(self) -> str:
        return self.text()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, words and lists, for JSON."""
        names = ("kept_bytes", "peak_bytes", "total_peak_bytes", "gradient_bytes")
        return {
            "name": self.name,
            "image": self.image,
            "input": self.input,
            "channels": self.channels,
            "output": self.output,
            "parameters": self.parameters,
            "macs": self.macs,
            "output_stride": self.coarsest_stride,
            "field": asdict(self.field),
            "inference_peak_bytes": self.peak_bytes,
            "training": {name: getattr(self.training, name) for name in names},
            "layers": [asdict(layer) for layer in self.layers],
            "parts": [layer.name for layer in self.parts],
            "checkerboard": [{**asdict(each), "is_uniform": each.is_uniform} for each in self.checkerboard],
        }


def anatomy(model: nn.Module | str, size: tuple[int, int] = SIZE, **settings: Any) -> Anatomy:
    """What any model sees, costs and holds in memory; nothing is allocated, and the model is left as it is.

    >>> found = anatomy("unet", (388, 388), in_channels=1)
    >>> found.parameters, found.input, found.field.rows.size
    (31030658, (572, 572), '188–204')

    Args:
        model: a preset's name, or any torch module that maps an image (N, C, H, W) to maps.
        size: (height, width) of the image.
        settings: of a preset, as for `create_model`.

    Raises:
        UnknownName, ConfigError: no such preset or setting; settings for a model that is built already; a size below 1.
    """
    if min(size) < 1:
        raise ConfigError(f"size: both sides must be at least 1, got {size[0]} x {size[1]}.")
    if isinstance(model, str):
        bare: nn.Module = preset_on_meta(model, **settings)
        name = model
    else:
        if settings:
            raise ConfigError(f"anatomy: {next(iter(settings))} is a setting of presets; this model is built already.")
        bare = on_meta(model)
        name = getattr(getattr(model, "config", None), "name", "") or type(model).__name__
    given = bare.input_size(*size) if isinstance(bare, SegmentationModel) else size
    ran, costs, training = _costs(model, bare, given)
    fields = trace_fields(ran, given)
    layers = layers_of(ran, costs, fields, training.layers)
    last = list(costs.layers)[-1] if costs.layers else None
    return Anatomy(
        name=name,
        image=size,
        input=given,
        channels=channels_of(ran),
        output=costs.layers[last].shape[1:] if last else (),
        layers=tuple(layers),
        parts=tuple(parts_of(ran, layers)),
        field=fields.get(list(fields)[-1], LayerField(unknown="nothing depends on the image"))
        if fields
        else LayerField(),
        parameters=sum(parameter.numel() for parameter in ran.parameters()),
        macs=sum(layer.macs for layer in costs.layers.values()),
        peak_bytes=costs.peak_bytes,
        training=training,
        checkerboard=tuple(checkerboard(ran, size)),
    )


def _costs(model: nn.Module | str, bare: nn.Module, size: tuple[int, int]) -> tuple[nn.Module, Costs, TrainingMemory]:
    """On the meta device; where a model reads numbers, on the device where it lies, as a copy."""
    try:
        return bare, trace_costs(bare, size), trace_training(bare, size)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(model, str) or "meta" not in str(error).lower():
            raise
    import copy

    real = copy.deepcopy(model)
    return real, trace_costs(real, size), trace_training(real, size)


def preset_on_meta(name: str, **settings: Any) -> SegmentationModel:
    """The network of a preset without numbers; no weights are looked for."""
    import torch

    config = MODELS[name]
    if "pretrained" in type(config).model_fields:
        settings["pretrained"] = "none"
    with torch.device("meta"):
        return create_model(name, **{**settings, "start_from": ""})
