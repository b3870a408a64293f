"""Learning-rate schedules of continual pre-training: rates that rise again with every task, or never need to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import mul
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import check_share
from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.schedules import infinite_rate, warm_cosine


class TaskSchedule(ContinualCallback):
    """Sets the learning rate before every batch, as a share of the rate that an optimiser was made with.

    It keeps nothing: the rate follows from the task, the epoch and the batch, so a resumed run goes on with the same
    rates; what a group of parameters was made with is its ``initial_lr``, which is in its optimiser's checkpoint.
    """

    #: Training batches in an epoch of every task, and in all of its epochs.
    _in_epoch: tuple[int, ...]
    _in_task: tuple[int, ...]

    def share(self, task: int, done: int) -> float:
        """What the rate is multiplied by, after ``done`` batches of a task."""
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is a stream."""
        require_stream(trainer, type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the batches, and refuse a second schedule.

        Raises:
            ValueError: If ``configure_optimizers`` returned a learning-rate scheduler, which would set other rates.
        """
        if trainer.lr_scheduler_configs:
            raise ValueError(
                f"{type(self).__name__} sets the learning rate before every batch, but `configure_optimizers` of "
                f"{type(pl_module).__name__} returns a learning-rate scheduler, too; leave one of them out."
            )
        stream: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._in_epoch = tuple(stream.num_batches(task) for task in range(stream.info.num_tasks))
        self._in_task = tuple(map(mul, self._in_epoch, stream.planned.epochs))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the rate of this batch."""
        task = trainer.datamodule.task  # type: ignore[attr-defined]
        done = (trainer.current_epoch - task.first_epoch) * self._in_epoch[task.index] + batch_idx
        set_rates(trainer.optimizers, self.share(task.index, done))


def set_rates(optimizers: Iterable[Any], share: float) -> None:
    """Give every group of parameters a share of the learning rate that it was made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group.setdefault("initial_lr", group["lr"])


@dataclass(eq=False)
class ReWarmReDecay(TaskSchedule):
    """Learning rate that rises and falls again in every task (Ibrahim et al., TMLR 2024, arXiv:2403.08763).

    In each task the rate goes in a line from ``least`` times the optimiser's rate up to it (to ``peak`` times it from
    the second task on), and along a cosine back, so that one task goes on where the one before ended. Beside
    ``ContinualDataModule(replay_share=...)`` it is the paper's continual pre-training, which equals training anew on
    all data for language models: re-warming alone forgets. The optimiser's moments go on from task to task; a method
    with ``reset_optimizer=True`` begins with fresh ones, as one must for weights that were published without them.
    Works with any module, optimiser and method; the optimiser's own rate is the highest.

    Args:
        warmup: Share of a task's steps in which the rate rises, in [0, 1]; the paper's 1 %; its length matters little.
        least: Lowest rate, as a share of the optimiser's, in [0, 1]; the paper's 3e-5 of 3e-4.
        peak: Highest rate from the second task on, as a share of the optimiser's, in [0, 1].

    Raises:
        ValueError: If a number is out of its range; when training starts, if the module has a scheduler of its own.
    """

    state_key: ClassVar[str] = "lightning_cl.ReWarmReDecay"

    warmup: float = 0.01
    least: float = 0.1
    peak: float = 1.0

    def __post_init__(self) -> None:
        check_share(self, "warmup", "least", "peak")

    def share(self, task: int, done: int) -> float:
        """Of a task."""
        steps = self._in_task[task]
        warmup = max(round(self.warmup * steps), 1) if self.warmup else 0
        return warm_cosine(done, steps, warmup, self.least, self.peak if task else 1.0)


@dataclass(eq=False)
class InfiniteSchedule(TaskSchedule):
    """Learning rate that is never re-warmed: constant over all tasks but for a start and an end (arXiv:2403.08763).

    A warm-up and a cosine cool-down to ``constant`` in the first task, the constant rate for as many tasks as come, and
    an exponential annealing to ``least`` in the last steps of the last one. To go on later, resume from a checkpoint
    of before the annealing. Works with any module, optimiser and method.

    Args:
        warmup: Share of the first task's steps, in [0, 1].
        cooldown: Share of the first task's steps behind the warm-up, in [0, 1].
        annealing: Share of the last task's steps, in [0, 1].
        constant: Rate between them, as a share of the optimiser's, in (0, 1]; 1.65e-4 of 3e-4 is 0.55.
        least: Rate at both ends, as a share of the optimiser's, in (0, constant].

    Raises:
        ValueError: If a number is out of its range; when training starts, if the module has a scheduler of its own.
    """

    state_key: ClassVar[str] = "lightning_cl.InfiniteSchedule"

    warmup: float = 0.01
    cooldown: float = 0.6
    annealing: float = 0.2
    constant: float = 0.55
    least: float = 0.1

    def __post_init__(self) -> None:
        check_share(self, "warmup", "cooldown", "annealing", "constant")
        if not 0 < self.least <= self.constant:
            raise ValueError(f"`least` is {self.least}; give a number above 0, at most `constant` ({self.constant}).")

    def share(self, task: int, done: int) -> float:
        """Of the whole stream."""
        first, last = self._in_task[0], self._in_task[-1]
        shares = (self.warmup, first), (self.cooldown, first), (self.annealing, last)
        warmup, cooldown, annealing = (round(part * count) for part, count in shares)
        step, total = sum(self._in_task[:task]) + done, sum(self._in_task)
        return infinite_rate(step, (warmup, cooldown, annealing), total, self.constant, self.least)
