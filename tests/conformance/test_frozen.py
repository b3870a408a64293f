"""What a method freezes or protects does not move by a bit, whatever the optimiser does to zero gradients."""

from __future__ import annotations

import pytest
import torch

from .methods import METHODS, THOROUGH, case_of, on_cases, paired, takes
from .modules import CASES, PLAIN, SPLIT, suited

methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
#: (module, optimiser): AdamW decays weights without a gradient, SGD's momentum moves them.
OPTIMISERS = {"adamw": (PLAIN, "adamw"), "sgd": (PLAIN, "sgd"), "split-adamw": (SPLIT, "adamw")}


@on_cases(CASES)
def test_frozen_weights_stay(method, case, finished):
    run = finished(method, case)
    now = dict(run.module.named_parameters())
    assert [name for name, was in run.watcher.frozen.items() if not torch.equal(now[name].detach(), was)] == []
    if takes(method, "backbone") and not getattr(method, "trains_backbone", False):  # such a method freezes it
        case = suited(case, method)
        trained = [name for name, p in now.items() if name.startswith(f"{case.backbone}.") and p.requires_grad]
        assert [name for name in trained if not name.startswith(f"{case.head}.")] == []


@on_cases(CASES)
def test_a_frozen_backbone_is_never_in_training_mode(method, case, finished):
    assert finished(method, case).watcher.modes == set()


@pytest.mark.parametrize(("method", "name"), paired(OPTIMISERS), ids=lambda v: getattr(v, "__name__", v))
def test_rows_of_other_tasks_stay(method, name, finished):
    case, optimizer = OPTIMISERS[name]
    watcher = finished(method, case, optimizer).watcher
    assert watcher.moved_rows == set()


@methods
def test_rows_are_protected_when_the_loss_is_of_one_task(method, finished):
    case = PLAIN if method in THOROUGH else case_of(method)
    run = finished(method, case)
    if run.module.continual.train_mask != "task":
        pytest.skip("all seen classes compete in this method's loss, so no row of the head is left alone")
    if not any(p.requires_grad for p in run.module.continual_head.parameters()):
        pytest.skip("the method trains no head")
    head = suited(case, method).head
    assert {f"{head}.weight", f"{head}.bias"} <= run.watcher.protected
