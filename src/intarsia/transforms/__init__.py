"""What happens to an image before the network: preparation (always) and augmentation (in training)."""

from intarsia.transforms.pipeline import AugmentConfig, augment
from intarsia.transforms.preprocess import Preprocess

__all__ = ["AugmentConfig", "Preprocess", "augment"]
