from __future__ import annotations

import copy
import inspect

import pytest
import torch
from lightning.pytorch import LightningModule
from tiny import NUM_CLASSES, stream_info, task_of
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from lightning_cl import extend
from lightning_cl.mixins import ContinualMixin

INFO = stream_info(5)


class User(LightningModule):
    """A linear classifier; its step returns the loss as ``returns`` says."""

    def __init__(self, returns="tensor", optimizer="adamw"):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, NUM_CLASSES).double()
        self.returns, self.optimizer, self.heard = returns, optimizer, []

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.fc(batch[0]), batch[1])
        return {"tensor": loss, "dict": {"loss": loss, "extra": 7}, "none": None}[self.returns]

    def configure_optimizers(self):
        sgd = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        adamw = torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(adamw, 1)
        return {
            "sgd": sgd,
            "adamw": adamw,
            "dict": {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule}},
            "lists": ([adamw], [schedule]),
            "none": None,
        }[self.optimizer]

    def on_task_start(self, task):
        self.heard.append(("start", task.index, self.continual.mask.train_allowed.nonzero().flatten().tolist()))

    def on_task_end(self, task):
        self.heard.append(("end", task.index))


class Penalty(ContinualMixin):
    """Adds two terms, each in its own precision."""

    def collect_losses(self):
        super().collect_losses()
        self.add_loss("half", torch.tensor(0.5, dtype=torch.float16))
        self.add_loss("weight", self.fc.weight.square().sum())


def continual(mixin=ContinualMixin, train_mask="task", **options):
    module = User(**options)
    extend(module, mixin)
    module.configure_continual(INFO, train_mask=train_mask)
    return module


def batch(classes=(2, 3)):
    labels = torch.tensor(classes).repeat(3)
    return torch.randn(len(labels), 4, dtype=torch.float64), labels


def step(module, optimizer):
    optimizer.zero_grad()
    module.training_step(batch(), 0).backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("mask", "train", "evaluate"),
    [("task", [2, 3], [0, 1, 2, 3]), ("seen", [0, 1, 2, 3], [0, 1, 2, 3]), ("all", list(range(10)), [0, 1, 2, 3])],
)
def test_which_classes_a_task_allows(mask, train, evaluate):
    module = continual(train_mask=mask)
    module.on_task_start(task_of(INFO, 1))
    x = torch.ones(4, dtype=torch.float64)
    assert module.train().fc(x).gt(-500).nonzero().flatten().tolist() == train
    assert module.eval().fc(x).gt(-500).nonzero().flatten().tolist() == evaluate


@pytest.mark.parametrize("name", ["sgd", "adamw", "dict", "lists"])
def test_head_rows_of_other_classes_stay_bit_for_bit(name):
    module = continual(optimizer=name)
    configured = module.configure_optimizers()
    optimizer = configured["optimizer"] if name == "dict" else configured[0][0] if name == "lists" else configured
    module.on_task_start(task_of(INFO, 0))
    module.training_step(batch((0, 1)), 0).backward()
    optimizer.step()  # moments and momentum for rows 0 and 1

    module.on_task_start(task_of(INFO, 1))
    before = copy.deepcopy(module.fc)
    for _ in range(3):
        step(module, optimizer)
    others = [0, 1, *range(4, 10)]
    assert torch.equal(module.fc.weight[others], before.weight[others])
    assert torch.equal(module.fc.bias[others], before.bias[others])
    assert (module.fc.weight[2:4] != before.weight[2:4]).all()


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_rows_of_a_weight_normalised_head_stay_bit_for_bit(norm):
    module = User()
    norm(module.fc)
    extend(module, ContinualMixin)
    module.configure_continual(INFO, train_mask="task")
    optimizer = module.configure_optimizers()
    module.on_task_start(task_of(INFO, 1))
    x, others = torch.randn(6, 4, dtype=torch.float64), [0, 1, *range(4, 10)]
    before = module.fc.weight.detach().clone()
    for _ in range(3):
        step(module, optimizer)
    module.eval().fc(x)
    assert torch.equal(module.fc.weight[others], before[others])
    assert (module.fc.weight[2:4] != before[2:4]).all()


def test_a_head_whose_rows_depend_on_each_other_is_refused_by_name():
    module = User()
    parametrizations.spectral_norm(module.fc)
    extend(module, ContinualMixin)
    module.configure_continual(INFO, train_mask="task")
    with pytest.raises(ValueError, match=r'the head `fc` cannot keep .* made by _SpectralNorm, .*`train_mask="all"`'):
        module.on_task_start(task_of(INFO, 0))
    module.continual.train_mask = "all"
    module.on_task_start(task_of(INFO, 0))


def test_a_head_without_bias_and_a_mask_of_all_classes():
    module = User()
    module.fc = nn.Linear(4, NUM_CLASSES, bias=False).double()
    extend(module, ContinualMixin)
    module.configure_continual(INFO, train_mask="task")
    module.on_task_start(task_of(INFO, 1))
    assert [rows.tolist() for _, rows in module.protected_rows()] == [[0, 1, 4, 5, 6, 7, 8, 9]]
    module.continual.train_mask = "all"
    module.on_task_start(task_of(INFO, 1))
    assert list(module.protected_rows()) == []


def test_manual_optimisation_without_an_optimiser():
    assert continual(optimizer="none").configure_optimizers() is None


def test_what_a_checkpoint_brought_back_is_protected():
    trained, module = continual(), continual()
    trained.on_task_start(task_of(INFO, 1))
    module.load_state_dict(trained.state_dict())
    module.on_train_start()
    optimizer, before = module.configure_optimizers(), module.fc.weight.detach().clone()
    step(module, optimizer)
    assert torch.equal(module.fc.weight[4:], before[4:])


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("returns", ["tensor", "dict"])
def test_terms_are_added_to_what_the_step_returns(returns):
    module, data = continual(Penalty, returns=returns), batch()
    plain = User(returns=returns).training_step(data, 0)
    output = module.training_step(data, 0)
    expected = 0.5 + module.fc.weight.square().sum()
    if returns == "dict":
        assert output["extra"] == plain["extra"]
        output, plain = output["loss"], plain["loss"]
    assert_close(output, plain + expected, rtol=0, atol=1e-12)  # in double precision, though a term is in half
    output.backward()
    assert (module.fc.weight.grad - 2 * module.fc.weight).abs().max() < 1
    assert not module.continual.loss_terms


def test_a_skipped_step_stays_skipped():
    assert continual(Penalty, returns="none").training_step(batch(), 0) is None


def test_without_terms_the_output_is_the_users_own():
    module = continual(returns="dict")
    assert module.training_step(batch(), 0)["extra"] == 7


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_terms_of_another_step_are_forgotten():
    module, data = continual(), batch()
    module.add_loss("stale", torch.tensor(100.0))
    assert_close(module.training_step(data, 0), User().training_step(data, 0))


def test_the_users_own_task_hooks_are_called_after_the_mask_is_set():
    module = continual()
    module.on_task_start(task_of(INFO, 1))
    module.on_task_end(task_of(INFO, 1))
    assert module.heard == [("start", 1, [2, 3]), ("end", 1)]


def test_what_the_users_hook_changes_is_protected():
    class Resetting(User):
        def on_task_start(self, task):
            self.fc.weight.data.fill_(1.0)

    module = Resetting()
    extend(module, ContinualMixin)
    module.configure_continual(INFO, train_mask="task")
    module.on_task_start(task_of(INFO, 0))
    module.fc.weight.data.zero_()
    module.restore_protected()
    assert (module.fc.weight == torch.tensor([0.0] * 2 + [1.0] * 8)[:, None]).all()


def test_the_strictest_of_several_methods_wins():
    module = continual(train_mask="seen")
    module.configure_continual(INFO, train_mask="task", reset_optimizer=True)
    module.configure_continual(INFO, train_mask="all", head="fc")
    assert module.continual.train_mask == "task"
    assert module.continual.reset_optimizer
    assert len(module.fc._forward_hooks) == 1


def test_methods_must_agree_on_the_head():
    with pytest.raises(ValueError, match="`head='net'`, but another method took the head `fc`"):
        continual().configure_continual(INFO, head="net")


def test_an_attribute_of_the_same_name_is_refused():
    module = User()
    module.continual = "mine"
    extend(module, ContinualMixin)
    with pytest.raises(ValueError, match="attribute `continual` of its own"):
        module.configure_continual(INFO)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"methods": ["lightning_cl.EWC", "lightning_cl.LwF"]}, "made with EWC [+] LwF, but this module has no method"),
        (
            {"info": {**INFO.state_dict(), "fingerprint": "a" * 64}},
            r"another stream: .* hash aaaaaaaaaaaa, but this stream is .* hash ffff",
        ),
    ],
)
def test_a_checkpoint_of_another_method_or_stream_is_refused(saved, words):
    with pytest.raises(ValueError, match=words):
        continual().on_load_checkpoint({"lightning_cl": saved})


def test_a_matching_checkpoint_is_taken():
    continual().on_load_checkpoint({"lightning_cl": {"methods": [], "info": INFO.state_dict()}})


def test_only_the_mask_is_added_to_the_weights():
    state = continual().state_dict()
    added = {name for name in set(state) - set(User().state_dict()) if state[name].numel()}  # the rest is a hint
    assert added == {"continual.mask.train_allowed", "continual.mask.eval_allowed"}


def test_a_copy_has_its_own_guards_and_mask():
    module = continual()
    module.on_task_start(task_of(INFO, 0))
    other = copy.deepcopy(module)
    other.fc.weight.data.zero_()
    other.restore_protected()
    assert torch.equal(other.fc.weight[2:], module.fc.weight[2:])
    assert other.continual.guards[0].parameter is other.fc.weight
    other.continual.mask.allow(None, None)
    assert not module.fc(torch.ones(4).double())[2:].gt(-500).any()


def test_the_users_signature_shows():
    assert list(inspect.signature(continual().training_step).parameters) == ["batch", "batch_idx"]


def test_a_step_of_the_instance_does_not_hide_the_mixins():
    """``torch.compile(module)`` gives Lightning a module whose instance has a compiled step."""
    module = User()
    module.training_step = torch.compile(module.training_step, backend="eager")
    own = module.training_step
    extend(module, Penalty)
    module.configure_continual(INFO)
    module.log_dict = lambda values: None
    batch = torch.rand(3, 4).double(), torch.tensor([0, 1, 2])
    expected = own(batch, 0) + 0.5 + module.fc.weight.square().sum()
    assert_close(module.training_step(batch, 0), expected)
