"""Multiply-accumulates against torch's counter on the running model, memory against the allocator's events."""

import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from intarsia.anatomy.cost import trace_costs, trace_training
from intarsia.anatomy.trace import on_meta
from tests.anatomy.measured import MODELS, small

SIZE = (96, 128)


@pytest.mark.parametrize("name", MODELS.names())
def test_macs_are_half_of_the_flops_that_torch_counts_on_the_running_model(name):
    model = small(name, in_channels=3).eval()
    size = model.input_size(*SIZE)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size))
    costs = trace_costs(on_meta(model), size, memory=False)
    assert 2 * sum(layer.macs for layer in costs.layers.values()) == counter.get_total_flops()


def test_macs_of_the_plain_stack_are_the_articles_sum():
    model = small("plain", in_channels=3, width=8, depth=4)
    expected = math.prod(SIZE) * 9 * (3 * 8 + 8 * 8 + 8 * 8 + 8 * 2)
    assert sum(layer.macs for layer in trace_costs(on_meta(model), SIZE).layers.values()) == expected


def test_macs_of_products_and_attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(4, 12)

        def forward(self, x):
            q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
            return (q @ k.transpose(1, 2)).softmax(-1) @ v

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Attention())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 6, 8))
    found = sum(layer.macs for layer in trace_costs(on_meta(model), (6, 8)).layers.values())
    assert 2 * found == counter.get_total_flops() == 2 * 48 * (3 * 4 + 4 * 12 + 48 * 4 + 48 * 4)


def allocated(run):
    """Most bytes that the processor's allocator held at the end of an outermost operator, over those before `run`.

    The profiler reports each allocation and each release. Looking at ends of operators leaves out the workspaces that
    convolution libraries take and give back inside one.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = profiler.profiler.kineto_results.events()
    changes = [(event.start_ns(), 0, event.nbytes()) for event in events if event.name() == "[memory]"]
    ends, covered = [], 0
    for start, stop in sorted(
        (e.start_ns(), -e.start_ns() - e.duration_ns()) for e in events if e.name().startswith("aten::")
    ):
        if start >= covered:  # not called by another operator
            covered = -stop
            ends.append((covered, 1, 0))
    now = peak = 0
    for _, is_end, size in sorted(changes + ends):
        now += size
        peak = max(peak, now) if is_end else peak
    return peak


@pytest.mark.parametrize("name", MODELS.names())
def test_memory_at_rest_is_within_a_tenth_of_what_is_measured(name):
    model = small(name, in_channels=3).eval()
    size = model.input_size(*SIZE)
    expected = trace_costs(on_meta(model), size).peak_bytes

    @torch.no_grad()
    def run():
        model(torch.zeros(1, 3, *size))

    assert expected == pytest.approx(allocated(run), rel=0.1)


@pytest.mark.parametrize("name", MODELS.names())
def test_memory_in_training_is_within_a_tenth_of_what_is_measured(name):
    model = small(name, in_channels=3).train()
    size = model.input_size(*SIZE)
    expected = trace_training(on_meta(model), size)

    def run():
        image = torch.zeros(1, 3, *size)
        logits = model(image)
        logits.backward(torch.zeros_like(logits))

    assert expected.total_peak_bytes == pytest.approx(allocated(run), rel=0.1)
    assert expected.kept_bytes <= expected.peak_bytes <= expected.total_peak_bytes
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert expected.gradient_bytes == pytest.approx(4 * trained, rel=0.01)
