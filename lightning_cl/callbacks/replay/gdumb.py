"""GDumb: nothing is learned from the stream but a balanced memory, on which a fresh model is trained when asked."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least, fraction
from lightning_cl.callbacks.replay.experience_replay import OwnBatchReplay, ReplayPolicy
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.replay import ReplayBuffer
from lightning_cl.nn.schedules import warm_restarts
from lightning_cl.nn.weights import Snapshot, overwrite, trained
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.loss_terms import zero_through
from lightning_cl.training.memory_steps import cutmix_loss, memory_step
from lightning_cl.training.teacher import weights_and_statistics


class FreshModel(MethodModule):
    """The weights to begin with, and the training on the memory that starts from them."""

    def __init__(self, module: nn.Module, batch_size: int, lr: float, epochs: int, mixed: float) -> None:
        super().__init__()
        self.batch_size, self.lr, self.epochs, self.mixed = batch_size, lr, epochs, mixed
        self.fresh = Snapshot(weights_and_statistics(module))

    def own_step(self, step: Step) -> Tensor:
        """The stream only fills the memory."""
        step.module.continual.memory.left_out = False  # a sample counts, although no step is made on it
        return zero_through(trained(step.module).values(), step.module.device)

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Nothing moves, by decay of weights neither."""
        for weight in trained(module, optimizer).values():
            weight.grad = None

    def start_task(self, module: Any, task: Any) -> None:
        """The fresh model is the one with which the fit starts."""
        if not self.fresh.taken:
            self.fresh.take(weights_and_statistics(module))

    def end_task(self, module: Any, data: TaskData) -> None:
        """Train a fresh model on all of the memory."""
        overwrite(weights_and_statistics(module), self.fresh.items())
        self._learn(module, module.continual.memory.buffer)
        send_from_first_process(module.buffers())  # of batch norm, which saw other rows on each process

    def _learn(self, module: Any, buffer: ReplayBuffer) -> None:
        used = buffer.used
        if not len(used):  # the fit was cut short before anything was remembered
            return
        optimizer = torch.optim.SGD(trained(module).values(), lr=self.lr, momentum=0.9, weight_decay=1e-6)
        for epoch in range(self.epochs):
            optimizer.param_groups[0]["lr"] = warm_restarts(epoch, self.lr)
            order = used[torch.randperm(len(used), generator=buffer.generator)]
            for slots in order.split(self.batch_size):
                memory_step(module, optimizer, slots, cutmix_loss(module, slots, self.mixed, buffer.generator))


@dataclass(eq=False)
class GDumb(OwnBatchReplay):
    """Greedy sampler and dumb learner (GDumb; Prabhu et al., ECCV 2020): a lower bound that many methods do not reach.

    The stream only fills a memory, in equal shares of the classes seen; the user's step and optimiser move nothing. At
    every task's end the model starts again from the weights with which the fit began and learns the memory alone, by
    cross-entropy over the seen classes: SGD with momentum 0.9 and weight decay 1e-6, cosine warm restarts from ``lr``
    to 5e-4 (after 1, 2, 4, ... epochs; the first epoch at a tenth of the rate), CutMix on images. Works on any module
    with a class head whose ``forward`` returns the logits; needs a memory and task ends. It costs ``epochs`` epochs on
    the memory a task, the same on any number of processes; a run that is stopped within them begins them again.

    Args:
        batch_size: Samples of a step on the memory, over all processes.
        lr: Of the training on the memory, above 0; a transformer needs a lower one than the paper's ResNet.
        epochs: Passes over the memory at each task's end, at least 1.
        cutmix: Share of the steps with CutMix, in [0, 1]. It and the numbers above are the paper's code's.
        policy: ``"greedy"`` is the paper's.
        store: See :class:`ExperienceReplay`; ``"index"`` augments a sample anew in each epoch.
        train_mask: Which classes compete in the loss.
        reset_optimizer: Of no effect.

    Raises:
        ValueError: As :class:`ExperienceReplay`, for a number out of its range, and, when attached, for a memory
            smaller than the number of classes.
    """

    state_key: ClassVar[str] = "lightning_cl.GDumb"
    needs_every_class: ClassVar[bool] = True
    boundaries: ClassVar[Boundaries] = "taken"
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "epochs": 2}

    batch_size: int = 16
    lr: float = above(0, default=0.05)
    epochs: int = at_least(1, default=256)
    cutmix: float = fraction(default=0.5)
    _: KW_ONLY
    policy: ReplayPolicy = "greedy"

    def build(self, pl_module: Any, info: Any) -> FreshModel:
        """The weights to start from."""
        return FreshModel(pl_module, self.batch_size, self.lr, self.epochs, self.cutmix)
