"""The page of a model, its numbers as JSON, the list, and the command."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import intarsia as ia
from intarsia.anatomy.describe import anatomy, preset_on_meta
from intarsia.anatomy.layers import MANY
from intarsia.anatomy.listing import WRITTEN, Facts, all_facts, paper_of, traced_facts
from intarsia.anatomy.receptive_field import trace_fields
from intarsia.cli.main import group
from intarsia.errors import ConfigError, IntarsiaError, UnknownName
from intarsia.models import MODELS, create_model
from tests.anatomy.measured import small


def run(*words):
    done = CliRunner().invoke(group, ["anatomy", *words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


@pytest.mark.parametrize("name", MODELS.names())
def test_rows_add_up_and_parts_are_few(name):
    model = small(name, in_channels=3)
    found = anatomy(model, (64, 96))
    assert sum(layer.parameters for layer in found.layers) <= found.parameters == model.count_parameters()
    for column in ("parameters", "macs", "kept_bytes", "count"):
        assert sum(getattr(part, column) for part in found.parts) == sum(getattr(each, column) for each in found.layers)
    assert max(part.live_bytes for part in found.parts) <= found.peak_bytes
    assert sum(layer.macs for layer in found.layers) == found.macs > 0
    assert len(found.parts) <= MANY
    assert found.output == (2, *model.output_size(*found.input))
    assert not any(layer.field.unknown for layer in found.layers)
    assert json.loads(json.dumps(found.to_dict()))["macs"] == found.macs
    assert name in found.text(every_layer=True)


def test_the_callable_package_and_the_function_are_one():
    import intarsia.anatomy.checkerboard  # noqa: F401  sets the name on the package

    assert ia.anatomy("plain", (32, 32), depth=3).field.rows.size == "7"
    assert ia.anatomy.effective_field is not None


def test_every_part_of_a_model_that_is_built_stays_as_it_is():
    torch.manual_seed(0)
    model = create_model("unet_same", width=2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = anatomy(model)
    assert model.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert found.name == "unet_same"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_resolution_lost_and_regained():
    strides = [stride for stride, _ in anatomy("unet").resolutions()]
    assert strides == [1, 2, 4, 8, 16, 8, 4, 2, 1]
    assert [stride for stride, _ in anatomy("dilation8").resolutions()] == [1, 2, 4, 8, 1]
    text = anatomy("unet").text()
    assert "stride     2    276 x 332    lost at     pools.0" in text
    assert "stride     8     54 x 68     regained at up.0" in text


def test_what_no_rule_covers_is_said_and_not_guessed():
    class Sorted(nn.Module):
        def forward(self, x):
            return x.sort(dim=-1).values

    found = anatomy(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), Sorted(), nn.Conv2d(2, 2, 1)), (20, 20))
    assert found.field.unknown == "sort (no rule is written for it)"
    assert found.field.rows is None
    assert "cannot be told: sort" in found.text()
    assert found.macs == 400 * (3 * 2 * 9 + 4)  # the rest is told


def test_a_model_that_reads_numbers_runs_where_it_lies():
    class Halved(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * (0.5 if float(self.weight.sum()) > -math.inf else 1)

    found = anatomy(nn.Sequential(Halved(3, 2, 3, padding=1)), (20, 20))
    assert found.field.rows.size == "3"
    assert found.macs == 400 * 54


def test_whole_image_models_say_why_and_what_is_seen_without():
    found = anatomy("deeplab3_lite0")
    assert found.field.wide == ("a mean over the image",)
    assert "the whole image (a mean over the image); 1443 x 1443 pixels without" in found.text()
    norm = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    assert anatomy(norm, (20, 20)).field.wide == ("statistics of a normalisation",)
    resting = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert anatomy(resting, (20, 20)).field.wide == ()


@pytest.mark.parametrize("encoder", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_transformers_are_told_or_said_not_to_be(encoder):
    model = preset_on_meta("encdec", encoder=encoder)
    field = list(trace_fields(model, (64, 64)).values())[-1]
    assert field.wide or field.unknown or field.rows


def test_slips_are_one_line():
    with pytest.raises(UnknownName, match="Did you mean 'unet'"):
        anatomy("uent")
    with pytest.raises(ConfigError, match="both sides must be at least 1, got 0 x 5"):
        anatomy("unet", (0, 5))
    with pytest.raises(ConfigError, match="this model is built already"):
        anatomy(nn.Conv2d(3, 1, 1), width=2)
    with pytest.raises(IntarsiaError, match="must be HEIGHTxWIDTH, such as 360x480, got '360'"):
        run("unet", "--input", "360")
    with pytest.raises(IntarsiaError, match="Give --picture FILE as well"):
        run("unet", "--image", "x.png")


def test_the_command_prints_tables_json_and_writes_the_picture(tmp_path):
    page = run("unet_same", "width=2", "--input", "64x96")
    assert "logits       2 x 64 x 96" in page
    assert "up.0   2 / 2" in page
    assert len(run("unet_same", "width=2", "--input", "64x96", "--all").splitlines()) > len(page.splitlines())
    facts = json.loads(run("unet_same", "width=2", "--json"))
    assert facts["image"] == [360, 480]
    assert facts["field"]["rows"]["largest"] == 204
    photo = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    words = ("--picture", str(tmp_path / "seen.png"), "--image", str(tmp_path / "photo.png"))
    assert "image        48 x 64" in run("unet_same", "width=8", *words)
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.width >= 480


def test_the_list_has_a_row_a_model():
    facts = all_facts(["dilation8", "encdec_fpn", "plain", "unet"])
    assert facts[0] == Facts(
        "dilation8", "Dilated convolutions, arXiv:1511.07122", 2015, 134_330_620, facts[0].macs, 8, "916"
    )
    assert [each.field for each in facts] == ["916", "image", "21", "188–204"]
    assert [each.year for each in facts] == [2015, 2016, None, 2015]
    assert [each.output_stride for each in facts] == [8, 32, 1, 16]
    lines = CliRunner().invoke(group, ["list", "models", "unet*"]).output.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["model", "unet", "unet_bn", "unet_released", "unet_same"]
    assert lines[1].split()[-5:] == ["M", "176.0", "G", "16", "188–204"]
    entry = json.loads(CliRunner().invoke(group, ["list", "models", "unet", "--json"]).output)[0]
    assert entry["macs"] == facts[3].macs
    assert "arXiv:1505.04597" in entry["about"]


def test_a_preset_that_was_changed_is_traced_anew(tmp_path, monkeypatch):
    rows = json.loads(WRITTEN.read_text())
    rows["unet"] |= {"settings": "others"}
    rows["plain"]["facts"] |= {"macs": -1}
    (tmp_path / "facts.json").write_text(json.dumps(rows))
    monkeypatch.setattr("intarsia.anatomy.listing.WRITTEN", tmp_path / "facts.json")
    found = all_facts(["plain", "unet"])
    assert [row.name for row in found] == ["plain", "unet"]
    assert found[0].macs == -1
    assert found[1] == traced_facts(["unet"])[0]


def test_every_paper_has_a_title_and_all_but_one_a_number():
    papers = {name: paper_of(MODELS[name]) for name in MODELS.names()}
    assert [name for name, (_, year) in papers.items() if year is None] == ["plain"]
    assert papers["deeplab3plus_lite0"] == ("DeepLabv3+, arXiv:1802.02611", 2018)
    assert papers["deeplab_largefov_vgg16"] == ("DeepLab, arXiv:1412.7062", 2014)
    assert papers["fcdensenet103"][1] == 2016


def test_a_preset_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr("intarsia.anatomy.listing.trace_costs", lambda *_a, **_k: 1 / 0)
    (row,) = traced_facts(["unet"])
    assert (row.macs, row.field, row.why) == (None, "?", "division by zero")
