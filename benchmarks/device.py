"""What waits for a GPU, in one call: correctness against the processor, bf16, compiling, memory, tiles, CRF.

    python benchmarks/device.py                 # cuda:0; --device cpu --quick tries the script itself anywhere
    python -m pytest tests -q -k cuda           # the tests that need CUDA, beside it

Each part is told as it ends, and the file is written after each, so that a session that is cut short loses nothing. Times are
medians after one call that is not counted, with the device waited for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import torch
from side_by_side import RESULTS, machine

from intarsia.devices import choose_device
from intarsia.images.preprocess import Preprocess
from intarsia.images.source import ArraySource
from intarsia.losses import LOSSES
from intarsia.models import create_model
from intarsia.ops.crf import CRFS, dense_crf
from intarsia.prediction.canvas import canvas_in_memory
from intarsia.prediction.config import PredictConfig
from intarsia.prediction.networks.torch_network import Member, Network
from intarsia.prediction.tiled import segment

CLASSES = 12
MODELS = ("unet_same", "encdec", "deeplab3plus_lite0", "fcdensenet56", "fcn8s_vgg16")


def timed(call: Callable[[], object], device: str, rounds: int) -> float:
    """Median seconds."""
    call()
    times = []
    for _ in range(rounds):
        wait(device)
        begun = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    settings = {"pretrained": "none"} if name.startswith(("encdec", "deeplab3plus")) else {}
    return create_model(name, num_classes=CLASSES, in_channels=3, **settings)


def networks(device: str, quick: bool) -> dict[str, Any]:
    """Logits and classes against the processor's float32; time of float32 and bf16."""
    size, rows = (96, 128) if quick else (360, 480), {}
    image = torch.randn(1, 3, *size)
    for name in MODELS[:2] if quick else MODELS:
        model = built(name).eval()
        with torch.inference_mode():
            truth = model(image)
            model, there = model.to(device), image.to(device)
            found = model(there).cpu()
            with torch.autocast(device.partition(":")[0], torch.bfloat16):
                half = model(there).float().cpu()
                bf16 = timed(lambda model=model, there=there: model(there), device, 10)
            fp32 = timed(lambda model=model, there=there: model(there), device, 10)
        rows[name] = {
            "largest_difference": float((found - truth).abs().max()),
            "same_class": float((found.argmax(1) == truth.argmax(1)).float().mean()),
            "same_class_bf16": float((half.argmax(1) == truth.argmax(1)).float().mean()),
            "ms_fp32": round(1000 * fp32, 2),
            "ms_bf16": round(1000 * bf16, 2),
        }
    return rows


def training(device: str, quick: bool) -> dict[str, Any]:
    """A step of forward, loss, backward and AdamW: float32, bf16, bf16 compiled; largest memory."""
    batch, size, rows = (2, 64, {}) if quick else (16, 256, {})
    kind = device.partition(":")[0]
    images = torch.randn(batch, 3, size, size, device=device)
    masks = torch.randint(0, CLASSES, (batch, size, size), dtype=torch.uint8, device=device)
    for name in MODELS[:1] if quick else MODELS:
        for form in ("fp32", "bf16", "bf16_compiled"):
            model = built(name).to(device).to(memory_format=torch.channels_last).train()
            loss = LOSSES["ce_dice"]
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
            net = torch.compile(model) if form == "bf16_compiled" and not quick else model

            def step(net=net, optimizer=optimizer, loss=loss, form=form) -> None:
                with torch.autocast(kind, torch.bfloat16, enabled=form != "fp32"):
                    logits = net(images)
                value = loss(logits.float(), masks)
                value.backward()
                optimizer.step()
                optimizer.zero_grad()

            if kind == "cuda":
                torch.cuda.reset_peak_memory_stats()
            begun = time.perf_counter()
            step()
            first = time.perf_counter() - begun
            row = {"ms": round(1000 * timed(step, device, 5), 2), "first_s": round(first, 2)}
            if kind == "cuda":
                row["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
            rows[f"{name} {form}"] = row
            del model, net, optimizer
    return rows


def crf(device: str, quick: bool) -> dict[str, Any]:
    """360 x 480, 10 iterations: the device against the compiled form of the processor."""
    size, rows = (60, 80) if quick else (360, 480), {}
    generator = torch.Generator().manual_seed(0)
    image = (
        torch.nn.functional.interpolate(torch.rand(1, 3, 9, 12, generator=generator), size, mode="bicubic").clamp(0, 1)
        * 255
    )
    for classes in (2, 12, 21):
        logits = (
            torch.nn.functional.interpolate(torch.randn(1, classes, 9, 12, generator=generator), size, mode="bilinear")
            * 3
        )
        here = dense_crf(logits, image, CRFS["deeplab"])
        there = dense_crf(logits.to(device), image.to(device), CRFS["deeplab"]).cpu()
        on_cpu = timed(lambda logits=logits: dense_crf(logits, image, CRFS["deeplab"]), "cpu", 3)
        moved = logits.to(device), image.to(device)
        on_device = timed(lambda moved=moved: dense_crf(*moved, CRFS["deeplab"]), device, 5)
        rows[str(classes)] = {
            "cpu_ms": round(1000 * on_cpu, 1),
            "device_ms": round(1000 * on_device, 1),
            "same_class": float((here.argmax(1) == there.argmax(1)).float().mean()),
            "largest_difference_of_q": float((here.exp() - there.exp()).abs().max()),
        }
    return rows


def tiles(device: str, quick: bool) -> dict[str, Any]:
    """An image in tiles, by batch: megapixels a second and memory; equal to the processor's classes on a small one."""
    place, side, rows = choose_device(device, "bf16" if device != "cpu" else "fp32"), 700 if quick else 8192, {}
    model = built("encdec").eval().to(device)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for batch in (1, 4, 16):
        settings = PredictConfig(tile=256 if quick else 1024, batch=batch)
        network = Network([Member(model, Preprocess())], place, settings)

        def call(network=network) -> None:
            segment(network, ArraySource(image), canvas_in_memory((side, side), CLASSES, (), "float16"), CLASSES)

        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(call, device, 2)
        rows[str(batch)] = {"megapixels_a_second": round(side**2 / seconds / 1e6, 1)}
        if device.startswith("cuda"):
            rows[str(batch)]["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device
    result: dict[str, Any] = {
        "benchmark": "device",
        "date": date.today().isoformat(),
        "device": name,
        "machine": machine(),
    }
    for part in (networks, crf, tiles, training):
        begun = time.perf_counter()
        try:
            result[part.__name__] = part(given.device, given.quick)
        except Exception as error:  # the other parts are still worth their time
            result[part.__name__] = f"{type(error).__name__}: {error}"[:500]
        print(f"{part.__name__}  {time.perf_counter() - begun:.0f} s  {json.dumps(result[part.__name__])}", flush=True)
        if not given.quick:
            file = RESULTS / f"device-{result['date']}.json"
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
