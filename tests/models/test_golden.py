"""The built-in image, the output that is kept of it, and when another output is refused."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch

from intarsia.devices import Device
from intarsia.errors import GoldenMismatch, SaveError
from intarsia.images.preprocess import Preprocess
from intarsia.models import create_model
from intarsia.models.golden import check_golden, copied_to_cpu, golden_image, golden_of

BF16 = Device("cpu", 0, "bf16")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return create_model("unet_same", num_classes=4, in_channels=3, width=4, depth=2, dropout=0.5)


def test_the_image_is_the_same_for_ever():
    """An image that differs must have another name in golden.PATTERN."""
    assert hashlib.sha256(golden_image(3).tobytes()).hexdigest() == (
        "59c3d5991bd1045ba42b5637edd18d23b76eee75f1e6378a82f41dad94f966de"
    )
    assert golden_image(3)[2, 5].tolist() == [
        (15 + 10 + 37 * c + (10 + 25 * c) // 8 + 90 * (c % 2)) % 256 for c in range(3)
    ]


@pytest.mark.parametrize("channels", [1, 2, 3, 40])
def test_channels_differ_and_no_part_is_flat(channels):
    image = golden_image(channels)
    assert image.dtype == np.uint8
    assert image.shape == ((64, 64) if channels == 1 else (64, 64, channels))
    planes = image.reshape(64, 64, channels)
    assert len({planes[..., c].tobytes() for c in range(channels)}) == channels
    assert planes.min() < 5
    assert planes.max() > 250
    for axis in (0, 1):
        assert (np.diff(planes.astype(int), axis=axis) == 0).mean() < 0.02


@pytest.mark.parametrize("value_range", [(0, 65535), (-1000.0, 400.0), ((0, 10, -2), (1, 30, 2))])
def test_other_ranges_are_filled(value_range):
    image = golden_image(3, value_range)
    assert image.dtype == np.float32
    low, high = (np.broadcast_to(bound, 3) for bound in value_range)
    assert np.allclose(image, low + (high - low) * (golden_image(3) / 255), rtol=1e-6)


def test_an_image_of_one_channel_is_the_first_of_three():
    assert np.array_equal(golden_image(1), golden_image(3)[..., 0])


def test_what_is_kept_is_small_and_plain(net):
    golden = golden_of(net, Preprocess())
    assert np.shape(golden["logits"]) == (4, 8, 8)
    assert json.loads(json.dumps(golden)) == golden
    numbers = np.array(golden["logits"])
    assert all(float(f"{value:.6g}") == value for value in numbers.ravel())
    net.eval()
    with torch.no_grad():
        logits = net(torch.from_numpy(Preprocess()(golden_image(3))).unsqueeze(0))[0]
    assert np.allclose(numbers, logits[:, 4::8, 4::8], rtol=1e-5, atol=1e-6)


def test_the_model_stays_as_it_is(net):
    net.freeze("encoder")
    net.train()
    modes = [module.training for module in net.modules()]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert golden_of(net, Preprocess()) == golden_of(net, Preprocess())
    assert [module.training for module in net.modules()] == modes
    assert True in modes
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(scale=0.5),
        Preprocess(scale=1.7),
        Preprocess(value_range=(0, 65535)),
        Preprocess(channels=1, mean=(0.3,), std=(0.2,)),
        Preprocess(channels=5, mean=(0.3,) * 5, std=(0.2,) * 5, value_range=((0.0,) * 5, (1.0, 2.0, 3.0, 4.0, 5.0))),
    ],
)
@pytest.mark.parametrize("name", ["unet", "unet_same", "segnet_basic"])
def test_every_preparation_and_networks_that_lose_their_border(name, preprocess, tmp_path):
    settings = {"widths": ((4,), (4,)), "kernel": 3} if name == "segnet_basic" else {"width": 2}
    net = create_model(name, num_classes=2, in_channels=preprocess.channels, **settings)
    golden = golden_of(net, preprocess)
    assert check_golden(net.eval(), preprocess, golden, tmp_path) < 1e-4 * max(1, np.abs(golden["logits"]).max())


def test_a_network_of_one_class_and_one_whose_logits_are_all_equal(tmp_path):
    net = create_model("unet_same", num_classes=1, in_channels=3, width=2, depth=1)
    torch.nn.init.zeros_(net.get_submodule("head").weight)
    torch.nn.init.constant_(net.get_submodule("head").bias, 123.456789)
    golden = golden_of(net, Preprocess())
    check_golden(net.eval(), Preprocess(), golden, tmp_path)
    torch.nn.init.constant_(net.get_submodule("head").bias, 123.5)
    with pytest.raises(GoldenMismatch):
        check_golden(net, Preprocess(), golden, tmp_path)


def test_a_hundredth_of_the_range_is_allowed_and_no_more(net, tmp_path):
    golden = golden_of(net, Preprocess())
    net.eval()
    span = np.ptp(golden["logits"])
    bias = net.get_submodule("head").bias
    start = bias.detach().clone()
    for share, refused in ((0.009, False), (0.011, True), (-0.011, True)):
        with torch.no_grad():
            bias.copy_(start + torch.tensor([0, share * span, 0, 0]))
        if refused:
            with pytest.raises(GoldenMismatch, match=f"allowed is {0.01 * span:.3g}"):
                check_golden(net, Preprocess(), golden, tmp_path)
            check_golden(net, Preprocess(), golden, tmp_path, 0.02)
        else:
            assert check_golden(net, Preprocess(), golden, tmp_path) == pytest.approx(share * span, rel=0.01)


def test_bf16_is_given_more_room(net, tmp_path):
    golden = golden_of(net, Preprocess())
    span = np.ptp(golden["logits"])
    assert 1e-5 * span < check_golden(net.eval(), Preprocess(), golden, tmp_path, device=BF16) < 0.05 * span
    with torch.no_grad():
        net.get_submodule("head").bias.add_(0.1 * span)
    with pytest.raises(GoldenMismatch, match=f"allowed is {0.05 * span:.3g}"):
        check_golden(net, Preprocess(), golden, tmp_path, device=BF16)


def test_it_is_computed_in_float32_whatever_goes_on_around_it(net, tmp_path):
    plain = golden_of(net, Preprocess())
    with torch.autocast("cpu", torch.bfloat16):
        assert golden_of(net, Preprocess()) == plain


@pytest.mark.parametrize("name", ["unet_same", "encdec"])
def test_a_copy_computes_the_same_and_leaves_the_model(name):
    """As it is made of a model on another device; here the tensors stay where they are, so nothing but they is shared."""
    net = create_model(
        name, num_classes=2, in_channels=3, **({"pretrained": "none"} if name == "encdec" else {"width": 2})
    )
    copied = copied_to_cpu(net).eval()
    assert net.training
    assert all(value.requires_grad for value in net.parameters())
    assert not {id(module) for module in copied.modules()} & {id(module) for module in net.modules()}
    for (key, value), (other_key, other) in zip(net.state_dict().items(), copied.state_dict().items(), strict=True):
        assert (key, value.data_ptr()) == (other_key, other.data_ptr())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(copied(image), net.eval()(image))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cuda_device_computes_the_same(net, tmp_path, precision):
    golden = golden_of(net, Preprocess())
    net.to("cuda:0")
    logits = golden_of(net, Preprocess())["logits"]
    assert np.allclose(logits, golden["logits"], atol=1e-5)
    assert {value.device.type for value in net.parameters()} == {"cuda"}
    check_golden(net.eval(), Preprocess(), golden, tmp_path, device=Device("cuda", 0, precision))


def test_logits_that_are_not_finite_are_not_kept(net, tmp_path):
    golden = golden_of(net, Preprocess())
    torch.nn.init.constant_(net.get_submodule("head").weight, 3e38)
    with pytest.raises(SaveError, match="not finite"):
        golden_of(net, Preprocess())
    with pytest.raises(GoldenMismatch, match=r"differ by up to (inf|nan)"):
        check_golden(net.eval(), Preprocess(), golden, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pattern", "waves 2", "this intarsia knows 'waves 1'. Update intarsia"),
        ("input", "0" * 64, "golden input is another"),
        ("logits", None, "damaged"),
        ("logits", [[["a"]]], "damaged"),
        ("logits", [[[float("nan")] * 8] * 8] * 4, "damaged"),
        ("logits", [[[0.0] * 8] * 8] * 3, r"is \(3, 8, 8\), the network computes \(4, 8, 8\)"),
    ],
)
def test_a_golden_output_that_was_changed(net, tmp_path, key, value, message):
    golden = copy.deepcopy(golden_of(net, Preprocess())) | {key: value}
    with pytest.raises(GoldenMismatch, match=message):
        check_golden(net.eval(), Preprocess(), golden, tmp_path)


def test_what_to_do_names_the_versions(net, tmp_path):
    golden = golden_of(net, Preprocess())
    torch.nn.init.normal_(net.get_submodule("head").weight)
    installed = torch.__version__.partition("+")[0]
    for packages, message in (
        (
            {"torch": "1.0.0+cu99", "timm": "0.1"},
            r"saved with torch 1\.0\.0, timm 0\.1, here are .*pip install torch==1\.0\.0 timm==0\.1",
        ),
        ({"torch": f"{installed}+cu99"}, "intarsia, torch and timm are the same, so the folder was changed"),
        ({}, "copy it again"),
    ):
        with pytest.raises(GoldenMismatch, match=message):
            check_golden(net.eval(), Preprocess(), golden, tmp_path, packages=packages)
