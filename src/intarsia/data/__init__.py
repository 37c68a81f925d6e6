"""Data sets: from files to samples, checked. Importing this package registers them."""

from intarsia.data.base import DATASETS, DataConfig, Dataset, Item
from intarsia.data.folder import FolderConfig

__all__ = ["DATASETS", "DataConfig", "Dataset", "FolderConfig", "Item"]
