from __future__ import annotations

import copy
import pickle

import pytest
import torch

from lightning_cl.nn.feature_cache import FeatureCache

FEATURES = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


class Backbone:
    """Answers for the images at ``index`` and remembers for which."""

    def __init__(self):
        self.computed = []

    def __call__(self, index):
        def compute(rows):
            chosen = index if rows is None else index[rows]
            self.computed.append(chosen.tolist())
            return FEATURES[chosen].clone()

        return compute


@pytest.fixture
def backbone():
    return Backbone()


def ask(cache, backbone, index, split="test", size=10, announced=True):
    index = torch.tensor(index)
    if announced:
        cache.expect(split, index, size)
    found = cache.get(backbone(index), len(index))
    assert torch.equal(found, FEATURES[index])
    assert cache.expected is None
    return found


def test_known_images_are_not_computed_again(backbone):
    cache = FeatureCache()
    ask(cache, backbone, [3, 1, 7])
    ask(cache, backbone, [7, 3])
    ask(cache, backbone, [1, 1, 3])
    assert backbone.computed == [[3, 1, 7]]
    assert cache.hits == 2


def test_only_the_unknown_part_of_a_batch_is_computed(backbone):
    cache = FeatureCache()
    ask(cache, backbone, [0, 1, 2])
    ask(cache, backbone, [5, 2, 0, 9])
    ask(cache, backbone, [9, 5])
    assert backbone.computed == [[0, 1, 2], [5, 9]]


def test_splits_are_kept_apart(backbone):
    cache = FeatureCache()
    ask(cache, backbone, [0, 1], split="test")
    ask(cache, backbone, [0, 1], split="train")
    assert len(backbone.computed) == 2


def test_a_pass_that_was_not_announced_is_computed_and_not_remembered(backbone):
    cache = FeatureCache()
    ask(cache, backbone, [0, 1], announced=False)
    ask(cache, backbone, [0, 1])
    ask(cache, backbone, [0, 1], announced=False)
    assert len(backbone.computed) == 3


def test_only_the_first_pass_after_an_announcement_counts(backbone):
    cache = FeatureCache()
    ask(cache, backbone, [0, 1])
    ask(cache, backbone, [0, 1])
    cache.get(backbone(torch.tensor([4, 5])), 2)  # a second pass in the same step
    assert backbone.computed == [[0, 1], [4, 5]]


@pytest.mark.parametrize("size", [3, 5])
def test_a_pass_of_another_size_is_not_the_announced_one(backbone, size):
    cache = FeatureCache()
    cache.expect("test", torch.tensor([0, 1, 2, 3]), 10)
    rows = torch.arange(size) + 5
    assert torch.equal(cache.get(backbone(rows), size), FEATURES[rows])
    assert not cache.known


def test_a_split_of_another_size_is_another_split(backbone):
    cache = FeatureCache()
    ask(cache, backbone, [0, 1], size=10)
    ask(cache, backbone, [0, 1], size=11)
    assert len(backbone.computed) == 2


def test_other_data_of_the_same_size_is_other_data(backbone):
    cache, data, other = FeatureCache(), [1], [1]  # equal, but not the same
    for origin in ((data, None), (data, None), (other, None), (other, "transform")):
        cache.serve(*origin)
        ask(cache, backbone, [0, 1])
    assert len(backbone.computed) == 3


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"])
def test_a_copy_starts_empty(backbone, duplicate):
    cache = FeatureCache()
    cache.serve(object(), lambda image: image)  # what could not be pickled
    ask(cache, backbone, [0, 1])
    ask(duplicate(cache), backbone, [0, 1])
    assert len(backbone.computed) == 2


def test_what_was_remembered_in_inference_mode_serves_and_grows_outside_of_it(backbone):
    cache = FeatureCache()
    with torch.inference_mode():
        ask(cache, backbone, [0, 1])
    found = ask(cache, backbone, [1, 2])
    assert not found.is_inference()
    assert backbone.computed == [[0, 1], [2]]
