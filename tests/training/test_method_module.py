"""What a carried module of a method is asked, when, and what becomes of its answers."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from datamodules.tiny_stream import TinyModule, make_stream, make_trainer
from lightning.pytorch import LightningModule
from tiny import stream_info, task_of
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualMethod
from lightning_cl.mixins import ContinualMixin, extend
from lightning_cl.training import MethodModule

INFO = stream_info(num_tasks=5, num_classes=10)


class User(LightningModule):
    """As a user writes it; nothing here logs to a Trainer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.fc = nn.Linear(6, 4), nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(self.body(x))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.5)

    def log_dict(self, values):
        self.logged = values


def carrying(*parts, **options):
    module = User()
    extend(module, ContinualMixin)
    module.configure_continual(INFO, **options)
    for place, part in enumerate(parts):
        module.add_method(f"part{place}", part)
    return module


def batch(labels=(0, 1, 0)):
    return torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(1)), torch.tensor(labels)


class Doubles(MethodModule):
    def answer(self, module, features, logits):
        return 2 * logits


class Makes(MethodModule):
    makes_logits = True

    def answer(self, module, features, logits):
        return features[:, :3]


@pytest.mark.parametrize("parts", [(Doubles, Makes), (Makes, Doubles)])
def test_logits_are_made_before_they_are_changed_then_padded_and_masked(parts):
    module = carrying(*(part() for part in parts))
    module.continual.mask.allow(None, [0, 2, 3])
    module.eval()
    x, _ = batch()
    answer = module(x)
    assert answer.shape == (3, 10)
    assert_close(answer[:, [0, 2]], 2 * module.body(x)[:, [0, 2]])  # classes 1 (masked) and 3 (missing) cannot win
    assert bool((answer.argmax(1) != 1).all())
    assert bool((answer.argmax(1) != 3).all())


class Term(MethodModule):
    def __init__(self, make):
        super().__init__()
        self.make, self.seen = make, None

    def losses(self, step):
        self.seen = step.features, step.raw_logits, step.inputs, step.targets
        return {"term": self.make(step)}


def test_terms_are_added_and_logged_and_see_what_the_head_was_given():
    module = carrying(part := Term(lambda step: 3 * step.raw_logits.square().mean()), Doubles())
    x, y = batch()
    loss = module.training_step((x, y), 0)
    features, raw, inputs, targets = part.seen
    assert inputs is x
    assert targets is y
    assert_close(features, module.body(x))
    assert_close(raw, module.fc(features.detach()).div(2))  # `Doubles` answers here, too
    assert_close(loss, cross_entropy(2 * raw, y) + 3 * raw.square().mean())
    assert_close(module.logged["term"], 3 * raw.square().mean().detach())
    assert module.continual.step is None
    assert module.continual.calls is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda step: step.features.detach().sum(), "`term` carries no gradient"),
        (lambda step: step.features.sum(0), r"`term` is a tensor of shape \(4,\); give a scalar"),
        (lambda step: 1.0, "`term` is a float; give a scalar tensor"),
        (lambda step: torch.zeros((), device="meta"), "`term` lies on meta, but the module on cpu"),
    ],
)
def test_a_term_that_cannot_be_added_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        carrying(Term(make)).training_step(batch(), 0)


def test_a_step_that_does_not_call_the_head_has_no_features():
    module = carrying(Term(lambda step: step.features.sum()))
    module.fc = copy.copy(module.fc)  # another layer than the one that was found
    module.fc._forward_hooks = {}
    with pytest.raises(ValueError, match="did not call the head `fc`"):
        module.training_step(batch(), 0)


def test_a_look_leaves_no_trace_and_takes_other_weights():
    other = {"body.weight": torch.zeros(4, 6), "body.bias": torch.ones(4)}
    looked, modes = [], []

    def make(step):
        looked.append(step.look(weights=other))
        return 0 * step.features.sum()

    module = carrying(Term(make))
    module.fc.register_forward_hook(lambda layer, args, out: modes.append((module.training, torch.is_grad_enabled())))
    before = copy.deepcopy(module.state_dict())
    module.train()
    module.training_step(batch(), 0)
    assert modes == [(True, True), (False, False)]
    assert module.training
    assert_close(looked[0].features, torch.ones(3, 4))
    assert_close(looked[0].raw_logits, module.fc.weight.sum(1).add(module.fc.bias).expand(3, 10).detach())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class OwnStep(MethodModule):
    def own_step(self, step):
        return step.module.body(step.inputs).sum()

    def losses(self, step):
        raise AssertionError("there is no user's step to add to")


def test_a_step_may_be_replaced():
    module = carrying(OwnStep())
    x, y = batch()
    assert_close(module.training_step((x, y), 0), module.body(x).sum())


class Idle(MethodModule):
    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.ones(()))

    def trains_now(self):
        return False


def test_where_nothing_is_trained_nothing_moves():
    module = carrying(Idle(), train_mask="task")
    module.on_task_start(task_of(INFO, 0))
    before = copy.deepcopy(module.state_dict())
    optimizer = module.configure_optimizers()
    for _ in range(2):
        loss = module.training_step(batch(), 0)
        loss.backward()
        optimizer.step()
    assert loss == 0
    assert all(p.grad is not None for p in module.parameters())  # DDP waits for all
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Counting(MethodModule):
    def __init__(self):
        super().__init__()
        self.calls, self.kept = [], nn.Parameter(torch.zeros(3, 2))

    def edit_gradients(self, module, optimizer):
        self.calls.append("edit")

    def after_step(self, module, optimizer):
        self.calls.append("after")
        with torch.no_grad():
            self.kept.add_(1.0)

    def start_task(self, module, task):
        self.calls.append(("start", task.index))

    def end_task(self, module, data):
        self.calls.append(("end", data.task.index))

    def expose(self, module, classes):
        self.calls.append(("expose", classes))

    def protected(self, module):
        yield self.kept, torch.tensor([[True, False], [False, False], [False, True]])


def test_every_moment_is_told_once_and_protected_elements_stay():
    module = carrying(part := Counting())
    module.on_task_start(task_of(INFO, 1))
    optimizer = module.configure_optimizers()
    module.on_exposure((0, 3))
    module.on_before_optimizer_step(optimizer)
    optimizer.step()
    module.on_task_end(task_of(INFO, 1))
    assert part.calls == [("start", 1), ("expose", (0, 3)), "edit", "after", ("end", 1)]
    assert_close(part.kept.detach(), torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]))


class Renamed(MethodModule):
    former_keys: ClassVar[dict[str, str]] = {"bank.": "now.", "alone": "single"}

    def __init__(self):
        super().__init__()
        self.now = nn.Linear(2, 2)
        self.register_buffer("single", torch.zeros(2))


def test_keys_of_older_checkpoints_find_their_place():
    module = carrying(Renamed())
    old = {k: v + 1 for k, v in User().state_dict().items()}
    weight, bias, single = torch.full((2, 2), 5.0), torch.full((2,), 6.0), torch.full((2,), 7.0)
    masks = {k: v for k, v in module.state_dict().items() if ".mask." in k}
    given = {**old, **masks, "bank.weight": weight, "bank.bias": bias, "alone": single}
    module.load_state_dict(given)
    part = module.continual.parts["part0"]
    assert_close((part.now.weight.detach(), part.now.bias.detach(), part.single), (weight, bias, single))
    assert set(given) == {*old, *masks, "bank.weight", "bank.bias", "alone"}  # the file's dictionary stays


def test_a_copy_answers_by_itself():
    module = carrying(Makes()).eval()
    twin = copy.deepcopy(module)
    x, _ = batch()
    with torch.no_grad():
        twin.body.weight.zero_()
        twin.body.bias.fill_(2.0)
    assert_close(twin(x)[:, :3].detach(), torch.full((3, 3), 2.0))
    assert_close(module(x)[:, :3], module.body(x)[:, :3])


def test_two_parts_of_one_name_are_refused():
    module = carrying(Makes())
    with pytest.raises(ValueError, match="has a method `part0` already"):
        module.add_method("part0", Doubles())


class Headless(LightningModule):
    """A box regressor, say."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4)


class Anywhere(ContinualMethod):
    state_key = "test.Anywhere"
    needs_head = False

    def build(self, pl_module, info):
        return Counting()


class Needs(ContinualMethod):
    state_key = "test.Needs"


def test_a_method_without_need_of_a_head_attaches_to_any_module():
    module = Headless()
    Anywhere().attach_once(module, INFO)
    module.on_task_start(task_of(INFO, 0))
    module.on_task_start(task_of(INFO, 1))
    assert module.continual.head_path is None
    assert module.continual.parts["anywhere"].calls == [("start", 0), ("start", 1)]
    with pytest.raises(ValueError, match="no head was found in this Headless"):
        _ = module.continual_head
    with pytest.raises(ValueError, match=r"no `torch\.nn\.Linear` with 10 outputs"):
        Needs().attach_once(module, INFO)


def test_a_head_that_a_later_method_needs_is_found_then():
    module = User()
    Anywhere(head="fc").attach_once(module, INFO)
    assert module.continual.head_path == "fc"
    module = Headless()
    module.fc = nn.Linear(4, 10)
    Anywhere().attach_once(module, INFO)
    Needs().attach_once(module, INFO)
    assert module.continual.head_path == "fc"
    assert len(module.fc._forward_hooks) == 1


def test_old_classes_are_those_before_the_task():
    module = carrying()
    seen = []
    for index in (0, 1, 2):
        module.__dict__["trainer"] = None
        task = task_of(INFO, index)
        old = module.continual.old_classes(task, module.device)
        seen.append(None if old is None else old.tolist())
    assert seen == [None, [0, 1], [0, 1, 2, 3]]


class NotANumber(MethodModule):
    def losses(self, step):
        return {"broken": step.features.sum() * torch.nan, "good": step.features.mean() * 0}


class Breaks(ContinualMethod):
    state_key = "test.Breaks"
    adds_loss = True

    def build(self, pl_module, info):
        return NotANumber()


def test_a_term_that_is_no_number_is_named(tmp_path):
    class Logs(TinyModule):
        def log_dict(self, *_, **__):
            """Not looked at here."""

    words = r"loss is not finite \(the methods' terms `broken` are not\) in task 0"
    with pytest.raises(FloatingPointError, match=words):
        make_trainer(tmp_path, [Breaks()]).fit(Logs(), datamodule=make_stream())


def test_what_watched_layers_give_stands_beside_the_call_of_the_head():
    module, (x, _) = carrying(), batch()
    module.watch_layer("body")
    twin = copy.deepcopy(module)
    with module.recorded() as calls:
        module(x)
        with module.recorded() as others:  # as a teacher's pass within a step
            module(2 * x)
        module(3 * x)
    assert [len(calls), len(others)] == [2, 1]
    for call, factor in ((calls[0], 1), (others[0], 2), (calls[1], 3)):
        assert torch.equal(call.outputs["body"], module.body(factor * x))
    with twin.recorded() as calls:
        twin(x)
    assert list(calls[0].outputs) == ["body"]
    assert not module.continual.outputs
