"""Drawn cells, a small U-Net, a mask: the Python door in twenty lines. Some ten seconds on two cores."""

import sys
from pathlib import Path

import intarsia as ia
from intarsia.data.cells import write_cells_folder


def main(home: Path) -> None:
    """Write a data folder below `home`, train on it, predict one image."""
    write_cells_folder(home / "cells", counts={"train": 16, "val": 4, "test": 4})
    run = ia.train(
        home / "cells",
        out=home / "run",
        model={"name": "unet_same", "width": 8, "depth": 3},
        train={"steps": 60, "lr": 0.005, "validations": 3},
        data={"size": (96, 96)},
    )
    print(f"mean IoU {run.metrics['test'].mean_iou:.2f}, report {run.report}")
    result = ia.load(run).predict(home / "cells" / "test" / "images" / "cells_000.png")
    result.overlay().save(home / "overlay.png")
    print({name: round(share, 2) for name, share in result.shares.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example"))
