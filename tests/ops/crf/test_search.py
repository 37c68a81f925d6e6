"""The search for a CRF's settings: the grid, the scores, ties, and one pass over the images a round."""

import numpy as np
import pytest
import torch

from intarsia.errors import DataError
from intarsia.ops.crf import CrfGrid, dense_crf, search_crf
from intarsia.ops.crf.search import V1, V2, mean_iou
from tests.ops.crf.scenes import scene, small

GRID = CrfGrid((1, 4), (4, 8), (20, 40), rounds=1)


def triples(count=3):
    for seed in range(count):
        logits, image = scene(24, 30, 3, seed=seed)
        mask = dense_crf(logits[None], image[None], small(bilateral_weight=6)).argmax(1)[0]
        mask[:2] = 255
        yield logits, image, mask.to(torch.uint8)


def test_the_papers_grids():
    assert len(V1.points()) == 6 * 6 * 8
    assert len(V2.points()) == 4 * 8 * 4
    assert V1.points()[0] == (5, 50, 3)
    assert V2.points()[-1] == (6, 100, 6)
    fine = V2.around((4, 50, 3), 0.5)
    assert len(fine) == 27
    assert {point[0] for point in fine} == {3.5, 4, 4.5}
    assert {point[1] for point in fine} == {45, 50, 55}
    assert {point[2] for point in fine} == {2.5, 3, 3.5}


def test_scores_are_the_mean_iou_of_each_setting():
    best, tried = search_crf(list(triples()), small(), grid=GRID)
    assert len(tried) >= 1 + 8 + 8
    for each in [*tried[:3], tried[-1]]:
        counts = np.zeros((3, 3), int)
        for logits, image, mask in triples():
            found = logits if each.config is None else dense_crf(logits[None], image[None], each.config)[0]
            kept = mask != 255
            np.add.at(counts, (mask[kept].numpy(), found.argmax(0)[kept].numpy()), 1)
        union = counts.sum(0) + counts.sum(1) - counts.diagonal()
        assert each.mean_iou == pytest.approx((counts.diagonal() / union).mean())
    assert tried[0].config is None
    scores = [each.mean_iou for each in tried[1:]]
    assert best == tried[1 + int(np.argmax(scores))].config  # the first of equals
    assert max(scores) > tried[0].mean_iou
    assert (best.smoothness_weight, best.smoothness_std, best.iterations) == (3, 1.5, 5)


def test_images_are_gone_through_once_a_round():
    passes = []

    def pairs():
        passes.append(0)
        for triple in triples(2):
            passes[-1] += 1
            yield triple

    search_crf(pairs, small(), grid=CrfGrid((1, 4), (4,), (20,), rounds=2))
    assert passes == [2, 2, 2]


def test_ties_go_to_the_earlier():
    def sure():
        for logits, image, _ in triples(1):
            mask = logits.argmax(0)
            yield 1e3 * logits, image, mask

    best, tried = search_crf(list(sure()), small(least_probability=0), grid=CrfGrid((2, 1), (8, 4), (20,), rounds=0))
    assert len({each.mean_iou for each in tried}) == 1
    assert (best.bilateral_weight, best.position_std) == (2, 8)


def test_absent_classes_are_left_out():
    assert mean_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])) == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_what_cannot_be_searched_is_refused():
    logits, image, mask = next(triples(1))
    with pytest.raises(DataError, match="there are no images"):
        search_crf([], small(), grid=GRID)
    with pytest.raises(DataError, match="masks that are not all 255"):
        search_crf([(logits, image, torch.full_like(mask, 255))], small(), grid=GRID)
    with pytest.raises(DataError, match="holds class 3, but the logits have 3"):
        search_crf([(logits, image, torch.full_like(mask, 3))], small(), grid=GRID)
    with pytest.raises(DataError, match="mask: is"):
        search_crf([(logits, image, mask[1:])], small(), grid=GRID)
