"""CLIB: all training is on a memory, which keeps the samples that helped most to lower the losses of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay, ReplayStore
from lightning_cl.nn.adaptive_rate import AdaptiveRate, StepFactor
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.precision import wide
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.memory import Memory
from lightning_cl.training.memory_steps import cutmix_loss

#: Refreshes under one learning rate, and how many must have been made before the first record, in the official code.
TURN, WARM = 10, 20


class MemoryOnly(MethodModule):
    """Steps on the memory alone, the refreshes of its samples' importance, and the learning rate that follows them."""

    positions: Tensor
    noted: Tensor

    def __init__(self, capacity: int, batch_size: int, period: int, mixed: float, adaptive: bool) -> None:
        super().__init__()
        self.register_buffer("positions", torch.full((capacity,), -1))  # of samples whose losses were noted
        self.register_buffer("noted", torch.zeros(capacity, dtype=torch.float64))
        self.batch_size, self.period, self.mixed, self.adaptive = batch_size, period, mixed, adaptive
        self.updates, self.rate = Counter(), AdaptiveRate()
        self._step: StepFactor | None = None

    def own_step(self, step: Step) -> Tensor:
        """Remember the stream's samples, and learn a batch of the memory."""
        module = step.module
        memory = module.continual.memory
        memory.left_out = False  # a sample counts, although no step is made on it
        module.remember(module.trainer.fit_loop.batch_idx)
        slots = memory.buffer.draw(self.batch_size)
        memory.buffer.policy.use(slots)
        loss_of = cutmix_loss(module, slots, self.mixed, memory.buffer.generator)
        drawn = module.read(slots)
        loss: Tensor = drawn.weight * loss_of(module, drawn)
        return loss

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Remember the weights, where the step is to be longer or shorter."""
        self._step = None
        if self.adaptive and self.rate.factor != 1:
            self._step = StepFactor(trained(module, optimizer).values(), self.rate.factor)
            self._step.remember()

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Scale the step, and see what it did to the losses of the memory."""
        if self._step is not None:
            self._step.edit()
            self._step = None
        self.updates.set(self.updates.value + 1)
        if self.updates.value % self.period == 0:
            self._refresh(module)

    def _refresh(self, module: Any) -> None:
        buffer, refreshes = module.continual.memory.buffer, self.updates.value // self.period
        slots, losses = memory_losses(module)
        buffer.policy.refresh(slots, losses)
        if self.adaptive and refreshes % TURN == 0:
            decrease = self._decrease(buffer.read(slots), slots, losses)
            self.rate.change(decrease if refreshes > WARM else None)

    def _decrease(self, positions: Tensor, slots: Tensor, losses: Tensor) -> float | None:
        """Mean decrease of the losses since the last time, of samples that are still in their slots; note the new."""
        at, places, now = slots.to(self.noted.device), positions.to(self.noted.device), losses.to(self.noted)
        still = self.positions[at] == places
        found = (self.noted[at] - now)[still]
        self.positions.fill_(-1)
        self.positions[at], self.noted[at] = places, now
        return float(found.mean()) if len(found) else None


def memory_losses(module: Any) -> tuple[Tensor, Tensor]:
    """Slots of the memory, and the cross-entropy of each of its samples in eval mode; the same on all processes."""
    buffer = module.continual.memory.buffer
    slots = buffer.used
    data = TaskData(module, module.trainer.datamodule.task, buffer.read(slots))

    def logits(inputs: Any) -> Tensor:
        return Step(module, None).learn(inputs)[0]

    answers, labels, positions = data.all_features(logits)
    losses = F.cross_entropy(wide(answers), labels, reduction="none")[positions.argsort(stable=True)].cpu()
    return slots[buffer.read(slots).argsort(stable=True)], losses


@dataclass(eq=False)
class CLIB(ExperienceReplay):
    """Continual learning for i-Blurry (CLIB; Koh et al., ICLR 2022, arXiv:2110.10031): memory-only training.

    Every sample of the stream enters the memory before a step is made, in place of the least important sample of the
    largest class; every step is on a random batch of the memory, never on the stream itself, so the user's step is not
    made. After each ``period`` updates the losses of all remembered samples are taken in eval mode, and those that were
    trained on since become the more important, the more the others' losses fell. With ``adaptive``, steps are made with
    two learning rates in turn (the user's, times a factor, and 0.95 of it), 10 refreshes each, and both go the way of
    the better one, by Welch's t-test over 10 records. Needs no task boundary; on streams with several epochs samples
    enter in the first. Updates a sample are those of the stream, ``updates_per_batch / batch_size`` (the paper has
    1 for CIFAR-10, 3 for CIFAR-100, a quarter for ImageNet). Works on any module with a class head whose ``forward``
    returns the logits. A step costs one pass over a batch of the memory, a refresh one over all of it; positions of
    samples are kept, and five numbers for each slot.

    Args:
        batch_size: Samples of a step, over all processes; fewer while the memory fills.
        period: Updates between two refreshes, at least 1; the paper's is 1, and 10 for ImageNet.
        cutmix: Share of the steps with CutMix on images, in [0, 1]; the paper's is 0.5.
        adaptive: Adapt the learning rate.
        train_mask: Which classes compete in the loss.

    Raises:
        ValueError: As :class:`ExperienceReplay`, for a number out of its range, and, when attached, for a memory
            smaller than the number of classes.
    """

    state_key: ClassVar[str] = "lightning_cl.CLIB"
    needs_every_class: ClassVar[bool] = True
    joins: ClassVar[bool] = False
    remembers_batches: ClassVar[bool] = False
    needs_automatic: ClassVar[bool] = True
    one_pass: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "period": 2}
    policy: ClassVar[Any] = "importance"  # type: ignore[misc]
    store: ClassVar[ReplayStore] = "index"  # type: ignore[misc]
    device: ClassVar[None] = None  # type: ignore[misc]

    batch_size: int = 16
    period: int = at_least(1, default=1)
    cutmix: float = fraction(default=0.5)
    adaptive: bool = True

    def _empty(self, info: Any) -> Memory:
        memory = super()._empty(info)
        memory.enters_first = True
        return memory

    def build(self, pl_module: Any, info: Any) -> MemoryOnly:
        """Counters of updates and records of learning rates."""
        return MemoryOnly(self.memory_size, self.batch_size, self.period, self.cutmix, self.adaptive)
