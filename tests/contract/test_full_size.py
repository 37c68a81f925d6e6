"""Every preset as published, at its own width: a step forward and backward. Minutes and some gigabytes: `-m slow`."""

import gc

import pytest
import torch

from intarsia.models import MODELS, create_model
from intarsia.models.base import logits_for


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
@pytest.mark.parametrize("channels", [1, 5])
def test_forward_and_backward_at_61_x_93(name, channels):
    none = {"pretrained": "none"} if "pretrained" in type(MODELS[name]).model_fields else {}
    model = create_model(name, num_classes=3, in_channels=channels, **none).train()
    logits = logits_for(model, torch.randn(1, channels, 61, 93))
    assert logits.shape == (1, 3, 61, 93)
    logits.square().mean().backward()
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    del model, logits, gradients
    gc.collect()
