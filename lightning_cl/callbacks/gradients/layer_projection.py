"""Steps of layers that are changed by what their inputs were in earlier tasks, shared by GPM, OWM and CUBER."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import whole
from lightning_cl.nn.input_grams import has_input_rows
from lightning_cl.nn.subspace import StepProjection
from lightning_cl.nn.weights import key_of, trained
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.task_grams import task_grams
from lightning_cl.training.trained_body import trained_body


class LayerProjection(MethodModule):
    """What every linear layer and convolution but the head remembers of its inputs; subclasses say how.

    Args:
        module: The LightningModule.

    Raises:
        ValueError: Without a layer whose steps can be projected.
    """

    watched: Tensor

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.finished = Counter()
        head, known = module.continual_head, module.named_modules()
        layers = {n: m for n, m in known if has_input_rows(m) and m.weight.requires_grad and m is not head}
        if not layers:
            raise ValueError(
                f"{type(module).__name__} trains no `nn.Linear` or `nn.Conv2d` without groups besides its head, so "
                "there is no step to project; train such a layer, or use another method."
            )
        self.layers = tuple(layers)
        self.memories = nn.ModuleDict({key_of(n): self.new_memory(m) for n, m in layers.items()})
        self.register_buffer("watched", torch.zeros(len(layers), dtype=torch.bool))
        self._step: StepProjection | None = None

    def new_memory(self, layer: nn.Module) -> nn.Module:
        """An empty memory of a layer's inputs, with ``size`` and ``project``."""
        raise NotImplementedError

    def remember(self, name: str, gram: Tensor) -> None:
        """Add the ``(D, D)`` ``sum x x^T``, not zero, of the inputs of a layer in the task that has ended."""
        raise NotImplementedError

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Remember the weights before the step."""
        weights = trained(module, optimizer)
        known = [name for name in self.layers if f"{name}.weight" in weights]
        memories = [self.memory(name) for name in known]
        self._step = StepProjection([weights[f"{name}.weight"] for name in known], memories)
        if self.finished.value:
            self._step.remember()

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Take out of the step what changes the answers to earlier inputs."""
        if self.finished.value and self._step is not None:
            self._step.edit()
        self._step = None

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """After the first task, whatever has no subspace: biases, norms, tokens; of the head only what is masked."""
        if self.finished.value:
            watched = self.watched.tolist()
            free = {f"{name}.weight" for name, known in zip(self.layers, watched, strict=True) if known}
            yield from whole(p for name, p in trained_body(module).items() if name not in free)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Remember the task's inputs."""
        grams = task_grams(module, data, {name: module.get_submodule(name) for name in self.layers})
        for index, (name, gram) in enumerate(grams.items()):
            self.watched[index] |= gram.any()
            if bool(gram.any()):
                self.remember(name, gram)
        self.finished.set(self.finished.value + 1)

    def memory(self, name: str) -> Any:
        """Of a layer."""
        return self.memories[key_of(name)]
