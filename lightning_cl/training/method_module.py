"""The nn.Module of a method: what it keeps and computes, called by the module that carries it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_cl.training.step import Step
from lightning_cl.training.task_data import TaskData


class MethodModule(nn.Module):
    """Parameters, buffers and mathematics of a method; override what the method needs.

    The module that carries it (see :meth:`~lightning_cl.mixins.ContinualMixin.add_method`) calls it, pads and masks
    its logits, adds and logs its losses, keeps its protected rows as they are, and sends its parameters from the first
    process to the others at every task start. All state is in parameters and buffers, so it is in every checkpoint.

    Attributes:
        makes_logits: Whether :meth:`answer` makes the logits anew; such a method answers before those that change them.
        comes_last: Whether it acts behind all other methods, however the list was written.
        former_keys: Prefixes of state keys in older checkpoints, each with the prefix below this module now.
        known_as: Names under which the LightningModule shows pieces of this module, unless it has such an attribute of
            its own; each with the piece's name here.
        takes_task: Whether it answers otherwise for each task, where the task of the samples is told or named
            (``module.continual.choice``).
        loss_factor: What the loss of the user's step is multiplied by, before terms are added to it.
        growing: Own parameters and buffers with a row for each class or task, which get more rows when the stream is
            extended.
    """

    makes_logits: ClassVar[bool] = False
    comes_last: ClassVar[bool] = False
    former_keys: ClassVar[Mapping[str, str]] = {}
    known_as: ClassVar[Mapping[str, str]] = {}
    takes_task: bool = False
    loss_factor: float = 1.0
    growing: tuple[str, ...] = ()

    # ------------------------------------------------------------------ a training step

    def trains_now(self) -> bool:
        """Whether the user's step is made; otherwise the loss is zero and nothing moves, from task start on."""
        return True

    def own_step(self, step: Step) -> Any:
        """What ``training_step`` returns in place of the user's step; ``None``: the user's step is made.

        A method that makes the user's step itself (``step.users_step()``) returns what that gave, changed or not.
        """
        return None

    def start_step(self, step: Step) -> None:
        """Prepare the user's step; not called where there is another in its place."""

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Logits in place of ``logits``, while training and evaluating.

        Args:
            module: The LightningModule.
            features: ``(B, D)`` what the head was given.
            logits: ``(B, C_head)`` so far.

        Returns:
            ``(B, C)`` with at most ``C_head`` columns; missing ones count as classes without samples.
        """
        return logits

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """Scalar terms that are added to the loss and logged, by name; called after the user's step."""
        return {}

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Change gradients, which are accumulated, reduced over processes and unscaled, and not yet clipped."""

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Change weights after an optimiser's step, before protected rows are put back."""

    # ------------------------------------------------------------------ tasks

    def start_run(self, module: Any) -> None:
        """Begin a fit, or go on with one after a checkpoint was loaded."""

    def start_task(self, module: Any, task: Any) -> None:
        """Prepare a task, before optimisers are built anew and rows are protected; not called on resume."""

    def expose(self, module: Any, classes: tuple[int, ...]) -> None:
        """Prepare for a batch of an online stream with a new class; ``classes``: all that have arrived."""

    def end_task(self, module: Any, data: TaskData) -> None:
        """Finish a task, after its last step and before its evaluation."""

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters, each with the rows (indices) or elements (a bool mask of its shape) that must not move now."""
        yield from ()

    # ------------------------------------------------------------------ evaluation

    def start_evaluation(self, module: Any) -> None:
        """Prepare an evaluation in the middle of a task, in eval mode and without gradient."""

    def expect_samples(self, module: Any, batch_idx: int, stage: str) -> None:
        """Prepare for a pass over batch ``batch_idx`` of the stream's evaluation ``stage``, ``"val"`` or ``"test"``."""

    def forget_samples(self, module: Any) -> None:
        """Prepare for passes over samples of which nothing is known."""
