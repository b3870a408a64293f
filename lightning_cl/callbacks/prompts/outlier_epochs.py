"""The epochs of OVOR in which the head learns alone, on features of the task and on virtual outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.nn.head_layer import logits_from
from lightning_cl.nn.outliers import energy, outlier_regularizer, share_of_step, synthesize_outliers
from lightning_cl.training import MethodModule, Step, TaskData
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
        method: The callback, whose arguments say what the phases do.

    Attributes:
        data: What the present outlier epoch trains on; ``None``: it is another phase.
    """

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method
        self.data: OutlierEpoch | None = None

    def phase(self, module: Any) -> str:
        """Phase of the current epoch."""
        return str(self.method.phases.now(module))

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
        logits, collected = logits_from(module.continual_head, features), self._collected(module).outliers
        share = share_of_step(collected, trainer.fit_loop.batch_idx, trainer.num_training_batches)
        outliers = logits_from(module.continual_head, share)
        entropy = F.cross_entropy(logits, labels)
        regularizer = outlier_regularizer(
            energy(logits), energy(outliers), method.inlier_threshold, method.outlier_threshold, method.huber
        )
        module.log_dict({"outlier/cross_entropy": entropy.detach(), "outlier/regularizer": regularizer.detach()})
        loss: Tensor = entropy + method.weight * regularizer
        return loss

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
