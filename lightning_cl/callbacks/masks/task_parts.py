"""What methods share that give every task weights of its own: a head for each, norms that stay, and their checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from lightning_cl.callbacks.arguments import choice
from lightning_cl.callbacks.task_incremental import ToldMethod, check_disjoint, classes_of_tasks
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.mixins.task_inference import TaskInferenceMixin
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import whole
from lightning_cl.nn.masks import fill_masked
from lightning_cl.nn.substitution import Substitutes, batch_norms, substitute, weight_layers
from lightning_cl.nn.task_inference import chosen_answers, surest_task
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, TaskData

#: Who says which task an evaluation sample is of.
TaskBy = Literal["identity", "entropy"]


class TaskParts(MethodModule, Substitutes):
    """Layers of a module, each asked what it computes with for a task.

    Args:
        module: The LightningModule.
        info: The stream.
        who: Name of the method.
        layers: By name; ``None``: linear layers and convolutions with trained weights, besides the head.
        norms: By name; ``None``: batch norms.

    Attributes:
        layers: Names of the layers.
        finished: How many tasks have ended.
        infers: Nobody tells the task of evaluation samples: all tasks answer, and the surest one counts for a sample.
        views: Of each image that a task answers for then, whose logits are averaged.
        views_now: How many each sample has in the pass that is made.
    """

    takes_task: bool = True
    infers: bool = False
    views: int = 1
    views_now: int = 1
    allowed: Tensor

    def __init__(
        self,
        module: Any,
        info: Any,
        who: str,
        layers: Mapping[str, Any] | None = None,
        norms: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        head = module.continual_head
        found = weight_layers(module, head) if layers is None else dict(layers)
        _check(module, info, who, found)
        self.who, self.choice, self.finished = who, module.continual.choice, Counter()
        self.layers = tuple(found)
        self.register_buffer("allowed", classes_of_tasks(info, head.out_features), persistent=False)
        for name, layer in {**found, **(batch_norms(module) if norms is None else norms)}.items():
            substitute(layer, self, name)

    @property
    def task(self) -> int:
        """The task that the module answers for now; see :class:`~lightning_cl.training.task_choice.TaskChoice`."""
        if self.branch is not None:
            return self.branch
        if self.infers and not self.training and self.choice.named is None:
            raise ValueError(
                f"{self.who} finds the task of every sample in a pass through the module's `forward`, but its layers "
                "were called in another way; let `validation_step` call `self(inputs)`, or name the task: "
                "`module.continual.task = 3`."
            )
        return self.choice.required(self.who)  # type: ignore[no-any-return]

    def branches_now(self, module: Any) -> Sequence[int]:
        """The tasks whose networks answer in a pass that begins: empty where the task is known."""
        if not self.infers or self.training or self.choice.named is not None:
            return ()
        if module.continual.raw:  # features are read, of the network that is trained
            return (self.choice.required(self.who),)
        current = -1 if self.choice.current is None else self.choice.current
        return range(max(self.finished.value, current + 1, 1))

    def substitutes(self, name: str, layer: Any) -> Mapping[str, Any]:
        """What a layer computes with."""
        return self.weights(name, layer) if name in self.layers else self.norm(name, layer)

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """What a linear layer or convolution computes with."""
        return {}

    def norm(self, name: str, layer: Any) -> Mapping[str, Any]:
        """Batch norms go on with the statistics of the first task."""
        return {"training": False} if self.finished.value else {}

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """The logits of the task's own classes, the others far below; where several answer, of the surest one's."""
        if self.views_now > 1:
            logits = logits.unflatten(0, (len(self.branches), self.views_now, -1)).mean(1).flatten(0, 1)
        if len(self.branches) < 2:
            return fill_masked(logits, self.allowed[self.task])
        each, allowed = logits.unflatten(0, (len(self.branches), -1)), self.allowed[list(self.branches)]
        task = surest_task(each, allowed)
        return chosen_answers(each, task, allowed)

    def start_run(self, module: Any) -> None:
        """Also batch norms that the Trainer exchanged since (``sync_batchnorm=True``)."""
        for name, layer in batch_norms(module).items():
            substitute(layer, self, name)

    def end_task(self, module: Any, data: TaskData) -> None:
        """One task more."""
        self.finished.set(self.finished.value + 1)

    def others(self, module: Any, *parts: str) -> Iterator[tuple[Tensor, Tensor]]:
        """What is trained besides the head and these parts of the layers (norms, tokens), all of it protected."""
        kept = {f"{name}.{part}" for name in self.layers for part in parts}
        known = {id(p) for part in (self, module.continual_head) for p in part.parameters()}
        return whole(p for name, p in trained(module).items() if name not in kept and id(p) not in known)


def _check(module: Any, info: Any, who: str, layers: Mapping[str, Any]) -> None:
    if not layers:
        raise ValueError(
            f"{type(module).__name__} trains no `nn.Linear` or convolution besides its head, so {who} has no weights "
            "to give to tasks; train such a layer, or use another method."
        )
    check_disjoint(info, who)


@dataclass(eq=False)
class TaskMethod(ToldMethod):
    """Base of methods that give every task weights of its own, and answer for the task that they are told."""

    owns_weights: ClassVar[bool] = True


@dataclass(eq=False)
class InferringMethod(TaskMethod):
    """Base of those that can find the task of evaluation samples themselves, by the entropy of what tasks answer.

    Args:
        task_by: Who says which task an evaluation sample is of: the stream (``"identity"``), or the ``"entropy"``.
    """

    _: KW_ONLY
    task_by: TaskBy = choice(TaskBy, default="identity")

    @property
    def needs_forward(self) -> bool:  # type: ignore[override]
        """Where it finds the task itself, by the logits of all tasks."""
        return not self.asks_for_task()

    def asks_for_task(self) -> bool:
        """Not where it finds the task itself."""
        return self.task_by == "identity"

    def attach(self, pl_module: Any, info: Any) -> None:
        """Install the method; where it finds the task, every evaluation pass is one of the networks of all tasks."""
        super().attach(pl_module, info)
        part = self.part_in(pl_module)
        part.train(pl_module.training)  # which decides whether all tasks answer
        part.infers, part.takes_task = not self.asks_for_task(), self.asks_for_task()

    def extend(self, pl_module: Any, mixin: type[ContinualMixin], info: Any) -> None:
        """Add the mixin that repeats inputs for the tasks, where the method finds them itself."""
        super().extend(pl_module, mixin if self.asks_for_task() else TaskInferenceMixin, info)
