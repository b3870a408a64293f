from __future__ import annotations

import copy
import inspect
import pickle
from abc import ABC
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

from lightning_cl import extend


class Plain(nn.Module):
    """A user's module."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return ["plain", self.layer(x)]


class First:
    def forward(self, x):
        return ["first", *super().forward(x)]


class Second:
    def forward(self, x):
        return ["second", *super().forward(x)]


class Batch(LightningModule):
    def training_step(self, batch):
        return ["user", batch]


class BatchAndIndex(LightningModule):
    def training_step(self, batch, batch_idx):
        return ["user", batch, batch_idx]


class Step:
    def training_step(self, *args, **kwargs):
        return ["mixin", *super().training_step(*args, **kwargs)]


class Other:
    def training_step(self, *args, **kwargs):
        return ["other", *super().training_step(*args, **kwargs)]


def names(module):
    return [word for word in module(torch.ones(2)) if isinstance(word, str)]


def test_the_mixin_last_added_runs_first():
    module = Plain()
    extend(module, First)
    assert names(module) == ["first", "plain"]
    extend(module, Second)
    assert names(module) == ["second", "first", "plain"]


def test_the_instance_stays_what_it_was_and_others_are_not_touched():
    module, other = Plain(), Plain()
    weight = module.layer.weight
    extend(module, First)
    assert isinstance(module, Plain)
    assert isinstance(module, First)
    assert module.layer.weight is weight
    assert list(module.state_dict()) == ["layer.weight", "layer.bias"]
    assert type(module).__name__ == "Plain"
    assert type(module).__doc__ == "A user's module."
    assert names(other) == ["plain"]


def test_adding_a_mixin_twice_adds_it_once():
    module = Plain()
    for mixin in (First, Second, First):
        extend(module, mixin)
    assert names(module) == ["second", "first", "plain"]


def test_a_class_that_inherits_the_mixin_is_left_alone():
    class Author(First, Plain):
        pass

    module = Author()
    extend(module, First)
    assert type(module) is Author


def test_equal_extensions_share_a_class():
    modules = [Plain(), Plain()]
    for module in modules:
        extend(module, First)
    assert type(modules[0]) is type(modules[1])


def test_an_abstract_base_is_no_obstacle():
    class Abstract(Plain, ABC):
        pass

    module = Abstract()
    extend(module, First)
    assert names(module) == ["first", "plain"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_have_the_mixins_in_the_same_order(copied):
    module = Plain()
    extend(module, First)
    extend(module, Second)
    other = copied(module)
    assert names(other) == ["second", "first", "plain"]
    assert torch.equal(other.layer.weight, module.layer.weight)
    assert other.layer.weight is not module.layer.weight
    assert type(other) is type(module)


def test_a_file_of_the_whole_module_can_be_loaded(tmp_path):
    module = Plain()
    extend(module, First)
    torch.save(module, tmp_path / "module.pt")
    assert names(torch.load(tmp_path / "module.pt", weights_only=False)) == ["first", "plain"]


@pytest.mark.parametrize("base", [Batch, BatchAndIndex])
def test_the_steps_own_signature_shows(base):  # Lightning passes `batch_idx` only to a step that takes it
    module = base()
    extend(module, Step)
    extend(module, Other)
    assert inspect.signature(type(module).training_step) == inspect.signature(base.training_step)
    takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    assert takes_index == (base is BatchAndIndex)
    arguments = (5, 0) if takes_index else (5,)
    assert module.training_step(*arguments) == ["other", "mixin", "user", *arguments]
    keywords = dict(zip(("batch", "batch_idx"), arguments, strict=False))
    assert module.training_step(**keywords) == ["other", "mixin", "user", *arguments]


def test_a_step_that_the_user_replaces_on_the_class_is_used():
    class Late(LightningModule):
        def training_step(self, batch, batch_idx):
            return ["old"]

    module = Late()
    extend(module, Step)
    Late.training_step = lambda self, batch, batch_idx: ["new"]
    assert module.training_step(1, 0) == ["mixin", "new"]


REGISTERED: list[type] = []


class Registering(nn.Module):
    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        REGISTERED.append(cls)

    def forward(self, x):
        return ["registering"]


class Named(nn.Module):
    def __init_subclass__(cls, *, name, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.name = name

    def forward(self, x):
        return ["named"]


class UserRegistering(Registering):
    pass


class UserNamed(Named, name="own"):
    pass


@pytest.mark.parametrize("kind", [UserRegistering, UserNamed])
def test_a_class_that_looks_at_its_subclasses_is_not_told_of_the_extended_one(kind):
    module, before = kind(), list(REGISTERED)
    extend(module, First)
    extend(module, Second)
    for each in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert names(each)[:2] == ["second", "first"]
        assert getattr(each, "name", "own") == "own"
    assert before == REGISTERED
    assert type(module).__mro__.index(First) < type(module).__mro__.index(kind)


class Counting:
    made: ClassVar[list[str]] = []

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Counting.made.append(cls.__name__)


def test_a_mixin_is_told_of_what_it_extends():
    extend(UserNamed(), Counting)
    assert Counting.made == ["UserNamed"]
