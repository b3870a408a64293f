"""Selfless sequential learning: units inhibit their neighbours, so that room is left for tasks to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import check_above, check_at_least
from lightning_cl.callbacks.regularization.mas import MAS, SensitivityPenalty
from lightning_cl.nn.decorrelation import local_inhibition
from lightning_cl.nn.plasticity import by_unit
from lightning_cl.nn.unit_outputs import is_activation
from lightning_cl.nn.weights import NamedTensors
from lightning_cl.training import Step, TaskData
from lightning_cl.training.batch import call_with
from lightning_cl.training.evaluation_mode import in_eval_mode


def activation_widths(module: nn.Module) -> dict[str, int]:
    """The activation layers of a network by name, with the number of units of the layer before each.

    Args:
        module: Parts below ``continual`` are left out.
    """
    found, width = dict[str, int](), 0
    for name, part in module.named_modules():
        if name.startswith("continual"):
            continue
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            width = int(part.weight.shape[0])
        elif is_activation(part) and width:
            found[name] = width
    return found


class UnitInhibition(SensitivityPenalty):
    """The penalty of MAS, and the inhibition between units, each with its importance for earlier tasks."""

    def __init__(self, module: Any, method: SLNID) -> None:
        super().__init__(module, method.strength, method.decay, method.granularity)
        self.inhibition, self.scale = method.inhibition, method.scale
        widths = activation_widths(module) if method.inhibition else {}
        if method.inhibition and not widths:
            raise ValueError(
                f"SLNID lets units of activation layers inhibit each other, but {type(module).__name__} has no such "
                "layer (`nn.ReLU`, `nn.GELU`, ...) as a module; use one, or `inhibition=0`, which is `MAS`."
            )
        self.units = NamedTensors({name: torch.zeros(width, device=module.device) for name, width in widths.items()})
        for name in widths:
            module.watch_layer(name)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``inhibition`` times the mean over layers of their local inhibition, for each unit."""
        terms = [
            local_inhibition(by_unit(outputs).relu(), importance, self.scale * len(importance)) / len(importance)
            for name, importance in self.units.items()
            if isinstance(outputs := step.outputs.get(name), Tensor)
        ]
        return {"inhibition": self.inhibition * torch.stack(terms).mean()} if terms else {}

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Add the task's importance of units and weights, and move the anchor."""
        if self.units.names:
            for name, value in unit_sensitivity(module, data, dict(self.units.items())).items():
                self.units[name].mul_(self.decay).add_(value)
        super().end_task(module, data)


def unit_sensitivity(module: Any, data: TaskData, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``(U,)`` for each layer: the mean over samples of ``|d |z|^2 / d h_u|``, summed over a sample's tokens or pixels.

    Args:
        module: The LightningModule; ``z`` are its raw logits of the classes seen.
        data: Of the task that has ended.
        like: ``(U,)`` tensors, by the name of the layer.
    """
    total, count = {name: torch.zeros_like(value) for name, value in like.items()}, 0
    seen = module.continual.mask.eval_allowed.nonzero().flatten()
    outputs: dict[str, Tensor] = {}
    hooks = [module.get_submodule(name).register_forward_hook(partial(_keep, outputs, name)) for name in like]
    try:
        for inputs, targets, _ in data.batches():
            count += len(targets)
            if not len(targets):
                continue
            outputs.clear()
            with in_eval_mode(module), torch.enable_grad(), module.recorded(raw=True) as calls:
                call_with(module, inputs)
                length = calls[-1].raw_logits.index_select(1, seen).square().sum()
                names = [name for name, value in outputs.items() if value.requires_grad]
                found = torch.autograd.grad(length, [outputs[name] for name in names], allow_unused=True)
            for name, gradient in zip(names, found, strict=True):
                if gradient is not None:
                    total[name] += by_unit(gradient).abs().sum(0)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: data.mean(value, count) for name, value in total.items()}


def _keep(outputs: dict[str, Tensor], name: str, layer: nn.Module, inputs: Any, output: Tensor) -> None:
    outputs[name] = output


@dataclass(eq=False)
class SLNID(MAS):
    """Selfless sequential learning (SLNID; Aljundi et al., ICLR 2019, arXiv:1806.05421) with the penalty of MAS.

    Adds to :class:`MAS` ``inhibition * sum_{i != j} exp(-a_i - a_j) exp(-(i - j)^2 / (2 s^2)) h_i h_j``: ``h`` are the
    answers of a layer of units (negative ones count as 0), the mean over samples, tokens and pixels, for each unit, and
    over the activation layers. So few units of a neighbourhood answer together, and the others are free for tasks to
    come; units with an importance ``a`` for earlier tasks, the mean of ``|d |z|^2 / d h|`` on their samples, are left
    in peace. ``s`` is ``scale`` times the number of units. Works on any module with a class head whose activations are
    modules (``nn.ReLU``, ``nn.GELU``) behind a linear layer or convolution of as many units; needs the end of a task;
    keeps two copies of the trained weights and no sample. A step costs a product of units with units.

    Args:
        strength: ``lambda`` of MAS, at least 0.
        decay: Of all importances of earlier tasks at each task's end, in [0, 1]; 1 sums them up.
        granularity: See :class:`MAS`.
        inhibition: Weight of the inhibition, at least 0; with 0 it is :class:`MAS`. The default is chosen here.
        scale: Of the neighbourhood, as a share of a layer's units, above 0; chosen here.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; when attached, without an activation layer.
    """

    state_key: ClassVar[str] = "lightning_cl.SLNID"
    adds_loss: ClassVar[bool] = True

    inhibition: float = 0.01
    scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "inhibition")
        check_above(self, 0, "scale")

    def build(self, pl_module: Any, info: Any) -> UnitInhibition:
        """Anchor and importances, and room for the importance of each unit."""
        return UnitInhibition(pl_module, self)
