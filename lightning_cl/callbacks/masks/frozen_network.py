"""A network that is frozen as it comes, with batch norms of its own for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_cl.callbacks.masks.task_parts import TaskParts
from lightning_cl.nn.substitution import batch_norms
from lightning_cl.nn.task_rows import TaskRows
from lightning_cl.training import TaskData


class FrozenNetwork(TaskParts):
    """All but the head is frozen; batch norms start every task as they came, and finished tasks keep theirs.

    Args:
        module: The LightningModule.
        info: The stream.
        who: Name of the method.
        affine: Batch norms also have weight and bias for each task, which are trained.
        layers: Which layers compute in another way for a task; ``None``: all that have trained weights.
    """

    def __init__(self, module: Any, info: Any, who: str, affine: bool, layers: Mapping[str, Any] | None = None) -> None:
        super().__init__(module, info, who, layers)
        head, norms = {id(p) for p in module.continual_head.parameters()}, batch_norms(module)
        own = {id(p) for norm in norms.values() for p in norm.parameters()} if affine else set()
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in head | own)
        self.norms = TaskRows(norms, info.num_tasks, affine)

    def norm(self, name: str, layer: Any) -> Mapping[str, Any]:
        """Statistics (and weight and bias) of a finished task; the current one has the layer's own."""
        return {} if self.task >= self.finished.value else self.norms.of(name, self.task)

    def start_run(self, module: Any) -> None:
        """What is frozen stays in eval mode, but for batch norms, which take their statistics."""
        super().start_run(module)
        for part in module.modules():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()
        for norm in batch_norms(module).values():
            norm.train()

    def start_task(self, module: Any, task: Any) -> None:
        """Batch norms as they were before the first task."""
        self.norms.put_back(batch_norms(module))

    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep the batch norms."""
        self.norms.keep(batch_norms(module), self.finished.value)
        super().end_task(module, data)
