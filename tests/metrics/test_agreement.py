"""Agreement with independent libraries where they are right, and the defects of peers that are about names and classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from intarsia.classes import IGNORE, ClassTable
from intarsia.data.folder import FolderConfig
from intarsia.errors import DataError, IntarsiaError
from intarsia.evaluation.scores import Evaluation, table_text
from intarsia.metrics import calibration_counts, calibration_scores, confusion, overlap_scores
from intarsia.metrics.instances import match_objects, object_scores
from intarsia.progress import Silent
from intarsia.training.validation import Scored

torchmetrics = pytest.importorskip(
    "torchmetrics", exc_type=ImportError, reason="the other implementation is not installed"
)


def drawn(num_classes, ignored=0.0, seed=0, size=(3, 40, 50)):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, num_classes, size, generator=generator, dtype=torch.uint8)
    wrong = torch.randint(0, num_classes, size, generator=generator, dtype=torch.uint8)
    prediction = torch.where(torch.rand(size, generator=generator) < 0.6, mask, wrong)
    mask[torch.rand(size, generator=generator) < ignored] = IGNORE
    return prediction, mask


@pytest.mark.parametrize("num_classes", [2, 5, 19])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_overlap_equals_torchmetrics_where_every_class_is_there(num_classes, ignored):
    from torchmetrics.functional import classification as peer

    prediction, mask = drawn(num_classes, ignored)
    scores = overlap_scores(confusion(prediction, mask, num_classes).numpy())
    given = {"num_classes": num_classes, "ignore_index": IGNORE}
    p, m = prediction.long(), mask.long()

    def same(ours, theirs):
        assert ours == pytest.approx(theirs.double().numpy(), abs=1e-6)

    same(scores.iou, peer.multiclass_jaccard_index(p, m, average=None, **given))
    same(scores.mean_iou, peer.multiclass_jaccard_index(p, m, average="macro", **given))
    same(scores.dice, peer.multiclass_f1_score(p, m, average=None, **given))
    same(scores.precision, peer.multiclass_precision(p, m, average=None, **given))
    same(scores.recall, peer.multiclass_recall(p, m, average=None, **given))
    same(scores.pixel_accuracy, peer.multiclass_accuracy(p, m, average="micro", **given))
    same(scores.mean_accuracy, peer.multiclass_accuracy(p, m, average="macro", **given))
    same(scores.kappa, peer.multiclass_cohen_kappa(p, m, **given))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_calibration_error_equals_torchmetrics(num_classes):
    from torchmetrics.functional.classification import multiclass_calibration_error

    _, mask = drawn(num_classes, 0.2)
    logits = torch.randn(3, num_classes, 40, 50, generator=torch.Generator().manual_seed(1))
    ours = calibration_scores(calibration_counts(logits, mask))
    rows = logits.permute(0, 2, 3, 1).reshape(-1, num_classes).softmax(1)
    for norm, key in (("l1", "expected_calibration_error"), ("max", "maximum_calibration_error")):
        theirs = multiclass_calibration_error(rows, mask.long().flatten(), num_classes, 15, norm, IGNORE)
        assert getattr(ours, key) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality_of_one_class_equals_torchmetrics(seed):
    from torchmetrics.functional.detection import panoptic_quality

    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (8, 8)).repeat(6, 0).repeat(6, 1)
    moved = np.roll(truth, rng.integers(0, 3), 1) * (rng.random((48, 48)) > 0.05)
    ours = object_scores(match_objects(truth, moved)).panoptic_quality

    def named(numbers):  # theirs: (category, number); the background is stuff of category 0
        return torch.tensor(np.stack([(numbers > 0).astype(int), numbers], -1)[None])

    theirs = panoptic_quality(named(moved), named(truth), things={1}, stuffs={0}, return_per_class=True)
    assert ours == pytest.approx(float(theirs.flatten()[0]), abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_confusion_equals_monai(num_classes):
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    prediction, mask = drawn(num_classes)
    planes = [torch.nn.functional.one_hot(each.long(), num_classes).movedim(-1, 1) for each in (prediction, mask)]
    tp, fp, _, fn = monai.get_confusion_matrix(*planes, include_background=True).sum(0).T.double().numpy()
    counts = confusion(prediction, mask, num_classes).numpy()
    right = np.diag(counts)
    assert (right == tp).all()
    assert (counts.sum(0) - right == fp).all()
    assert (counts.sum(1) - right == fn).all()
    assert overlap_scores(counts).iou == pytest.approx(tp / (tp + fp + fn))


def evaluation_of(counts, names):
    return Evaluation("test", "drawn", ClassTable(names=names), counts, overlap_scores(counts), ())


def test_peers_row_22_a_score_of_fewer_classes_than_declared_says_so():
    text = table_text(evaluation_of(np.diag([100, 0]), ("background", "cell")).to_dict())
    assert "mean of 1 class " in text
    assert "in neither truth nor prediction, in no mean" in text
    assert evaluation_of(np.diag([100, 0]), ("background", "cell")).to_dict()["absent_classes"] == ["cell"]


def test_peers_row_23_names_say_what_is_averaged_over():
    counts = np.array([[9000, 0], [100, 10]])
    stored = evaluation_of(counts, ("road", "pole")).to_dict()
    micro = np.trace(counts) / (2 * counts.sum() - np.trace(counts))
    assert stored["scores"]["mean_iou"] == pytest.approx(np.mean([9000 / 9100, 10 / 110]))
    assert abs(stored["scores"]["mean_iou"] - micro) > 0.4
    assert micro not in [value for value in stored["scores"].values() if isinstance(value, float)]
    assert "mean_over_images" in stored
    assert not {"iou_score", "jaccard", "JaccardIndex", "dice_score"} & set(stored["scores"])


def test_peers_row_24_masks_that_are_reduced_already_are_refused(tmp_path):
    """Values 1 and 2 mean classes 0 and 1; a mask that holds 0 and 1 was mapped before."""
    for folder, pixels in (("images", np.full((8, 8), 9)), ("masks", np.arange(64).reshape(8, 8) % 2)):
        (tmp_path / folder).mkdir()
        for name in "abcd":
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "classes.yaml").write_text(json.dumps({"names": ["road", "car"], "values": {"1": "road", "2": "car"}}))
    config = FolderConfig(name="folder", path=str(tmp_path))
    with pytest.raises(IntarsiaError, match="not in the class table: 0 "):
        config.open(Silent())


def test_scored_image_has_its_mask_as_a_tensor():
    mask = np.zeros((2, 3), np.uint8)
    scored = Scored(None, mask, mask, np.zeros((1, 1), np.int64), 0.0, torch.zeros(1, 1, 2, 3))  # type: ignore[arg-type]
    assert scored.mask_tensor.shape == (1, 2, 3)


def test_predictions_of_another_size_than_the_truth_are_refused():
    with pytest.raises(DataError):
        match_objects(np.zeros((4, 4), int), np.zeros((4, 5), int))
