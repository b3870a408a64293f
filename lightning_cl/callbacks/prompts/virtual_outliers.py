"""Virtual outlier regularisation (OVOR): a task's last epochs train the head alone, on features and outliers."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.callbacks.prompts.outlier_epochs import OutlierEpochs
from lightning_cl.callbacks.prompts.prompt_method import PromptMethod
from lightning_cl.datamodules.task import Task
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.mixins.base import TrainMask
from lightning_cl.namespace import LightningModule, Trainer, rank_zero_warn
from lightning_cl.nn.outliers import OutlierMode
from lightning_cl.training import Phases


@dataclass(eq=False)
class VirtualOutlierRegularizer(ContinualMethod):
    """Virtual outlier regularisation: the VOR of OVOR (Huang et al., ICLR 2024, arXiv:2402.04129).

    In the last epochs of every task only the head learns, on features of the task and on synthetic outliers, so that
    it answers with high energy mass on its own classes and low mass elsewhere: less confusion between tasks. Put it
    after the method that it regularises: ``callbacks=[OnePrompt(), VirtualOutlierRegularizer()]`` is OVOR. It works
    with any method that trains the head on the current task's classes.

    An outlier epoch makes one pass without gradient over the task and then steps of the head alone. Prompts and their
    optimiser state stay as they are.

    Args:
        weight: Weight of the regulariser.
        outlier_epochs: Last epochs of each task that are outlier epochs; by default 20 % of them, at least one.
        warm_up_epochs: First epochs of each task but the first in which only the head learns.
        mode: ``"origin"``: outliers around zero, as released; ``"boundary"``: around the task's boundary features, as
            described in the paper (wants a larger ``noise`` and thresholds for the data set).
        inlier_threshold: Features are pushed below this energy.
        outlier_threshold: Outliers are pushed above this energy.
        huber: Huber's function of the hinges instead of the square.
        neighbours: Neighbours that candidates are scored with; at most the samples of a task.
        boundary_points: Features that ``"boundary"`` starts from.
        draws: Gaussian vectors.
        noise: Standard deviation of the vectors.
        per_class: Outliers per class of the task.

    Raises:
        ValueError: For a number that is too small; in ``setup``, if a task is too short for its phases or has fewer
            samples than ``neighbours``, or if a method does not train the head or comes in the wrong order.
    """

    state_key: ClassVar[str] = "lightning_cl.VirtualOutlierRegularizer"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"neighbours": 10, "boundary_points": 10, "draws": 40, "per_class": 10}

    weight: float = 0.1
    outlier_epochs: int | None = at_least(0, default=None)
    warm_up_epochs: int = at_least(0, default=0)
    mode: OutlierMode = "origin"
    inlier_threshold: float = -15.0
    outlier_threshold: float = -3.0
    huber: bool = True
    neighbours: int = at_least(1, default=50)
    boundary_points: int = at_least(1, default=50)
    draws: int = at_least(1, default=600)
    noise: float = 0.1
    per_class: int = at_least(1, default=40)
    _: KW_ONLY
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("boundary", "origin"):
            raise ValueError(f'`mode` is {self.mode!r}; give "boundary" (as described) or "origin" (as released).')

    def build(self, pl_module: Any, info: Any) -> OutlierEpochs:
        """The phases."""
        return OutlierEpochs(self)

    @property
    def phases(self) -> Phases:
        """Warm-up in every task but the first, and outlier epochs: as given, or the last 20 %, at least 1."""
        given = self.outlier_epochs
        return Phases(
            first=[("warm_up", lambda task: self.warm_up_epochs * (task.index > 0))],
            last=[("outlier", lambda task: max(round(0.2 * task.epochs), 1) if given is None else given)],
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the other methods, attach, and check that every task has room for its phases."""
        self._check_company(trainer)
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        stream = require_stream(trainer, type(self).__name__)
        if stream.early_stopping == "task":
            raise ValueError(
                "outlier epochs are the last epochs of a task, so a task must not end early; set "
                '`ContinualDataModule(early_stopping="stream")`.'
            )
        for task in stream.tasks:
            self._check_epochs(task)
            self._check_samples(task.index, len(stream.layout.train_index[task.index].unique()))

    def _check_company(self, trainer: Trainer) -> None:
        callbacks = callbacks_of(trainer)
        idle = [type(c).__name__ for c in callbacks if isinstance(c, ContinualMethod) and not c.trains_head]
        if idle:
            raise ValueError(
                f"{type(self).__name__} trains the head in its outlier epochs, but {' and '.join(idle)} makes the "
                "answers without training it; use one or the other."
            )
        own = [type(c).__name__ for c in callbacks if isinstance(c, ContinualMethod) and c.replaces_head]
        if own:
            raise ValueError(
                f"{type(self).__name__} trains the head on features alone in its outlier epochs, but "
                f"{' and '.join(own)} makes the logits in its own way; use one or the other."
            )
        behind = callbacks[callbacks.index(self) + 1 :] if self in callbacks else []
        late = [type(c).__name__ for c in behind if isinstance(c, PromptMethod)]
        if late:
            raise ValueError(
                f"{type(self).__name__} stands before {late[0]}, whose training step it replaces in some epochs; put "
                f"it behind: `callbacks=[{late[0]}(...), {type(self).__name__}(...)]`."
            )

    def _check_epochs(self, task: Task) -> None:
        needed = task.epochs - self.phases.lengths(task)["regular"]
        if needed > task.epochs:
            raise ValueError(
                f"task {task.index} has {task.epochs} epoch(s), but warm-up and outlier epochs take {needed}; "
                "raise `epochs_per_task`, or lower `warm_up_epochs` and `outlier_epochs`."
            )
        if needed == task.epochs:
            rank_zero_warn(
                f"warm-up and outlier epochs take all {task.epochs} epoch(s) of task {task.index}, so only the head "
                "learns in it; raise `epochs_per_task`."
            )

    def _check_samples(self, task: int, samples: int) -> None:
        fewest = max(self.neighbours, self.boundary_points * (self.mode == "boundary"))
        if samples < fewest:
            raise ValueError(
                f"task {task} has {samples} training samples, fewer than the {fewest} that virtual outliers are made "
                f"with; lower `neighbours` (and `boundary_points`) to at most {samples}."
            )
