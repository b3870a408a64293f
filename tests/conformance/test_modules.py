"""Every method runs on every module as it is: own forward, own step, own batches, own optimiser, own names."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch.testing import assert_close

from .methods import METHODS, THOROUGH, make, on_cases
from .modules import CASES, FOREIGN_DICT, FOREIGN_TUPLE, PLAIN, suited
from .runs import assert_same_bits, attached, train
from .streams import EPOCHS, STEPS_PER_EPOCH, digits


def some_images(count=9):
    (_, _), (images, _) = digits()
    return torch.from_numpy(images[:count]).float().div(255)[:, None]


def test_methods_are_found():
    names = [method.__name__ for method in METHODS]
    assert {"CODAPrompt", "FineTuning"} <= set(names)
    assert "ContinualMethod" not in names
    assert len({method.state_key for method in METHODS}) == len(METHODS)


@on_cases(CASES)
def test_one_fit_runs_the_whole_stream(method, case, finished):
    run = finished(method, case)
    assert run.trainer.global_step == sum(EPOCHS) * STEPS_PER_EPOCH
    assert len(run.watcher.losses) == run.trainer.global_step
    assert all(map(math.isfinite, run.watcher.losses))
    assert torch.equal(run.evaluation.total > 0, run.evaluated())


@on_cases(CASES)
def test_named_parts_are_the_found_ones(method, case, finished, tmp_path):
    module = suited(case, method)
    named = make(method, head=module.head, backbone=module.backbone)
    if method in THOROUGH:
        assert_same_bits(train(case, named, tmp_path).result(), finished(method, case).result())
    else:
        found, given = attached(case, make(method)), attached(case, named)
        assert given.continual.head_path == found.continual.head_path
        assert [p.requires_grad for p in given.parameters()] == [p.requires_grad for p in found.parameters()]
        assert_close(dict(given.state_dict()), dict(found.state_dict()), rtol=0, atol=0, equal_nan=True)


@on_cases(CASES)
def test_everything_with_a_gradient_is_trained(method, case, finished):
    assert finished(method, case).watcher.stuck == set()


@on_cases(CASES)
def test_names_of_the_module_stay(method, case):
    plain = suited(case, method).build("adamw", 0.0)
    module = attached(case, make(method))
    before, after = dict(plain.named_parameters()), dict(module.named_parameters())
    assert before.keys() <= after.keys()
    assert {name for name, _ in plain.named_modules()} <= {name for name, _ in module.named_modules()}
    with torch.no_grad():
        for parameter in before.values():
            parameter.fill_(0.5)
    report = module.load_state_dict(plain.state_dict(), strict=False)  # a user's own checkpoint
    assert not report.unexpected_keys
    assert not set(report.missing_keys) & set(plain.state_dict())
    assert all(bool((after[name] == 0.5).all()) for name in before)


def pickled(module):
    return pickle.loads(pickle.dumps(module))


@on_cases([PLAIN, FOREIGN_TUPLE, FOREIGN_DICT])
@pytest.mark.parametrize(
    ("duplicate", "trained"),
    [(copy.deepcopy, False), (pickled, True)],
    ids=["copy of a fresh one", "pickle of a trained one"],
)
def test_a_copy_is_whole_and_apart(method, case, duplicate, trained, finished):
    module = finished(method, case).module if trained else attached(case, make(method))
    with torch.no_grad():
        module = copy.deepcopy(module).eval()  # the finished one is shared
        images = some_images()
        if method.needs_task_identity:
            module.continual.task = 1
        expected = module(images).clone()
        twin = duplicate(module)
        assert type(twin) is type(module)
        assert_close(twin(images), expected, rtol=0, atol=0)
        twin.continual.mask.allow([0], [0])
        if method.needs_task_identity:
            twin.continual.task = 0
        for tensor in [*twin.parameters(), *twin.buffers()]:
            if tensor.is_floating_point():
                tensor.fill_(0.25)
        assert bool((twin(images)[:, 1:] < -500).all())
        assert_close(module(images), expected, rtol=0, atol=0)
