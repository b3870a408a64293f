"""TAME: an expert for every task that the loss betrays, and a selector that sends samples to experts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.head_kinds import check_linear
from lightning_cl.callbacks.replay.experience_replay import OwnBatchReplay
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.expert_selector import fit_selector, select
from lightning_cl.nn.head_layer import class_rows
from lightning_cl.nn.loss_shift import LossShift
from lightning_cl.nn.precision import wide
from lightning_cl.nn.task_inference import chosen_answers
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.loss_plateau import check_window
from lightning_cl.training.memory import Drawn
from lightning_cl.training.memory_steps import over_memory
from lightning_cl.training.trunks import Trunks


class Experts(MethodModule):
    """Copies of the network, of which the live one is the active expert's; number 0 is the network as it came."""

    makes_logits = True
    growing = ("heads", "biases", "known")
    heads: Tensor
    biases: Tensor
    known: Tensor
    selector: Tensor
    scaling: Tensor

    def __init__(self, module: Any, method: TAME) -> None:
        super().__init__()
        rows = class_rows(module.continual_head).detach()  # (C, D)
        self.epochs, self.lr = method.selector_epochs, method.selector_lr
        self.trunks = Trunks(module, None, "TAME")
        self.active, self.pending = Counter(1), 0
        self.detector = LossShift(
            method.window, method.deviations, method.smoothing, method.cooldown, method.max_experts + 1
        )
        self.register_buffer("heads", rows.new_zeros(method.max_experts + 1, *rows.shape))
        self.register_buffer("biases", rows.new_zeros(method.max_experts + 1, len(rows)))
        #: Classes that each expert has been trained on.
        self.register_buffer("known", rows.new_zeros(method.max_experts + 1, len(rows), dtype=torch.bool))
        self.register_buffer("selector", torch.zeros(method.max_experts + 1, rows.shape[1] + 1))
        self.register_buffer("scaling", torch.stack([torch.zeros(rows.shape[1]), torch.ones(rows.shape[1])]))

    @property
    def count(self) -> int:
        """How many experts there are."""
        return max(len(self.trunks) - 1, 0)

    # ------------------------------------------------------------------ answers

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """In training the active expert's; else of the expert that the selector chooses for a sample."""
        unread = module.continual.raw or self.trunks.passing
        if unread or (self.training and torch.is_grad_enabled()) or self.count < 2:
            return logits
        found = self.trunks.features(module)
        chosen = select(found[0], self.selector[1 : self.count + 1], self.scaling)
        each = torch.stack([self._logits(found, e, logits) for e in range(1, len(found))])  # (E, B, C)
        return chosen_answers(each, chosen, self.known[1:])

    def _logits(self, found: list[Tensor], expert: int, live: Tensor) -> Tensor:
        """``(B, C)`` of an expert, from the features of all copies; ``live`` are the active one's."""
        if expert == self.active.value:
            return live
        features = found[expert].to(self.heads.dtype)
        return F.linear(features, self.heads[expert], self.biases[expert]).to(live.dtype)

    # ------------------------------------------------------------------ the stream

    def start_run(self, module: Any) -> None:
        """Check that the detector's window fits into the stream."""
        check_window(self.detector.window, module.trainer.datamodule)

    def start_task(self, module: Any, task: Any) -> None:
        """Before the first: keep the network as it comes, and begin the first expert with it."""
        while len(self.trunks) < 2:
            self._store(module, len(self.trunks))

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Watch the loss; no term."""
        stream, batch_idx = step.module.trainer.datamodule, step.module.trainer.fit_loop.batch_idx
        classes = stream.source.train_labels[stream.train_rows(batch_idx)].unique().to(self.known.device)
        if not self.pending:
            loss = self._loss(step, step.raw_logits, self.active.value, classes)
            if self.detector.observe(loss, self.active.value):
                self.pending = self._expert_for(step, classes)
        expert = self.pending or self.active.value
        self.known[expert, classes] = True
        step.module.keep(expert=torch.full_like(step.targets, expert))
        return {}

    def _loss(self, step: Step, logits: Tensor, expert: int, classes: Tensor) -> float:
        """Mean cross-entropy of the batch, over all processes, among its classes and those that an expert knows."""
        competing = self.known[expert].index_fill(0, classes, True)
        count = len(step.module.trainer.datamodule.train_batch(step.module.trainer.fit_loop.batch_idx).index)
        own = wide(logits.detach()[:count]).masked_fill(~competing, -math.inf)
        return float(step.over_processes(F.cross_entropy(own, step.targets[:count])))

    def _expert_for(self, step: Step, classes: Tensor) -> int:
        """The expert to go on with: one that knows this batch, or a new one; with no place left, the best."""
        found, live = self.trunks.features(step.module), step.raw_logits.detach()
        numbers = range(1, len(found))
        losses = {e: self._loss(step, self._logits(found, e, live), e, classes) for e in numbers}
        fits = {e: bool(self.known[e, classes].all()) and losses[e] <= self.detector.bound(e) for e in numbers}
        others = [e for e in numbers if fits[e] and e != self.active.value]
        if not others and len(found) < len(self.heads):
            return len(found)
        return min(others or numbers, key=lambda e: losses[e])

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """What the loss betrayed is not the active expert's to learn."""
        if self.pending:
            for weight in trained(module, optimizer).values():
                weight.grad = None

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Let another expert take over; moments and momentum do not belong to it."""
        if not self.pending:
            return
        expert, self.pending = self.pending, 0
        self.detector.restart()
        if expert == self.active.value:
            return
        self._store(module, self.active.value)
        self._put_back(module, expert if expert < len(self.trunks) else 0)
        self._store(module, expert)
        self.active.set(expert)
        optimizer.state.clear()
        module.protect()

    @torch.no_grad()
    def _store(self, module: Any, expert: int) -> None:
        head = module.continual_head
        self.trunks.take(module, expert)
        self.heads[expert] = class_rows(head)
        if head.bias is not None:
            self.biases[expert] = head.bias

    @torch.no_grad()
    def _put_back(self, module: Any, expert: int) -> None:
        head = module.continual_head
        self.trunks.put_back(module, expert)
        class_rows(head).copy_(self.heads[expert])
        if head.bias is not None:
            head.bias.copy_(self.biases[expert])

    # ------------------------------------------------------------------ the selector

    def end_task(self, module: Any, data: TaskData) -> None:
        """Before an evaluation, fit the selector anew to features that the network as it came has of the memory."""
        memory = module.continual.memory
        if self.count < 2 or not len(memory.buffer):
            return
        first = dict(self.trunks.copies[0].items())  # type: ignore[operator]

        def features_of(drawn: Drawn) -> Tensor:
            return Step(module, None).look(drawn.inputs, first).features.float()

        features, experts = over_memory(module, features_of), memory.extras["expert"]
        experts = experts[memory.buffer.used.to(experts.device)].to(features.device)
        selector, scaling = fit_selector(features, experts - 1, self.count, self.epochs, self.lr)
        self.selector[1 : self.count + 1], self.scaling[:] = selector, scaling


@dataclass(eq=False)
class TAME(OwnBatchReplay):
    """Task-agnostic multi-expert learning, style (TAME; arXiv:2210.03869, CVPRW 2024), without telling where tasks end.

    The module is the active expert and learns by the user's own step. When its smoothed loss on the stream exceeds
    ``mean + deviations * std`` of its last ``window`` losses, the task has changed (:class:`LossShift`): of the other
    experts that know the batch's classes the one goes on whose loss is the lowest below its own bound: a task that came
    back. With none, a new expert begins, as the network came. That batch is not learned, and the optimiser's moments
    begin anew. A sample of the stream is remembered with the number of its expert. Before an evaluation at a task's
    end, a linear selector is fitted to the memory, on features of the network as it came, and sends each sample to one
    expert, which answers with a class that it was trained on. Losses are among such classes and the batch's.

    In this style and no reproduction: no code is public. Selector and its inputs are ours, pruning of the experts and
    the sigmoid at their outputs are left out, and so are batches of two tasks, which are the older one's. Task ends
    decide nothing but when the selector is fitted. Works on modules with a linear class head that train what is before
    it; keeps a copy of the network for each expert and one of how it came, and a memory. A step makes no further pass;
    an evaluation makes one for each expert and one more.

    Args:
        memory_size: Remembered samples, from which the selector learns; the paper's is 2,500 to 5,000.
        batch_size: Samples of a pass over the memory, over all processes.
        window: Losses of an expert that are kept, at least 2 and at most the training batches of the stream.
        deviations: Standard deviations above the mean that betray another task, at least 0.
        smoothing: Weight of a new loss in the smoothed one, in (0, 1].
        cooldown: Steps after a change before the next, at least 0; the notes on the paper say as many as ``window``.
        max_experts: At least 1; when all are there, the best of them goes on with what is new.
        selector_epochs: Passes over the memory, at least 1.
        selector_lr: Of Adam, above 0. Both are ours.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a number out of its range; when attached, for a head that is
            not linear or a module that trains nothing before it; when training begins, for a window that is longer than
            the stream.
    """

    state_key: ClassVar[str] = "lightning_cl.TAME"
    replaces_head: ClassVar[bool] = True
    owns_weights: ClassVar[bool] = True
    bytes_kept: ClassVar[int] = 8  # the expert's number
    draws: ClassVar[bool] = False
    needs_automatic: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {
        "memory_size": 12,
        "batch_size": 5,
        "window": 2,
        "deviations": 0.0,
        "cooldown": 2,
        "max_experts": 3,
        "selector_epochs": 3,
    }

    memory_size: int = 2500
    batch_size: int = 64
    window: int = 100
    deviations: float = 3.0
    smoothing: float = 0.2
    cooldown: int = 100
    max_experts: int = at_least(1, default=20)
    selector_epochs: int = at_least(1, default=50)
    selector_lr: float = above(0, default=0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        LossShift(self.window, self.deviations, self.smoothing, self.cooldown)

    def build(self, pl_module: Any, info: Any) -> Experts:
        """No expert yet but the module."""
        check_linear(pl_module, "TAME", "keeps a head for each expert", "use another head")
        return Experts(pl_module, self)
