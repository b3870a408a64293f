from __future__ import annotations

from typing import Generic, TypeVar

import pytest
from lightning.pytorch import LightningModule

from lightning_cl.callbacks import EWC, L2P, CODAPrompt, ExperienceReplay, SupSup, TaskHypernetwork, WarmupAtShift
from lightning_cl.callbacks.module_kind import has_forward
from lightning_cl.mixins.replay import ReplayMixin
from lightning_cl.mixins.task_inference import TaskInferenceMixin


class Without(LightningModule):
    """Its steps call a network by themselves."""


class With(LightningModule):
    def forward(self, images):
        return images


class Mixed(TaskInferenceMixin, With):
    """The mixin's `forward` goes on to the author's."""


class Author(ReplayMixin, LightningModule):
    def forward(self, images):
        return images


class MixedWithout(TaskInferenceMixin, Without):
    """The mixin's goes on to nothing."""


@pytest.mark.parametrize(
    ("kind", "expected"), [(Without, False), (With, True), (Mixed, True), (Author, True), (MixedWithout, False)]
)
def test_a_forward_of_the_users_is_found(kind, expected):
    assert has_forward(kind()) is expected


def test_what_a_method_needs_may_depend_on_its_arguments():
    for method, needs in (
        (EWC(), True),
        (EWC(fisher="steps"), False),
        (WarmupAtShift(), True),
        (WarmupAtShift(updates=1), False),
        (CODAPrompt(), False),
        (L2P(cache_training_queries=True), True),
        (SupSup(), False),
        (TaskHypernetwork(task_by="entropy"), True),
    ):
        assert method.needs_forward is needs


def test_a_replay_method_that_changes_only_defaults_needs_what_its_base_needs():
    T = TypeVar("T")

    class Small(ExperienceReplay, Generic[T]):
        """Of another size."""

    assert not Small.needs_forward
    assert Small[int] is not None


def test_what_is_set_on_the_object_counts_unless_it_is_lightnings():
    module = Without()
    module.forward = module.forward  # as Lightning does after a step of several processes
    assert not has_forward(module)
    module.forward = lambda images: images
    assert has_forward(module)
