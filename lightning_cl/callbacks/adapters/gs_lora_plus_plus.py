"""GS-LoRA++: beside the loss, embeddings leave the prototypes of what is to be forgotten, and stay at the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.adapters.gs_lora import ForgettingUpdates, GSLoRA
from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.nn.adapters import Adapters
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.heads import ClassStatistics
from lightning_cl.nn.losses import divergence
from lightning_cl.nn.precision import wide
from lightning_cl.nn.weights import NamedTensors, ema
from lightning_cl.training import Step, TaskData


class PrototypeForgetting(ForgettingUpdates):
    """Class means of the present model, and an average of the updates over epochs."""

    method: GSLoRAPlusPlus

    def __init__(self, module: Any, info: Any, adapters: Adapters, method: GSLoRAPlusPlus) -> None:
        super().__init__(adapters, method)
        self.means = ClassStatistics(info.num_classes, module.continual_head.in_features)
        self.averaged = Counter()
        updates = {name: torch.zeros_like(p) for name, p in adapters.named_parameters()}
        self.average = NamedTensors(updates)

    def start_task(self, module: Any, task: Any) -> None:
        """Merge, and take the prototypes of all classes that the request reads, which the merged model has."""
        super().start_task(module, task)
        self.averaged.set(0)
        if task.forgets:
            self.means.reset()
            for features, labels, _ in TaskData(module, task).features():
                self.means.update(features, labels)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """GS-LoRA's, and ``w_f relu(bound - KL(to be forgotten)) + w_r KL(retained)``."""
        terms = super().losses(step)
        if not terms:
            return terms
        method, features = self.method, wide(step.features)
        distances = divergence(features, self.means.means[step.targets].to(features))
        return {
            **terms,
            "gs_lora_leave": method.leave * self.pushed(step, distances, method.prototype_bound),
            "gs_lora_stay": method.stay * step.mean_over(~self.is_asked(step), distances),
        }

    def after_step(self, module: Any, optimizer: Any) -> None:
        """At the end of an epoch, average the updates: from ``average_from`` epochs of a request on."""
        trainer, method = module.trainer, self.method
        ends = trainer.fit_loop.batch_idx + 1 == trainer.num_training_batches
        if not len(self.asked) or not ends or method.average_from is None:
            return
        epoch = trainer.current_epoch - trainer.datamodule.task.first_epoch
        if epoch >= method.average_from:
            ema(dict(self.average.items()), self._updates(), method.decay if self.averaged.value else 0.0)
            self.averaged.set(1)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """The average is what was learned."""
        for name, update in self._updates().items() if self.averaged.value else ():
            update.copy_(self.average[name])

    def _updates(self) -> dict[str, Tensor]:
        return dict(self.adapters.named_parameters())


@dataclass(eq=False)
class GSLoRAPlusPlus(GSLoRA):
    r"""Continual forgetting with prototypes (GS-LoRA++; Zhao et al., arXiv:2501.09705), on :class:`GSLoRA`.

    Adds ``leave relu(prototype_bound - KL(D_f)) + stay KL(D_r)`` to the loss of a request: ``KL`` is the mean over
    samples of ``KL(softmax(p_y) || softmax(f))`` with the features ``f`` that reach the head and the mean ``p_y`` of
    their class over what the request reads, taken anew at its start from the model as earlier requests left it, as the
    official code does (the paper has them of the original model). From ``average_from`` epochs of a request on, ``A``
    and ``B`` are averaged at the end of every epoch, with weight ``decay`` on the average, which is what is kept. Which
    of the two distributions comes first is our reading. Needs a pass over what a request reads at its start, and what
    :class:`GSLoRA` needs.

    Args:
        beta: Weight of forgetting, at least 0.
        alpha: Weight of the group norms, at least 0.
        at: Regular expression of the ends of names of linear layers; ``None``: those of the MLPs.
        leave: ``w_f``, at least 0; the paper's are 0.01 to 0.06.
        stay: ``w_r``, at least 0; the paper's is 0, with few samples 0.012 to 0.06.
        prototype_bound: Mean divergence in nats up to which embeddings are pushed away, at least 0; the paper's, 50
            with few samples.
        average_from: Epochs of a request before the average begins, at least 0; ``None``: there is none, nor in a
            request of no more epochs.
        decay: Of the average, in [0, 1]; the paper's.

    Raises:
        ValueError: As :class:`GSLoRA`, and for a number out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.GSLoRAPlusPlus"
    needs_forward: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 2, "average_from": 0}

    leave: float = at_least(0, default=0.015)
    stay: float = at_least(0, default=0.0)
    prototype_bound: float = at_least(0, default=18.0)
    average_from: int | None = at_least(0, default=30)
    decay: float = fraction(default=0.9)

    def forgetting(self, pl_module: Any, info: Any, adapters: Adapters) -> PrototypeForgetting:
        """Prototypes of nothing yet."""
        return PrototypeForgetting(pl_module, info, adapters, self)
