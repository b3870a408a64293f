"""PFNR's score masks: every task uses the best-scored weights, and those of earlier tasks stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import fraction
from lightning_cl.callbacks.masks.task_parts import TaskMethod, TaskParts
from lightning_cl.nn.bits import TaskBits, straight_through
from lightning_cl.nn.masks import ElementMask
from lightning_cl.nn.scored_weights import best_scored, draw_scores
from lightning_cl.nn.weights import key_of, trained
from lightning_cl.training import TaskData


class ScoreMasks(TaskParts):
    """Scores of the current task, masks of finished ones, and the weights that any of them uses."""

    def __init__(self, module: Any, info: Any, sparsity: float) -> None:
        super().__init__(module, info, "PFNR")
        self.sparsity = sparsity
        weights = {name: module.get_submodule(name).weight for name in self.layers}
        self.scores = nn.ParameterDict({key_of(n): nn.Parameter(torch.zeros_like(w)) for n, w in weights.items()})
        self.bits = TaskBits({n: torch.zeros_like(w, dtype=torch.bool) for n, w in weights.items()}, info.num_tasks)
        self.used = ElementMask({f"{name}.weight": weight for name, weight in weights.items()})
        draw_scores(self.scores.values())

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """The weights that the task uses, others are 0."""
        if self.task < self.finished.value:
            return {"weight": layer.weight * self.bits.mask(name, self.task)}
        scores = self.scores[key_of(name)]
        return {"weight": layer.weight * straight_through(best_scored(scores, self.sparsity), scores.abs())}

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Weights of earlier tasks are used, and not trained."""
        self.used.zero_gradients(trained(module))

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights of earlier tasks; after the first task all but weights, scores and head."""
        if self.finished.value:
            known = trained(module)
            yield from ((known[name], mask.clone()) for name, mask in self.used.items())  # which a task's end changes
            yield from self.others(module, "weight")

    def start_task(self, module: Any, task: Any) -> None:
        """New scores."""
        draw_scores(self.scores.values())

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep a bit for each weight."""
        for name in self.layers:
            mask = best_scored(self.scores[key_of(name)], self.sparsity)
            self.bits.keep(name, self.finished.value, mask)
            self.used[f"{name}.weight"].logical_or_(mask)
        super().end_task(module, data)


@dataclass(eq=False)
class PFNR(TaskMethod):
    """Score masks of progressive Fourier neural representation (PFNR; Kang et al., ICLR 2024, arXiv:2306.11305).

    Weights and a score for each of them train together. In every layer a task uses the weights whose ``|score|`` is at
    least the ``k``-th smallest, ``k = 1 + round(sparsity (n - 1))``, with a straight-through gradient of 1 to
    ``|score|``, and keeps a bit for each weight when it ends. Weights that earlier tasks use take part in later ones
    but no longer move, so earlier answers stay bit for bit (as in winning sub-networks, WSN). Scores are drawn anew for
    every task, as a linear layer is. The paper represents videos, one a session, and enlarges a decoder by complex
    spectral weights with masks of their own, which are not here. The classes of a task are its head. Biases, norms
    (affine and statistics), tokens and all else stay as the first task left them.

    Works on modules of linear layers and convolutions; needs the end of a task and the task of every evaluation sample
    (``ContinualDataModule(task_identity=True)``); keeps a score, a bit a task and a bit in all for each weight, and no
    sample. A step ranks the scores of every layer.

    Args:
        sparsity: Share of a layer's weights that a task does not use, in [0, 1]; 0.5 is of our own.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer whose weights can be shared out, or
            with classes in several tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.PFNR"
    needs_forward: ClassVar[bool] = False

    sparsity: float = fraction(default=0.5)

    def build(self, pl_module: Any, info: Any) -> ScoreMasks:
        """Scores at random; no weight is used yet."""
        return ScoreMasks(pl_module, info, self.sparsity)
