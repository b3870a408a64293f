"""Virtual outlier regularisation: in a task's last epochs only the head learns, on features and synthetic outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.mixins.batch import unpack
from lightning_cl.mixins.features import evaluating, task_features
from lightning_cl.nn.outliers import OutlierMode, energy, outlier_regularizer, synthesize_outliers

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task

Phase = Literal["warm_up", "regular", "outlier"]


@dataclass(frozen=True)
class OutlierSettings:
    """See :class:`~lightning_cl.callbacks.VirtualOutlierRegularizer`."""

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

    def epochs(self, of_task: int) -> int:
        """Outlier epochs of a task with ``of_task`` epochs: as given, or the last 20 %, at least 1."""
        return self.outlier_epochs if self.outlier_epochs is not None else max(round(0.2 * of_task), 1)

    def phase(self, task: int, epoch: int, epochs: int) -> Phase:
        """Phase of the ``epoch``-th epoch (from 0) of a task with ``epochs`` epochs."""
        if task > 0 and epoch < self.warm_up_epochs:
            return "warm_up"
        return "outlier" if epoch >= epochs - self.epochs(epochs) else "regular"


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


class OutlierMixin(ContinualMixin):
    """Phases inside a task: warm-up (head only), regular, and outlier epochs (head only, no pass per step).

    ``configure_continual`` comes first, then :meth:`configure_outliers`. Composes with any method that trains the head
    on the current task's classes.
    """

    def configure_outliers(self, settings: OutlierSettings) -> None:
        """Set what the phases do."""
        self.__dict__["_outlier_settings"] = settings
        self.__dict__["_outlier_epoch"] = None

    @property
    def outlier_settings(self) -> OutlierSettings:
        """The settings."""
        settings: OutlierSettings = self.__dict__["_outlier_settings"]
        return settings

    @property
    def outlier_phase(self) -> Phase:
        """Phase of the current epoch."""
        task = self._stream.task
        return self.outlier_settings.phase(task.index, self.trainer.current_epoch - task.first_epoch, task.epochs)

    @property
    def _stream(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The regular step, the same with features cut off from the graph, or the outlier step."""
        phase = self.outlier_phase
        if phase == "outlier":
            return self._outlier_step([*args, *kwargs.values()][0], self.trainer.fit_loop.batch_idx)
        if phase == "regular":
            return super().training_step(*args, **kwargs)
        hook = self.continual_head.register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
        try:
            return self._with_idle_parameters(super().training_step(*args, **kwargs))
        finally:
            hook.remove()

    def on_train_start(self) -> None:
        """What an earlier run collected is not this run's."""
        self.__dict__["_outlier_epoch"] = None
        super().on_train_start()

    def on_task_end(self, task: Task) -> None:
        """Let go of the task's features."""
        self.__dict__["_outlier_epoch"] = None
        super().on_task_end(task)

    def collect_losses(self) -> None:
        """In the warm-up only the head learns: no other method's term counts."""
        super().collect_losses()
        if self.outlier_phase == "warm_up":
            self.continual.loss_terms.clear()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep everything but the head out of head-only steps; optimiser states stay as they are, too."""
        super().on_before_optimizer_step(optimizer)
        if self.outlier_phase != "regular":
            for parameter in self._idle_parameters():
                parameter.grad = None

    def _idle_parameters(self) -> list[nn.Parameter]:
        head = {id(p) for p in self.continual_head.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in head]

    def _with_idle_parameters(self, output: Any) -> Any:
        """DDP waits for a gradient of every parameter: give the idle ones a zero, dropped after the reduction."""
        if self.trainer.world_size == 1 or output is None:
            return output
        zero = sum((p.sum() * 0.0 for p in self._idle_parameters()), torch.zeros((), device=self.device))
        if isinstance(output, dict):
            return {**output, "loss": output["loss"] + zero}
        return output + zero

    # ------------------------------------------------------------------ outlier epochs

    def _outlier_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy on features of the batch's samples, plus the energy regulariser (OVOR, eq. 4)."""
        settings, data = self.outlier_settings, self._outlier_data()
        own, joined = self._stream.train_batch(batch_idx), self._stream.joined
        index = own.index if joined is None or not joined.local else own.index[: own.real]
        rows = torch.searchsorted(data.positions, index).to(data.features.device)
        features, labels = data.features[rows], data.labels[rows]
        if joined is not None:
            replayed = self._features_of_last(batch, joined.local)
            features = torch.cat([features, replayed[0].to(features)])
            labels = torch.cat([labels, replayed[1].to(labels)])
        logits = self.continual_head(features)
        outliers = self.continual_head(_part(data.outliers, batch_idx, int(self.trainer.num_training_batches)))
        entropy = F.cross_entropy(logits, labels)
        regularizer = outlier_regularizer(
            energy(logits), energy(outliers), settings.inlier_threshold, settings.outlier_threshold, settings.huber
        )
        self.log_dict({"outlier/cross_entropy": entropy.detach(), "outlier/regularizer": regularizer.detach()})
        loss: Tensor = self._with_idle_parameters(entropy + settings.weight * regularizer)
        return loss

    def _outlier_data(self) -> OutlierEpoch:
        """Features and outliers of this epoch; a function of weights and epoch, so a resumed run makes them again."""
        known: OutlierEpoch | None = self.__dict__["_outlier_epoch"]
        if known is None or known.epoch != self.trainer.current_epoch:
            known = self._collect()
            self.__dict__["_outlier_epoch"] = known
        return known

    def _collect(self) -> OutlierEpoch:
        stream, epoch, settings = self._stream, self.trainer.current_epoch, self.outlier_settings
        positions = stream.layout.train_index[stream.task_index].unique()  # sorted; a stream may repeat a sample
        with evaluating(self):  # prompts are chosen as at test time
            features, labels = self._features_of_task(positions, epoch)
        outliers = synthesize_outliers(
            features,
            len(stream.task.classes),
            settings.mode,
            settings.neighbours,
            settings.boundary_points,
            settings.draws,
            settings.noise,
            settings.per_class,
            torch.Generator().manual_seed(mix_seed(stream.seed, epoch, 0x0DD)),
        )
        return OutlierEpoch(epoch, positions, features, labels, outliers)

    def _features_of_last(self, batch: Any, count: int) -> tuple[Tensor, Tensor]:
        """``(count, D)`` features and labels of the last rows of a batch, those that replay joined."""
        inputs, targets = unpack(batch, self.continual.batch_keys)
        first = len(targets) - max(count, 1)  # all processes make a pass: prompts may be chosen by a vote of all
        with evaluating(self):
            return self.head_input(inputs[first:])[:count], targets[first:].flatten()[:count]

    def _features_of_task(self, positions: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Features and labels of the task's augmented images, in the order of ``positions``."""
        batches = list(task_features(self, self._stream.task_index, "train", epoch))
        found, labels, index = (torch.cat(parts) for parts in zip(*batches, strict=True))
        rows = torch.searchsorted(positions.to(index.device), index)
        features, ordered = found.new_zeros(len(positions), found.shape[1]), labels.new_zeros(len(positions))
        features[rows], ordered[rows] = found, labels
        return features, ordered


def _part(outliers: Tensor, batch_idx: int, num_batches: int) -> Tensor:
    """The step's share of the outliers, in the order in which they were made; at least one."""
    size = max(len(outliers) // num_batches, 1)
    start = (batch_idx * size) % len(outliers)
    return outliers[start : start + size]
