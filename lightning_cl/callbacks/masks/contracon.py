"""ConTraCon: the first task's attention weights, and for each later task small convolutions over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least, pattern
from lightning_cl.callbacks.masks.task_parts import InferringMethod, TaskParts
from lightning_cl.nn.convolved_weights import KernelBank, chosen_layers, row_groups
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.substitution import all_norms
from lightning_cl.nn.task_rows import TaskRows
from lightning_cl.nn.weights import key_of
from lightning_cl.training import TaskData


class ConvolvedWeights(TaskParts):
    """A bank of kernels for every chosen layer, and norms for each task."""

    def __init__(self, module: Any, info: Any, method: ConTraCon) -> None:
        layers, norms = chosen_layers(module, method.at, "ConTraCon"), all_norms(module)
        super().__init__(module, info, "ConTraCon", layers, norms)
        self.norm_names = tuple(norms)
        groups = {name: row_groups(module, name, method.heads) for name in layers}
        self.banks = nn.ModuleDict(
            {key_of(n): KernelBank(info.num_tasks, groups[n], method.size, m.weight) for n, m in layers.items()}
        )
        self.norms, self.views = TaskRows(norms, info.num_tasks), method.views

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """The first task has the layer's own, the others what their kernels make of them."""
        bank: Any = self.banks[key_of(name)]
        if self.task:
            return {"weight": bank(layer.weight, self.task)}
        return {"weight": layer.weight + bank.idle()} if torch.is_grad_enabled() else {}

    def norm(self, name: str, layer: Any) -> Mapping[str, Any]:
        """Those of a finished task; the current one has the layer's own."""
        return {} if self.task >= self.finished.value else self.norms.of(name, self.task)

    def start_task(self, module: Any, task: Any) -> None:
        """Norms begin as the first task left them."""
        if self.finished.value:
            self.norms.put_back(self._norms_of(module), 0)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The banks' rows of other tasks; after the first one all but norms and head."""
        yield from (all_rows_but(parameter, self.finished.value) for parameter in self.banks.parameters())
        if self.finished.value:
            free = {id(p) for norm in self._norms_of(module).values() for p in norm.parameters()}
            yield from ((p, every) for p, every in self.others(module) if id(p) not in free)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep the norms."""
        self.norms.keep(self._norms_of(module), self.finished.value)
        super().end_task(module, data)

    def _norms_of(self, module: Any) -> dict[str, nn.Module]:
        return {name: module.get_submodule(name) for name in self.norm_names}


@dataclass(eq=False)
class ConTraCon(InferringMethod):
    r"""Convolutions on weights (ConTraCon; Roy et al., ICCV 2023, arXiv:2308.11357); task-incremental.

    The first task trains the whole network. From then on it is frozen, and a later task ``t`` computes queries, keys
    and values with ``W_t = Conv_t(W) + sigmoid(a_t) W``, for each head a kernel of ``size`` times ``size`` with a bias
    over its rows of ``W``, and a gate ``a``, which is 1 at first; it trains these, its classes' rows of the head, and
    norms (layer, group, batch) of its own, which begin as the first task left them. Earlier answers stay bit for bit.
    Label smoothing, schedules and a second optimiser for the head are yours to choose; the paper's auxiliary
    reconstruction head is left out, and its network's attention pooling is the first task's.

    ``task_by="entropy"`` finds the task of every evaluation sample, without task identity: the one whose network
    answers with the lowest entropy over its classes. A sample passes ``views`` times for every task, in one batch, and
    ``validation_step`` must call ``self(inputs)``. The logits of a task are averaged over the image and ``views - 1``
    changed copies, cut and recoloured the same way in every evaluation; the paper's 16 are 6 plain ones and 10 by
    AutoAugment, drawn at random.

    Works on modules with linear layers; needs the end of a task and, with ``task_by="identity"``, the task of every
    evaluation sample (``ContinualDataModule(task_identity=True)``); keeps ``heads * (size ** 2 + 2)`` numbers for each
    layer and task, and no sample. A step costs a convolution of each weight.

    Args:
        size: ``k`` of the kernels, at least 1; the default is the paper's.
        at: Regular expression of the ends of layers' names, such as ``r"attn\.qkv"``; ``None``: linear layers named
            as those that make queries, keys and values, or all of them in a module without.
        heads: Groups of rows of each query, key or value; those of the attention around the layer when ``None``, and
            one without.
        views: Of each image for finding its task, at least 1; of no effect with ``task_by="identity"``.

    Raises:
        ValueError: If an argument is out of its range; when attached, without a linear layer, or with rows that are
            no groups of one size, or classes in several tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.ConTraCon"
    small: ClassVar[dict[str, Any]] = {"size": 3}

    size: int = at_least(1, default=15)
    at: str | None = pattern(default=None)
    heads: int | None = at_least(1, default=None)
    views: int = at_least(1, default=1)

    def build(self, pl_module: Any, info: Any) -> ConvolvedWeights:
        """Kernels at random for every task."""
        return ConvolvedWeights(pl_module, info, self)
