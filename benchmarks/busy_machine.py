"""Training steps while another program keeps a core busy: the default spin of waiting threads against the one we set.

python benchmarks/busy_machine.py           # --busy 0: the same on a quiet machine
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
from collections.abc import Callable

from side_by_side import compare


def steps(spin: str | None) -> Callable[[], object]:
    """Five steps of a small U-Net; the variable must be set before torch is imported."""
    if spin is not None:
        os.environ["GOMP_SPINCOUNT"] = spin
    import torch

    from intarsia.losses import LOSSES
    from intarsia.models import create_model

    torch.manual_seed(0)
    model = create_model("unet_same", num_classes=3, in_channels=1, width=16, depth=3)
    image, mask = torch.randn(8, 1, 128, 128), torch.randint(0, 3, (8, 128, 128))
    loss_of = LOSSES["ce_dice"]

    def call() -> None:
        for _ in range(5):
            loss_of(model(image), mask).backward()

    return call


def spin_forever() -> None:
    """A program that never waits."""
    while True:
        pass


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=1, help="programs that keep a core busy")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    load = [multiprocessing.get_context("spawn").Process(target=spin_forever, daemon=True) for _ in range(given.busy)]
    for process in load:
        process.start()
    sides = {"default": functools.partial(steps, None), "spin_20000": functools.partial(steps, "20000")}
    name = "busy_machine" if given.busy else "quiet_machine"
    compare(name, sides, rounds=given.rounds, images=40, about={"busy_programs": given.busy})
    for process in load:
        process.terminate()


if __name__ == "__main__":
    main()
