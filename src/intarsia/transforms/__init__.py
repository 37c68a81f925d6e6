"""What happens to an image before the network: preparation (always) and augmentation (in training)."""

from intarsia.images.preprocess import Preprocess
from intarsia.transforms.pipeline import AugmentConfig, augment

__all__ = ["AugmentConfig", "Preprocess", "augment"]
