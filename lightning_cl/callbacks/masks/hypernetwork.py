"""Task hypernetwork: a recurrent network makes the weights of every task, and is held to those that it made before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.masks.frozen_network import FrozenNetwork
from lightning_cl.callbacks.masks.task_parts import InferringMethod
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.hypernetwork import RecurrentHypernetwork
from lightning_cl.nn.parameter_versions import Remembered, parameter_versions
from lightning_cl.nn.weights import Snapshot
from lightning_cl.training import Step, TaskData


class GeneratedWeights(FrozenNetwork):
    """The hypernetwork, and as it was at the last task's end; layers compute with their weights plus what it makes."""

    def __init__(self, module: Any, info: Any, method: TaskHypernetwork) -> None:
        super().__init__(module, info, "TaskHypernetwork", affine=False)
        weights = {name: module.get_submodule(name).weight for name in self.layers}
        sizes = {"embedding": method.embedding, "hidden": method.hidden, "chunk": method.chunk}
        shapes, like = {name: w.shape for name, w in weights.items()}, next(iter(weights.values()))
        self.network = RecurrentHypernetwork(shapes, info.num_tasks, **sizes, like=like)
        self.strength, self.before = method.strength, Snapshot(dict(self.network.named_parameters()))
        self._earlier: Tensor | None = None  # (finished, total), what `before` makes for the finished tasks
        self._made: dict[str, Tensor] | None = None  # in the training step that is being made, with gradient
        self._known = Remembered[dict[int, dict[str, Tensor]]]()  # without, by task

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """The layer's own, changed as the task has it."""
        return {"weight": layer.weight + self._changes(self.task)[name]}

    def _changes(self, task: int) -> dict[str, Tensor]:
        if torch.is_grad_enabled():
            return self._make(task) if self._made is None else self._made
        key = (id(self.network.tasks), parameter_versions(self.network))
        known = self._known.get(key, dict)
        if task in known:
            return known[task]
        made = self._make(task)
        if not torch.compiler.is_compiling():  # a graph keeps nothing
            known[task] = made
        return made

    def _make(self, task: int) -> dict[str, Tensor]:
        return self.network.split(self.network(self.network.tasks[task : task + 1])[0])

    def start_step(self, step: Step) -> None:
        """Make the weights once for all layers."""
        self._made = self._make(self.task)

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """``strength / (t - 1) * sum_j ||theta(e_j) - theta_before(e_j)||^2`` over the finished tasks."""
        self._made = None
        if self._earlier is None or not self.strength:
            return {}
        now = self.network(self.network.tasks[: len(self._earlier)].detach())
        return {"output_change": self.strength * (now - self._earlier).square().sum() / len(now)}

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The embeddings of other tasks."""
        yield all_rows_but(self.network.tasks, self.finished.value)

    def start_run(self, module: Any) -> None:
        """Also after a checkpoint was loaded."""
        super().start_run(module)
        self._recall()

    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep the hypernetwork as it is now."""
        self.before.take(dict(self.network.named_parameters()))
        super().end_task(module, data)
        self._recall()

    @torch.no_grad()
    def _recall(self) -> None:
        kept, count = dict(self.before.items()), self.finished.value
        self._earlier = torch.func.functional_call(self.network, kept, kept["tasks"][:count]) if count else None


@dataclass(eq=False)
class TaskHypernetwork(InferringMethod):
    """Recurrent task hypernetwork, style (after the dependency-preserving hypernetwork, arXiv:2209.07712, WACV 2023).

    The network is frozen as it comes. What a task adds to the weights of its linear layers and convolutions comes from
    a hypernetwork, in chunks of all weights laid end to end: ``h_k = LSTM(h_{k-1}, [e_t, c_k])`` and ``theta_k =
    Linear(h_k)`` with embeddings of tasks and chunks; zero at first. A task trains the hypernetwork, its own embedding
    and its classes' rows of the head, by the user's loss and ``strength / (t - 1) * sum_j ||theta(e_j) -
    theta_before(e_j)||^2`` over earlier tasks, ``theta_before`` that of the last task's end. Biases and all else stay;
    batch norms have statistics for each task. In this style and no reproduction: the paper's formulas are not public,
    its growth is left out, and its regulariser is that of hypernetworks of feed-forward layers (arXiv:1906.00695). What
    is learned of earlier tasks is held by the penalty alone, and not bit for bit.

    ``task_by="entropy"`` finds the task of every evaluation sample, without task identity: the one whose network
    answers with the lowest entropy over its classes. A sample passes once for every task, in one batch, and
    ``validation_step`` must call ``self(inputs)``.

    Works on modules of linear layers and convolutions; needs the end of a task and, with ``task_by="identity"``, the
    task of every evaluation sample (``ContinualDataModule(task_identity=True)``); keeps the hypernetwork twice and no
    sample. A step runs the hypernetwork for the current task and for all finished ones, whose weights are in memory; an
    evaluation runs it once for each task.

    Args:
        strength: ``beta``, at least 0.
        embedding: Size of an embedding, at least 1.
        hidden: Size of the LSTM's state, at least 1.
        chunk: Weights that are made at once, at least 1; smaller ones cost more steps of the LSTM and fewer parameters.

    Raises:
        ValueError: If an argument is out of its range; when attached, without a layer with weights, or with classes in
            several tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.TaskHypernetwork"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"embedding": 4, "hidden": 8, "chunk": 512}

    strength: float = at_least(0, default=0.1)
    embedding: int = at_least(1, default=32)
    hidden: int = at_least(1, default=64)
    chunk: int = at_least(1, default=4096)

    def build(self, pl_module: Any, info: Any) -> GeneratedWeights:
        """A hypernetwork that changes nothing yet."""
        return GeneratedWeights(pl_module, info, self)
