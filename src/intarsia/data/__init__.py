"""Data sets: from files to samples, checked. Importing this package registers them."""

import intarsia.data.combine
import intarsia.data.published
import intarsia.data.stream  # noqa: F401
from intarsia.data.base import DATASETS, DataConfig, Dataset, Item
from intarsia.data.folder import FolderConfig

__all__ = ["DATASETS", "DataConfig", "Dataset", "FolderConfig", "Item"]
