"""How much the answers of a model depend on its units: the mean over a task's samples, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.plasticity import by_unit
from lightning_cl.nn.weights import NamedTensors, key_of
from lightning_cl.training.batch import call_with
from lightning_cl.training.evaluation_mode import in_eval_mode
from lightning_cl.training.task_data import TaskData


class UnitImportances(NamedTensors):
    """``(U,)`` importances of the units of each layer; empty before the first task has ended.

    How many units a layer has is seen in its answers alone: what stands before it in a module need not run before it.
    """

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        super().__init__({name: torch.zeros(0, device=device) for name in names})
        self.growing = ()
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    def of(self, name: str, units: int) -> Tensor:
        """``(U,)`` of a layer, zeros before there are any."""
        known = self[name]
        return known if len(known) else known.new_zeros(units)

    def add(self, name: str, value: Tensor, decay: float) -> None:
        """Add those of a task to what is left of the earlier ones."""
        setattr(self, key_of(name), self.of(name, len(value)) * decay + value)


def _make_room(units: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    assert isinstance(units, UnitImportances)
    for name in units.names:
        saved = state.get(f"{prefix}{key_of(name)}")
        if saved is not None:
            setattr(units, key_of(name), units[name].new_zeros(saved.shape))


def unit_sensitivity(module: Any, data: TaskData, names: Iterable[str], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """``(U,)`` for each layer: the mean over samples of ``|d |z|^2 / d h_u|``, summed over a sample's tokens or pixels.

    Args:
        module: The LightningModule; ``z`` are its raw logits of the classes seen.
        data: Of the task that has ended.
        names: Of the layers.
        widths: Units by layer, where a process may be without a sample and not see them.
    """
    total, count = {name: torch.zeros(width, device=module.device) for name, width in widths.items()}, 0
    seen = module.continual.mask.eval_allowed.nonzero().flatten()
    outputs: dict[str, Tensor] = {}
    hooks = [module.get_submodule(name).register_forward_hook(partial(_keep, outputs, name)) for name in names]
    try:
        for inputs, targets, _ in data.batches():
            count += len(targets)
            if not len(targets):
                continue
            outputs.clear()
            with in_eval_mode(module), torch.enable_grad(), module.recorded(raw=True) as calls:
                call_with(module, inputs)
                length = calls[-1].raw_logits.index_select(1, seen).square().sum()
                answered = [name for name, value in outputs.items() if value.requires_grad]
                found = torch.autograd.grad(length, [outputs[name] for name in answered], allow_unused=True)
            for name, gradient in zip(answered, found, strict=True):
                if gradient is not None:
                    change = by_unit(gradient).abs().sum(0)
                    total[name] = total[name] + change if name in total else change
    finally:
        for hook in hooks:
            hook.remove()
    return {name: data.mean(total[name], count) for name in sorted(total)}


def _keep(outputs: dict[str, Tensor], name: str, layer: nn.Module, inputs: Any, output: Tensor) -> None:
    outputs[name] = output
