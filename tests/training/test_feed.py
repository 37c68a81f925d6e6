"""Feeding: every image once an epoch, the same samples whatever reads them."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from intarsia.data import FolderConfig
from intarsia.images.preprocess import Preprocess
from intarsia.losses.base import Border
from intarsia.losses.border import border_weight_map
from intarsia.progress import Silent
from intarsia.training.feed import Feeder, draw_order
from intarsia.transforms.pipeline import AUGMENTS, AugmentConfig
from intarsia.transforms.rare import rare_classes
from intarsia.transforms.warp_batch import warp_batch

BORDER = Border(10, 5)


@pytest.fixture(scope="module")
def dataset(cells):
    return FolderConfig(path=str(cells)).open(Silent())


def feeder(dataset, **changes):
    settings = {"batch": 4, "seed": 3, "workers": 0, "size": (32, 48)} | changes
    settings = {"preprocess": Preprocess(channels=1, mean=dataset.mean, std=dataset.std)} | settings
    settings = {"augment": AugmentConfig()} | settings
    return Feeder(dataset=dataset, items=dataset.items("train"), **settings)


def first(feed, count, start=0):
    return list(itertools.islice(feed.batches(start), count))


def equal(ours, theirs):
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for x, y in zip(ours, theirs, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_shapes_and_types(dataset):
    image, mask, weights = first(feeder(dataset), 1)[0]
    assert (image.shape, image.dtype) == ((4, 1, 32, 48), torch.float32)
    assert (mask.shape, mask.dtype) == ((4, 32, 48), torch.uint8)
    assert weights is None


def test_samples_are_made_on_the_device_of_the_network(dataset, monkeypatch):
    """On tensors that have a device but no content."""
    monkeypatch.setattr("intarsia.training.feed.available_memory", lambda device: 1 << 30)
    feed = feeder(dataset, device="cuda", border=BORDER, augment=AUGMENTS["unet"])
    with FakeTensorMode(allow_non_fake_inputs=True):
        for _ in range(2):  # moved, then kept there
            batch = first(feed, 1)[0]
            assert {part.device.type for part in batch} == {"cuda"}
    assert len(feed._moved) == 4


@pytest.mark.parametrize(
    "changes",
    [{}, {"cutmix": 0.4, "mosaic": 0.3, "copy_paste": 0.3}, {"blur": 2.0, "noise": 0.1, "degraded": 0.7}],
    ids=str,
)
@pytest.mark.parametrize("preset", ["default", "unet"])
def test_a_batch_computed_as_one_is_its_samples(dataset, preset, changes, monkeypatch):
    """The way of a GPU, on the processor."""
    monkeypatch.setattr(
        "intarsia.transforms.pipeline.warp_all", lambda given, size, **how: warp_batch(given, size) if given else []
    )
    feed = feeder(dataset, border=BORDER, augment=AUGMENTS[preset].replace(changes))
    together = feed._sampler.draw_all([feed._planned(position) for position in range(6)])
    monkeypatch.undo()
    for position, found in enumerate(together):
        alone = feed._drawn(position)
        assert (found.mask != alone.mask).float().mean() < 0.003
        assert ((found.image - alone.image).abs() > 0.02).float().mean() < 0.003
        assert ((found.weights - alone.weights).abs() > 0.02).float().mean() < 0.003


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_make_whole_batches_for_another_device(dataset, workers, monkeypatch):
    monkeypatch.setattr("intarsia.training.feed.available_memory", lambda device: 1 << 30)
    usual = first(feeder(dataset), 3)
    other = feeder(dataset, device="cpu:0", workers=workers)
    for ours, theirs in zip(usual, first(other, 3), strict=True):
        assert torch.allclose(ours.image, theirs.image, atol=1e-4)
        assert torch.equal(ours.mask, theirs.mask)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(dataset, workers):
    assert equal(first(feeder(dataset), 5), first(feeder(dataset, workers=workers), 5))


@pytest.mark.parametrize("start", [1, 3])
def test_a_restart_goes_on_where_it_stopped(dataset, start):
    assert equal(first(feeder(dataset), 5)[start:], first(feeder(dataset, workers=2), 5 - start, start))


def test_the_seed_and_the_epoch_change_everything(dataset):
    assert not equal(first(feeder(dataset), 1), first(feeder(dataset, seed=4), 1))
    count = len(dataset.items("train"))
    feed = feeder(dataset)
    again = next(
        position
        for position in range(count, 2 * count)
        if draw_order(3, 1, count)[position - count] == draw_order(3, 0, count)[0]
    )
    assert not torch.equal(feed.sample(0)[0], feed.sample(again)[0])


def test_every_image_is_seen_once_an_epoch():
    for epoch in range(3):
        assert sorted(draw_order(0, epoch, 7)) == list(range(7))
    assert draw_order(0, 0, 50).tolist() != draw_order(0, 1, 50).tolist()


@pytest.mark.parametrize("cache", ["memory", "off"])
def test_more_samples_than_memory_are_read_again(dataset, cache):
    feed = feeder(dataset, cache=cache)
    feed.store.room = 0
    assert equal(first(feed, 2), first(feeder(dataset), 2))
    assert not feed.store.kept


MIXED = AugmentConfig(focus=0.5, cutmix=0.25, mosaic=0.25, copy_paste=0.25)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("start", [0, 2, 7])
def test_mixed_samples_do_not_depend_on_workers_or_on_where_one_starts(dataset, workers, start):
    whole = first(feeder(dataset, augment=MIXED, border=BORDER), 9)
    assert equal(whole[start:], first(feeder(dataset, augment=MIXED, border=BORDER, workers=workers), 9 - start, start))


def test_a_mixed_sample_is_a_function_of_its_position_alone(dataset):
    ours, theirs = feeder(dataset, augment=MIXED), feeder(dataset, augment=MIXED)
    forwards = [ours.sample(position) for position in range(14)]
    backwards = [theirs.sample(position) for position in reversed(range(14))]
    assert equal(forwards, backwards[::-1])


@pytest.mark.parametrize("mix", ["cutmix", "mosaic", "copy_paste"])
def test_mixed_labels_belong_to_the_training_images(dataset, mix):
    """On images that hold one class each, a mix shows no class but those; weights are pasted with the pixels."""
    numbers = {item.name: number for number, item in enumerate(dataset.items("train"))}

    class OneClassEach(type(dataset)):
        def read_mask(self, item):
            mask = np.full((item.height, item.width), 100 + numbers.get(item.name, 0), np.uint8)
            mask[:40] = 1
            return mask

        def border_weights(self, item, border):
            return np.where(self.read_mask(item) == 1, 0, self.read_mask(item)).astype(np.float32)

    fields = {each.name: getattr(dataset, each.name) for each in dataclasses.fields(dataset)}
    still = AUGMENTS["none"].replace({mix: 1.0})
    feed = feeder(OneClassEach(**fields | {"class_pixels": {"train": np.array([9, 1])}}), augment=still, border=BORDER)
    shown = [set((sample := feed.sample(position)).mask.unique().tolist()) for position in range(30)]
    assert all(labels <= {1, *(100 + number for number in range(6))} for labels in shown)
    assert sum(len(labels - {1}) > 1 for labels in shown) > 10 or mix == "copy_paste"
    assert torch.equal(sample.weights, torch.where(sample.mask == 1, 0, sample.mask).float())


def test_focus_shows_rare_classes_more_often(dataset):
    pixels = dataset.class_pixels["train"]
    rare = rare_classes(pixels)
    assert rare
    shares = []
    for focus in (0.0, 1.0):
        still = AUGMENTS["none"].replace(focus=focus)
        masks = torch.stack([feeder(dataset, augment=still).sample(position).mask for position in range(60)])
        shares.append(np.isin(masks.numpy(), rare).any(axis=(1, 2)).mean())
    assert shares[1] == 1.0 > shares[0]


def test_a_border_brings_weights_and_changes_nothing_else(dataset):
    plain, weighted = (first(feeder(dataset, **more), 3) for more in ({}, {"border": BORDER}))
    for without, with_border in zip(plain, weighted, strict=True):
        assert torch.equal(without.image, with_border.image)
        assert torch.equal(without.mask, with_border.mask)
        assert (with_border.weights.shape, with_border.weights.dtype) == ((4, 32, 48), torch.float32)
        assert 0 <= with_border.weights.min() <= with_border.weights.max() <= 10
    assert any(batch.weights.max() > 5 for batch in weighted)


@pytest.mark.parametrize("workers", [1, 3])
def test_weights_are_the_same_with_any_workers_and_after_a_restart(dataset, workers):
    whole = first(feeder(dataset, border=BORDER), 5)
    assert equal(whole[2:], first(feeder(dataset, border=BORDER, workers=workers), 3, 2))


def test_weights_belong_to_the_pixels_of_the_sample(dataset):
    """Without zoom and colour, a sample's weights are a part of the map of its image, at the same place."""
    item = dataset.items("train")[0]
    still = AugmentConfig(zoom=(1, 1), aspect=1, mirror="none", colour=0)
    feed = feeder(dataset, border=BORDER, size=(item.height, item.width), augment=still)
    place = draw_order(3, 0, len(feed.items)).tolist().index(0)
    sample = feed.sample(place)
    assert torch.equal(sample.mask, torch.from_numpy(dataset.read_mask(item)))
    assert torch.equal(sample.weights, torch.from_numpy(border_weight_map(dataset.read_instances(item))))


def test_weights_are_at_the_scale_of_the_data(dataset):
    half = Preprocess(channels=1, mean=dataset.mean, std=dataset.std, scale=0.5)
    loaded = feeder(dataset, border=BORDER, preprocess=half).load(dataset.items("train")[0])
    assert loaded.weights.shape == loaded.mask.shape == (80, 80)
