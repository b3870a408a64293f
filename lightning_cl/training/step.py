"""One training step as a method sees it: the batch, what reached the head, and further passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cl.nn.distributed import all_sum
from lightning_cl.training.batch import call_with, unpack_for
from lightning_cl.training.evaluation_mode import evaluating, known_statistics, with_batch_statistics
from lightning_cl.training.model_output import logits_in


class HeadCall(NamedTuple):
    """One call of the head.

    Attributes:
        features: ``(B, D)`` what the head was given.
        raw_logits: ``(B, C_head)`` what its own weights made of it, before any method and any class mask.
        outputs: What watched layers (:meth:`~lightning_cl.mixins.ContinualMixin.watch_layer`) gave before, by name.
    """

    features: Tensor
    raw_logits: Tensor
    outputs: Mapping[str, Any] = MappingProxyType({})


class TokenCall(NamedTuple):
    """One call of the head for every token, of which the network around it chooses one, or averages all.

    Attributes:
        features: ``(B, L, D)`` what the head was given.
        raw_logits: ``(B, L, C_head)`` what its own weights made of it.
        answers: ``(B, L, C_head)`` with methods and class mask.
    """

    features: Tensor
    raw_logits: Tensor
    answers: Tensor

    def chosen(self, logits: Tensor) -> HeadCall:
        """The call for the tokens whose answers are the network's ``(B, C_head)`` logits; the mean, if none is."""
        same = (self.answers == logits[:, None]).all(dim=2)  # (B, L)
        first = same & (same.cumsum(dim=1) == 1)
        share = torch.where(same.any(dim=1, keepdim=True), first.to(logits.dtype), 1 / same.shape[1])[..., None]
        return HeadCall((share * self.features).sum(dim=1), (share * self.raw_logits).sum(dim=1))


def _no_step() -> None:
    """What a step that is not of a training loop makes."""


@dataclass
class Step:
    """A training step while and after the user's ``training_step`` runs.

    Attributes:
        module: The LightningModule, with its methods.
        batch: What ``training_step`` was given, with replayed samples behind the stream's.
        calls: Every call of the head so far in this step.
        users_step: Makes the user's step: what it returns, without the methods' terms.
        made: Whether the user's step has been made.
        memo: What methods make once in this step, however many passes it has, by the method's module.
    """

    module: Any
    batch: Any
    calls: list[HeadCall] = field(default_factory=list)
    users_step: Callable[[], Any] = _no_step
    made: bool = False
    memo: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> Any:
        """The batch's inputs, with replayed rows behind the stream's."""
        return unpack_for(self.module, self.batch)[0]

    @cached_property
    def targets(self) -> Tensor:
        """``(B,)`` the batch's targets."""
        return unpack_for(self.module, self.batch)[1]

    @property
    def features(self) -> Tensor:
        """``(B, D)`` what the head was given last, with gradient.

        Raises:
            ValueError: If the step has not called the head.
        """
        return self._last.features

    @property
    def raw_logits(self) -> Tensor:
        """``(B, C_head)`` what the head's own weights answered last, before any method and any class mask."""
        return self._last.raw_logits

    @property
    def outputs(self) -> Mapping[str, Any]:
        """What the watched layers gave before the last call of the head, by name, with gradient."""
        return self._last.outputs

    @property
    def task(self) -> Any:
        """The current :class:`~lightning_cl.datamodules.Task`."""
        return self.module.trainer.datamodule.task

    @property
    def old_classes(self) -> Tensor | None:
        """``(n,)`` ids of the classes seen before this task, on the module's device; ``None``: there are none."""
        old: Tensor | None = self.module.continual.old_classes(self.task, self.module.device)
        return old

    @property
    def _last(self) -> HeadCall:
        if not self.calls:
            name = type(self.module).__name__
            raise ValueError(
                f"`{name}.training_step` did not call the head `{self.module.continual.head_path}`, so there are no "
                'features and logits; name the layer that the step uses with `head="..."`.'
            )
        return self.calls[-1]

    @property
    def counts(self) -> bool:
        """Whether this process has samples of its own in the batch: one without repeats a sample, of no weight."""
        trainer, stream = self.module.trainer, getattr(self.module.trainer, "datamodule", None)
        return trainer.world_size == 1 or stream is None or bool(stream.train_weight(trainer.fit_loop.batch_idx) > 0)

    def mean_over(self, rows: Tensor, values: Tensor) -> Tensor:
        """A term of the loss: the mean of values over some rows of the batch of all processes; 0 without rows.

        All processes call it, also one that has none of the rows.

        Args:
            rows: ``(B,)`` bool, or ``(B, L)``: tokens of the batch, each of which counts alike.
            values: Of the same shape.
        """
        total, trainer = values.masked_fill(~rows, 0.0).sum(), self.module.trainer
        if trainer.world_size == 1:
            return total / rows.sum().clamp_min(1)
        weight = trainer.datamodule.train_weight(trainer.fit_loop.batch_idx)  # of this process's loss in DDP's mean
        count = all_sum(rows.sum() * (weight > 0)).clamp_min(1)  # a process without a sample repeats one
        return total * (trainer.world_size / weight if weight else 0.0) / count

    def over_processes(self, mean: Tensor) -> Tensor:
        """The value, without gradient, that :meth:`mean_over` has over all processes; all of them call it."""
        trainer = self.module.trainer
        if trainer.world_size == 1:
            return mean.detach()
        weight = trainer.datamodule.train_weight(trainer.fit_loop.batch_idx)
        return all_sum(mean.detach() * weight / trainer.world_size)

    def look(
        self, inputs: Any = None, weights: Mapping[str, Tensor] | None = None, batch_statistics: bool = False
    ) -> HeadCall:
        """Another pass without gradient in eval mode.

        Args:
            inputs: The step's own when ``None``.
            weights: Other parameters and buffers by name, such as a teacher's; the module's own when ``None``.
            batch_statistics: Batch norm uses the statistics of the inputs, and not those that it has.
        """
        statistics = with_batch_statistics(self.module) if batch_statistics else nullcontext()
        with evaluating(self.module), statistics, self.module.recorded(raw=True) as calls:
            given = self.inputs if inputs is None else inputs
            call_with(partial(self._call, dict(weights or {})), given)
        return self._last_of(calls)

    def _call(self, weights: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self.module, weights, args, kwargs)

    def learn(self, inputs: Any, weights: Mapping[str, Tensor] | None = None) -> tuple[Tensor, HeadCall]:
        """Another pass with gradient in the current mode: ``(B, C_head)`` masked logits and the call of the head.

        Args:
            inputs: As the module takes them.
            weights: Other parameters by name, which get the gradient; the module's own when ``None``.
        """
        with known_statistics(self.module, inputs), self.module.recorded() as calls:
            output = call_with(self.module if weights is None else partial(self._call, dict(weights)), inputs)
        call = self._last_of(calls)
        return logits_in(output, call.raw_logits.shape[-1]), call

    def _last_of(self, calls: list[HeadCall]) -> HeadCall:
        return Step(self.module, self.batch, calls)._last
