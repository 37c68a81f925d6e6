"""What the benchmarks of engines are given: a run's exported files, its weights in the peer's network, images."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from side_by_side import machine

AS_THE_COMMAND = (("GOMP_SPINCOUNT", "20000"),)
"""What `intarsia` sets, unless somebody else has: PyTorch's threads that wait fall asleep soon (benchmarks/busy_machine.py)."""
EAGER = ("torch", "timm", "intarsia.prediction.saved_models")
PEER = ("torch", "segmentation_models_pytorch")


@dataclass(frozen=True)
class Job:
    """What all sides are given."""

    run: Path
    home: Path
    """Holds input.npy (C, H, W), images/N.npy (H, W, 3), masks/N.npy, peer.pt."""
    files: dict[str, Path]
    """Exported files by precision."""
    bf16_agreement: float
    """Share of validation pixels on which bf16 agrees with float32, as the exported file says it."""
    peer: dict[str, Any] | None
    """Settings of smp's U-Net that is our network; None if it has none."""
    images: int


def padded(image: Any) -> Any:
    """(N, C, H, W) of multiples of 32, the last row and column repeated."""
    import torch

    height, width = image.shape[-2:]
    return torch.nn.functional.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")


def peer_network(job: Job) -> Any:
    """smp's network, ready."""
    import segmentation_models_pytorch as smp  # type: ignore[import-untyped]
    import torch

    torch.manual_seed(0)
    model = smp.Unet(encoder_weights=None, **(job.peer or {}))
    if (job.home / "peer.pt").is_file():
        model.load_state_dict(torch.load(job.home / "peer.pt", weights_only=True))
    return model.eval()


def prepare(
    run: Path, home: Path, size: tuple[int, int], images: int | None, precisions: tuple[str, ...], again: bool
) -> Job:
    """Test images as arrays, the input, the peer's weights and exported files."""
    from intarsia.prediction.predictor import load

    predictor = load(run, device="cpu", precision="fp32")
    count = write_images(run, home, images) if images != 0 else 0
    np.save(home / "input.npy", predictor.preprocess(picture(*size)))
    files = {each: exported(run, predictor.digest, each, again=again) for each in precisions}
    from intarsia.engines.files import read_card

    agreement = read_card(files["fp32"]).agreement.get("bf16", 0.0)
    return Job(run, home, files, agreement, peer_of(predictor.model, home), count)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) waves, blocks and grain, whose PNG and JPEG are decoded in the time of a photograph's."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    phase = rng.uniform(0, 6, 3)
    waves = np.stack([50 * np.sin(rows / (29 + k) + columns / (37 - k) + phase[k]) for k in range(3)], -1)
    blocks = rng.integers(40, 216, (-(-height // 60), -(-width // 60), 3)).repeat(60, 0).repeat(60, 1)
    drawn = blocks[:height, :width] + waves + rng.normal(0, 3, (height, width, 1))
    found: NDArray[np.uint8] = np.clip(drawn, 0, 255).astype(np.uint8)
    return found


def write_images(run: Path, home: Path, most: int | None) -> int:
    """Images and masks of the test split, or of validation if there is none, evenly spread if not all."""
    from intarsia.evaluation.evaluate import opened_for
    from intarsia.progress import Silent

    _, _, dataset = opened_for(run, None, "cpu", None, Silent())
    items = dataset.items("test" if dataset.splits.get("test") else "val")
    places = np.linspace(0, len(items) - 1, min(most or len(items), len(items))).round().astype(int)
    for what in ("images", "masks"):
        (home / what).mkdir()
    for number, place in enumerate(places):
        np.save(home / "images" / f"{number}.npy", dataset.read_image(items[place]))
        np.save(home / "masks" / f"{number}.npy", dataset.read_mask(items[place]))
    return len(places)


def exported(run: Path, digest: str, precision: str, *, again: bool = False) -> Path:
    """An exported file of these weights, made if there is none."""
    from intarsia.engines.files import read_card
    from intarsia.errors import IntarsiaError
    from intarsia.evaluation.exporting import export
    from intarsia.progress import Silent

    for file in [] if again else sorted((run / "export").glob("*.onnx")):
        try:
            if read_card(file).stands_for(digest, precision):  # type: ignore[arg-type]
                return file
        except IntarsiaError:
            continue
    print(f"export   {precision} ...", flush=True)
    return export(run, format="onnx", precision=precision, progress=Silent()).path  # type: ignore[arg-type]


def peer_of(model: Any, home: Path) -> dict[str, Any] | None:
    """Settings of smp's U-Net with a model's encoder and widths, its weights as peer.pt; None if the model is another."""
    import torch

    config = model.config
    if getattr(config, "decoder", "") != "unet" or config.attention != "none" or len(config.widths) != 5:
        return None
    import segmentation_models_pytorch as smp

    settings = {
        "encoder_name": f"tu-{config.encoder}",
        "decoder_channels": config.widths,
        "in_channels": config.channels,
        "classes": config.classes,
    }
    theirs, blocks = smp.Unet(encoder_weights=None, **settings), list(model.decoder.children())
    pairs = [(theirs.encoder.model, model.encoder.net), (theirs.segmentation_head, model.head)]
    for their, our in zip(theirs.decoder.blocks, blocks, strict=True):
        pairs += [(their.conv1, our.first), (their.conv2, our.second)]
    for their, our in pairs:
        source, target = our.state_dict(), their.state_dict()
        shapes = [[tuple(value.shape) for value in state.values()] for state in (source, target)]
        if shapes[0] != shapes[1]:
            print("smp      takes other weights than the run's: it computes with random ones")
            return settings
        their.load_state_dict(dict(zip(target, source.values(), strict=True)))
    torch.save(theirs.state_dict(), home / "peer.pt")
    return settings


def about_machine() -> dict[str, Any]:
    """The machine, with the versions of the engines."""
    about = machine()
    about["packages"] |= {each: version(each) for each in ("onnxruntime", "openvino", "onnx")}
    return about
