"""The training loop, on Lightning Fabric.

Read `fit` from top to bottom: it is the whole of training. Everything random in step s is a function of (seed, s), so a
run that was killed and resumed goes on to the same weights.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from intarsia.errors import Diverged, Interrupted
from intarsia.metrics.overlap import OverlapScores, overlap_scores
from intarsia.models.base import SegmentationModel, fit_mask
from intarsia.prediction.networks.torch_network import Member, Network
from intarsia.progress import Task
from intarsia.training.feed import Batch
from intarsia.training.history import History
from intarsia.training.optimizers import make_optimizer
from intarsia.training.schedules import lr_factor
from intarsia.training.session import Training
from intarsia.training.state import Counters, load_checkpoint, newest_checkpoint, save_checkpoint
from intarsia.training.validation import score_images

MOST_BAD_STEPS = 10
"""Steps in a row without a finite loss and gradient, after which training gives up."""


def fit(training: Training, *, resume: bool = False) -> Counters:
    """Train to the end of the budget; the best and the last model are in the run folder afterwards.

    Raises:
        Diverged: loss or gradient stayed without a finite value.
        Interrupted: a signal came; the state was saved.
        SaveError: the disk does not take a checkpoint.
    """
    config, counters, device = training.config, training.counters, training.device
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision, which we do ourselves
    fabric = Fabric(
        accelerator=device.kind,
        devices=[device.index] if device.kind == "cuda" else 1,
        precision="bf16-mixed" if device.precision == "bf16" else "32-true",
    )
    layout = torch.channels_last if training.channels_last else torch.contiguous_format
    net = training.model.to(memory_format=layout)
    average = copy.deepcopy(net).requires_grad_(False).to(device.torch_name) if config.ema else None
    model, optimizer = fabric.setup(net, make_optimizer(net, config))
    model.mark_forward_method("with_auxiliary")
    history = History(training.run / "metrics.csv")
    if resume:
        counters = training.counters = _resumed(training, net, average, optimizer)
    history.start_at(counters.step)

    steps = _grouped(training.feeder.batches(counters.step * config.accumulate), config.accumulate)
    with _signals() as stop, training.progress.task("train", 1.0) as task, torch.random.fork_rng():
        saved = time.monotonic()
        started, pace = saved - counters.seconds, Pace()
        while training.share < 1 and not stop and not _stale(training):
            batches = next(steps)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * lr_factor(training.share, config)
            torch.manual_seed(_step_seed(config.seed, counters.step))
            counters.losses.append(_step(training, fabric, model, optimizer, batches, layout))
            counters.step += 1
            if average is not None:
                _update_average(average, net, config.ema, counters.step)
            counters.seconds = time.monotonic() - started
            if counters.step % 10 == 0:
                history.add_training(training)
            _show(training, task, history)
            if training.share >= 1 or _validation_is_due(training, pace):
                pace.begins()
                scores, val_loss = _validate(training, average or net)
                pace.ends()
                counters.seconds = time.monotonic() - started
                history.add_validation(training, scores, val_loss)
                _keep_best(training, average or net, scores)
            elif time.monotonic() - saved < 60 * config.save_minutes:
                continue
            save_checkpoint(training.run / "checkpoints", counters, net, average, optimizer)
            saved = time.monotonic()
        if stop:
            save_checkpoint(training.run / "checkpoints", counters, net, average, optimizer)
            raise Interrupted(f"stopped at step {counters.step}; saved in {training.run}")
    training.save_model(average or net, "model-last", counters)
    return counters


def _step(
    training: Training,
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    layout: torch.memory_format,
) -> float:
    """One optimiser step over the batches; the loss, or NaN if the step was skipped for want of a finite gradient."""
    model.train()
    total = 0.0
    for batch in batches:
        batch = cast(Batch, fabric.to_device(batch))
        batch = batch._replace(image=batch.image.contiguous(memory_format=layout))
        loss = _loss(training, model, batch) / len(batches)
        fabric.backward(loss)
        total += float(loss.detach())
    limit = training.config.clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    finite = math.isfinite(total) and bool(torch.isfinite(norm))
    if finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    _guard(training, finite)
    return total if finite else math.nan


def _loss(training: Training, model: nn.Module, batch: Batch) -> Tensor:
    """The loss of the logits, and of auxiliary logits with their weight if the model has them."""
    if not training.model.config.deep_supervision or not training.config.auxiliary:
        return _loss_of(training, model(batch.image), batch)
    logits_NKHW, others = cast(SegmentationModel, model).with_auxiliary(batch.image)
    beside = sum((_loss_of(training, other_NKHW, batch) for other_NKHW in others), logits_NKHW.new_zeros(()))
    return _loss_of(training, logits_NKHW, batch) + training.config.auxiliary * beside / max(1, len(others))


def _loss_of(training: Training, logits_NKHW: Tensor, batch: Batch) -> Tensor:
    weights_NHW = None if batch.weights is None else fit_mask(batch.weights, logits_NKHW)
    loss = training.loss.at(training.share)
    return loss(logits_NKHW, fit_mask(batch.mask, logits_NKHW), weights_NHW)


def _guard(training: Training, finite: bool) -> None:
    counters = training.counters
    counters.bad_steps = 0 if finite else counters.bad_steps + 1
    if counters.bad_steps >= MOST_BAD_STEPS:
        raise Diverged(
            f"{training.run}: loss or gradient had no finite value in {MOST_BAD_STEPS} steps in a row, up to step "
            f"{counters.step}. Try a smaller train.lr (it was {training.config.lr}), or train.precision=fp32."
        )


@dataclass
class Pace:
    """How long the last validation took, and when it ended."""

    took: float = 0.0
    ended: float = field(default_factory=lambda: time.monotonic())

    def begins(self) -> None:
        self.took, self.ended = -time.monotonic(), math.inf

    def ends(self) -> None:
        self.ended = time.monotonic()
        self.took += self.ended

    @property
    def affordable(self) -> bool:
        """Whether training has had three times as long as the last validation since."""
        return time.monotonic() - self.ended >= 3 * self.took


def _validation_is_due(training: Training, pace: Pace) -> bool:
    """As often as asked for; by the clock at most a quarter of the time (a run by steps must repeat, so it never skips one)."""
    config, counters = training.config, training.counters
    due = training.share * config.validations >= counters.validations + 1
    return due and (config.minutes is None or pace.affordable)


def _validate(training: Training, net: nn.Module) -> tuple[OverlapScores, float]:
    counts = np.zeros((training.dataset.table.count,) * 2, np.int64)
    losses = []
    network = Network([Member(net, training.preprocess)], training.device, channels_last=training.channels_last)
    for scored in score_images(network, training.dataset, training.val_items, loss=training.loss):
        counts += scored.counts
        losses.append(scored.loss)
    training.counters.validations = max(
        training.counters.validations + 1, math.floor(training.share * training.config.validations)
    )
    return overlap_scores(counts), float(np.mean(losses))


def _keep_best(training: Training, net: nn.Module, scores: OverlapScores) -> None:
    counters = training.counters
    value = scores.mean_iou if math.isfinite(scores.mean_iou) else 0.0
    counters.stale += 1
    if value > counters.best:
        counters.best, counters.best_step, counters.stale = value, counters.step, 0
        training.save_model(net, "model", counters)


def _stale(training: Training) -> bool:
    patience = training.config.patience
    return patience is not None and training.counters.stale >= patience


def _resumed(
    training: Training, net: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> Counters:
    checkpoint, skipped = newest_checkpoint(training.run / "checkpoints")
    for line in skipped:
        training.progress.note(line)
    if checkpoint is None:
        training.progress.note("resume   no checkpoint yet: from the start")
        return training.counters
    counters = load_checkpoint(checkpoint, net, average, optimizer)
    training.progress.note(f"resume   from step {counters.step}, best val mIoU {max(counters.best, 0):.3f}")
    return counters


@torch.no_grad()
def _update_average(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """average <- d average + (1 - d) net, with d rising from 0 to `decay` over the first steps."""
    decay = min(decay, step / (step + 10))
    ours, theirs = list(average.state_dict().values()), list(net.state_dict().values())
    for mine, new in zip(ours, theirs, strict=True):
        if mine.is_floating_point():
            mine.lerp_(new, 1 - decay)
        else:
            mine.copy_(new)


def _show(training: Training, task: Task, history: History) -> None:
    counters = training.counters
    total = training.total_steps
    where = f"{counters.step} of {total:.0f}" if math.isfinite(total) else f"step {counters.step}"
    recent = [loss for loss in history.recent(counters) if math.isfinite(loss)]
    loss = f"loss {np.mean(recent):.3f}" if recent else "loss -"
    best = f"val mIoU {history.last_mean_iou:.3f}" if history.last_mean_iou is not None else ""
    task.update(training.share, f"{where}   {history.speed(training):.0f} img/s   {loss}   {best}".rstrip())


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while True:
        yield list(itertools.islice(batches, size))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that holds the signal once SIGINT or SIGTERM came; a second SIGINT aborts."""
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, remember)
    except ValueError:  # not the main thread: signals stay as they are
        pass
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
