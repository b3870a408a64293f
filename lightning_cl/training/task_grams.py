"""What the inputs of layers are over a finished, or a coming, task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.input_grams import input_grams
from lightning_cl.training.batch import call_with
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.task_data import TaskData


@torch.no_grad()
def task_grams(module: Any, data: TaskData, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """``(D, D)`` float64 ``sum x x^T`` of the inputs of some layers over a task's samples, of all processes.

    Args:
        module: The LightningModule, which makes a pass over the task in eval mode.
        data: Of the task.
        layers: Those with :func:`~lightning_cl.nn.input_grams.has_input_rows`, by name.
    """
    with evaluating(module), input_grams(layers) as grams:
        for inputs, targets, _ in data.batches():
            if len(targets):
                call_with(module, inputs)
    return {name: all_sum(gram) for name, gram in grams.items()}
