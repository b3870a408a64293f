"""Selfless sequential learning: units inhibit their neighbours, so that room is left for tasks to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.regularization.mas import MAS, SensitivityPenalty
from lightning_cl.nn.decorrelation import local_inhibition
from lightning_cl.nn.plasticity import by_unit
from lightning_cl.nn.unit_outputs import activation_names
from lightning_cl.training import Step, TaskData
from lightning_cl.training.unit_importances import UnitImportances, unit_sensitivity


class UnitInhibition(SensitivityPenalty):
    """The penalty of MAS, and the inhibition between units, each with its importance for earlier tasks."""

    def __init__(self, module: Any, method: SLNID) -> None:
        super().__init__(module, method.strength, method.decay, method.granularity)
        self.inhibition, self.scale = method.inhibition, method.scale
        names = activation_names(module) if method.inhibition else []
        if method.inhibition and not names:
            raise ValueError(
                f"SLNID lets units of activation layers inhibit each other, but {type(module).__name__} has no such "
                "layer (`nn.ReLU`, `nn.GELU`, ...) as a module; use one, or `inhibition=0`, which is `MAS`."
            )
        self.units = UnitImportances(names, module.device)
        self._widths: dict[str, int] = {}
        for name in names:
            module.watch_layer(name)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``inhibition`` times the mean over layers of their local inhibition, for each unit."""
        terms = []
        for name in self.units.names:
            outputs = step.outputs.get(name)
            if isinstance(outputs, Tensor):
                answers = by_unit(outputs).relu()
                count = self._widths[name] = answers.shape[1]
                terms.append(local_inhibition(answers, self.units.of(name, count), self.scale * count) / count)
        return {"inhibition": self.inhibition * torch.stack(terms).mean()} if terms else {}

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Add the task's importance of units and weights, and move the anchor."""
        if self.units.names:
            for name, value in unit_sensitivity(module, data, self.units.names, self._widths).items():
                self.units.add(name, value, self.decay)
        super().end_task(module, data)


@dataclass(eq=False)
class SLNID(MAS):
    """Selfless sequential learning (SLNID; Aljundi et al., ICLR 2019, arXiv:1806.05421) with the penalty of MAS.

    Adds to :class:`MAS` ``inhibition * sum_{i != j} exp(-a_i - a_j) exp(-(i - j)^2 / (2 s^2)) h_i h_j``: ``h`` are the
    answers of a layer of units (negative ones count as 0), the mean over samples, tokens and pixels, for each unit, and
    over the activation layers. So few units of a neighbourhood answer together, and the others are free for tasks to
    come; units with an importance ``a`` for earlier tasks, the mean of ``|d |z|^2 / d h|`` on their samples, are left
    in peace. ``s`` is ``scale`` times the number of units. Works on any module with a class head whose activations are
    modules (``nn.ReLU``, ``nn.GELU``); needs the end of a task; keeps two copies of the trained weights and no sample.
    A step costs a product of units with units.

    Args:
        strength: ``lambda`` of MAS, at least 0.
        decay: Of all importances of earlier tasks at each task's end, in [0, 1]; 1 sums them up.
        inhibition: Weight of the inhibition, at least 0; with 0 it is :class:`MAS`. The default is chosen here.
        scale: Of the neighbourhood, as a share of a layer's units, above 0; chosen here.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; when attached, without an activation layer.
    """

    state_key: ClassVar[str] = "lightning_cl.SLNID"
    adds_loss: ClassVar[bool] = True

    inhibition: float = at_least(0, default=0.01)
    scale: float = above(0, default=0.1)

    def build(self, pl_module: Any, info: Any) -> UnitInhibition:
        """Anchor and importances, and room for the importance of each unit."""
        return UnitInhibition(pl_module, self)
