from __future__ import annotations

import pytest
import torch
from PIL import Image

from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DomainIncremental, DomainNet

CLASSES = ("The_Mona_Lisa", "airplane", "zebra")
#: Images of each class; a single one, and none at all.
SIZES = {"clipart": (5, 10, 5), "real": (10, 5, 1), "sketch": (5, 5, 0)}


@pytest.fixture
def root(tmp_path):
    for domain, sizes in SIZES.items():
        for name, size in zip(CLASSES, sizes, strict=True):
            if size:
                (tmp_path / domain / name).mkdir(parents=True)
            for i in range(size):
                Image.new("RGB", (8, 6)).save(tmp_path / domain / name / f"{domain}_{name}_{i}.jpg")
    return tmp_path


def opened(*args, **options):
    source = DomainNet(*args, **options)
    source.setup()
    return source


def files(source, split):
    return {path.rsplit("/", 1)[1] for path in source._paths[split]}


def counts(labels, domains, num_domains=3):
    table = torch.zeros(num_domains, 3, dtype=torch.long)
    return table.index_put_((domains, labels), torch.ones_like(labels), accumulate=True).tolist()


def test_without_lists_a_fifth_of_each_class_in_each_domain_is_held_out(root):
    source = opened(root)
    assert source.class_names == CLASSES
    assert source.domain_names == ("clipart", "real", "sketch")
    assert counts(source.test_labels, source.test_domains) == [[1, 2, 1], [2, 1, 0], [1, 1, 0]]
    assert counts(source.train_labels, source.train_domains) == [[4, 8, 4], [8, 4, 1], [4, 4, 0]]
    assert not files(source, "train") & files(source, "test")
    assert len(files(source, "train") | files(source, "test")) == sum(map(sum, SIZES.values()))
    for split, labels, domains in (
        ("train", source.train_labels, source.train_domains),
        ("test", source.test_labels, source.test_domains),
    ):
        for path, label, domain in zip(source._paths[split], labels.tolist(), domains.tolist(), strict=True):
            assert path.startswith(f"{source.domain_names[domain]}/{CLASSES[label]}/")
    image, label = source.item("test", 0)
    assert (image.size, label) == ((8, 6), source.test_labels[0])


def test_the_split_is_of_its_seed_alone_and_the_digest_tells(root):
    first, again, other = opened(root), opened(root), opened(root, split_seed=1)
    assert files(first, "test") == files(again, "test") != files(other, "test")
    assert first.digest() == again.digest() != other.digest()
    assert torch.equal(first.train_labels, other.train_labels)


def test_a_domains_split_does_not_depend_on_the_others(root):
    everything, some = opened(root), opened(root, domains=["real", "clipart"])
    assert some.domain_names == ("real", "clipart")
    assert files(some, "test") == {name for name in files(everything, "test") if not name.startswith("sketch")}
    assert counts(some.test_labels, some.test_domains, 2) == [[2, 1, 0], [1, 2, 1]]


def test_tasks_are_domains_or_classes(root):
    by_domain = ContinualDataModule(opened(root), DomainIncremental())
    assert by_domain.info.classes_per_task == ((0, 1, 2), (0, 1, 2), (0, 1))
    by_class = ContinualDataModule(opened(root), ClassIncremental(num_tasks=3, class_order=[2, 0, 1]))
    assert by_class.info.classes_per_task == ((2,), (0,), (1,))


def write_lists(root, folder, domains=("clipart", "real")):
    """Ids of their own order; only the first images are in the lists."""
    folder.mkdir(exist_ok=True)
    for domain in domains:
        for split, numbers in (("train", (0, 1, 2)), ("test", (3,))):
            lines = [
                f"{domain}/{name}/{domain}_{name}_{i}.jpg {label}"
                for label, name in enumerate(("zebra", "airplane", "The_Mona_Lisa"))
                for i in numbers
                if (root / domain / name / f"{domain}_{name}_{i}.jpg").is_file()
            ]
            (folder / f"{domain}_{split}.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("beside", [True, False], ids=["root", "elsewhere"])
def test_official_lists_decide_split_and_class_ids(root, beside, tmp_path_factory):
    folder = root if beside else tmp_path_factory.mktemp("lists")
    write_lists(root, folder)
    source = opened(root, domains=["clipart", "real"], lists=None if beside else folder)
    assert source.class_names == ("zebra", "airplane", "The_Mona_Lisa")
    assert counts(source.train_labels, source.train_domains, 2) == [[3, 3, 3], [1, 3, 3]]
    assert counts(source.test_labels, source.test_domains, 2) == [[1, 1, 1], [0, 1, 1]]
    assert files(source, "test") == {f"{domain}_{name}_3.jpg" for domain in ("clipart", "real") for name in CLASSES} - {
        "real_zebra_3.jpg"
    }


def test_some_lists_are_not_enough(root):
    write_lists(root, root)
    with pytest.raises(
        FileNotFoundError, match=r"lists \['sketch_train.txt', 'sketch_test.txt'\] are not in .*; download"
    ):
        opened(root)


def test_named_lists_must_be_there(root, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match=r"clipart_train.txt"):
        opened(root, lists=tmp_path_factory.mktemp("empty"))


def test_missing_images(root, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"folders \['quickdraw'\] are not in .*; download .* unpack them there"
    ):
        opened(root, domains=["real", "quickdraw"])
    with pytest.raises(FileNotFoundError, match=r"folders \['clipart', .*'sketch'\] are not in"):
        opened(tmp_path / "nothing")


@pytest.mark.parametrize("domains", [["real", "real"], ["photo"], []])
def test_domains_are_known_and_named_once(domains):
    with pytest.raises(ValueError, match=r"`domains` is \[.*\]; name some of clipart, infograph, .*, each once"):
        DomainNet("data", domains=domains)


def test_a_fraction_out_of_range(root):
    with pytest.raises(ValueError, match=r"`test_fraction` is 1.0; give .* in \(0, 1\)"):
        opened(root, test_fraction=1.0)
