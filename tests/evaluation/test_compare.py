"""Runs side by side: the numbers of each, paired differences, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import intarsia
from intarsia.errors import ConfigError, DataError
from intarsia.evaluation.compare import compare
from intarsia.evaluation.evaluate import evaluate
from intarsia.evaluation.scores import read_counts
from intarsia.metrics.intervals import paired_difference
from intarsia.metrics.overlap import overlap_scores
from intarsia.progress import Silent
from tests.evaluation.tiny import write_data, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("compare")
    data = write_data(place / "data")
    return [write_run(place / f"run-{seed}", data, seed) for seed in (1, 2, 3)]


def test_differences_are_those_of_the_paired_bootstrap(runs):
    found = compare(runs, paired=True, progress=Silent())
    stored = [read_counts(run / "report" / "test.npz") for run in runs]
    sides = [dict(zip(names, counts["overlap"], strict=True)) for names, _, counts in stored]
    expected = paired_difference(sides[1], sides[0], lambda counts: overlap_scores(counts).mean_iou)
    gap = found.gaps[0]["overlap"]
    assert float(gap.value["mean_iou"]) == pytest.approx(float(expected.value))
    assert float(gap.low["mean_iou"]) == pytest.approx(float(expected.low))
    for run, side in zip(runs, found.sides, strict=True):
        evaluation = json.loads((run / "report" / "test.json").read_text())
        assert float(side.found["overlap"].scores["mean_iou"]) == pytest.approx(evaluation["scores"]["mean_iou"])
        assert side.run == str(run)
    text = found.table_text()
    assert "mean IoU" in text
    assert "more than" in text
    assert all(str(run) in text for run in runs)
    value = json.loads(json.dumps(found.to_dict()))
    assert value["paired_differences"][0]["overlap"]["mean_iou"][0] == pytest.approx(float(expected.value))
    assert [each["run"] for each in value["runs"]] == [str(run) for run in runs]


def test_a_run_does_not_differ_from_itself(runs):
    found = compare([runs[0], runs[0]], paired=True, progress=Silent())
    gap = found.gaps[0]["overlap"]
    assert float(gap.low["mean_iou"]) == float(gap.high["mean_iou"]) == 0
    assert "*" not in found.table_text().splitlines()[-1]


def test_not_paired_there_are_no_differences(runs):
    found = compare(runs[:2], progress=Silent())
    assert found.gaps == ()
    assert "more than" not in found.table_text()
    assert "paired_differences" not in found.to_dict()


def test_measures_that_all_runs_have_are_compared(runs):
    evaluate(runs[0], metrics="all", device="cpu", progress=Silent())
    assert compare(runs[:2], progress=Silent()).measures == ["overlap"]
    evaluate(runs[1], metrics=["boundary"], device="cpu", progress=Silent())
    found = compare(runs[:2], paired=True, progress=Silent())
    assert found.measures == ["overlap", "boundary"]
    assert "Hausdorff 95  (less is better)" in found.table_text()
    for run in runs[:2]:
        evaluate(run, device="cpu", progress=Silent())


def test_scores_of_older_weights_are_not_used(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    before = compare([copy, runs[1]], progress=Silent()).sides[0].found["overlap"].scores["mean_iou"]
    shutil.rmtree(copy / "model")
    shutil.copytree(runs[2] / "model", copy / "model")
    after = compare([copy, runs[1]], progress=Silent()).sides[0].found["overlap"].scores["mean_iou"]
    assert before != after


def test_what_cannot_be_compared_is_told(runs, tmp_path):
    with pytest.raises(ConfigError, match="two or more"):
        compare(runs[:1], progress=Silent())
    with pytest.raises(ConfigError, match=r"no split 'tset'.*Did you mean 'test'"):
        compare(runs[:2], split="tset", progress=Silent())
    data = write_data(tmp_path / "data")
    names = ("a", "b", "c", "d")
    (data / "classes.yaml").write_text(intarsia.ClassTable(names=names).to_text())
    other = write_run(tmp_path / "other", data, names=names)
    with pytest.raises(ConfigError, match="Compare runs of the same classes"):
        compare([runs[0], other], progress=Silent())
    fewer = write_data(tmp_path / "fewer")
    for folder in ("images", "masks"):
        (fewer / "test" / folder / "b.png").unlink()
    third = write_run(tmp_path / "third", fewer)
    with pytest.raises(DataError, match="different images"):
        compare([runs[0], third], paired=True, progress=Silent())
    assert "not the same images" in compare([runs[0], third], progress=Silent()).table_text()


def test_command_line(runs):
    command = [sys.executable, "-m", "intarsia", "compare", *map(str, runs[:2])]
    ended = subprocess.run([*command, "--paired"], capture_output=True, text=True, check=True)
    assert "0 is outside the interval" in ended.stdout
    ended = subprocess.run([*command, "--json", "--split", "val"], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout)["split"] == "val"
    assert np.isfinite(json.loads(ended.stdout)["runs"][0]["overlap"]["mean_iou"])
    ended = subprocess.run(command[:5], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("compare: got 1 run")
