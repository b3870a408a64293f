"""Gradient-based sample selection: the memory is filled with samples whose gradients point in different directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least, choice
from lightning_cl.callbacks.regularization.anchor import in_parts, logits_of
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.fisher import per_sample_sum
from lightning_cl.nn.gradients import highest_cosine, last_layer_gradients
from lightning_cl.nn.replay import GradientBased, Policy
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.replay import Replay
from lightning_cl.training.task_data import first_rows, rows_of

#: Of which weights gradients are compared: all trained ones, or the head's alone.
GradientOf = Literal["network", "last_layer"]
#: The score of the samples that come while the memory is empty.
_FIRST = 0.1


class GradientScores(MethodModule):
    """Scores the stream's samples against batches of the memory, before they are offered to it."""

    def __init__(self, gradient: GradientOf, batches: int, rows: int) -> None:
        super().__init__()
        self.gradient, self.batches, self.rows = gradient, batches, rows

    def losses(self, step: Step) -> dict[str, Tensor]:
        """No term: where the batch will be remembered, its scores."""
        module, trainer = step.module, step.module.trainer
        memory, batch_idx = module.continual.memory, trainer.fit_loop.batch_idx
        if Replay(module, memory).is_remembered(batch_idx):
            own = trainer.datamodule.train_batch(batch_idx)
            inputs = first_rows(step.inputs, len(own.index))
            memory.judged = self._scores(module, inputs, step.targets[: len(own.index)], int(own.real))
        return {}

    def _scores(self, module: Any, inputs: Any, targets: Tensor, real: int) -> Tensor:
        """``(B_local, 2)``: the highest cosine of each sample and of the batch."""
        buffer = module.continual.memory.buffer
        if not len(buffer):
            return targets.new_full((len(targets), 2), _FIRST, dtype=torch.float64)
        slots = buffer.draw(self.batches * self.rows)
        parts = [module.read(some) for some in slots.split(self.rows)]
        own = self._gradients(module, inputs, targets)
        references = torch.stack(
            [all_sum(self._gradients(module, d.inputs, d.labels).sum(0) * (d.part > 0)) for d in parts]
        )
        whole = all_sum(own[:real].sum(0))
        return torch.stack(
            [highest_cosine(own, references), highest_cosine(whole[None], references).expand(len(own))], 1
        )

    def _gradients(self, module: Any, inputs: Any, targets: Tensor) -> Tensor:
        """``(B, P)`` float64 of each sample's cross-entropy among the classes seen, in eval mode."""
        if self.gradient == "network":
            return _of_network(module, inputs, targets)
        call = Step(module, None).look(inputs)
        return last_layer_gradients(call.features, call.raw_logits, targets, module.continual.mask.eval_allowed)


def _of_network(module: Any, inputs: Any, targets: Tensor) -> Tensor:
    logits, allowed = logits_of(module), module.continual.mask.eval_allowed

    def loss(weights: Mapping[str, Tensor], some: Any, wanted: Tensor) -> Tensor:
        found = logits(weights, some)
        return F.cross_entropy(found.masked_fill(~allowed[: found.shape[1]], -torch.inf), wanted)

    weights, rows = trained(module), list[Tensor]()
    with evaluating(module):
        for row in range(len(targets)):
            place = slice(row, row + 1)
            found = per_sample_sum(loss, weights, in_parts(rows_of(inputs, place)), targets[place], of=_itself)
            rows.append(torch.cat([found[name].flatten() for name in weights]).double())
    return torch.stack(rows)


def _itself(gradient: Tensor) -> Tensor:
    return gradient


@dataclass(eq=False)
class GSS(ExperienceReplay):
    """Gradient-based sample selection (GSS-Greedy; Aljundi et al., NeurIPS 2019, arXiv:1903.08671).

    Experience replay whose memory is filled for diversity of gradients, without task boundaries: while there is room,
    every sample is kept; then, where the gradient of the stream's batch has a cosine below ``threshold`` with those of
    ``batches`` batches of the memory, its samples compete with stored ones that are much like the others, see
    :class:`~lightning_cl.nn.replay.gradient_based.GradientBased`. Gradients are of the cross-entropy among the classes
    seen, in eval mode; scores stay as they were when a sample was stored. Remembered samples join every training batch;
    the official code makes a step of its own on them. Works on any module with a class head; labels are class ids.

    Args:
        gradient: Of the whole ``"network"``, as in the paper: a backward pass for each sample of the stream and of the
            compared batches; or of the ``"last_layer"`` alone: a forward pass over them.
        threshold: In [-1, 1]; 0 is the paper's.
        batches: Of the memory that are compared, at least 1.
        rows: Samples in each of these batches, at least 1; both are the official code's.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a number out of its range or an unknown choice.
    """

    state_key: ClassVar[str] = "lightning_cl.GSS"
    policies: ClassVar[Any] = Literal["gradient_based"]
    needs_automatic: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "batches": 2, "rows": 3}

    policy: Any = "gradient_based"
    _: KW_ONLY
    gradient: GradientOf = choice(GradientOf, default="last_layer")
    threshold: float = 0.0
    batches: int = at_least(1, default=10)
    rows: int = at_least(1, default=10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"`threshold` is {self.threshold}; give a cosine in [-1, 1].")

    def _policy(self, num_classes: int) -> Policy:
        return GradientBased(self.threshold)

    def build(self, pl_module: Any, info: Any) -> GradientScores:
        """What scores samples; it keeps nothing."""
        return GradientScores(self.gradient, self.batches, self.rows)
