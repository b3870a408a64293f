"""The quadratic anchor of EWC, SI, MAS and L2-SP, and the pass over a task's data that makes importances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.fisher import Fisher, fisher_diagonal
from lightning_cl.nn.weights import Snapshot, pull_gradients, trained
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.batch import Inputs, call_with
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.model_output import logits_in

#: Marks several inputs, in a plain dictionary: `torch.func` takes no object apart.
_PARTS = "inputs of the model"


class QuadraticAnchor(MethodModule):
    """Pulls every trained weight back to its anchor by its importance: ``strength / 2 * sum F (w - a)^2``.

    Methods differ in the importance, which they change at a task's end before they call :meth:`end_task` here.

    Args:
        module: The LightningModule, with the weights that are trained from now on.
        strength: At least 0; 0 leaves the gradients as they are, bit for bit.
        weighed: The weights that have an importance, by name; ``None``: all. It is 1 for the others.
    """

    def __init__(self, module: nn.Module, strength: float, weighed: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.strength = strength
        weights = trained(module)
        self.anchor, self.importance = Snapshot(weights), Snapshot(weights if weighed is None else weighed, zero=True)

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Add the gradient of the penalty, once there is an anchor."""
        if self.anchor.taken and self.strength:
            importance = dict(self.importance.items())
            pull_gradients(trained(module, optimizer), dict(self.anchor.items()), self.strength, importance)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Move the anchor to the present weights."""
        self.anchor.take(trained(module))


#: What counts from the weights, and a batch's inputs and targets: sums over the samples, by name of the weight.
BatchSums = Callable[[Mapping[str, Tensor], Any, Tensor], Mapping[str, Tensor]]


def mean_over_task(module: Any, data: TaskData, sums: BatchSums) -> dict[str, Tensor]:
    """The mean over a task's samples, those of all processes, of sums over batches; in eval mode.

    Args:
        module: The LightningModule.
        data: Of the task that has ended.
        sums: Called with this process's share of every batch, which may be empty.
    """
    weights: dict[str, Tensor] = dict(trained(module))
    total, count = {name: torch.zeros_like(weight) for name, weight in weights.items()}, 0
    with evaluating(module):
        for inputs, targets, _ in data.batches():
            count += len(targets)
            for name, value in sums(weights, in_parts(inputs), targets).items():
                total[name] += value
    return {name: data.mean(value, count) for name, value in total.items()}


def in_parts(inputs: Any) -> Any:
    """Inputs of a batch in a form that ``torch.func`` takes apart, for :func:`logits_of`."""
    return {_PARTS: inputs.parts} if isinstance(inputs, Inputs) else inputs


def logits_of(module: Any) -> Callable[[Mapping[str, Tensor], Any], Tensor]:
    """``(B, C)`` logits as a function of trained weights and inputs."""

    def logits(known: Mapping[str, Tensor], inputs: Any) -> Tensor:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(module, dict(known), args, kwargs)

        several = isinstance(inputs, dict) and _PARTS in inputs
        output = call_with(forward, Inputs(inputs[_PARTS]) if several else inputs)
        return output if isinstance(output, Tensor) else logits_in(output, len(module.continual.mask.eval_allowed))

    return logits


def fisher_of_task(module: Any, data: TaskData, kind: Fisher) -> dict[str, Tensor]:
    """Mean over the task's samples of the diagonal of the Fisher matrix, over all processes, in eval mode."""
    logits = logits_of(module)

    def sums(weights: Mapping[str, Tensor], inputs: Any, targets: Tensor) -> Mapping[str, Tensor]:
        return fisher_diagonal(logits, weights, inputs, targets, kind) if len(targets) else {}

    return mean_over_task(module, data, sums)
