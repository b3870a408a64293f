"""Set-ups in which a method would silently be left out get one clear error."""

from __future__ import annotations

import pytest

from .methods import METHODS, make, takes
from .modules import PLAIN, WITHOUT_FORWARD, suited
from .runs import attached, train
from .streams import make_stream

methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_notebook", pytest.param("ddp_spawn", marks=pytest.mark.slow)])
def test_processes_that_are_copies_of_this_one(strategy, tmp_path):
    message = r'(?s)copies of this process.*FineTuning and ContinualEvaluation.*strategy="ddp"'
    method = next(m for m in METHODS if m.__name__ == "FineTuning")
    with pytest.raises(Exception, match=message):  # of the launcher, which quotes that of a process
        train(PLAIN, make(method), tmp_path, strategy=strategy, devices=2)


@methods
def test_a_module_without_a_forward(method, tmp_path):
    """Works where the method does not need one, and else is refused before anything is built."""
    made = make(method)
    if made.needs_forward:
        with pytest.raises(ValueError, match=f"has no `forward`, through which {method.__name__} reads"):
            train(WITHOUT_FORWARD, made, tmp_path, limit_train_batches=0)
    else:
        run = train(WITHOUT_FORWARD, made, tmp_path, limit_train_batches=1)
        assert 0 < run.module.steps <= run.trainer.global_step


@methods
def test_a_method_twice(method, tmp_path):
    message = f"have {method.__name__} and {method.__name__}, but a module takes a method once"
    with pytest.raises((ValueError, RuntimeError), match=f"{message}|more than one stateful callback"):
        train(PLAIN, make(method), tmp_path, callbacks=[make(method)])


@methods
def test_a_method_that_the_module_has_with_other_arguments(method):
    module, info = attached(PLAIN, make(method)), make_stream().info
    before = dict(module.named_parameters())
    make(method).attach_once(module, info)  # with the same: as a second fit does
    assert dict(module.named_parameters()).keys() == before.keys()
    assert module.continual.methods == [method.state_key]
    assert takes(method, "head")
    with pytest.raises(ValueError, match=rf"already has the method {method.__name__}, with .*'head'.*would be ignored"):
        make(method, head=suited(PLAIN, method).head).attach_once(module, info)
