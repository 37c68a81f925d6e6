"""What the tests of decoded images share."""

import torch

from intarsia.images.preprocess import Preprocess
from intarsia.progress import Silent
from intarsia.training.store import Store


class Notes(Silent):
    """Keeps its lines."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def store_of(dataset, mode="disk", **changes):
    preprocess = changes.pop("preprocess", Preprocess(channels=1, mean=dataset.mean, std=dataset.std))
    return Store(dataset, dataset.items("train"), preprocess, mode=mode, **changes)


def all_of(store):
    return [store.load(item) for item in store.items]


def equal(ours, theirs):
    return all(
        a is b is None or (a.dtype == b.dtype and torch.equal(a, b))
        for x, y in zip(ours, theirs, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def files(cache):
    return sorted(cache.glob("*.safetensors"))
