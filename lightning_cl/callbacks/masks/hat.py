"""HAT: every task learns which units it uses, and what the units of earlier tasks compute stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.masks.task_parts import TaskMethod, TaskParts
from lightning_cl.nn.gates import (
    LARGEST_EMBEDDING,
    annealed_scale,
    compensation,
    free_share,
    gate_penalty,
    units_before,
)
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.weights import NamedTensors, key_of, trained
from lightning_cl.training import Step, TaskData


class UnitGates(TaskParts):
    """An embedding for every task and unit of the layers, and how far finished tasks use each unit."""

    def __init__(self, module: Any, info: Any, strength: float, largest: float, start: float, binary: bool) -> None:
        super().__init__(module, info, "HAT")
        self.strength, self.largest, self.binary = strength, largest, binary
        weights = {name: module.get_submodule(name).weight for name in self.layers}
        drawn = {n: torch.randn(info.num_tasks, len(w)).to(w) + start for n, w in weights.items()}
        self.embeddings = nn.ParameterDict({key_of(name): nn.Parameter(e) for name, e in drawn.items()})
        self.used = NamedTensors({name: weight.new_zeros(len(weight)) for name, weight in weights.items()})
        self.growing = tuple(f"embeddings.{key_of(name)}" for name in self.layers)
        self.before = units_before(module)
        self.scale = 1 / largest

    def changed(self, name: str, layer: Any, output: Tensor) -> Tensor:
        """Shut units answer zero."""
        if name not in self.layers:  # a batch norm
            return output
        gate = self._gate(name, self.task).to(output.dtype)
        return output * gate.view(-1, *(1,) * (layer.weight.ndim - 2))

    def _gate(self, name: str, task: int) -> Tensor:
        """``(U,)`` in [0, 1]: soft in a training step, at ``s_max`` else."""
        embedding = self.embeddings[key_of(name)][task]
        if self.choice.told is None and self.choice.current == task and torch.is_grad_enabled():
            return torch.sigmoid(self.scale * embedding)
        return (embedding > 0).to(embedding) if self.binary else torch.sigmoid(self.largest * embedding)

    def start_step(self, step: Step) -> None:
        """Take the scale of the batch's place in its epoch."""
        trainer: Any = step.module.trainer
        stream, samples = trainer.datamodule, len(trainer.datamodule.layout.train_index[step.task.index])
        batch = trainer.fit_loop.batch_idx // stream.updates_per_batch
        self.scale = annealed_scale(min(batch * stream.train_batch_size(0) / samples, 1), self.largest)

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """The share of the free units that the task uses."""
        gates = [torch.sigmoid(self.scale * self.embeddings[key_of(name)][self.task]) for name in self.layers]
        return {"gate_penalty": self.strength * gate_penalty(gates, [used for _, used in self.used.items()])}

    @torch.no_grad()
    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Scale gradients of weights down by the use of their units, and undo the annealing in those of embeddings."""
        moved = {id(p) for p in trained(module, optimizer).values() if p.grad is not None}
        for parameter, share in self._shares(module) if self.finished.value else ():
            if id(parameter) in moved:
                parameter.grad.mul_(share)  # type: ignore[union-attr]
        for embedding in self.embeddings.values():
            if id(embedding) in moved:
                embedding.grad.mul_(compensation(embedding, self.scale, self.largest))

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """Keep embeddings where their gate can still change."""
        for embedding in self.embeddings.values():
            embedding.clamp_(-LARGEST_EMBEDDING, LARGEST_EMBEDDING)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights between used units, embeddings of other tasks; after the first task all else but the head."""
        yield from (all_rows_but(embedding, self.finished.value) for embedding in self.embeddings.values())
        if self.finished.value:
            yield from ((p, (share == 0).expand_as(p)) for p, share in self._shares(module))
            yield from self.others(module, "weight", "bias")

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """``A = max(A, a)``, at ``s_max``."""
        for name, used in self.used.items():
            used.copy_(torch.maximum(used, self._gate(name, self.finished.value)))
        super().end_task(module, data)

    def _shares(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights and biases of the layers, each with what is left of its gradient."""
        for name, used in self.used.items():
            layer, source = module.get_submodule(name), self.before.get(name)
            read = None if source is None else self.used[source]
            if read is not None:  # a flattened map has all places of a channel side by side
                read = read.repeat_interleave(layer.weight.shape[1] // len(read))
            share = free_share(used, read)
            yield layer.weight, share.view(*share.shape, *(1,) * (layer.weight.ndim - 2))
            if layer.bias is not None and layer.bias.requires_grad:
                yield layer.bias, 1 - used


@dataclass(eq=False)
class HAT(TaskMethod):
    """Hard attention to the task (HAT; Serra et al., ICML 2018, arXiv:1801.01423); task-incremental.

    Task ``t`` multiplies the units of every linear layer and convolution by gates ``a = sigmoid(s e_t)`` with learned
    embeddings ``e_t``; in each epoch ``s`` goes from ``1 / s_max`` to ``s_max``, and is ``s_max`` in evaluation. With
    ``A``, the largest gate of all finished tasks, gradients of weights are multiplied by ``1 - min(A_out, A_in)``,
    those of embeddings by ``s_max / s (cosh(s e) + 1) / (cosh(e) + 1)``, and ``strength * sum a (1 - A) / sum (1 - A)``
    is added to the loss. ``A_in`` is known within an ``nn.Sequential``; elsewhere it is 1, which frees fewer weights.
    The classes of a task are its head; norms, tokens and all else stay as the first task left them.

    Works on modules of linear layers and convolutions, under any optimiser; needs the end of a task and the task of
    every evaluation sample (``ContinualDataModule(task_identity=True)``); keeps a number for each task and unit, and no
    sample. A step costs a product for each layer.

    Args:
        strength: ``c``, at least 0; more leaves more units to later tasks.
        largest_scale: ``s_max``, at least 1.
        start: Mean of the embeddings at first, whose standard deviation is 1. With 0, as in the paper, half of the
            units are shut, which a network that is pre-trained does not take well.
        binary: Round the gates of evaluation and of finished tasks, so that earlier answers stay bit for bit; the
            paper's are ``sigmoid(s_max e)``, close to 0 or 1. All other defaults are the paper's.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer with units, or with classes in
            several tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.HAT"
    needs_forward: ClassVar[bool] = False
    adds_loss: ClassVar[bool] = True

    strength: float = at_least(0, default=0.75)
    largest_scale: float = at_least(1, default=400.0)
    start: float = 0.0
    binary: bool = True

    def build(self, pl_module: Any, info: Any) -> UnitGates:
        """Embeddings at random, and no unit in use."""
        return UnitGates(pl_module, info, self.strength, self.largest_scale, self.start, self.binary)
