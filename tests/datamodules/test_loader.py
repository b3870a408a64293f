from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.types import _Stateful
from tiny_stream import make_source
from torch import Tensor
from torch.utils.data import default_collate

from lightning_cl.datamodules.loader import PlanSampler, StreamLoader
from lightning_cl.datamodules.sampling import EvalPlan, TrainPlan
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.stream_dataset import StreamDataset


def noisy(image: Tensor) -> Tensor:
    """Draws from every generator that a transform may use."""
    return image.float() + torch.rand(1) + random.random() + np.random.rand()


def mixing(items: list[Any]) -> Any:
    images, labels = default_collate(items)
    return torch.lerp(images, images.flip(0), torch.rand(1)), labels


@pytest.fixture(scope="module")
def source() -> Source:
    source = make_source()
    source.setup()
    return source


def make_loader(
    source: Source, transform: Any = noisy, epoch: int = 0, world: tuple[int, int] = (1, 0), **options: Any
) -> StreamLoader:
    plan = TrainPlan(torch.arange(10), 4, seed=5)
    loader_options = {name: options.pop(name) for name in ("num_workers", "persistent_workers") if name in options}
    dataset = StreamDataset(source, "train", transform, **options)
    loader = StreamLoader(dataset, PlanSampler(plan, *world, augment=True), **loader_options)
    loader.sampler.set_epoch(epoch)
    return loader


def equal(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_augmentation_depends_on_sample_and_epoch_alone(source):
    torch.manual_seed(1)
    first = list(make_loader(source))
    torch.manual_seed(2)
    assert equal(first, list(make_loader(source)))
    assert not equal(first, list(make_loader(source, epoch=1)))
    by_index = {}
    loader = make_loader(source)
    order = loader.sampler.order()
    images = torch.cat([batch[0] for batch in first])
    by_index = dict(zip(order.tolist(), images, strict=True))
    assert len({float(image.mean()) for image in by_index.values()}) == 10  # every sample has noise of its own
    for rank in range(3):  # the same image on whichever process, in whichever batch
        loader = make_loader(source, world=(3, rank))
        for batch_idx, (images, _) in enumerate(loader):
            share = loader.sampler.batch(order, batch_idx).index.tolist()
            assert all(torch.equal(image, by_index[i]) for i, image in zip(share, images, strict=True))


@pytest.mark.parametrize("collate_fn", [default_collate, mixing])
def test_workers_give_the_same_bits(source, collate_fn):
    alone = list(make_loader(source, collate_fn=collate_fn))
    assert equal(alone, list(make_loader(source, collate_fn=collate_fn, num_workers=2)))


def test_a_collate_function_that_draws_does_not_repeat_itself(source):
    mixed, plain = (list(make_loader(source, collate_fn=fn)) for fn in (mixing, default_collate))
    weights = [(m[0] - p[0]).abs().max() / (p[0] - p[0].flip(0)).abs().max() for m, p in zip(mixed, plain, strict=True)]
    assert len({round(float(weight), 3) for weight in weights}) == len(weights)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_global_generators_are_left_alone(source, num_workers):
    before = states()
    list(make_loader(source, collate_fn=mixing, num_workers=num_workers))
    assert states() == before


def test_nothing_is_fetched_before_it_is_asked_for(source):
    asked: list[int] = []
    loader = make_loader(source, transform=lambda image: asked.append(1) or image)
    iterator = iter(loader)
    assert not asked
    next(iterator)
    assert len(asked) == 4


def test_the_epoch_may_be_set_after_the_iterator_was_made(source):
    """Lightning makes the iterator first and tells the sampler the epoch then."""
    loader = make_loader(source)
    iterator = iter(loader)
    loader.sampler.set_epoch(3)
    assert equal(list(iterator), list(make_loader(source, epoch=3)))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_state_continues_in_mid_epoch(source, done, num_workers):
    whole = list(make_loader(source, epoch=2))
    loader = make_loader(source, epoch=2, num_workers=num_workers)
    iterator = iter(loader)
    for _ in range(done):
        next(iterator)  # workers have fetched further by now
    state = loader.state_dict()
    assert isinstance(loader, _Stateful)
    assert state["batch"] == done
    resumed = make_loader(source, num_workers=num_workers)
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(state["epoch"] if done else 2)
    assert equal(list(resumed), whole[done:])
    assert equal(list(resumed), whole)  # the next pass is a whole one


def test_state_is_of_the_pass_that_began_last(source):
    loader = make_loader(source, epoch=0)
    list(loader)
    loader.sampler.set_epoch(1)  # Lightning sets the epoch before the hooks in which a checkpoint may be saved
    assert loader.state_dict() == {"version": 1, "epoch": 0, "batch": 3, "batch_size": 4, "updates": 1, "seed": 5}
    resumed = make_loader(source)
    resumed.load_state_dict(loader.state_dict())
    assert resumed.state_dict() == loader.state_dict()
    resumed.sampler.set_epoch(1)
    assert len(list(resumed)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 3}, r"after 1 batches with a global batch size of 4 \(here 3\), so the rest"),
        ({"seed": 6}, r"with the seed of 5 \(here 6\)"),
        ({"updates": 2, "batch_size": 5}, r"size of 4 \(here 5\), `updates_per_batch` of 1 \(here 2\)"),
    ],
)
def test_an_epoch_does_not_go_on_with_other_batches(source, change, message):
    loader = make_loader(source)
    next(iter(loader))
    state, changed = loader.state_dict(), make_loader(source)
    changed.sampler.plan = replace(changed.sampler.plan, **change)
    changed.load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        next(iter(changed))
    changed.load_state_dict({**state, "batch": 0})  # at its start it may
    assert len(list(changed)) == len(changed)
    changed.load_state_dict({name: state[name] for name in ("version", "epoch", "batch")})  # saved by an early version
    assert len(list(changed)) == len(changed) - 1


def test_on_start_is_called_before_the_first_batch_is_made(source):
    events: list[str] = []
    loader = make_loader(source, transform=lambda image: events.append("image") or image)
    loader.on_start = lambda: events.append("start")
    list(loader)
    assert events == ["start", *["image"] * 10]


def test_evaluation_images_are_not_seeded(source):
    dataset = StreamDataset(source, "test", noisy)
    loader = StreamLoader(dataset, PlanSampler(EvalPlan(torch.arange(7), 4), 1, 0, augment=False))
    assert len(dataset) == len(source.test_labels)
    assert (len(loader), loader.batch_size, [len(labels) for _, labels in loader]) == (2, 4, [4, 3])
    torch.manual_seed(0)
    first = list(loader)
    torch.manual_seed(1)
    assert not equal(first, list(loader))
