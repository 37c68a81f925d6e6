"""FCN, arXiv:1411.4038: counts, shapes, crops and start of the released nets; parity with torchvision's variant."""

import pytest
import torch
from torch import nn

from intarsia.errors import ConfigError
from intarsia.models import create_model
from intarsia.models.base import take_over
from intarsia.models.weights import fill, from_torchvision
from intarsia.ops.upsample import bilinear_kernel
from intarsia.runs import write_model
from tests.papers.reach import averages_for_maxima, positive, rows_seen

TINY = {"width": 1 / 64, "hidden": 4, "pretrained": "none"}
NETS = ["fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16", "fcn8s_atonce_vgg16", "fcn32s_alexnet"]
FIXED = {"fcn32s_vgg16": 1_806_336, "fcn16s_vgg16": 458_640, "fcn8s_vgg16": 127_008, "fcn32s_alexnet": 1_750_329}


def on_meta(name, **settings):
    with torch.device("meta"):
        return create_model(name, **{"pretrained": "none", "num_classes": 21, **settings})


@pytest.mark.parametrize(
    ("name", "dense", "without_upscores"),
    [
        ("fcn32s_vgg16", 136_152_917, 134_346_581),
        ("fcn16s_vgg16", 134_815_994, 134_357_354),
        ("fcn8s_vgg16", 134_489_759, 134_362_751),
        ("fcn8s_atonce_vgg16", 134_489_759, 134_362_751),
        ("fcn32s_alexnet", 58_704_590, 56_954_261),
    ],
)
def test_parameters_with_and_without_the_dense_upscores(name, dense, without_upscores):
    model = on_meta(name)
    assert model.count_parameters() == dense
    upscores = sum(p.numel() for key, p in model.named_parameters() if key.startswith("upscore"))
    assert dense - upscores == without_upscores
    assert upscores == FIXED.get(name, 127_008)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == without_upscores  # released: fixed


def test_convolutions_of_vgg16_hold_14_714_688_weights():
    assert sum(p.numel() for p in on_meta("fcn8s_vgg16").stages.parameters()) == 14_714_688


@pytest.mark.parametrize(
    ("side", "pools", "score", "up32", "up16", "up8"),
    [
        (1, [100, 50, 25, 13, 7], 1, [64], [4, 80], [4, 10, 88]),
        (64, [131, 66, 33, 17, 9], 3, [128], [8, 144], [8, 18, 152]),
        (224, [211, 106, 53, 27, 14], 8, [288], [18, 304], [18, 38, 312]),
        (321, [260, 130, 65, 33, 17], 11, [384], [24, 400], [24, 50, 408]),
        (375, [287, 144, 72, 36, 18], 12, [416], [26, 432], [26, 54, 440]),
        (500, [349, 175, 88, 44, 22], 16, [544], [34, 560], [34, 70, 568]),
    ],
)
def test_sizes_of_the_released_nets(side, pools, score, up32, up16, up8):
    for name, ups in (("fcn32s_vgg16", up32), ("fcn16s_vgg16", up16), ("fcn8s_vgg16", up8)):
        model = on_meta(name, **TINY).eval()
        before_pool, scores, upscores = [], [], []
        for stage in model.stages:
            stage.register_forward_hook(lambda _m, _i, out, seen=before_pool: seen.append(out.shape[-1]))
        model.score_fr.register_forward_hook(lambda _m, _i, out, seen=scores: seen.append(out.shape[-1]))
        for key, module in model.named_children():
            if key.startswith("upscore"):
                module.register_forward_hook(lambda _m, _i, out, seen=upscores: seen.append(out.shape[-1]))
        model(torch.zeros(1, 3, side, 1, device="meta").transpose(2, 3))
        assert [-(-size // 2) for size in before_pool] == pools
        assert scores == [score]
        assert upscores == ups


@pytest.mark.parametrize("name", NETS)
def test_output_has_the_image_s_size_for_every_size_up_to_600(name):
    model = on_meta(name, **TINY).eval()
    for side in range(1, 601):
        other = 601 - side
        assert model(torch.empty(1, 3, side, other, device="meta")).shape[-2:] == (side, other)


@pytest.mark.parametrize("name", NETS)
def test_scores_start_at_zero_and_upscores_bilinear_on_the_diagonal(name):
    model = create_model(name, num_classes=3, **TINY)
    for key, module in model.named_children():
        if key.startswith("score"):
            assert not module.weight.any()
            assert not module.bias.any()
        if key.startswith("upscore"):
            kernel = bilinear_kernel(module.weight.shape[-1])
            for row in range(3):
                for column in range(3):
                    expected = kernel if row == column else torch.zeros_like(kernel)
                    assert torch.equal(module.weight[row, column], expected)


def test_kernels_and_strides_of_the_upscores():
    sizes = {
        (name, key): (module.weight.shape[-1], module.stride)
        for name in NETS
        for key, module in on_meta(name, **TINY).named_children()
        if key.startswith("upscore")
    }
    for name in ("fcn8s_vgg16", "fcn8s_atonce_vgg16"):
        assert (sizes[name, "upscore2"], sizes[name, "upscore_pool4"], sizes[name, "upscore8"]) == (
            (4, 2),
            (4, 2),
            (16, 8),
        )
    assert (sizes["fcn16s_vgg16", "upscore2"], sizes["fcn16s_vgg16", "upscore16"]) == ((4, 2), (32, 16))
    assert (sizes["fcn32s_vgg16", "upscore"], sizes["fcn32s_alexnet", "upscore"]) == ((64, 32), (63, 32))


@pytest.mark.parametrize("learned", ["none", "intermediate", "all"])
def test_fixed_upscores_equal_dense_ones_and_learned_ones_learn(learned):
    torch.manual_seed(0)
    model = create_model("fcn8s_vgg16", num_classes=3, learned=learned, **TINY)
    nn.init.normal_(model.score_fr.weight)
    nn.init.normal_(model.score_fr.bias)
    image = torch.rand(1, 3, 40, 70)
    reference = create_model("fcn8s_vgg16", num_classes=3, learned="all", **TINY)
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(model.eval()(image), reference.eval()(image), atol=1e-5)
    model(image).square().mean().backward()
    trained = {key for key, p in model.named_parameters() if key.startswith("upscore") and p.grad is not None}
    inner = {"upscore2.weight", "upscore_pool4.weight"}
    assert trained == {"none": set(), "intermediate": inner, "all": inner | {"upscore8.weight"}}[learned]


def randomised(name, seed=0, **settings):
    torch.manual_seed(seed)
    model = create_model(name, num_classes=3, **{**TINY, **settings}).eval()
    nn.init.normal_(model.score_fr.weight)
    nn.init.normal_(model.score_fr.bias)
    return model


@pytest.mark.parametrize(("coarse", "fine"), [("fcn32s_vgg16", "fcn16s_vgg16"), ("fcn16s_vgg16", "fcn8s_vgg16")])
def test_a_fresh_finer_net_reproduces_the_coarser_one(coarse, fine, tmp_path):
    """New skips are zero, so what is left is the coarser score, up-sampled in two steps instead of one."""
    start = randomised(coarse)
    write_model(tmp_path / "model", {k: v.numpy() for k, v in start.state_dict().items()}, {"preprocess": {}})
    model = create_model(fine, num_classes=3, **TINY).eval()
    left = take_over(model, tmp_path)
    new = {
        "fcn16s_vgg16": {"upscore2", "score_pool4", "upscore16"},
        "fcn8s_vgg16": {"upscore_pool4", "score_pool3", "upscore8"},
    }
    assert {key.split(".")[0] for key in left} == new[fine]
    assert f"but for {len(left)} of" in model.start
    image = torch.rand(1, 3, 100, 150)
    with torch.no_grad():
        ours, theirs = model(image), start(image)
    scale = theirs.abs().max()
    assert scale > 0
    # Inside, where both see whole kernels: two-step bilinear interpolation differs from one-step by little.
    inside = (..., slice(32, -32), slice(32, -32))
    assert (ours - theirs)[inside].abs().max() < 0.15 * scale
    # Constant scores are reproduced exactly inside: each phase of the kernels sums to one.
    for net in (model, start):
        nn.init.zeros_(net.score_fr.weight)
    with torch.no_grad():
        assert torch.allclose(model(image)[inside], start(image)[inside], atol=1e-5)


def test_nothing_in_common_is_said(tmp_path):
    write_model(tmp_path / "model", {"other": torch.zeros(3).numpy()}, {})
    with pytest.raises(ConfigError, match=r"nothing in .* has the name and shape"):
        create_model("fcn8s_vgg16", start_from=str(tmp_path), **TINY)


def test_at_once_scales_pool4_and_pool3():
    staged, at_once = randomised("fcn8s_vgg16"), create_model("fcn8s_atonce_vgg16", num_classes=3, **TINY).eval()
    nn.init.normal_(staged.score_pool3.weight)
    nn.init.normal_(staged.score_pool4.weight)
    at_once.load_state_dict(staged.state_dict())
    with torch.no_grad():
        staged.score_pool4.weight *= 0.01
        staged.score_pool3.weight *= 0.0001
        image = torch.rand(1, 3, 64, 64)
        assert torch.allclose(at_once(image), staged(image), atol=1e-5)


@pytest.mark.parametrize(("name", "extent", "stride"), [("fcn32s_vgg16", 404, 32), ("fcn32s_alexnet", 355, 32)])
def test_receptive_field_of_fc6(name, extent, stride):
    torch.manual_seed(0)
    model = positive(create_model(name, num_classes=1, in_channels=1, **TINY))
    seen = {}
    model.fc6[0].register_forward_hook(lambda _m, _i, out: seen.update(out=out))
    image = torch.rand(1, 1, 720, 720, dtype=torch.double, requires_grad=True)
    with averages_for_maxima():
        model(image)
    middle = seen["out"].shape[-1] // 2
    (first, rows), (second, more) = (
        rows_seen(seen["out"], (0, 0, place, middle), image) for place in (middle, middle + 1)
    )
    assert (rows, more, second - first) == (extent, extent, stride)


def test_published_vgg16_is_reshaped_for_fc6_and_fc7():
    from intarsia.models.encoders.vgg import large_layer, load_vgg16, vgg_stages

    state = random_vgg16()
    stages, fc6, fc7 = vgg_stages(1), large_layer(512, 4096, 7), large_layer(4096, 4096, 1)
    load_vgg16(state, stages, (fc6, fc7))
    assert torch.equal(fc6[0].weight.flatten(1), state["classifier.0.weight"])
    assert torch.equal(fc7[0].weight.flatten(1), state["classifier.3.weight"])
    assert torch.equal(stages[4][4].weight, state["features.28.weight"])
    assert torch.allclose(stages[0][0].weight[:, 0], state["features.0.weight"].sum(1))


def test_published_alexnet_gives_the_classifier_s_values():
    """The tower of 2014 on 224 pixels without the large border: its fc7 is torchvision's, as a map of one pixel."""
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError, reason="torchvision does not import here")
    from intarsia.models.encoders.alexnet import alexnet_trunk, load_alexnet2014
    from intarsia.models.encoders.vgg import large_layer

    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(weights=None).eval()
    trunk, fc6, fc7 = alexnet_trunk("alexnet2014", 3), large_layer(256, 4096, 6), large_layer(4096, 4096, 1)
    load_alexnet2014(theirs.state_dict(), trunk, (fc6, fc7), first_layer="adapt")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.classifier[:6](theirs.features(image).flatten(1))
        found = fc7.eval()(fc6.eval()(trunk.eval()(image)))
    assert found.shape[-2:] == (1, 1)
    assert torch.allclose(found.flatten(1), expected, atol=1e-4)


def random_vgg16():
    """A state dict of torchvision's names and shapes; values drawn, large ones sparse to save time."""
    generator = torch.Generator().manual_seed(0)
    state, channels, index = {}, 3, 0
    for stage in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for width in stage:
            state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) * 0.05
            state[f"features.{index}.bias"] = torch.randn(width, generator=generator)
            channels, index = width, index + 2
        index += 1
    for key, inputs in (("classifier.0", 25088), ("classifier.3", 4096)):
        state[f"{key}.weight"] = torch.arange(4096 * inputs, dtype=torch.float32).reshape(4096, inputs)
        state[f"{key}.bias"] = torch.randn(4096, generator=generator)
    return state


def test_alexnet_has_one_stride_and_its_weights_one_way():
    with pytest.raises(ConfigError, match="AlexNet has stride 32 alone"):
        create_model("fcn32s_alexnet", stride=16, pretrained="none")
    with pytest.raises(ConfigError, match="trunk=alexnet2014"):
        create_model("fcn32s_alexnet", width=0.1, pretrained="download")


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_scores_of_any_encoder_are_summed(levels):
    model = create_model("fcn", num_classes=4, encoder="resnet10t", pretrained="none", levels=levels).eval()
    for score in model.scores:
        nn.init.zeros_(score.weight)
        nn.init.ones_(score.bias)
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 61, 93))
    assert logits.shape == (1, 4, 61, 93)
    assert torch.allclose(logits, torch.full_like(logits, levels))


@pytest.mark.parametrize(
    ("name", "parameters"), [("fcn", 2_968_823), ("fcn_resnet50", 32_957_013), ("fcn_resnet101", 51_949_141)]
)
def test_parameters_on_encoders(name, parameters):
    assert on_meta(name).count_parameters() == parameters


@pytest.mark.parametrize("classes", [21, 4])
def test_logits_of_torchvision_s_fcn(classes):
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError, reason="torchvision does not import here")
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True).eval()
    ours = create_model("fcn_resnet50", num_classes=classes, pretrained="none").eval()
    fill(ours, from_torchvision(theirs.state_dict()), ("scores.",), first_layer="adapt")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = theirs(image)["out"], ours(image)
    assert found.shape[1] == classes
    if classes == 21:
        assert torch.allclose(found, expected, atol=1e-4)


def test_a_file_of_other_weights_is_told_in_one_line(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ConfigError, match="not the weights of VGG16 as torchvision names them"):
        create_model("dilated_frontend", hidden=4096, pretrained=str(path))
