"""Virtual outlier regularisation (OVOR): a task's last epochs train the head alone, on features and outliers."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import check_at_least
from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.callbacks.prompts.prompt_method import PromptMethod
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.task import Task
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.mixins.base import TrainMask
from lightning_cl.namespace import LightningModule, Trainer, rank_zero_warn
from lightning_cl.nn.outliers import OutlierMode, energy, outlier_regularizer, share_of_step, synthesize_outliers
from lightning_cl.training import MethodModule, Phases, Step, TaskData
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.head_only import drop_idle_gradients, head_only_step, with_idle_parameters


@dataclass
class OutlierEpoch:
    """What an outlier epoch trains on.

    Attributes:
        epoch: ``trainer.current_epoch``.
        positions: ``(N,)`` sorted positions of the task's samples in the training split, each once.
        features: ``(N, D)`` what reached the head for them.
        labels: ``(N,)`` their classes.
        outliers: ``(n, D)`` in descending order of distance.
    """

    epoch: int
    positions: Tensor
    features: Tensor
    labels: Tensor
    outliers: Tensor


class OutlierEpochs(MethodModule):
    """Phases inside a task: warm-up (head only), regular, and outlier epochs (head only, no pass per step).

    Args:
        method: What the phases do.

    Attributes:
        data: What the present outlier epoch trains on; ``None``: it is another phase.
    """

    def __init__(self, method: VirtualOutlierRegularizer) -> None:
        super().__init__()
        self.method = method
        self.data: OutlierEpoch | None = None

    def phase(self, module: Any) -> str:
        """Phase of the current epoch."""
        return self.method.phases.now(module)

    def own_step(self, step: Step) -> Any:
        """The outlier step; in the warm-up the user's with features cut off from the graph, without other terms."""
        phase = self.phase(step.module)
        if phase == "regular":
            return None
        if phase == "outlier":
            return with_idle_parameters(step.module, self._outlier_loss(step))
        return head_only_step(step)

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Keep everything but the head out of head-only steps."""
        if self.phase(module) != "regular":
            drop_idle_gradients(module)

    def start_run(self, module: Any) -> None:
        """What an earlier run collected is not this run's."""
        self.data = None

    def end_task(self, module: Any, data: TaskData) -> None:
        """Let go of the task's features."""
        self.data = None

    # ------------------------------------------------------------------ outlier epochs

    def _outlier_loss(self, step: Step) -> Tensor:
        """Cross-entropy on features of the batch's samples, plus the energy regulariser (OVOR, eq. 4)."""
        method, module, trainer = self.method, step.module, step.module.trainer
        features, labels = self._features_of(step)
        logits, collected = module.continual_head(features), self._collected(module).outliers
        share = share_of_step(collected, trainer.fit_loop.batch_idx, trainer.num_training_batches)
        outliers = module.continual_head(share)
        entropy = F.cross_entropy(logits, labels)
        regularizer = outlier_regularizer(
            energy(logits), energy(outliers), method.inlier_threshold, method.outlier_threshold, method.huber
        )
        module.log_dict({"outlier/cross_entropy": entropy.detach(), "outlier/regularizer": regularizer.detach()})
        return entropy + method.weight * regularizer

    def _features_of(self, step: Step) -> tuple[Tensor, Tensor]:
        """``(B, D)`` features and labels of the batch: those that were collected, and of what replay joined."""
        data, stream = self._collected(step.module), step.module.trainer.datamodule
        own, joined = stream.train_batch(step.module.trainer.fit_loop.batch_idx), stream.joined
        index = own.index if joined is None or not joined.local else own.index[: own.real]
        rows = torch.searchsorted(data.positions, index).to(data.features.device)
        features, labels = data.features[rows], data.labels[rows]
        if joined is None:
            return features, labels
        first = len(step.targets) - max(joined.local, 1)  # all make a pass: prompts may be chosen by a vote of all
        with evaluating(step.module):
            replayed = step.module.head_input(step.inputs[first:])[: joined.local]
        added = step.targets[first:].flatten()[: joined.local]
        return torch.cat([features, replayed.to(features)]), torch.cat([labels, added.to(labels)])

    def _collected(self, module: Any) -> OutlierEpoch:
        """Features and outliers of this epoch; a function of weights and epoch, so a resumed run makes them again."""
        epoch = module.trainer.current_epoch
        if self.data is None or self.data.epoch != epoch:
            self.data = self._collect(module, module.trainer.datamodule, epoch)
        return self.data

    def _collect(self, module: Any, stream: Any, epoch: int) -> OutlierEpoch:
        positions = stream.layout.train_index[stream.task_index].unique()  # sorted; a stream may repeat a sample
        with evaluating(module):  # prompts are chosen as at test time
            found, known, index = TaskData(module, stream.task).all_features(view="train", epoch=epoch)
        rows = torch.searchsorted(positions.to(index.device), index)
        features, labels = found.new_zeros(len(positions), found.shape[1]), known.new_zeros(len(positions))
        features[rows], labels[rows] = found, known
        method, seed = self.method, mix_seed(stream.seed, epoch, 0x0DD)
        outliers = synthesize_outliers(
            features,
            len(stream.task.classes),
            method.mode,
            method.neighbours,
            method.boundary_points,
            method.draws,
            method.noise,
            method.per_class,
            torch.Generator().manual_seed(seed),
        )
        return OutlierEpoch(epoch, positions, features, labels, outliers)


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
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: For a number that is too small; in ``setup``, if a task is too short for its phases or has fewer
            samples than ``neighbours``, or if a method does not train the head or comes in the wrong order.
    """

    state_key: ClassVar[str] = "lightning_cl.VirtualOutlierRegularizer"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"neighbours": 10, "boundary_points": 10, "draws": 40, "per_class": 10}

    weight: float = 0.1
    outlier_epochs: int | None = None
    warm_up_epochs: int = 0
    mode: OutlierMode = "origin"
    inlier_threshold: float = -15.0
    outlier_threshold: float = -3.0
    huber: bool = True
    neighbours: int = 50
    boundary_points: int = 50
    draws: int = 600
    noise: float = 0.1
    per_class: int = 40
    _: KW_ONLY
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("boundary", "origin"):
            raise ValueError(f'`mode` is {self.mode!r}; give "boundary" (as described) or "origin" (as released).')
        check_at_least(self, 0, "outlier_epochs", "warm_up_epochs")
        check_at_least(self, 1, "neighbours", "boundary_points", "draws", "per_class")

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
