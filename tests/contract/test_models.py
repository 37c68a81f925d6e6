"""What every registered model must do."""

import copy
import itertools

import pytest
import torch

from intarsia.errors import ConfigError
from intarsia.losses import cross_entropy
from intarsia.models import MODELS, create_model
from intarsia.models.base import build_model, fit_mask, logits_for
from tests.contract.presets import SMALL, step_at_61_x_93

NAMES = MODELS.names()


def small(name, **settings):
    torch.manual_seed(0)
    return create_model(name, **{"num_classes": 3, "in_channels": 3, **SMALL.get(name, {}), **settings})


def image_for(model, size):
    return torch.randn(1, 3, *model.input_size(*size), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(97, 131), (160, 200), (33, 400)])
@pytest.mark.parametrize("training", [True, False])
def test_logits_for_any_size_in_both_modes(name, size, training):
    model = small(name).train(training)
    image = image_for(model, size)
    logits = model(image)
    assert tuple(logits.shape) == (1, 3, *model.output_size(*image.shape[-2:]))
    assert torch.isfinite(logits).all()
    assert logits_for(model, torch.randn(1, 3, *size)).shape == (1, 3, *size)


def awake(model):
    """The model without dropout, and with layers that start at zero drawn, so that a gradient can pass everywhere."""
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d)):
            module.p = 0.0
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and key.endswith("weight") and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def without_gradient(model):
    return [
        key
        for key, value in model.named_parameters()
        if value.requires_grad and (value.grad is None or not value.grad.abs().sum() > 0)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_one_step_at_batch_one_reaches_every_parameter(name):
    model = awake(small(name))
    image = image_for(model, (64, 64))
    logits = model(image)
    mask = torch.randint(0, 3, (1, *image.shape[-2:]), generator=torch.Generator().manual_seed(2))
    cross_entropy(logits, fit_mask(mask, logits)).backward()
    assert not without_gradient(model)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(torch.isfinite(value).all() for value in model.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 5])
def test_forward_and_backward_at_61_x_93_with_a_batch_of_one(name, channels):
    step_at_61_x_93(awake(small(name, in_channels=channels)).train(), channels)


@pytest.mark.parametrize("name", NAMES)
def test_deep_supervision_adds_logits_and_changes_none(name):
    torch.manual_seed(0)
    plain, deep = small(name), small(name, deep_supervision=True)
    image = image_for(plain, (61, 93))
    with torch.no_grad():
        logits, others = deep.eval().with_auxiliary(image)
        assert torch.equal(deep(image), logits)
        assert torch.equal(plain.eval()(image), logits)
        assert plain.with_auxiliary(image)[1] == []
    assert others
    assert all(other.shape == logits.shape for other in others)
    model = awake(deep).train()
    logits, others = model.with_auxiliary(image)
    (logits.square().mean() + sum(other.square().mean() for other in others)).backward()
    assert not [key for key in without_gradient(model) if key.startswith("auxiliary.")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", list(itertools.permutations(["freeze", "train", "eval"])))
def test_frozen_parts_rest_whatever_the_order(name, order):
    model = small(name)
    for call in order:
        model.freeze("encoder") if call == "freeze" else getattr(model, call)()
    model.train()
    parts = tuple(f"{part}." for part in model.encoder_parts)
    before = {key: value.clone() for key, value in model.state_dict().items() if key.startswith(parts)}
    assert before
    image = image_for(model, (64, 64))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(image).square().mean().backward()
    optimizer.step()
    for key, value in before.items():
        assert torch.equal(value, model.state_dict()[key]), key
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(image), model(image))


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic_and_config_and_weights_round_trip(name):
    model = small(name).eval()
    again = build_model(MODELS.resolve(model.config.to_dict()).without_start_weights()).eval()
    again.load_state_dict(model.state_dict())
    image = image_for(model, (70, 90))
    with torch.no_grad():
        assert torch.equal(model(image), again(image))
        assert torch.equal(model(image), copy.deepcopy(model)(image))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels(name, channels):
    model = create_model(name, num_classes=2, in_channels=channels, **SMALL.get(name, {})).eval()
    size = model.input_size(64, 64)
    assert model(torch.randn(1, channels, *size)).shape[1] == 2


@pytest.mark.parametrize("name", NAMES)
def test_unknown_setting_names_the_nearest(name):
    with pytest.raises(ConfigError, match=r"model\.forzen: there is no such setting\. Did you mean 'model\.frozen'"):
        create_model(name, forzen=("head",))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_weights(name):
    first, second = small(name), small(name)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
