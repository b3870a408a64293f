from __future__ import annotations

import pytest
import torch
from tiny import TinyModule, images, stream_info, task_of, train

from lightning_cl.callbacks import FineTuning

INFO = stream_info(5)


def attached(**options):
    module = TinyModule()
    FineTuning(**options).attach_once(module, INFO)
    return module


@pytest.mark.parametrize(("train_mask", "moving"), [("task", [2, 3]), ("seen", [0, 1, 2, 3]), ("all", list(range(10)))])
def test_which_head_rows_learn(train_mask, moving):
    module = attached(train_mask=train_mask)
    module.on_task_start(task_of(INFO, 1))
    before = module.net.head.weight.detach().clone()
    train(module, INFO.classes_per_task[1])
    assert (module.net.head.weight != before).any(dim=1).nonzero().flatten().tolist() == moving


def test_the_backbone_learns():
    module = attached()
    module.on_task_start(task_of(INFO, 0))
    before = module.net.blocks[0].attn.qkv.weight.detach().clone()
    train(module, INFO.classes_per_task[0])
    assert (module.net.blocks[0].attn.qkv.weight != before).all()


def test_classes_not_yet_seen_are_never_answered():
    module = attached(train_mask="all").eval()
    module.on_task_start(task_of(INFO, 1))
    assert set(module(images(16)).argmax(dim=1).tolist()) <= {0, 1, 2, 3}
    assert module.train()(images(2)).gt(-500).all()


def test_settings_reach_the_module():
    module = attached(head="net.head", reset_optimizer=True)
    assert module.continual.reset_optimizer
    assert module.continual_head is module.net.head
    assert module.continual.methods == ["lightning_cl.FineTuning"]


def test_some_layers_learn_and_the_head():
    module = attached(at=r"attn\.qkv")
    module.on_task_start(task_of(INFO, 0))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    train(module, INFO.classes_per_task[0])
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    own = {f"net.blocks.{block}.attn.qkv.{name}" for block in range(6) for name in ("weight", "bias")}
    assert moved == own | {"net.head.weight", "net.head.bias"}


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"`at='query'` names no layer with weights of this TinyModule.*attn\.qkv"):
        attached(at="query")
    with pytest.raises(ValueError, match=r"`at` is '\(', which is no regular expression"):
        FineTuning(at="(")


def test_an_unknown_mask_is_refused():
    with pytest.raises(ValueError, match=r"`train_mask` is 'none'; give .batch., .task., .seen. or .all."):
        FineTuning(train_mask="none")


def test_its_configuration_can_be_reported():
    assert FineTuning(head="fc").config() == {"head": "fc", "train_mask": "task", "reset_optimizer": False, "at": None}


def test_a_loss_with_label_smoothing_is_finite_where_nothing_is_masked():
    module = attached(train_mask="all")
    module.on_task_start(task_of(INFO, 0))
    loss = torch.nn.functional.cross_entropy(module.train()(images(2)), torch.tensor([0, 1]), label_smoothing=0.1)
    assert loss.isfinite()
