"""The model as it was before the task, which teaches the present one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.weights import Snapshot
from lightning_cl.training import HeadCall, MethodModule, Step, TaskData
from lightning_cl.training.teacher import weights_and_statistics


class PreviousModel(MethodModule):
    """A copy of what is trained, taken at every task's end; in no optimiser, and saved once.

    Args:
        module: The LightningModule, with the weights that are trained from now on.
        strength: Of the term that :meth:`losses` adds, at least 0; 0: the teacher is not asked.
    """

    def __init__(self, module: Any, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.weights = Snapshot(weights_and_statistics(module))

    def asked(self, step: Step) -> HeadCall | None:
        """What reached the teacher's head for the step's inputs, in eval mode, without gradient; ``None``: no term."""
        if not self.weights.taken or not self.strength:
            return None
        return step.look(weights=dict(self.weights.items()))

    def end_task(self, module: Any, data: TaskData) -> None:
        """The present model is the teacher of the next task."""
        self.weights.take(weights_and_statistics(module))


@dataclass(eq=False)
class DistillationMethod(RegularizedMethod):
    """A method whose term compares answers at a temperature.

    Args:
        temperature: By which logits are divided before the softmax, above 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    adds_loss: ClassVar[bool] = True
    boundaries: ClassVar[Boundaries] = "taken"

    temperature: float = above(0, default=2.0)


def class_counts(task: Any) -> tuple[int, int]:
    """How many classes came before a task, and how many came with it."""
    return len(task.seen_classes) - len(task.new_classes), len(task.new_classes)
