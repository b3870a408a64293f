from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms import v2

from lightning_cl.datamodules.sources.images import ImageSource, ImageTransform, geometry, split_off_test


def names(*args):
    return [type(step).__name__ for step in geometry(*args)]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        # image size, native size, augmentation, photographs
        ((None, 32, "none", True), []),
        ((32, 32, "none", True), []),
        ((None, None, "none", True), []),
        ((224, 32, "none", True), ["Resize"]),
        ((224, None, "none", True), ["Resize", "CenterCrop"]),
        ((None, 32, "flip", True), ["RandomHorizontalFlip"]),
        ((224, None, "flip", True), ["Resize", "CenterCrop", "RandomHorizontalFlip"]),
        ((None, 32, "crop", True), ["RandomCrop", "RandomHorizontalFlip"]),
        ((224, 32, "crop", True), ["RandomResizedCrop", "RandomHorizontalFlip"]),
        ((224, None, "crop", True), ["RandomResizedCrop", "RandomHorizontalFlip"]),
        ((None, 28, "crop", False), ["RandomCrop"]),
        ((16, 8, "crop", False), ["Resize", "RandomCrop"]),
        ((16, 8, "none", False), ["Resize"]),
    ],
)
def test_geometry(args, expected):
    assert names(*args) == expected


def test_cifar_recipe():  # prompts 224: RandomResizedCrop of 8 % to 100 %; native: the usual 4 pixels of padding
    crop, _ = geometry(None, 32, "crop")
    assert (tuple(crop.size), set(crop.padding)) == ((32, 32), {4})
    resized, _ = geometry(224, 32, "crop")
    assert (tuple(resized.size), tuple(resized.scale)) == ((224, 224), (0.08, 1.0))


def test_imagenet_evaluation():  # Resize(256) and CenterCrop(224)
    resize, crop = geometry(224, None)
    assert (list(resize.size), tuple(crop.size)) == ([256], (224, 224))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((None, 32, "mixup"), "`augment` is 'mixup'; expected 'none', 'flip' or 'crop'"),
        ((None, 8, "flip", False), "would turn these symbols into others"),
        ((None, None, "crop"), "`augment='crop'` needs `image_size`"),
    ],
)
def test_wrong_augmentation(args, message):
    with pytest.raises(ValueError, match=message):
        geometry(*args)


def test_pixels_of_tensors_and_pil_images_agree():
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    pil = Image.fromarray(image.movedim(0, 2).numpy())
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (image / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    for raw in (image, pil):
        made = ImageTransform([], mean, std)(raw)
        assert type(made) is torch.Tensor
        assert_close(made, expected)


def test_without_normalisation_pixels_are_in_the_unit_interval():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 3)
    assert_close(ImageTransform([], None, None)(image), torch.tensor([[[0.0, 0.2, 1.0]]]))


def test_floating_point_images_are_left_as_they_are():
    image = torch.rand(1, 4, 4)
    assert_close(ImageTransform([], None, None)(image), image)


def test_rgb_repeats_the_grey_channel():
    image = torch.randint(0, 256, (1, 4, 4), dtype=torch.uint8)
    made = ImageTransform([], (0.5,), (0.5,), rgb=True)(image)
    assert_close(made, ((image / 255 - 0.5) / 0.5).expand(3, 4, 4))


class Grey(ImageSource):
    mean, std = (0.4,), (0.2,)
    native_size = 8

    def item(self, split, index):
        raise NotImplementedError


def test_a_member_states_facts_only():
    assert (Grey().image_size, Grey(image_size=24).image_size, Grey().mean) == (8, 24, (0.4,))
    assert Grey(normalize=False).mean is None
    assert Grey.mean == (0.4,)  # the class keeps its facts
    image = torch.full((1, 8, 8), 102, dtype=torch.uint8)  # 0.4 of 255
    assert_close(Grey().eval_transform()(image), torch.zeros(1, 8, 8))
    assert Grey(image_size=24).eval_transform()(image).shape == (1, 24, 24)
    assert Grey(image_size=24).train_transform()(image).shape == (1, 24, 24)


def test_augmentation_is_for_training_only():
    image = torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8)
    plain = v2.functional.to_dtype(image, torch.float32, scale=True)
    source = Grey(normalize=False, augment="flip")
    assert all(torch.equal(source.eval_transform()(image), plain) for _ in range(20))
    seen = [source.train_transform()(image) for _ in range(50)]
    assert {torch.equal(made, plain) for made in seen} == {True, False}
    assert all(torch.equal(made, plain) or torch.equal(made, plain.flip(-1)) for made in seen)


def test_wrong_arguments_fail_at_construction():
    with pytest.raises(ValueError, match="`image_size` is 0"):
        Grey(image_size=0)
    with pytest.raises(ValueError, match="`augment` is 'cutout'"):
        Grey(augment="cutout")


def test_split_is_stratified_disjoint_and_complete():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 2)
    train, test = split_off_test(labels, 0.2, seed=3)
    assert sorted(train + test) == list(range(17))
    assert torch.bincount(labels[test]).tolist() == [2, 1, 1]
    assert split_off_test(labels, 0.2, seed=3) == (train, test)
    assert split_off_test(labels, 0.2, seed=4) != (train, test)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_split_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match="`test_fraction` is"):
        split_off_test([0, 0], fraction, 0)


@pytest.mark.parametrize(("names", "shown"), [(None, "1"), (["cat", "dog", "fox"], "'dog'")])
def test_a_class_of_one_sample_keeps_it_for_training(names, shown):
    labels = [0, 0, 1, 2, 2, 2]
    with pytest.warns(UserWarning, match=rf"1 of 3 classes have one image \({shown}\), which is for training"):
        train, test = split_off_test(labels, 0.5, 0, names)
    assert sorted(train + test) == list(range(6))
    assert [sum(labels[i] == c for i in test) for c in range(3)] == [1, 0, 2]
    assert 2 in train


@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transforms_pickle_and_make_three_channels(augment, channels):  # loader workers may be spawned
    transform = pickle.loads(pickle.dumps(Grey(image_size=16, augment=augment, rgb=True).train_transform()))
    made = transform(torch.randint(0, 256, (channels, 8, 8), dtype=torch.uint8))
    assert (type(made), made.shape, made.dtype) == (torch.Tensor, (3, 16, 16), torch.float32)


@pytest.mark.parametrize("size", [7, 16, 40])
@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_images_at_once_are_the_same_bits_as_one_by_one(size, augment, channels_last):
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    transform = ImageTransform(geometry(size, 16, augment), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    torch.manual_seed(0)
    drawn = [transform.each(image) for image in images]
    torch.manual_seed(0)
    one_by_one = [v2.Compose(transform.transforms)(image) for image in images]
    assert_close(torch.stack([*transform.together(drawn)]), torch.stack(one_by_one), rtol=0, atol=0)


def test_images_of_several_sizes_are_taken_one_by_one():
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((9, 12), (20, 14), (9, 12))]
    transform = ImageTransform(geometry(8, None), None, None)
    assert not transform.draws
    for made, image in zip(transform.together(images), images, strict=True):
        assert_close(made, v2.Compose(transform.transforms)(image), rtol=0, atol=0)
