"""The memory-saving dense block and transition against the modules that they stand for, called one by one."""

import copy
import weakref

import pytest
import torch
from torch import nn

from intarsia.models.fcdensenet import DenseBlock, FCDenseNetConfig, TransitionDown
from intarsia.ops import normed_conv
from intarsia.ops.dense_block import dense_block
from intarsia.ops.normed_conv import pieces, saves

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
GROWTH, FIRST, COUNT = 4, 5, 3


def drawn(part, dtype=torch.float64, seed=0):
    """Weights, and statistics at rest, that are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    for module in part.modules():
        if isinstance(module, nn.BatchNorm2d):
            for each, mean in ((module.weight, 1.0), (module.bias, 0.0), (module.running_mean, 0.0)):
                each.data.normal_(mean, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return part.to(dtype)


def block_of(*, whole=False, dropout=0.3, dtype=torch.float64):
    torch.manual_seed(3)
    return drawn(DenseBlock(FIRST, COUNT, FCDenseNetConfig(growth=GROWTH, dropout=dropout), whole=whole), dtype)


def transition_of(*, dropout=0.3, dtype=torch.float64):
    torch.manual_seed(3)
    return drawn(TransitionDown(FIRST, dropout), dtype)


def maps(shape=(2, FIRST, 7, 10), dtype=torch.float64, layout=torch.contiguous_format):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype).contiguous(memory_format=layout)


def seen_of(part, x, saving, steps=1):
    """All that a caller can see: result, gradients of input and weights, buffers, and the generator's state behind it."""
    part, x = copy.deepcopy(part), x.detach().clone().requires_grad_()
    torch.manual_seed(7)
    for _ in range(steps):
        result = part(x, saving=saving)
        weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape)
        (result * weight).sum().backward()
    seen = {"result": result.detach(), "x": x.grad, "generator": torch.get_rng_state()}
    seen |= {f"d {key}": value.grad for key, value in part.named_parameters() if value.grad is not None}
    return seen | dict(part.named_buffers())


def agree(part, x, tolerance, **settings):
    naive, saving = seen_of(part, x, False, **settings), seen_of(part, x, True, **settings)
    assert naive.keys() == saving.keys()
    for key, value in naive.items():
        scale = max(1.0, value.abs().max().item())
        assert (value.double() - saving[key].double()).abs().max() <= tolerance * scale, key
    assert naive["result"].dtype == saving["result"].dtype


@pytest.fixture(params=["block", "stack", "transition"])
def part(request):
    return {
        "block": block_of,
        "stack": lambda **settings: block_of(whole=True, **settings),
        "transition": transition_of,
    }[request.param]


@pytest.fixture(autouse=True)
def calls(request, monkeypatch):
    """Count the calls, so that a comparison of the plain form with itself cannot pass."""
    made = []
    forward = normed_conv.forward
    monkeypatch.setattr(normed_conv, "forward", lambda *args: (made.append(1), forward(*args))[1])
    yield made
    if "plain" not in request.node.name:
        assert made


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("piece", [1, 1 << 22])
def test_result_gradients_statistics_and_draws_are_those_of_the_modules(
    part, dtype, dropout, layout, piece, monkeypatch
):
    monkeypatch.setattr(normed_conv, "PIECE", piece)
    agree(part(dropout=dropout, dtype=dtype), maps(dtype=dtype, layout=layout), TOLERANCE[dtype])


@pytest.mark.parametrize("shape", [(1, FIRST, 2, 2), (1, FIRST, 3, 2), (3, FIRST, 5, 9), (2, FIRST, 4, 3)])
def test_small_and_odd_shapes(part, shape):
    agree(part(), maps(shape), 1e-10)


def test_pieces_of_some_channels(monkeypatch):
    monkeypatch.setattr(normed_conv, "PIECE", 1)
    torch.manual_seed(0)
    block = drawn(DenseBlock(37, 2, FCDenseNetConfig(growth=20)))
    assert len(list(pieces(maps((2, 37, 6, 6)), made=20))) == 2 * 3
    agree(block, maps((2, 37, 6, 6)), 1e-10)


def test_two_steps_add_gradients_and_move_statistics_twice(part):
    agree(part(), maps(), 1e-10, steps=2)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_momentum(part, momentum):
    made = part()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    agree(made, maps(), 1e-10, steps=2)


def test_statistics_at_rest(part):
    made = part().eval()
    before = {key: value.clone() for key, value in made.named_buffers()}
    agree(made, maps(), 1e-10)
    assert all(torch.equal(value, before[key]) for key, value in made.named_buffers())


def test_some_layers_at_rest():
    block = block_of()
    block.layers[1].eval()
    agree(block, maps(), 1e-10)


def test_frozen_weights_pass_the_gradient_on(part):
    made = part().requires_grad_(False)
    assert not any(key.startswith("d ") for key in seen_of(made, maps(), True))
    agree(made, maps(), 1e-10)


def test_used_twice_in_one_graph_and_backward_twice():
    block, x = block_of(dropout=0.0), maps((2, FIRST, 6, 6))
    grads = []
    for saving in (False, True):
        mine, leaf = copy.deepcopy(block), x.clone().requires_grad_()
        first = mine(leaf, saving=saving)
        second = mine(leaf + 1, saving=saving)
        loss = (first * second.sin()).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        grads.append([leaf.grad, *(each.grad for each in mine.parameters())])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(*grads, strict=True))


def test_gradient_is_that_of_finite_differences():
    block, transition = block_of(dropout=0.0).train(), transition_of(dropout=0.0).train()
    x = maps((2, FIRST, 4, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: block(t, saving=True), (x,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda t: transition(t, saving=True), (x,), fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_under_autocast_as_near_to_float64_as_the_modules(part, layout):
    made, x = part(dropout=0.0, dtype=torch.float32), maps((2, FIRST, 16, 16), torch.float32, layout)
    exact = seen_of(copy.deepcopy(made).double(), x.double(), False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        naive, saving = (seen_of(made, x, form) for form in (False, True))
        halves = [seen_of(made, x.bfloat16(), form) for form in (False, True)]
    for one, other in ((naive, saving), halves):
        for key, value in exact.items():
            assert one[key].dtype == other[key].dtype, key
            theirs, ours = ((each[key].double() - value.double()).norm() for each in (one, other))
            assert ours <= 1.5 * theirs + 1e-3 * value.double().norm(), key


@pytest.mark.parametrize(
    "what", ["no_grad", "nothing", "hook", "replaced", "dropout", "eps", "bfloat16", "mirrored", "single"]
)
def test_plain_form_serves_where_the_other_is_of_no_use(what, calls):
    block, x = block_of(), maps()
    layer = block.layers[1]
    if what == "nothing":
        block.requires_grad_(False)
    if what == "hook":
        layer[2].register_forward_hook(lambda *_: None)
    if what == "replaced":
        layer[0] = nn.GroupNorm(1, FIRST + GROWTH).double()
    if what == "dropout":
        layer[3] = nn.Dropout2d()
    if what == "eps":
        layer[0].eps = 1e-3
    if what == "bfloat16":
        block, x = block.bfloat16(), x.bfloat16()
    if what == "mirrored":
        layer[2] = nn.Conv2d(FIRST + GROWTH, GROWTH, 3, padding=1, padding_mode="reflect").double()
    if what == "single":
        x = x[:1, :, :1, :1]
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            block(x, saving=True)
    with torch.set_grad_enabled(what != "no_grad"):
        assert not saves(x, block.layers)
        if what != "single":
            assert block(x, saving=True).shape[1] == COUNT * GROWTH
    assert not calls


def test_one_stack_is_kept_for_the_way_back():
    block, x = block_of(dropout=0.0), maps((1, FIRST, 64, 64)).requires_grad_()
    kept: dict[int, int] = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = block(x, saving=True)
    maps_kept = [size for size in kept.values() if size >= 64 * 64 * 8]
    assert maps_kept == [(FIRST + COUNT * GROWTH) * 64 * 64 * 8]
    held = weakref.ref(result.grad_fn)
    del result
    assert held() is None  # nothing goes round in a circle


def test_a_map_changed_before_the_way_back_is_noticed():
    result = dense_block(maps(), block_of(whole=True).layers, whole=True)
    with torch.no_grad():
        result.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()
