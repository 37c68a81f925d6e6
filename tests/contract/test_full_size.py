"""Every preset as published, at its own width: a step forward and backward. Minutes and some gigabytes: `-m slow`."""

import gc

import pytest

from intarsia.models import MODELS, create_model
from tests.contract.presets import step_at_61_x_93


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
@pytest.mark.parametrize("channels", [1, 5])
def test_forward_and_backward_at_61_x_93(name, channels):
    none = {"pretrained": "none"} if "pretrained" in type(MODELS[name]).model_fields else {}
    model = create_model(name, num_classes=3, in_channels=channels, **none).train()
    step_at_61_x_93(model, channels)
    del model
    gc.collect()
