"""The base of methods that adapt a model to domains without labels, in training steps of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.callbacks.stream_kind import StreamKind
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.loss_terms import plus, zero_through


class Adaptation(MethodModule):
    """Trains as the user does where there are labels, and else in a step of its own, in which labels play no part.

    Attributes:
        adapts: Whether the current task has no labels.
        predicted: ``(B,)`` classes that the last batch without labels was answered with, before the step learned of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adapts = False
        self.predicted: Tensor | None = None

    def adapted(self, module: Any) -> list[nn.Parameter]:
        """What alone has a gradient step while there are no labels, and none while there are."""
        raise NotImplementedError

    def adaptation_loss(self, step: Step) -> Tensor:
        """The loss of a batch without labels; sets :attr:`predicted`."""
        raise NotImplementedError

    def start_run(self, module: Any) -> None:
        """Look up whether there are labels, also after a resume."""
        self.adapts = not module.trainer.datamodule.task.labelled

    def start_task(self, module: Any, task: Any) -> None:
        """From here on there are labels, or none."""
        self.adapts = not task.labelled

    def own_step(self, step: Step) -> Any:
        """The step without labels; the user's where there are some, and DDP waits for no gradient."""
        self.predicted = None
        output = self.adaptation_loss(step) if self.adapts else step.users_step()
        if step.module.trainer.world_size == 1 or output is None:
            return output
        return plus(output, zero_through(self.idle(step.module), step.module.device))

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """What does not learn in this task has no part in a norm of the gradient or an optimiser's moments."""
        for parameter in self.idle(module):
            parameter.grad = None

    def idle(self, module: Any) -> list[nn.Parameter]:
        """Parameters that no gradient step moves in this task."""
        own = {id(p) for p in self.adapted(module)}
        return [p for p in trained(module).values() if (id(p) in own) != self.adapts]


@dataclass(eq=False)
class AdaptationMethod(ContinualMethod):
    """A method that adapts without labels; the report has the accuracy of the answers that it gave on the way.

    Args:
        train_mask: Which classes compete in the training loss of the labelled tasks.
    """

    stream_kind: ClassVar[StreamKind] = "unlabelled"
    adds_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        #: ``(T, 2)``: right answers and all answers on the way, over all processes.
        self.answered = torch.zeros(0, 2, dtype=torch.long)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach, and begin to count."""
        names = [type(c).__name__ for c in callbacks_of(trainer) if isinstance(c, AdaptationMethod)]
        if len(names) > 1:
            raise ValueError(
                f"{' and '.join(names)} each make the steps of the tasks without labels, so only one of them would "
                "adapt; use one."
            )
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            tasks = require_stream(trainer, type(self).__name__).info.num_tasks
            self.answered = torch.zeros(tasks, 2, dtype=torch.long)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Compare the answers on a batch with the labels, which only this measurement sees, behind the step."""
        stream = require_stream(trainer, type(self).__name__)
        if stream.task.labelled:
            return
        predicted = next(p.predicted for p in pl_module.continual.ordered_parts if isinstance(p, Adaptation))
        own = stream.train_batch(batch_idx)
        labels = stream.source.train_labels[own.index[: own.real]].to(pl_module.device, non_blocking=True)
        count = torch.zeros(2, dtype=torch.long, device=pl_module.device)
        if predicted is not None:
            count[0], count[1] = (predicted[: own.real] == labels).sum(), own.real
        self.answered = self.answered.to(count.device)
        self.answered[stream.task_index] += all_sum(count)

    def report_facts(self) -> dict[str, Any]:
        """Accuracy of the answers on the way, by task; those of a batch were given before the step learned of it."""
        return {"accuracy_on_the_way": [right / total if total else None for right, total in self.answered.tolist()]}

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"version": 1, "answered": self.answered.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.answered = state_dict["answered"]
