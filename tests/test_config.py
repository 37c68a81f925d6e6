"""Settings: three doors, one value, and an answer to every slip."""

import pytest

from intarsia.config import override, parse_settings, parse_yaml, to_yaml
from intarsia.errors import ConfigError, UnknownName
from intarsia.recipes import RECIPES, Recipe, load_recipe


def test_number_with_exponent_is_a_number():
    assert parse_yaml("1e-3", source="x") == 1e-3
    assert override(Recipe(), ["train.lr=1e-4"]).train.lr == 1e-4


@pytest.mark.parametrize("settings", [["model.width=8", "model=unet_same"], ["model=unet_same", "model.width=8"]])
def test_order_of_settings_does_not_matter(settings):
    model = override(Recipe(), settings).model
    assert (model.name, model.width, model.padding) == ("unet_same", 8, "same")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=5", r"train\.epoch: there is no such setting\. Did you mean 'train\.epochs'\?"),
        ("model.wdth=5", r"model\.wdth: there is no such setting\. Did you mean 'model\.width'\?"),
        ("train.lr=fast", r"train\.lr: .*got 'fast'"),
        ("train.lr=-1", r"train\.lr: .*greater than 0, got -1"),
        ("train.epochs", r"KEY=VALUE"),
        ("transforms.zoom=[2,1]", r"transforms\.zoom: zoom must be two positive numbers"),
        ("data.scale=.nan", r"data\.scale: .*finite"),
    ],
)
def test_a_slip_is_answered_with_its_path(setting, message):
    with pytest.raises(ConfigError, match=message):
        override(Recipe(), [setting])


@pytest.mark.parametrize(
    ("setting", "near"), [("model=unett", "'unet'"), ("loss=dise", "'dice'"), ("model={name: encdek}", "'encdec'")]
)
def test_wrong_name_offers_the_right_one(setting, near):
    with pytest.raises(UnknownName, match=f"Did you mean {near}"):
        override(Recipe(), [setting])


@pytest.mark.parametrize("name", RECIPES.names())
def test_a_recipe_reads_back_from_its_own_text(name, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(RECIPES[name]))
    assert load_recipe(file) == RECIPES[name]


def test_every_setting_has_its_help():
    text = to_yaml(Recipe())
    for line, before in zip(text.splitlines()[1:], text.splitlines(), strict=False):
        if ":" in line and not line.strip().startswith("#"):
            assert before.strip().startswith("#"), f"no help above {line!r}"


def test_another_model_keeps_what_belongs_to_the_data():
    recipe = Recipe().replace(model={"num_classes": 7, "in_channels": 1, "dropout": 0.5})
    other = recipe.replace(model="unet_same")
    assert (other.model.num_classes, other.model.in_channels) == (7, 1)
    assert recipe.replace(model={"name": "unet", "num_classes": 3}).model.num_classes == 3


def test_values_are_frozen_and_unknown_keywords_refused():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.lr = 1.0
    with pytest.raises(ConfigError, match="no such setting"):
        Recipe(training={})


def test_settings_become_a_tree():
    assert parse_settings(["a.b=1", "a.c=[1, 2]", "d=x"]) == {"a": {"b": 1, "c": [1, 2]}, "d": "x"}


@pytest.mark.parametrize("text", ["train: [", "- just\n- a list", "model: {width: 3"])
def test_a_damaged_recipe_is_one_clear_error(text, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_recipe(file)


def test_target_that_is_nothing():
    with pytest.raises(ConfigError, match=r"no folder, no YAML file and no recipe\. Did you mean 'street'"):
        load_recipe("sreet")
