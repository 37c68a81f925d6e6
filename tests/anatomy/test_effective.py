"""The effective receptive field against its theory, and its picture."""

import numpy as np
import pytest
import torch
from torch import nn

from intarsia.anatomy.describe import anatomy
from intarsia.anatomy.effective import effective_field
from intarsia.anatomy.picture import draw_effective, write_picture
from intarsia.errors import ConfigError, SaveError
from intarsia.models import create_model


def uniform(layers, kernel=3):
    convolutions = [nn.Conv2d(1, 1, kernel, padding=kernel // 2, bias=False) for _ in range(layers)]
    for conv in convolutions:
        nn.init.constant_(conv.weight, 1 / kernel**2)
    return nn.Sequential(*convolutions)


@pytest.mark.parametrize(
    ("layers", "kernel", "deviation"),
    [(1, 3, 0.816497), (5, 3, 1.825742), (10, 3, 2.581989), (20, 3, 3.651484), (4, 5, np.sqrt(4 * 24 / 12))],
)
def test_uniform_layers_have_the_deviation_of_luo_et_al(layers, kernel, deviation):
    found = effective_field(uniform(layers, kernel), size=(61, 61), draws=1)
    assert found.deviation() == pytest.approx((deviation, deviation), abs=1e-5)
    assert found.mass.sum() == pytest.approx(1)
    assert found.place == (30, 30)
    side = layers * (kernel - 1) + 1
    assert (found.mass > 0).sum() == side**2  # the theoretical field, and nothing outside it


def test_radii_hold_the_share_they_are_asked_for():
    found = effective_field(uniform(1), size=(21, 21), draws=1)
    assert found.radius(1 / 9) == 0
    assert found.radius(5 / 9) == 1
    assert found.radius(1) == pytest.approx(np.sqrt(2))
    assert found.within(1) == pytest.approx(5 / 9)


def test_the_same_seed_measures_the_same_and_the_model_stays_as_it_is():
    torch.manual_seed(0)
    model = create_model("unet_same", width=2, depth=2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = (effective_field(model, size=(40, 48), draws=2) for _ in range(2))
    assert np.array_equal(first.mass, second.mass)
    assert model.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_valid_unet_is_measured_with_its_mirrored_border():
    torch.manual_seed(0)
    model = create_model("unet", width=8, in_channels=1)
    found = effective_field(model, torch.randn(1, 1, 20, 36), draws=1)
    assert found.mass.shape == model.input_size(20, 36)
    assert found.border == (92, 92)
    rows, columns = np.nonzero(found.mass)
    assert np.ptp(rows) + 1 <= 204
    assert np.ptp(columns) + 1 <= 204
    assert abs(rows.mean() - found.place[0]) < 12


def test_scores_that_start_at_zero_are_drawn_and_it_says_so():
    torch.manual_seed(0)
    model = create_model("fcn32s_vgg16", width=1 / 64, hidden=4, pretrained="none")
    found = effective_field(model, size=(64, 64), draws=1)
    assert found.drawn
    assert not model.score_fr.weight.any()


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ConfigError, match="draws: must be at least 1, got 0"):
        effective_field(uniform(1), draws=0)

    class Silent(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 0

    with pytest.raises(ConfigError, match="no gradient reaches the image"):
        effective_field(Silent(1, 1, 1), size=(8, 8))


def test_the_picture_shows_image_mass_and_frame(tmp_path):
    model, image = uniform(20), np.full((100, 140, 3), 200, np.uint8)
    field = anatomy(model, (100, 140)).field
    found = effective_field(model, size=(100, 140), draws=1)
    picture = draw_effective(found, field, title="twenty layers", image_HW3=image)
    assert picture.width >= 480
    factor = 4  # 140 pixels to at least 480
    pixels = np.asarray(picture)
    middle = pixels[50 * factor + 2, 70 * factor + 2]
    assert middle.min() > 150  # brightest where the mass is
    assert (pixels[10:30, 10:30] == pixels[10, 10]).all()  # dimmed image, no mass
    assert 0 < pixels[10, 10, 0] < 200
    assert pixels[50 * factor, int((70.5 - 20.5) * factor)].tolist() == [255, 255, 255]  # the frame of 41 pixels
    write_picture(picture, tmp_path / "seen.png")
    with pytest.raises(SaveError, match="cannot be written"):
        write_picture(picture, tmp_path / "nowhere" / "seen.png")
