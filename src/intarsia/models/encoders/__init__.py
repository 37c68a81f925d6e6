"""Encoders: networks that give features at several strides."""

from intarsia.models.encoders.base import Encoder

__all__ = ["Encoder"]
