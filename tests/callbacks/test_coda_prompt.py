from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from lightning.pytorch import LightningModule
from tiny import TinyModule, images, stream_info, task_of, train
from torch import nn
from torch.testing import assert_close

from lightning_cl.callbacks import CODAPrompt

INFO = stream_info(5)
NOISY = {"drop_rate": 0.5, "pos_drop_rate": 0.5, "proj_drop_rate": 0.5, "attn_drop_rate": 0.5, "drop_path_rate": 0.5}


def attached(callback=None, **options):
    torch.manual_seed(0)
    module = TinyModule(**options)
    (callback or CODAPrompt(pool_size=10, prompt_length=4, layers=(0, 2))).attach_once(module, INFO)
    return module


def trained(up_to=1, **options):
    """A module that has been trained on tasks up to ``up_to``, with one optimiser for all."""
    module = attached(**options)
    optimizer = module.configure_optimizers()
    for index in range(up_to + 1):
        module.on_task_start(task_of(INFO, index))
        train(module, INFO.classes_per_task[index], optimizer=optimizer)
    return module.eval()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_after_a_task_only_its_own_slices_have_moved(optimizer):  # moments, momentum and decay act on all of them
    module = attached(optimizer=optimizer, **NOISY)
    configured = module.configure_optimizers()
    for index in range(3):
        module.on_task_start(task_of(INFO, index))
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        train(module, INFO.classes_per_task[index], optimizer=configured)
        own = slice(2 * index, 2 * index + 2)  # two classes and two components a task
        for name, parameter in module.named_parameters():
            now, was = parameter.detach().clone(), before[name]
            if name.startswith(("net.head.", "continual.parts.")):
                assert (now[own] != was[own]).all(), f"{name} did not learn"
                now[own] = was[own]
            else:
                assert parameter.grad is None
            assert torch.equal(now, was), name


def test_no_part_of_the_backbone_is_ever_in_training_mode():
    module = attached(**NOISY).train()
    inside = {name for name, m in module.net.named_modules() if m.training}
    assert inside == {"", "head", "head_drop"}


def test_predictions_do_not_depend_on_the_batch():
    module, x = trained(), images(9)
    together, order = module(x), torch.randperm(9)
    assert_close(torch.cat([module(x[i : i + 1]) for i in range(9)]), together, rtol=0, atol=1e-10)
    assert_close(torch.cat([module(part) for part in x.split(7)]), together, rtol=0, atol=1e-10)
    assert_close(module(x[order]), together[order], rtol=0, atol=1e-10)


def test_evaluation_answers_with_seen_classes_only():
    assert trained(up_to=1)(images(4)).gt(-500).all(dim=0).nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_before_the_first_task_it_is_the_frozen_model():
    plain = TinyModule()
    assert_close(attached().eval()(images(3)), plain.eval()(images(3)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("copied", ["state", "deepcopy", "pickle"])
def test_a_reloaded_module_predicts_the_same(copied):
    module = trained()
    if copied == "state":
        other = attached()
        other.load_state_dict(module.state_dict())
        other.eval()
    else:
        other = copy.deepcopy(module) if copied == "deepcopy" else pickle.loads(pickle.dumps(module))
    assert torch.equal(other(images(5)), module(images(5)))
    other.prompts.components.data.zero_()  # a copy asks its own prompts
    assert not torch.equal(other(images(5)), module(images(5)))


def test_going_on_after_a_reload_is_going_on():
    module, other = trained(up_to=1), attached()
    other.load_state_dict(module.state_dict())
    other.on_train_start()  # the middle of a task: nothing is drawn anew
    for one in (module, other):
        train(one, INFO.classes_per_task[1], optimizer=one.configure_optimizers())
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_penalty_joins_the_loss_once_per_step():
    callback = CODAPrompt(pool_size=10, prompt_length=4, layers=(0, 2), ortho_weight=0.5)
    module, plain = attached(callback), attached()
    for one in (module, plain):
        torch.manual_seed(0)
        one.on_task_start(task_of(INFO, 0))
        one.train()(images(1))  # a pass outside of a step, whose penalty is 0
        one.prompts.keys.data[:2].mul_(2)  # now it is 9 / 2 for the keys of each of two layers, and 0 else
    batch = (images(4), torch.tensor([0, 1, 0, 1]))
    difference = module.training_step(batch, 0) - plain.training_step(batch, 0)
    assert difference.item() == pytest.approx(0.5 * 2 * 9 / 2)
    assert not module.prompts.pending_losses


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_terms_of_several_passes_in_a_step_are_averaged():
    class Twice(TinyModule):
        def training_step(self, batch, batch_idx):
            self(batch[0])
            return super().training_step(batch, batch_idx)

    once, twice = TinyModule(), Twice()
    losses = []
    for module in (once, twice):
        CODAPrompt(pool_size=10, prompt_length=4, layers=(0,), ortho_weight=1.0).attach_once(module, INFO)
        torch.manual_seed(0)
        module.on_task_start(task_of(INFO, 0))
        module.prompts.keys.data[:2].mul_(2)
        losses.append(module.train().training_step((images(2), torch.tensor([0, 1])), 0))
    assert_close(losses[0], losses[1])


def test_the_number_of_trained_parameters_is_the_papers():
    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            with torch.device("meta"):
                self.net = timm.create_model("vit_base_patch16_224", num_classes=200)

    module = Module()
    CODAPrompt().attach_once(module, stream_info(10, num_classes=200))
    assert sum(p.numel() for p in module.prompts.parameters()) == 3_840_000
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 3_993_800


def test_prompts_take_precision_of_the_backbone():
    module = TinyModule().float()
    CODAPrompt(pool_size=10, prompt_length=4, layers=(0,)).attach_once(module, INFO)
    assert {p.dtype for p in module.prompts.parameters()} == {torch.float32}
    module.on_task_start(task_of(INFO, 0))
    full = module.eval()(images(3).float())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(images(3).float())
    assert_close(mixed[:, :2].float(), full[:, :2], rtol=0.1, atol=0.1)


def test_attaching_twice_attaches_once():
    module, callback = TinyModule(), CODAPrompt(pool_size=10)
    callback.attach_once(module, INFO)
    prompts = module.prompts
    callback.attach_once(module, INFO)
    assert module.prompts is prompts
    assert module.continual.methods == ["lightning_cl.CODAPrompt"]


def test_a_second_prompt_method_is_refused():
    class Another(CODAPrompt):
        state_key = "test.Another"

    module = attached()
    with pytest.raises(ValueError, match="has prompts already"):
        Another().attach_once(module, INFO)


def test_names_of_the_users_parameters_stay():
    mine = set(TinyModule().state_dict())
    added = {name.split(".")[0] for name in set(attached().state_dict()) - mine}
    assert mine <= set(attached().state_dict())
    assert added == {"continual"}


@pytest.mark.parametrize("layers", [(), (0, 0)])
def test_layers_must_be_named_once(layers):
    with pytest.raises(ValueError, match="name at least one layer, each once"):
        CODAPrompt(layers=layers)


def test_a_module_without_vit_is_told_what_it_has():
    class Conv(LightningModule):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 10)

    with pytest.raises(ValueError, match=r"no transformer that prompts .*conv \(Conv2d\), fc \(Linear\)"):
        CODAPrompt().attach_once(Conv(), INFO)


def test_the_loss_falls_with_the_head_held_fixed():  # so gradients reach keys, attention and components
    module = attached()
    module.on_task_start(task_of(INFO, 0))
    module.train()
    batch = (images(8), torch.tensor([0, 1] * 4))
    optimizer, losses = torch.optim.Adam(module.prompts.parameters(), lr=0.1), []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(module.training_step(batch, 0))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad[:2].abs().sum() > 0 for p in module.prompts.parameters())
