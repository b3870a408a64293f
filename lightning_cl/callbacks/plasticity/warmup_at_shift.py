"""A warm-up at a change of distribution: the memory fills for some batches before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.training.update_schedule import UpdateSchedule, check_memory


class Warmup(UpdateSchedule):
    """No update in the first batches of a task, several in all later ones."""

    def __init__(self, batches: int, updates: int, retain: bool) -> None:
        super().__init__()
        self.batches, self.after, self.retain = batches, updates, retain

    def start_run(self, module: Any) -> None:
        """Check that there is a memory, if it is needed."""
        check_memory(module, "WarmupAtShift", self.after)

    def start_task(self, module: Any, task: Any) -> None:
        """Forget the samples of earlier tasks, if they are not retained."""
        if task.index > 0 and not self.retain and module.continual.memory is not None:
            module.continual.memory.buffer.clear()

    def updates(self, module: Any) -> int:
        """By the place of the batch in its task."""
        trainer, task = module.trainer, module.trainer.datamodule.task
        if task.index == 0:
            return 1
        done = (trainer.current_epoch - task.first_epoch) * trainer.num_training_batches + trainer.fit_loop.batch_idx
        return 0 if done < self.batches else self.after


@dataclass(eq=False)
class WarmupAtShift(ContinualMethod):
    """A warm-up phase at a change of distribution, style (after WSRL; Zhou et al., ICLR 2025, arXiv:2412.07762).

    In every task but the first the first ``batches`` batches are only remembered: no weight and no moment of the
    optimiser moves, and the model answers as before. Then every batch gets ``updates`` updates: the user's step, and
    further steps of the same optimiser on batches of the memory alone. Put ``ExperienceReplay`` beside it. In this
    style and not a reproduction: the paper is of reinforcement learning, where the warm-up collects experience with the
    frozen policy. Works on any module with automatic optimisation; needs task boundaries. ``updates`` multiply the cost
    of a step.

    Args:
        batches: Of the warm-up, at least 0.
        updates: On each later batch of these tasks, at least 1; 4 is the paper's. With 0 batches and 1 update it is
            plain fine-tuning.
        retain: Keep the samples of earlier tasks; ``False`` is the paper's setting, without them.

    Raises:
        ValueError: If a number is out of its range; in ``setup`` for a stream without boundaries; when training starts,
            without a memory for more than one update.
    """

    state_key: ClassVar[str] = "lightning_cl.WarmupAtShift"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = ("warms up", "leave it out")
    needs_head: ClassVar[bool] = False
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"batches": 1, "updates": 1}

    batches: int = at_least(0, default=10)
    updates: int = at_least(1, default=4)
    retain: bool = True

    @property
    def needs_forward(self) -> bool:  # type: ignore[override]
        """Further updates are steps on the memory alone."""
        return self.updates > 1

    def build(self, pl_module: Any, info: Any) -> Warmup:
        """It keeps nothing of its own: the place in the stream says what is due."""
        return Warmup(self.batches, self.updates, self.retain)
