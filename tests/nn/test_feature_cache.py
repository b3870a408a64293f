from __future__ import annotations

import copy
import pickle

import pytest
import torch

from lightning_cl.nn.feature_cache import FeatureCache, sample_fingerprints

FEATURES = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(10, 1, 3, 3, generator=torch.Generator().manual_seed(1))


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
    found = cache.get(backbone(index), IMAGES[index])
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
    cache.get(backbone(torch.tensor([4, 5])), IMAGES[4:6])  # a second pass in the same step
    assert backbone.computed == [[0, 1], [4, 5]]


@pytest.mark.parametrize("size", [3, 5])
def test_a_pass_of_another_size_is_not_the_announced_one(backbone, size):
    cache = FeatureCache()
    cache.expect("test", torch.tensor([0, 1, 2, 3]), 10)
    rows = torch.arange(size) + 5
    assert torch.equal(cache.get(backbone(rows), IMAGES[rows]), FEATURES[rows])
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


@pytest.mark.parametrize("order", [[2, 0, 1], [0, 2, 1]])
def test_a_batch_in_another_order_than_announced_gets_its_own_features(backbone, order):
    cache, index = FeatureCache(), torch.tensor([3, 1, 7])
    ask(cache, backbone, index.tolist())
    for _ in range(2):
        cache.expect("test", index, 10)
        shuffled = index[order]
        assert torch.equal(cache.get(backbone(shuffled), IMAGES[shuffled]), FEATURES[shuffled])
    moved = [place for row, place in enumerate(order) if row != place]
    assert backbone.computed == [[3, 1, 7], index[moved].tolist()]  # from then on that order is the known one


def test_an_augmented_image_is_another_image(backbone):
    cache, index = FeatureCache(), torch.tensor([3, 1])
    ask(cache, backbone, index.tolist())
    cache.expect("test", index, 10)
    other = torch.full((2, 4), 5.0)
    assert torch.equal(cache.get(lambda rows: other, IMAGES[index].flip(-1)), other)


DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_fingerprints_tell_values_and_places_apart(dtype):
    generator = torch.Generator().manual_seed(2)
    images = (torch.rand(1, 3, 32, 32, generator=generator) * 255).to(dtype)
    if dtype == torch.bool:
        images = torch.rand(1, 3, 32, 32, generator=generator) > 0.5
    other = images.clone()
    other[0, 1, 7, 9] = ~other[0, 1, 7, 9] if dtype == torch.bool else other[0, 1, 7, 9] + 16
    turned = [images.flip(-1), images.flip(-2), images.roll(1, -1), images.transpose(-1, -2), images.flip(1)]
    views = [images, *turned, other]
    prints = [int(sample_fingerprints(view)) for view in views]
    assert len(set(prints)) == len(views)
    assert sample_fingerprints(images.contiguous(memory_format=torch.channels_last)).item() == prints[0]


@pytest.mark.parametrize("size", [64, 224, 256])
def test_fingerprints_of_large_images_see_every_part(size):
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(3))
    whole = sample_fingerprints(images)
    for top in range(0, size, size // 4):
        for left in range(0, size, size // 4):
            patched = images.clone()
            patched[:, 1, top : top + size // 16, left : left + size // 16] = 0
            assert sample_fingerprints(patched) != whole, (top, left)


def test_fingerprints_are_of_rows_whatever_the_batch():
    rows = torch.rand(5, 7)
    assert torch.equal(sample_fingerprints(rows)[[4, 2]], sample_fingerprints(rows[[4, 2]]))
    assert len(sample_fingerprints(torch.arange(5))) == 5
    assert len(sample_fingerprints(torch.zeros(5, 2, dtype=torch.complex64))) == 5


def look_up(cache, backbone, index, images):
    index = torch.tensor(index)
    return cache.look_up(backbone(index), images)


def test_known_samples_are_looked_up_and_others_computed_each_time(backbone):
    cache = FeatureCache()
    cache.expect("train", torch.tensor([2, 5]), 10)
    cache.remember(FEATURES[[2, 5]], sample_fingerprints(IMAGES[[2, 5]]))
    for _ in range(2):  # 3 is not known; 8 and 9 stand behind the announced samples
        cache.expect("train", torch.tensor([5, 3, 2]), 10)
        order = [5, 3, 2, 8, 9]
        assert torch.equal(look_up(cache, backbone, order, IMAGES[order]), FEATURES[order])
    assert backbone.computed == [[3, 8, 9]] * 2
    assert cache.known["train"].nonzero().flatten().tolist() == [2, 5]


def test_what_is_not_as_it_was_is_computed_in_one_piece(backbone):
    cache = FeatureCache()
    cache.expect("train", torch.tensor([2, 5]), 10)
    cache.remember(FEATURES[[2, 5]], sample_fingerprints(IMAGES[[2, 5]]))
    assert torch.equal(look_up(cache, backbone, [5, 2], IMAGES[[5, 2]]), FEATURES[[5, 2]])  # in another order
    cache.expect("train", torch.tensor([2, 5, 7]), 10)
    look_up(cache, backbone, [2, 5], IMAGES[[2, 5]])  # fewer than announced
    cache.forget_expectation()
    look_up(cache, backbone, [2, 5], IMAGES[[2, 5]])
    assert backbone.computed == [[5, 2], [2, 5], [2, 5]]


def test_a_split_that_is_taken_is_forgotten(backbone):
    cache = FeatureCache()
    ask(cache, backbone, [0, 1], split="pass", size=2)
    features, prints = cache.take("pass")
    assert torch.equal(features, FEATURES[[0, 1]])
    assert torch.equal(prints, sample_fingerprints(IMAGES[[0, 1]]))
    with pytest.raises(KeyError):
        cache.take("pass")
