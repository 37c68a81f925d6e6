"""Seconds from the start of a process until its first class map lies on disk: a part of predict.py."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine_job import Job
from in_turn import PAUSE, QUIET, others

MOST_START_UP = 0.8

PEERS_SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
home, image, out, settings, mean, std = sys.argv[1:7]
model = smp.Unet(encoder_weights=None, **json.loads(settings))
model.load_state_dict(torch.load(Path(home) / "peer.pt", weights_only=True))
model.eval()
mean, std = (torch.tensor(json.loads(each))[:, None, None] for each in (mean, std))
pixels = np.array(Image.open(image).convert("RGB"))
x = (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std
height, width = pixels.shape[:2]
x = torch.nn.functional.pad(x[None], (0, -width % 32, 0, -height % 32), mode="replicate")
with torch.inference_mode():
    classes = model(x).argmax(1)[0, :height, :width].to(torch.uint8).numpy()
Path(out).mkdir()
Image.fromarray(classes).save(Path(out) / (Path(image).stem + ".png"))
"""


def start_ups(job: Job, rounds: int) -> dict[str, Any]:
    """Seconds of a process until its class map lies on disk, of several, in turn."""
    from intarsia.engines.files import read_card

    image, out = job.home / "jpg" / "0000.jpg", job.home / "out"
    file, preprocess = job.files["fp32"], read_card(job.files["fp32"]).preprocess
    command = [sys.executable, "-m", "intarsia", "predict"]
    rest = [str(image), "--out", str(out), "--no-overlay"]
    sides = {
        "intarsia predict FILE": [*command, str(file), *rest],
        "intarsia predict FILE backend=auto": [*command, str(file), *rest, "backend=auto"],
        "intarsia predict RUN": [*command, str(job.run), *rest],
    }
    if (job.home / "peer.pt").is_file():
        given = [json.dumps(each) for each in (job.peer, preprocess.mean, preprocess.std)]
        sides = {"smp": [sys.executable, "-c", PEERS_SCRIPT, str(job.home), str(image), str(out), *given], **sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    taken = []
    for _ in range(rounds + 1):
        taken.append(others())
        for name, words in sides.items():
            time.sleep(PAUSE)
            times[name].append(until_there(words, out / f"{image.stem}.png"))
            shutil.rmtree(out)
    found: dict[str, Any] = {name: round(statistics.median(each[1:]), 3) for name, each in times.items()}
    return {
        "seconds": found,
        "others_took": round(statistics.mean(taken), 3),
        "imports_torch": imports_torch(sides["intarsia predict FILE"], out),
    }


def until_there(words: list[str], place: Path) -> float:
    """Seconds from the start of a process until a file is there."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (place.is_file() and place.stat().st_size) and process.poll() is None:
        time.sleep(0.001)
    taken = time.perf_counter() - start
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(error.decode())
    return taken


def imports_torch(words: list[str], out: Path) -> bool:
    """Whether Python says so of the same command."""
    done = subprocess.run([words[0], "-X", "importtime", *words[1:]], capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    if "intarsia" not in names:
        raise SystemExit("python -X importtime tells nothing")
    return any(name.partition(".")[0] == "torch" for name in names)


def started(found: dict[str, Any]) -> str:
    """Start-up for a person."""
    lines = [f"{name:<36}{taken:6.2f} s until the first class map" for name, taken in found["seconds"].items()]
    ours = found["seconds"]["intarsia predict FILE"]
    met = "met" if ours < MOST_START_UP and not found["imports_torch"] else "MISSED"
    torch = "imports torch" if found["imports_torch"] else "does not import torch"
    lines.append(f"intarsia predict FILE {torch}; {ours:.2f} s (below {MOST_START_UP}: {met})")
    if found["others_took"] > QUIET:
        lines.append("None of this holds: the machine was not quiet.")
    return "\n".join(lines)
