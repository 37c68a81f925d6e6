"""Two processes find what one finds."""

from __future__ import annotations

import multiprocessing
import os
import socket

import numpy as np
import torch.distributed as dist

from intarsia.evaluation.evaluate import evaluate
from intarsia.metrics.processes import gathered, process_count, process_rank
from intarsia.progress import Silent
from tests.evaluation.tiny import write_data, write_run


def one_of(rank, count, port, run, pipe):
    """A process of a gloo group."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=count)
    found = evaluate(run, metrics=["boundary", "calibration"], device="cpu", progress=Silent(), report=False)
    scores = {name: each.counts for name, each in found.found.items()}
    pipe.send((process_rank(), process_count(), gathered([rank] * (2 - rank)), scores, found.to_dict()))
    pipe.close()
    dist.destroy_process_group()


def test_two_gloo_processes_give_the_figures_of_one(tmp_path):
    run = write_run(tmp_path / "run", write_data(tmp_path / "data"))
    alone = evaluate(run, metrics=["boundary", "calibration"], device="cpu", progress=Silent(), report=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=one_of, args=(rank, 2, port, run, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    results = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for rank, (own, count, order, scores, stored) in enumerate(results):
        assert (own, count) == (rank, 2)
        assert order == [0, 1, 0]
        for name, each in alone.found.items():
            assert np.array_equal(scores[name], each.counts)
        assert stored == alone.to_dict()


def test_without_processes_nothing_changes():
    assert (process_rank(), process_count(), gathered([3, 1])) == (0, 1, [3, 1])
