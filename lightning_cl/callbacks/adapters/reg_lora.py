"""RegLoRA: the low-rank update of a task stays small where those of earlier tasks were largest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.adapters.linear_layers import linear_adapters
from lightning_cl.callbacks.adapters.task_adapters import SummedAdapters
from lightning_cl.callbacks.arguments import above, at_least, fraction, pattern
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.adapters import Adapters, LoRA
from lightning_cl.nn.masks import largest_elements, mean_at
from lightning_cl.nn.weights import NamedTensors
from lightning_cl.training import Step, TaskData


class KeyElements(SummedAdapters):
    """The slots of all tasks added up, and of how many finished tasks each element of a product was a large one."""

    def __init__(self, adapters: Adapters, strength: float, keep: float) -> None:
        super().__init__(adapters)
        self.strength, self.keep = strength, keep
        shapes = {name: self._product(name, 0).shape for name in adapters.names}
        self.times = NamedTensors({name: torch.zeros(shape, dtype=torch.int32) for name, shape in shapes.items()})
        self.growing = ()

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength`` times the mean over the layers of ``mean |B A|`` over the elements that are kept."""
        if not self.finished.value or not self.strength:
            return {}
        means = [mean_at(self._product(name, self.slot.value), times) for name, times in self.times.items()]
        return {"reglora": self.strength * torch.stack(means).mean()}

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep the largest elements of the task's update."""
        for name, times in self.times.items():
            times.add_(largest_elements(self._product(name, self.slot.value), self.keep))
        super().end_task(module, data)

    def _product(self, name: str, slot: int) -> Tensor:
        """``(D_out, D)`` ``B A`` of a slot, without its scale."""
        bank = self.adapters.bank(name)
        assert isinstance(bank, LoRA)
        return bank.up[slot].mT @ bank.down[slot]


@dataclass(eq=False)
class RegLoRA(RegularizedMethod):
    r"""RegLoRA of SEFE (Chen et al., ICML 2025, arXiv:2505.02486).

    Every task has low-rank updates ``B A`` of its own at the linear layers of a frozen network, added to those of
    earlier tasks: merging them into the weights, as the released code does, is the same function. When a task ends the
    ``int(keep * n)`` largest elements of ``|B A|`` of every layer are noted; later tasks add ``strength`` times the
    mean over the layers of ``mean |(B A)_ij|`` over all noted elements, those of several tasks counted several times,
    to the loss, so that what earlier tasks changed most is changed least. ``keep`` and ``strength`` are those of the
    released code, which has ``rank=128`` and ``alpha=256`` for a language model of 7 billion weights (2e-4, 1 epoch).
    SEFE's other half, answers in several styles, is a matter of the data. Needs task boundaries, no memory; keeps a
    slot a task and a 32-bit number for every element of the layers; costs thin products of all slots and a full
    ``B A`` of the current one in a step. Works on the networks that :class:`LoRA` works on.

    Args:
        strength: Weight of the term, at least 0; with 0 it is a sum of plain LoRAs.
        keep: Share of a matrix that is noted for each task, in [0, 1].
        rank: Rows of ``A`` for a task, at least 1.
        alpha: What is added is scaled by ``alpha / rank``; above 0.
        at: Regular expression of the ends of layers' names, such as ``r"(query|value)"``; ``None``: every
            ``nn.Linear`` within numbered blocks.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no layer has
            such a name, or one that has is no ``nn.Linear``.
    """

    state_key: ClassVar[str] = "lightning_cl.RegLoRA"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 2, "alpha": 4.0}

    strength: float = 2500.0
    keep: float = fraction(default=0.02)
    rank: int = at_least(1, default=8)
    alpha: float = above(0, default=16.0)
    at: str | None = pattern(default=None)

    def build(self, pl_module: Any, info: Any) -> KeyElements:
        """A slot of every chosen layer for each task; nothing is noted yet."""
        make = partial(LoRA, info.num_tasks, rank=self.rank, scale=self.alpha / self.rank)
        adapters = linear_adapters(pl_module, make, self.at, "RegLoRA")
        return KeyElements(adapters, self.strength, self.keep)
