"""Data sets of the package `datasets`, written by it, against the arrays that they were made of."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource, HuggingFaceSource

datasets = pytest.importorskip("datasets")

NAMES = ["ant", "bee", "cow"]
LABELS = [2, 0, 1, 1, 0, 2]
PIXELS = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3), np.uint8)


def rows(labels=LABELS, images="img", label="label", kind=None, **columns):
    features = {images: datasets.Image(), label: kind or datasets.ClassLabel(names=NAMES)}
    features |= {name: datasets.ClassLabel(names=["x", "y"]) for name in columns}
    pictures = [Image.fromarray(PIXELS[i]) for i in range(len(labels))]
    return datasets.Dataset.from_dict({images: pictures, label: labels, **columns}, datasets.Features(features))


def opened(*args, **options):
    source = HuggingFaceSource(*args, **options)
    source.prepare()
    source.setup()
    return source


def both(train=None, test=None, name="test"):
    return datasets.DatasetDict({"train": train or rows(), name: test or rows([0, 2])})


@pytest.mark.parametrize("name", ["test", "validation", "valid"])
def test_images_labels_and_names(name):
    source = opened(both(name=name), image_size=8, normalize=False, augment="none")
    assert (source.train_labels.tolist(), source.test_labels.tolist()) == (LABELS, [0, 2])
    assert source.class_names == ("ant", "bee", "cow")
    copy = pickle.loads(pickle.dumps(source))
    for i, label in enumerate(LABELS):
        image, found = copy.item("train", i)
        assert (image.mode, found) == ("RGB", label)
        assert np.array_equal(np.asarray(image), PIXELS[i])
    assert source.train_transform()(image).shape == (3, 8, 8)


def test_a_pair_and_a_folder(tmp_path):
    pair = opened((rows(), rows([0, 2])))
    both().save_to_disk(str(tmp_path / "saved"))
    for source in (opened(tmp_path / "saved"), opened(str(tmp_path / "saved"))):
        assert source.digest() == pair.digest()


def not_called(batch):
    raise AssertionError("labels and pictures are read without the data set's own transform")


@pytest.mark.parametrize("change", ["shuffle", "select", "numpy", "transform"])
def test_views_of_a_data_set(change):
    data = rows()
    if change == "shuffle":
        data = data.shuffle(seed=1)
    elif change == "select":
        data = data.select([5, 4, 3, 2, 1])
    elif change == "numpy":
        data = data.with_format("numpy")
    else:
        data = data.with_transform(not_called)
    source = opened((data, rows()))
    plain = data.with_format(None)
    for i, row in enumerate(plain):
        image, label = source.item("train", i)
        assert np.array_equal(np.asarray(image), np.asarray(row["img"]))
        assert label == row["label"] == source.train_labels[i]


def test_several_label_columns_must_be_chosen():
    data = (rows(label="fine", coarse=[0, 1, 0, 1, 0, 1]), rows(label="fine", coarse=[0, 1, 0, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"of which 'fine', 'coarse' hold class labels; .*with `label_key=`"):
        opened(data)
    assert opened(data, label_key="fine").class_names == ("ant", "bee", "cow")
    assert opened(data, label_key="coarse").train_labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_labels_that_are_text_or_leave_gaps():
    text = rows([NAMES[i] for i in LABELS], kind=datasets.Value("string"))
    source = opened((text, text))
    assert (source.train_labels.tolist(), source.class_names) == (LABELS, ("ant", "bee", "cow"))
    some = rows([2, 0, 2, 0, 2, 0])
    source = opened((some, some), label_map="compact")
    assert (source.train_labels.tolist(), source.class_names) == ([1, 0, 1, 0, 1, 0], ("ant", "cow"))


def test_images_that_are_not_decoded_or_arrays():
    encoded = rows().cast_column("img", datasets.Image(decode=False))
    assert np.array_equal(np.asarray(opened((encoded, encoded)).item("train", 3)[0]), PIXELS[3])
    array = datasets.Array3D(shape=(8, 8, 3), dtype="uint8")
    features = datasets.Features({"pixels": array, "label": datasets.ClassLabel(names=NAMES)})
    arrays = datasets.Dataset.from_dict({"pixels": list(PIXELS), "label": LABELS}, features)
    source = opened((arrays, arrays), image_key="pixels")
    assert np.array_equal(source.item("train", 3)[0].movedim(0, 2).numpy(), PIXELS[3])


def test_a_broken_picture_is_named():
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    bad = {"img": [{"bytes": b"no picture", "path": None}] * 3, "label": [0, 1, 2]}
    data = datasets.Dataset.from_dict(bad, features)
    with pytest.raises(OSError, match=r"the picture 'train\[1\]' cannot be read"):
        opened((data, data)).item("train", 1)


def test_a_stream_with_workers():
    source = HuggingFaceSource(both(test=rows()), image_size=8)
    stream = ContinualDataModule(source, ClassIncremental(num_tasks=3), batch_size=2, num_workers=1)
    stream.setup("fit")
    images, labels = next(iter(stream.train_dataloader()))
    assert (images.shape, labels.tolist()) == ((2, 3, 8, 8), [labels[0]] * 2)


def encoded(batch):
    return {"x": [torch.from_numpy(np.array(image)) for image in batch["img"]], "label": batch["label"]}


def test_dataset_source_leaves_the_transform_in_force():
    source = DatasetSource(rows().with_transform(encoded), rows().with_transform(encoded))
    source.setup()
    assert (source.train_labels.tolist(), source.class_names) == (LABELS, ("ant", "bee", "cow"))
    item = source.item("train", 4)
    assert np.array_equal(item["x"].numpy(), PIXELS[4])
    assert item["label"] == 0


def test_labels_are_read_without_decoding():
    data = rows().with_transform(not_called)
    source = DatasetSource(data, data)
    source.setup()
    assert source.train_labels.tolist() == LABELS


def test_dataset_source_replaces_mapped_labels_in_the_label_column():
    text = rows([NAMES[i] for i in LABELS], label="y", kind=datasets.Value("string"))
    source = DatasetSource(text, text)
    source.setup()
    assert [source.item("train", i)["y"] for i in range(6)] == LABELS


def lines():
    yield {"img": 0, "label": 0}


class WebDatasetLike(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize("kind", ["datasets", "torch"])
@pytest.mark.parametrize("source", [DatasetSource, lambda *splits: HuggingFaceSource(splits)])
def test_data_sets_without_positions_say_what_to_do(kind, source):
    data = datasets.IterableDataset.from_generator(lines) if kind == "datasets" else WebDatasetLike()
    with pytest.raises(
        ValueError, match=r"read from its start to its end.*`ImageFolder`.*from_generator.*`LitDataSource`"
    ):
        source(data, data).setup()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (lambda: both(name="dev"), {}, "has no split 'test', only 'train', 'dev'; name the splits with"),
        (lambda: both(), {"train": "fit"}, "has no split 'fit'"),
        (rows, {}, "`data` is Dataset; give a DatasetDict, a pair"),
        (lambda: ([1], [2]), {}, "`train` is list, which is not of the package datasets; give it to `DatasetSource`"),
        (lambda: both(), {"image_key": "picture"}, "of which 'img' hold images; say which with `image_key=`"),
        (lambda: both(), {"label_key": "class"}, "'label' hold class labels; say which to learn with `label_key=`"),
        (lambda: both(), {"label_map": "dense"}, "`label_map` is 'dense'"),
    ],
)
def test_wrong_arguments(data, options, message):
    with pytest.raises(ValueError, match=message):
        opened(data(), **options)


def test_a_dictionary_of_splits_is_not_one_data_set():
    with pytest.raises(
        ValueError, match=r"`train` is a DatasetDict with the splits 'train', 'test'; .*`HuggingFaceSource`"
    ):
        DatasetSource(both(), both()).setup()
