"""Against pydensecrf, the authors' own code with a Python face, on frames of CamVid; skipped where either is absent.

It is no dependency: its last release needs Cython below 3 to build. Build it apart and name its folder in PYTHONPATH.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from intarsia.ops.crf import CRFS, dense_crf, exact_dense_crf
from tests.ops.crf.scenes import scene, small


@pytest.fixture
def pydensecrf():
    return pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed here; it is built by hand")


def theirs(pydensecrf, logits_KHW, image_CHW, config):
    """Q (K, H, W) of pydensecrf."""
    classes, height, width = logits_KHW.shape
    crf = pydensecrf.DenseCRF2D(width, height, classes)
    unary = -logits_KHW.log_softmax(0).clamp(min=np.log(config.least_probability))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.flatten(1).numpy(), np.float32))
    crf.addPairwiseGaussian(sxy=config.smoothness_std, compat=config.smoothness_weight)
    colours = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy().astype(np.uint8))
    crf.addPairwiseBilateral(
        sxy=config.position_std, srgb=config.colour_std, rgbim=colours, compat=config.bilateral_weight
    )
    return np.array(crf.inference(config.iterations)).reshape(classes, height, width)


@pytest.mark.parametrize("name", CRFS.names())
def test_classes_agree_on_camvid(pydensecrf, shared, name):
    files = sorted((shared("data/camvid") / "test" / "images").glob("*"))[::80]
    generator = torch.Generator().manual_seed(0)
    for file in files:
        image = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        mask = torch.from_numpy(np.array(Image.open(file.parents[1] / "masks" / f"{file.stem}.png"))).long()
        truth = F.one_hot(mask, 12).permute(2, 0, 1).float()
        blurred = F.avg_pool2d(truth[None], 17, 1, 8, count_include_pad=False)[0]
        noise = F.interpolate(torch.randn(1, 12, 45, 60, generator=generator), mask.shape, mode="bilinear")[0]
        logits = (blurred + 0.02).log() + 0.6 * noise
        found = dense_crf(logits[None], image[None], name)[0].exp().numpy()
        expected = theirs(pydensecrf, logits, image, CRFS[name])
        assert (found.argmax(0) == expected.argmax(0)).mean() > 0.999
        assert np.abs(found - expected).mean() < 2e-3
        assert (expected.argmax(0) != logits.numpy().argmax(0)).mean() > 0.01  # there was something to do


def test_without_smoothness_both_are_the_same_lattice(pydensecrf):
    logits, image = scene(60, 80, 5)
    config = small(smoothness_weight=0)
    image = image.to(torch.uint8)
    found = dense_crf(logits[None], image[None], config)[0].exp().numpy()
    assert np.abs(found - theirs(pydensecrf, logits, image, config)).max() < 1e-3


def test_ours_is_nearer_to_the_exact_one(pydensecrf):
    ours_off, theirs_off = [], []
    for seed in range(4):
        logits, image = scene(40, 48, 4, seed=seed)
        image, config = image.to(torch.uint8), small(smoothness_std=3)
        exact = np.exp(exact_dense_crf(logits.numpy(), image.numpy(), config))
        found = dense_crf(logits[None], image[None], config)[0].exp().numpy()
        ours_off.append(np.abs(found - exact).mean())
        theirs_off.append(np.abs(theirs(pydensecrf, logits, image, config) - exact).mean())
    assert np.mean(ours_off) < np.mean(theirs_off)
