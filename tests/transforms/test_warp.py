"""One field for all changes of geometry: against the window alone, against scipy, and the statistics of the paper."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from intarsia.classes import IGNORE
from intarsia.errors import ConfigError
from intarsia.images.preprocess import Preprocess
from intarsia.recipes.recipe import load_recipe
from intarsia.transforms.geometry import Window, cut_weights, cut_window, draw_window
from intarsia.transforms.pipeline import AUGMENTS, AugmentConfig, augment, resolve_augment
from intarsia.transforms.warp import LIBRARY, Bend, displacement, draw_bend, fields, homography, warp
from tests.both_forms import both_forms

WHOLE = Window(0, 0, 36, 50)


form = both_forms(LIBRARY, autouse=True)


def sample(size=(36, 50), seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(1, 3, 9, 12, generator=generator)
    image = torch.nn.functional.interpolate(smooth, size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    mask = (image.sum(0) * 2).to(torch.uint8)
    return (255 * image).round().to(torch.uint8), mask


def test_nothing_is_the_identity():
    image, mask = sample()
    found = warp(image, mask, WHOLE, Bend(), (36, 50), mask.float())
    assert torch.allclose(found[0], image.float(), atol=1e-3)
    assert torch.equal(found[1], mask)
    assert torch.allclose(found[2], mask.float(), atol=1e-4)


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("mirror", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("window", [(3, 7, 20, 28), (-5, -8, 20, 28), (-9, 4, 60, 40)])
def test_a_window_alone_is_cut_as_before(window, mirror, turn):
    image, mask = sample()
    cut = Window(*window, mirror[0], mirror[1], turn)
    size = window[2:] if turn % 2 == 0 else window[2:][::-1]
    expected, expected_mask = cut_window(image, mask, cut, size)
    ours, our_mask, _ = warp(image, mask, cut, Bend(), size)
    assert torch.equal(our_mask, expected_mask)
    known = our_mask != IGNORE
    assert torch.allclose(ours[:, known], expected.float()[:, known], atol=1e-2)
    inner = torch.zeros_like(known)
    inner[2:-2, 2:-2] = True
    assert torch.allclose(ours[:, inner], expected.float()[:, inner], atol=1e-2)


@pytest.mark.parametrize("size", [(90, 111), (25, 31)])
def test_zoom_agrees_with_a_resize_away_from_the_border(size):
    image, mask = sample()
    window = Window(0, 0, 36, 50)
    expected, expected_mask = cut_window(image, mask, window, size)
    ours, our_mask, _ = warp(image, mask, window, Bend(), size)
    assert torch.equal(our_mask, expected_mask)
    inner = np.s_[:, 4:-4, 4:-4]
    assert (ours[inner] - expected.float()[inner]).abs().mean() < 1.5


@pytest.mark.parametrize("angle", [-30.0, 10.0, 90.0])
def test_rotation_agrees_with_scipy(angle):
    image, mask = sample()
    ours, our_mask, _ = warp(image, mask, WHOLE, Bend(rotation=angle), (36, 50))
    theirs = ndimage.rotate(image[0].numpy().astype(float), angle, reshape=False, order=1, mode="mirror")
    there = ndimage.rotate(np.ones((36, 50)), angle, reshape=False, order=1, cval=0) > 0.999
    known = torch.from_numpy(there) & (our_mask != IGNORE)
    assert known.sum() > 500
    assert np.abs(ours[0].numpy() - theirs)[known.numpy()].max() < 1
    nearest = ndimage.rotate(mask.numpy(), angle, reshape=False, order=0, cval=IGNORE)
    assert (nearest == our_mask.numpy())[known.numpy()].mean() > 0.99


def test_a_quarter_turn_is_a_rotation_by_90_degrees():
    image, mask = sample((40, 40))
    window = Window(0, 0, 40, 40)
    turned = warp(image, mask, Window(0, 0, 40, 40, quarter_turns=1), Bend(), (40, 40))
    rotated = warp(image, mask, window, Bend(rotation=90), (40, 40))
    assert torch.equal(turned[1], rotated[1])
    assert torch.allclose(turned[0], rotated[0], atol=0.1)


def test_composed_is_the_sequence_of_single_ones():
    image, mask = sample((64, 80))
    whole = Window(0, 0, 64, 80)
    once = warp(image, mask, Window(0, 0, 64, 80, mirror_columns=True), Bend(rotation=12), (64, 80))
    first = warp(image, mask, whole, Bend(rotation=12), (64, 80))
    second = warp(first[0], first[1], Window(0, 0, 64, 80, mirror_columns=True), Bend(), (64, 80))
    known = (once[1] != IGNORE) & (second[1] != IGNORE)
    assert known.float().mean() > 0.6
    assert (once[1] == second[1])[known].float().mean() > 0.99
    assert (once[0] - second[0])[:, known].abs().max() < 1


def test_elastic_displacements_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    nodes = np.stack([draw_bend(rng, rotation=0, shear=0, perspective=0, elastic=10).nodes for _ in range(3000)])
    assert nodes.shape == (3000, 2, 3, 3)
    assert np.abs(nodes).mean() == pytest.approx(10 * np.sqrt(2 / np.pi), rel=0.01)  # 7.979 pixels
    size = (61, 81)
    corners = torch.stack(
        torch.meshgrid(torch.tensor([0.0, 30.5, 61.0]), torch.tensor([0.0, 40.5, 81.0]), indexing="ij")
    )
    found = displacement(torch.from_numpy(nodes[0])[None], corners.double()[None], torch.tensor([size]))[0]
    assert found.numpy() == pytest.approx(nodes[0], abs=1e-6)


def test_same_field_for_image_mask_and_weights():
    _, mask = sample((64, 80))
    bend = draw_bend(np.random.default_rng(3), rotation=20, shear=8, perspective=0.2, elastic=4)
    plane = mask.float().repeat_interleave(1, 0)
    image, warped, weights = warp(plane[None], mask, Window(5, 9, 50, 60), bend, (100, 120), plane)
    known = warped != IGNORE
    sharp = (image[0] - image[0].round()).abs() < 1e-3
    both = known & sharp
    assert both.float().mean() > 0.5
    assert (image[0].round()[both] == warped[both]).float().mean() > 0.995
    assert torch.allclose(weights[known], image[0][known], atol=1e-3)
    assert not weights[~known].any()
    assert set(warped.unique().tolist()) <= {*mask.unique().tolist(), IGNORE}


def test_what_comes_from_outside_is_ignored_and_mirrored():
    image, mask = sample()
    ours, warped, _ = warp(image, mask, Window(-18, -25, 72, 100), Bend(rotation=30), (72, 100))
    assert (warped == IGNORE).any()
    assert float(ours.min()) >= 0
    assert float(ours.std()) > 10


def test_elastic_of_no_strength_and_no_bend_draw_nothing():
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    assert draw_bend(rng, rotation=0, shear=0, perspective=0, elastic=0).is_none
    assert rng.random() == other.random()
    assert not draw_bend(rng, rotation=5, shear=0, perspective=0, elastic=0).is_none


def test_perspective_enlarges_one_end():
    matrix = homography(WHOLE, (36, 50), Bend(perspective=(0.5, 0.0)))
    at = fields(matrix[None], [None], torch.tensor([(36, 50)]), (36, 50))[0]
    top, bottom = (float(at[1, row, -1] - at[1, row, 0]) for row in (0, -1))
    assert top > 1.4 * bottom
    assert float(at[:, 17:19, 24:26].mean(dim=(1, 2))[0]) == pytest.approx(18, abs=0.2)


@pytest.mark.parametrize("name", AUGMENTS.names())
def test_presets_give_samples_of_the_size_and_never_label_what_is_outside(name):
    image, mask = sample((48, 60))
    sizes = set()
    for seed in range(12):
        found = augment(image, mask, (40, 44), AUGMENTS[name], Preprocess(), np.random.default_rng(seed), mask.float())
        assert found.image.shape == (3, 40, 44)
        assert found.image.dtype == torch.float32
        assert 0 <= float(found.image.min()) <= float(found.image.max()) <= 1
        assert set(found.mask.unique().tolist()) <= {*mask.unique().tolist(), IGNORE}
        assert not (AUGMENTS[name].bent == 1 and AUGMENTS[name].bends and found.weights[found.mask == IGNORE].any())
        again = augment(image, mask, (40, 44), AUGMENTS[name], Preprocess(), np.random.default_rng(seed), mask.float())
        assert torch.equal(found.image, again.image)
        sizes.add(found.image.mean().item())
    assert len(sizes) > 6


def test_fcn_s_shift_is_up_to_32_pixels_about_the_middle():
    rng = np.random.default_rng(0)
    settings = {"zoom": (1, 1), "aspect": 1, "mirror": "none", "turn": False, "shift": 32}
    tops = [draw_window((200, 300), (100, 100), rng, **settings).top for _ in range(2000)]
    assert (min(tops), max(tops)) == (50 - 32, 50 + 32)
    lefts = [draw_window((90, 90), (100, 100), rng, **settings).left for _ in range(2000)]
    assert (min(lefts), max(lefts)) == (-5 - 32, -5 + 32)


def test_bending_changes_nothing_else_that_is_drawn():
    image, mask = sample((48, 60))
    plain = AugmentConfig(mirror="both", turn=True)
    never = plain.replace(rotation=30, elastic=5, bent=0)
    for seed in range(4):
        pair = [augment(image, mask, (40, 44), c, Preprocess(), np.random.default_rng(seed)) for c in (plain, never)]
        assert torch.equal(pair[0].image, pair[1].image)
    half = plain.replace(rotation=30, bent=0.5)
    same = [
        torch.equal(
            augment(image, mask, (40, 44), plain.replace(colour=0), Preprocess(), np.random.default_rng(seed)).mask,
            augment(image, mask, (40, 44), half.replace(colour=0), Preprocess(), np.random.default_rng(seed)).mask,
        )
        for seed in range(60)
    ]
    assert 15 <= sum(same) <= 45


def test_wrong_settings_are_told():
    with pytest.raises(ConfigError, match="elastic_grid needs at least two"):
        AugmentConfig().replace(elastic_grid=(1, 3))
    with pytest.raises(ConfigError, match="rotation"):
        AugmentConfig().replace(rotation=-1)


def test_recipes_written_before_there_were_presets_are_read():
    assert resolve_augment({"name": "", "colour": 0.1}) == AUGMENTS["default"].replace(colour=0.1)
    assert resolve_augment({"zoom": (1, 2)}) == AUGMENTS["default"].replace(zoom=(1, 2))
    assert resolve_augment("fcn").shift == 32
    changed = load_recipe("default", {"transforms": {"name": "", "mirror": "both"}})
    assert changed.transforms.mirror == "both"
    assert load_recipe("default", ["transforms=unet"]).transforms.elastic == 10


BENT = Bend(rotation=17, nodes=np.random.default_rng(3).normal(0, 2, (2, 3, 3)))


@pytest.mark.parametrize("bend", [Bend(), BENT], ids=["cut", "bent"])
def test_mask_and_weights_may_be_mirrored_with_the_image(bend):
    """A mask that is the image's own pixels stays so, outside as well."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 6, (6, 8)).astype(np.uint8).repeat(5, 0).repeat(5, 1)
    image, mask = torch.from_numpy(blocks)[None].float(), torch.from_numpy(blocks)
    window, size = Window(-9, -14, 50, 66), (50, 66)
    if bend.is_none:
        found, classes = cut_window(image, mask, window, size, reflect=True)
        weights = cut_weights(image[0], window, size, reflect=True)
    else:
        found, classes, weights = warp(image, mask, window, bend, size, image[0], reflect=True)
    assert (classes != 255).all()
    near = (found[0] - classes).abs() < 0.01
    assert near.float().mean() > (0.999 if bend.is_none else 0.5)  # between blocks the image is mixed, the mask is not
    assert torch.allclose(weights, found[0], atol=1e-4)
    flat = (found[0] - found[0].round()).abs() < 1e-3
    assert (found[0].round()[flat & near] == classes[flat & near]).all()


@pytest.mark.parametrize("bent", [False, True])
def test_bicubic_keeps_more_of_what_is_fine(bent):
    x = torch.linspace(0, 14, 60)
    image = (128 + 100 * torch.sin(x)[None, :, None] * torch.sin(x)[None, None, :]).float()
    mask = torch.zeros(60, 60, dtype=torch.uint8)
    window, size = Window(10, 10, 40, 40), (80, 80)
    rows = 10 + (torch.arange(80) + 0.5) / 2 - 0.5
    places_ = rows * (14 / 59)
    truth = 128 + 100 * torch.sin(places_)[:, None] * torch.sin(places_)[None, :]
    errors = []
    for cubic in (False, True):
        found = (
            warp(image, mask, window, Bend(rotation=1e-9), size, cubic=cubic)[0]
            if bent
            else cut_window(image, mask, window, size, cubic=cubic)[0]
        )
        errors.append(float((found[0] - truth)[4:-4, 4:-4].abs().mean()))
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("changes", [{"interpolation": "bicubic"}, {"outside": "reflect"}])
@pytest.mark.parametrize("name", ["default", "unet"])
def test_they_change_nothing_that_is_drawn(name, changes):
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.integers(0, 256, (3, 40, 50), dtype=np.uint8))
    mask = torch.from_numpy(rng.integers(0, 3, (40, 50), dtype=np.uint8))
    for seed in range(4):
        usual = augment(image, mask, (48, 48), AUGMENTS[name], Preprocess(), np.random.default_rng(seed))
        other = augment(
            image, mask, (48, 48), AUGMENTS[name].replace(changes), Preprocess(), np.random.default_rng(seed)
        )
        seen = usual.mask != 255
        assert torch.equal(usual.mask[seen], other.mask[seen])
        assert (other.mask == 255).any() == ("outside" not in changes and bool((~seen).any()))
        assert (usual.image - other.image).abs().mean() < 0.15


def test_bicubic_gives_quadratics_exactly():
    """Keys's kernel with a = -1/2 is of third order."""
    row, column = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    quadratic = (0.3 * row**2 - 0.2 * row * column + 0.1 * column**2 + row - 5)[None]
    mask = torch.zeros(40, 50, dtype=torch.uint8)
    window, bend, size = Window(10, 12, 20, 24), Bend(rotation=20), (20, 24)
    at = fields(homography(window, size, bend)[None], [None], torch.tensor([(40, 50)]), size)[0] - 0.5
    expected = 0.3 * at[0] ** 2 - 0.2 * at[0] * at[1] + 0.1 * at[1] ** 2 + at[0] - 5
    found = warp(quadratic, mask, window, bend, size, cubic=True)[0][0]
    assert torch.allclose(found, expected, atol=1e-2)
    assert not torch.allclose(warp(quadratic, mask, window, bend, size)[0][0], expected, atol=1e-2)
