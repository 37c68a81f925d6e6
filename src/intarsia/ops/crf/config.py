"""Settings of the dense CRF, and the published ones.

| preset | w1 | sigma_alpha | sigma_beta | w2 | sigma_gamma | iterations | source |
|---|---|---|---|---|---|---|---|
| deeplab | 4 | 49 | 5 | 3 | 3 | 10 | the authors' run_densecrf.sh of DeepLab v2 with VGG16 |
| deeplab_resnet101 | 4 | 67 | 3 | 3 | 1 | 10 | kazuto1011/deeplab-pytorch, DeepLab v2 with ResNet-101 |
| deeplab_largefov | 5 | 50 | 10 | 3 | 3 | 10 | the layer, commented out, in DeepLab v1 LargeFOV's prototxt |
| krahenbuhl_demo | 10 | 80 | 13 | 3 | 3 | 5 | the example of Krähenbühl and Koltun's code, in pydensecrf's README |
"""

from __future__ import annotations

from pydantic import Field

from intarsia.config import NamedConfig
from intarsia.registry import Registry


class CrfConfig(NamedConfig):
    """A fully connected CRF with Gaussian edges, Krähenbühl and Koltun, arXiv:1210.5644, equation 3; symbols of DeepLab,
    arXiv:1412.7062, equation 3. The defaults are those of DeepLab v2 with VGG16, as the authors' script has them."""

    bilateral_weight: float = Field(4, ge=0)
    """w1, how strongly pixels near each other and of similar colour are drawn to one class; 0: not at all."""
    position_std: float = Field(49, gt=0)
    """sigma_alpha, how far (in pixels) pixels of similar colour see each other."""
    colour_std: float = Field(5, gt=0)
    """sigma_beta, how much (of 0..255) their colours may differ."""
    smoothness_weight: float = Field(3, ge=0)
    """w2, how strongly pixels near each other are drawn to one class, whatever their colour; 0: not at all."""
    smoothness_std: float = Field(3, gt=0)
    """sigma_gamma, how far (in pixels) they see each other."""
    iterations: int = Field(10, ge=1)
    """Steps of mean-field inference."""
    least_probability: float = Field(1e-5, ge=0, lt=1)
    """Probabilities of the network below this count as this, so that no pixel is too sure to be changed; 0: as they are."""


CRFS: Registry[CrfConfig] = Registry("crf", "crfs")


def _preset(name: str, *settings: float) -> None:
    names = ("bilateral_weight", "position_std", "colour_std", "smoothness_weight", "smoothness_std", "iterations")
    CRFS.preset(name, CrfConfig(**dict(zip(names, settings, strict=True))))


#                             w1  sa  sb  w2 sg  steps
_preset("deeplab",             4, 49,  5, 3, 3, 10)  # fmt: skip
_preset("deeplab_resnet101",   4, 67,  3, 3, 1, 10)  # fmt: skip
_preset("deeplab_largefov",    5, 50, 10, 3, 3, 10)  # fmt: skip
_preset("krahenbuhl_demo",    10, 80, 13, 3, 3,  5)  # fmt: skip
