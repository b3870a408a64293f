"""Add adapters where the features of a task, or of a batch, are unlike all known ones (SEMA)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.adapters.growing_mixture import GrowingMixture
from lightning_cl.nn.adapters import Adapters
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.shift_descriptors import ShiftDescriptors
from lightning_cl.training import Step, TaskData
from lightning_cl.training.global_batch import global_rows
from lightning_cl.training.scan import Scan


class SelfExpansion(GrowingMixture):
    """What looks for shifts: a descriptor for each adapter, and a scan of each task.

    Args:
        early: Adapters that learn until something is added; ``None``: there are none.
        layers: One :class:`AdapterMixture` each, from the input to the output.
        method: With ``hidden``, ``window``, ``threshold``, ``scan_batch``, ``descriptor_epochs`` and ``descriptor_lr``.
        width: Of the ViT.
        slots: Tasks.
    """

    def __init__(self, early: Adapters | None, layers: list[Adapters], method: Any, width: int, slots: int) -> None:
        super().__init__(early, layers)
        self.method, self.scan = method, Scan()
        sizes = slots, width, method.hidden, method.window
        self.descriptors = nn.ModuleList(ShiftDescriptors(*sizes) for _ in layers)

    def start_task(self, module: Any, task: Any) -> None:
        """Look for a shift; in the first task, and in an online stream, everything learns."""
        self.part.set(0)
        if task.index == 0:
            send_from_first_process(self.descriptors.buffers())
        if task.index == 0 or task.order == "stream":
            self.learn_newest()
        else:
            self.begin_task()
            self.scan.start()
            self._expand(module, TaskData(module, task))

    def own_step(self, step: Step) -> Any:
        """At the start of another part of a task's epochs: finish what was added, and look for the next shift."""
        task, module = step.task, step.module
        if task.index and task.order != "stream":
            part = (module.trainer.current_epoch - task.first_epoch) * len(self.layers) // task.epochs
            if part != self.part.value:
                data = TaskData(module, task)
                self.part.set(part)
                self._describe(module, data)
                self._expand(module, data)
                module.protect()
        return None

    def start_step(self, step: Step) -> None:
        """Look at the batch of an online stream as it passes."""
        self.keep_means(step.task.order == "stream")

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Nothing of its own; in an online stream the descriptors learn, and look at the batch."""
        self.keep_means(False)
        if step.task.order == "stream":
            self._watch(step.module)
        return self.idle(step.module)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Train the descriptor of what was added last."""
        if data.task.order != "stream":
            self._describe(module, data)
            self.learn_nothing()

    # ------------------------------------------------------------------ shifts

    def _batches(self, module: Any, data: TaskData) -> Iterator[Tensor]:
        """``(B, L, D)`` mean tokens that reach the layers over the task's samples, ``scan_batch`` at a time."""

        def means(inputs: Any) -> Tensor:
            self.keep_means(True)
            module.head_input(inputs)
            self.keep_means(False)
            return torch.cat([bank.mean.float() for bank in self.banks], dim=1)

        kept: list[Tensor] = []
        for features, _, _ in data.features(means):
            kept.append(features.unflatten(1, (len(self.layers), -1)))
            if sum(map(len, kept)) >= self.method.scan_batch:
                yield torch.cat(kept)
                kept = []
        if kept:
            yield torch.cat(kept)

    def _expand(self, module: Any, data: TaskData) -> None:
        """Scan the task for a batch that is new to a layer that has not grown in it; add an adapter there."""

        def find(batch: Tensor) -> bool:
            for index in range(len(self.layers)):
                if self.may_grow(index) and self._shifted(index, batch[:, index]):
                    self.grow(index)
                    return True
            return False

        self.learn_nothing()
        if not self.complete.value and not self.scan.go_on(lambda: self._batches(module, data), find):
            self.complete.set(1)

    def _shifted(self, index: int, features: Tensor) -> bool:
        """Whether ``(B, D)`` features are far from all that the layer's descriptors know."""
        slots = range(self.counts[index].value)
        return bool(self._descriptor(index).distances(features, slots).min() > self.method.threshold)

    def _describe(self, module: Any, data: TaskData) -> None:
        """Train the descriptors of the adapters that have learned."""
        if layers := self.learning_layers():
            features = torch.cat(list(self._batches(module, data)))
            options = {"epochs": self.method.descriptor_epochs, "lr": self.method.descriptor_lr, "batch_size": 32}
            for index in layers:
                newest = self.counts[index].value - 1
                self._descriptor(index).fit(features[:, index], newest, seed=data.task.index, **options)

    def _watch(self, module: Any) -> None:
        """Let every layer's newest descriptor learn the batch, or add an adapter where the batch is new to all."""
        grown = False
        for index, bank in enumerate(self.banks):
            rows, newest = global_rows(module, bank.mean.float())[0], self.counts[index].value - 1
            descriptor = self._descriptor(index)
            full = int(descriptor.recorded[newest]) >= self.method.window
            if full and newest + 1 < bank.slots and self._shifted(index, rows):
                self.counts[index].set(newest + 2)
                descriptor.start()
                grown = True
            else:
                descriptor.learn(rows, newest, self.method.descriptor_lr)
        if grown:
            self.learn_newest()
            module.protect()

    def _descriptor(self, index: int) -> ShiftDescriptors:
        found = self.descriptors[index]
        assert isinstance(found, ShiftDescriptors)
        return found
