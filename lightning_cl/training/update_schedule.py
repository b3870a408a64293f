"""How many updates are made on a training batch: none, the user's step, or further ones on the memory behind it."""

from __future__ import annotations

import math
from typing import Any

from lightning_cl.training.loss_terms import zero_through
from lightning_cl.training.memory_steps import memory_step
from lightning_cl.training.method_module import MethodModule
from lightning_cl.training.step import Step


class UpdateSchedule(MethodModule):
    """Base of methods that decide how many updates a batch gets.

    With 0 the user's step is not made and no weight or moment moves, but the batch is remembered where there is a
    memory that joins. From the second one on, an update is a step of the user's optimiser on a batch of the memory
    alone, in which terms and edits of gradients of other methods have no part.
    """

    def __init__(self) -> None:
        super().__init__()
        self._updates, self._inside = 1, False

    def updates(self, module: Any) -> int:
        """How many updates this batch gets, the user's step included; asked once a batch."""
        raise NotImplementedError

    def own_step(self, step: Step) -> Any:
        """A loss of zero where there is no update."""
        self._updates = self.updates(step.module)
        if self._updates:
            return None
        return zero_through((p for p in step.module.parameters() if p.requires_grad), step.module.device)

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Without a gradient an optimiser leaves weight and moments alone."""
        if not self._updates:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def after_step(self, module: Any, optimizer: Any) -> None:
        """The further updates; each of them ends here, too."""
        memory = module.continual.memory
        if self._inside or memory is None:
            return
        self._inside = True
        try:
            for _ in range(self._updates - 1 if len(memory.buffer) else 0):
                memory_step(module, optimizer, memory.buffer.draw(memory.batch_size))
        finally:
            self._inside = False


def check_memory(module: Any, method: str, updates: float) -> None:
    """Refuse further updates without a memory to make them on.

    Raises:
        ValueError: If more than one update a batch is asked for, and no method of the module keeps a memory.
    """
    if updates > 1 and module.continual.memory is None:
        raise ValueError(
            f"{method} makes {updates:g} updates a batch, all but the first on a memory, but there is none; put "
            "`ExperienceReplay` into the list of callbacks, or ask for at most 1 update."
        )


def updates_of(number: int, ratio: float) -> int:
    """How many updates batch ``number``, from 0, gets, so that ``n`` batches get ``floor(n * ratio)`` in all."""
    return math.floor((number + 1) * ratio) - math.floor(number * ratio)
