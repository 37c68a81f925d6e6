"""A scene larger than most memories, predicted, killed half-way and gone on with.

    python scripts/big_raster.py RUN IMAGES --side 20000

Pastes the images of a folder into one GeoTIFF (UTM 33N, 0.5 m), predicts it to a COG, a GeoPackage and areas, predicts it once
more with SIGKILL when half of it is done, goes on, and holds both against each other and areas against each other.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
from PIL import Image
from rasterio.transform import from_origin

SETTINGS = ["outputs=[classes,polygons,areas]", "polygons=gpkg"]


def paste(folder: Path, path: Path, side: int) -> None:
    """Images side by side, row by row, until the scene is full."""
    files = sorted(each for each in folder.iterdir() if each.suffix in (".png", ".webp", ".jpg"))
    pictures = [np.asarray(Image.open(each).convert("RGB")) for each in files]
    height, width = pictures[0].shape[:2]
    count = -(-side // width)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "tiled": True,
               "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1, "BIGTIFF": "YES",
               "crs": "EPSG:32633", "transform": from_origin(390000, 5820000, 0.5, 0.5)}  # fmt: skip
    order = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as scene:
        for top in range(0, side, height):
            row = np.concatenate([pictures[order.integers(len(pictures))] for _ in range(count)], 1)[
                : side - top, :side
            ]
            window = rasterio.windows.Window(0, top, side, row.shape[0])
            scene.write(np.moveaxis(row, -1, 0), window=window)


def command(run: Path, scene: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "intarsia", "predict", str(run), str(scene), "--out", str(out), *SETTINGS]


def hashes(folder: Path) -> dict[str, str]:
    files = (each for each in sorted(folder.iterdir()) if each.name != "manifest.jsonl" and each.is_file())
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest()[:16] for each in files}


def killed_half_way(run: Path, scene: Path, out: Path, side: int) -> int:
    """Rows that were done when the process was killed."""
    process = subprocess.Popen(command(run, scene, out), stdout=subprocess.DEVNULL)
    progress = out / f".{scene.stem}.work" / "progress.json"
    while process.poll() is None:
        time.sleep(0.2)
        try:
            rows = json.loads(progress.read_text())["at"][1]
        except (OSError, ValueError):
            continue
        if rows >= side / 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return int(rows)
    raise SystemExit("it was done before it could be killed; take a larger side")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--work", type=Path, default=Path("big-raster"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    scene = given.work / "scene.tif"
    paste(given.images, scene, given.side)
    print(f"scene      {given.side} x {given.side}, {scene.stat().st_size / 1e9:.2f} GB", flush=True)
    begun = time.perf_counter()
    subprocess.run(command(given.run, scene, given.work / "whole"), check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"predicted  {time.perf_counter() - begun:.0f} s, peak {peak:.2f} GiB", flush=True)
    rows = killed_half_way(given.run, scene, given.work / "killed", given.side)
    subprocess.run(command(given.run, scene, given.work / "killed"), check=True)
    one, other = hashes(given.work / "whole"), hashes(given.work / "killed")
    print(f"killed     at row {rows}, gone on with; {len(one)} files, bytes equal: {one == other}", flush=True)

    with rasterio.open(given.work / "whole" / "scene.tif") as result, rasterio.open(scene) as source:
        same = result.crs == source.crs and result.transform == source.transform
        counts = np.zeros(256, np.int64)
        for _, window in result.block_windows(1):
            counts += np.bincount(result.read(1, window=window).ravel(), minlength=256)
        print(f"COG        {result.width} x {result.height}, overviews {result.overviews(1)}, coordinates kept: {same}")
    table = pyogrio.raw.read(given.work / "whole" / "scene.gpkg", columns=["class", "area_m2"], read_geometry=False)
    names, (classes, areas) = table[0]["fields"].tolist(), table[3]
    with (given.work / "whole" / "scene_areas.csv").open() as file:
        told = {int(row["class"]): (int(row["pixels"]), float(row["m2"])) for row in csv.DictReader(file)}
    for index, (pixels, m2) in told.items():
        in_polygons = float(areas[classes == index].sum())
        print(
            f"class {index:<3} raster {counts[index]:>10} px  CSV {pixels:>10} px {m2:>12.2f} m2  polygons {in_polygons:>12.2f}"
        )
    print(f"columns    {names}; all polygons {areas.sum():.2f} m2, the scene {given.side**2 * 0.25:.2f} m2")
    os._exit(0 if one == other and same else 1)


if __name__ == "__main__":
    main()
