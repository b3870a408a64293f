"""Gradients of a batch's loss beside the step that is made on it, the same on all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.distributed import all_sum
from lightning_cl.training.batch import call_with
from lightning_cl.training.model_output import logits_in
from lightning_cl.training.step import Step


def batch_gradients(step: Step, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Of the mean cross-entropy of the step's batch over all processes, with masked logits, in the current mode.

    Buffers that the pass would move, such as batch norm's statistics, stay as they are.

    Args:
        step: Whose batch.
        weights: Parameters of the module, by name.

    Returns:
        By name; zeros for a weight that the loss does not depend on.
    """
    module, trainer = step.module, step.module.trainer
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers() if not name.startswith("continual.")}

    def forward(*args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(module, buffers, args, kwargs)

    with torch.enable_grad(), module.recorded():
        output = call_with(forward, step.inputs)
        logits = output if isinstance(output, Tensor) else logits_in(output, len(module.continual.mask.eval_allowed))
        loss = F.cross_entropy(logits, step.targets)
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    share = trainer.datamodule.train_weight(trainer.fit_loop.batch_idx) / trainer.world_size
    return {
        name: all_sum(torch.zeros_like(weight) if gradient is None else share * gradient)
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }
