"""Data sets in shards, WebDataset's or litdata's. Importing this package registers them."""

from intarsia.data.stream.config import StreamConfig, StreamDataset

__all__ = ["StreamConfig", "StreamDataset"]
