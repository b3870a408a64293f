"""HLOP: lateral connections learn the inputs of each task by a Hebbian rule, and steps stay orthogonal to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least, fraction
from lightning_cl.callbacks.gradients.layer_projection import LayerProjection
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.input_grams import input_width
from lightning_cl.nn.lateral_connections import HebbianSubspace
from lightning_cl.nn.subspace import layer_inputs
from lightning_cl.training import Step, TaskData
from lightning_cl.training.step_seed import generator_of


class LateralConnections(LayerProjection):
    """Lateral weights at the inputs of every layer, which learn in every training step."""

    def __init__(self, module: Any, method: HLOP) -> None:
        super().__init__(module)
        self.method = method
        self._grams: dict[str, Tensor] | None = None  # of the training step that is being made
        self._real: int | None = None  # how many of its rows count
        for name in self.layers:
            module.get_submodule(name).register_forward_pre_hook(partial(self._count, name))

    def new_memory(self, layer: nn.Module) -> HebbianSubspace:
        """Without a direction."""
        return HebbianSubspace(input_width(layer))

    def start_task(self, module: Any, task: Any) -> None:
        """New lateral weights: ``first`` of a layer's inputs in the first task, ``more`` in the others."""
        share = self.method.more if self.finished.value else self.method.first
        for place, name in enumerate(self.layers):
            memory, generator = self.memory(name), generator_of(module, 0x410F, task.index, place)
            memory.begin(count_of(share, len(memory.directions)), generator)

    def start_step(self, step: Step) -> None:
        """Add up the inputs of this step's passes."""
        trainer: Any = step.module.trainer
        self._grams, self._real = {}, None
        if trainer.world_size > 1:  # a process without a sample repeats another's
            self._real = int(trainer.datamodule.train_batch(trainer.fit_loop.batch_idx).real)

    def _count(self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Forward pre-hook of the layers."""
        if self._grams is not None and torch.is_grad_enabled():
            memory = self.memory(name)
            rows = layer_inputs(layer, inputs[0][: self._real]).to(memory.lateral)
            gram = rows.T @ rows
            self._grams[name] = self._grams[name] + gram if name in self._grams else gram

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """Learn from the inputs; nothing is added to the loss."""
        grams, self._grams = self._grams or {}, None
        for index, name in enumerate(self.layers):
            memory, gram = self.memory(name), grams.get(name)
            total = all_sum(torch.zeros_like(memory.directions) if gram is None else gram)
            memory.learn(total, self.method.rate, self.method.inertia, self.method.iterations)
            self.watched[index] |= total.any()
        return {}

    def end_task(self, module: Any, data: TaskData) -> None:
        """Remember what was learned, unless there are no lateral connections."""
        for name in self.layers:
            self.memory(name).merge()
        if self.method.first:
            self.finished.set(self.finished.value + 1)


def count_of(share: float, width: int) -> int:
    """How many directions a share of a layer's inputs is: rounded, and at least one unless the share is 0."""
    return max(1, round(share * width)) if share else 0


@dataclass(eq=False)
class HLOP(TaskwiseMethod):
    """Hebbian learning based orthogonal projection (HLOP; Xiao et al., ICLR 2024, arXiv:2402.11984), on any network.

    At every linear layer and convolution but the head, lateral weights ``H`` learn the main directions of its inputs
    ``x`` in every training step: ``y = H x``, and ``iterations`` times ``H += rate * momentum(mean y^T (x - x_hat))``
    with ``x_hat = U U^T x + H^T y`` (Oja's rule), within +-10. At a task's end they are made orthonormal and join
    ``U``, and the next task learns new ones; its steps become ``dW - dW U U^T``, which is the paper's ``dW = delta^T (x
    - U U^T x)`` and also holds under momentum and Adam. After the first task all that has no such inputs (biases,
    norms, tokens) stays, but for the rows of the head whose classes compete.

    The paper's are spiking networks, with 6, 100 and 200 directions at three layers in the first task and 2, 20 and 40
    in each later one, about the defaults' shares. Its rate of 0.01 is for spikes; here inputs are scaled to a mean
    squared length of 1, which sets it to ``rate``. Works on modules of ``nn.Linear`` and ``nn.Conv2d`` without groups,
    under automatic optimisation; needs the end of a task; keeps three ``(D, D)`` matrices for each layer and no sample,
    and makes no pass over the data. A step costs a ``(D, D)`` product of the inputs of every layer. Batch norm's
    running statistics still move: freeze them.

    Args:
        first: Directions that the first task learns, as a share of a layer's inputs, in [0, 1]; with 0, nothing is
            learned and nothing held: plain fine-tuning.
        more: Those of each later task, in [0, 1].
        rate: Learning rate of the lateral weights, above 0 and below 1.
        inertia: Share of the step before in the next one, in [0, 1].
        iterations: Of the rule for each batch, at least 1.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer whose steps can be projected.
    """

    state_key: ClassVar[str] = "lightning_cl.HLOP"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    constrains: ClassVar[bool] = True
    needs_automatic: ClassVar[bool] = True  # learns where terms are collected, behind the loss

    first: float = fraction(default=0.18)
    more: float = fraction(default=0.035)
    rate: float = above(0, default=0.5)
    inertia: float = fraction(default=0.9)
    iterations: int = at_least(1, default=5)

    def build(self, pl_module: Any, info: Any) -> LateralConnections:
        """Lateral connections that have learned nothing."""
        return LateralConnections(pl_module, self)
