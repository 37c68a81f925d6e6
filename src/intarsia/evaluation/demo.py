"""The demonstration: write a data folder, then take the public path on it, step by step as a user would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from intarsia.data.brain import write_brain_folder
from intarsia.data.cells import write_cells_folder
from intarsia.errors import SaveError
from intarsia.evaluation.evaluate import evaluate
from intarsia.evaluation.experiment import Run, train
from intarsia.evaluation.scores import Evaluation
from intarsia.prediction.predict import Written, predict
from intarsia.progress import Progress, default_progress
from intarsia.runs import new_run_folder


@dataclass(frozen=True)
class Demo:
    """Where everything lies."""

    run: Run
    evaluation: Evaluation
    predictions: Path

    @property
    def report(self) -> Path | None:
        return self.evaluation.report


def run_demo(
    images: str, out: str | Path, *, progress: Progress | None = None, settings: list[str] | None = None
) -> Demo:
    """Train, evaluate, predict and report on images that come along.

    Args:
        images: brain or cells.
        out: folder of the data and of the runs.
        settings: to replace in the recipe `demo_brain` or `demo_cells`.
    """
    progress = progress or default_progress()
    home = Path(out)
    data = home / images
    try:
        (write_brain_folder if images == "brain" else write_cells_folder)(data)
    except OSError as error:
        raise SaveError(f"--out {home}: cannot be written ({error.strerror}).") from None
    given = [*(settings or []), f"data.path={data}", "evaluate.after_training=false"]
    run = train(f"demo_{images}", given, out=new_run_folder(home / "runs", images), progress=progress)
    evaluation = evaluate(run, "test", progress=progress)
    predictions = run.path / "predictions"
    with progress.task("predict", len(evaluation.images)) as task:
        names: list[str] = []

        def done(written: Written) -> None:
            names.append(written.image.name)
            task.update(len(names), f"{len(names)} of {len(evaluation.images)} images")

        predict(run, data / "test" / "images", out=predictions, done=done)
    return Demo(run, evaluation, predictions)
