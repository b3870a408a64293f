"""Expert gate: an expert for each task, and autoencoders that know which task a sample is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.adapters import freeze_all_but
from lightning_cl.nn.autoencoders import FeatureAutoencoders, relatedness
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.experts import FeatureExperts
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.losses import distillation
from lightning_cl.nn.masks import fill_masked
from lightning_cl.nn.parameter_versions import Remembered, written
from lightning_cl.nn.task_inference import chosen_answers
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.step_seed import generator_of


class GatedExperts(MethodModule):
    """Experts on frozen features, and an autoencoder for each as its gate."""

    makes_logits = True
    growing = ("known",)
    known: Tensor

    def __init__(self, num_tasks: int, head: Any, method: ExpertGate) -> None:
        super().__init__()
        width, classes, self.method = head.in_features, head.out_features, method
        self.gate = FeatureAutoencoders(num_tasks, width, method.code, head.weight.device, torch.relu)
        self.experts = FeatureExperts(num_tasks, width, method.hidden, classes).to(head.weight.device)
        self.begun, self.teacher = Counter(), Counter(-1)
        self.register_buffer("known", torch.zeros(num_tasks, classes, dtype=torch.bool))
        self._taught = Remembered[Tensor]()  # ids of the teacher's classes

    def start_task(self, module: Any, task: Any) -> None:
        """Fit the task's gate; its expert begins as that of the most related task, which teaches if it is near."""
        features, method = TaskData(module, task).all_features().features, self.method
        slot = task.index
        generator = generator_of(module, 0xE6, slot)
        own = self.gate.fit(slot, features, generator, method.steps, method.lr)
        others = [relatedness(float(self.gate.error(past, features).mean()), own) for past in range(slot)]
        if others:
            nearest = max(range(slot), key=others.__getitem__)
            self.experts.copy(nearest, slot)
            self.teacher.set(nearest if others[nearest] > method.related else -1)
        send_from_first_process([*self.gate.buffers(), *self.experts.parameters(), self.teacher.saved])
        self.teacher.set(int(self.teacher.saved))
        self.known[slot] = False
        self.known[slot, list(task.classes)] = True
        self.begun.set(slot + 1)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Of a related task: its expert's answers for its classes are kept in the new expert (LwF)."""
        teacher, slot = self.teacher.value, self.begun.value - 1
        if teacher < 0 or not self.method.strength:
            return {}
        features, made_of = step.features, (teacher, written(self.known))
        classes = self._taught.get(made_of, lambda: self.known[teacher].nonzero().flatten())
        wanted = self.experts.logits(features, teacher).detach()[:, classes]
        term = distillation(self.experts.logits(features, slot)[:, classes], wanted, self.method.temperature)
        return {"expert": self.method.strength * term}

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Of the current task's expert while training; else of the one whose gate knows a sample best."""
        if module.training or not self.begun.value:
            slot = max(self.begun.value - 1, 0)
            return fill_masked(self.experts.logits(features, slot), self.known[slot])
        slots = range(self.begun.value)
        task = torch.stack([self.gate.error(slot, features) for slot in slots]).argmin(0)
        every = torch.stack([self.experts.logits(features, slot) for slot in slots])
        return chosen_answers(every, task, self.known)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All experts but the current task's."""
        current = max(self.begun.value - 1, 0)
        return (all_rows_but(parameter, current) for parameter in self.experts.parameters())


@dataclass(eq=False)
class ExpertGate(ContinualMethod):
    """Expert gate, style (after Aljundi, Chakravarty & Tuytelaars, CVPR 2017, arXiv:1611.06194).

    The module is frozen; what reaches its head is the feature. Before a task an under-complete autoencoder is fitted on
    its features, the **gate**: a sample goes to the task whose gate reconstructs its feature best, and that task's
    **expert** answers among the task's classes. An expert begins as that of the most related task, by ``1 - (e_a - e) /
    e``, with ``e_a`` and ``e`` the errors of its gate and of the new one on the new features; above ``related`` that
    expert's answers for its own classes are kept in the new one (LwF), else it is only fine-tuned. In this style and
    not a reproduction: the paper's experts are whole networks, here each is a perceptron on the frozen features. Works
    in class- and in domain-incremental streams, on any module with a class head; made for networks that are
    pre-trained. Needs to know where a task begins, and a pass over its samples before it; keeps a gate and an expert a
    task, and no sample.

    Args:
        hidden: Units of an expert, at least 1.
        code: Hidden units of a gate, at least 1; 100 is the paper's.
        steps: Of Adam on a gate, at least 1.
        lr: Of these steps, above 0; both are chosen here.
        related: Relatedness above which the nearest expert teaches; 0.85 is the paper's.
        strength: Of the term of LwF, at least 0.
        temperature: Of it, above 0.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, on a stream without boundaries.
    """

    state_key: ClassVar[str] = "lightning_cl.ExpertGate"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = ("fits a gate", "`GSS`, which needs none")
    adds_loss: ClassVar[bool] = True
    trains_head: ClassVar[bool] = False
    replaces_head: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"hidden": 6, "code": 4, "steps": 5, "related": -10.0}

    hidden: int = at_least(1, default=100)
    code: int = at_least(1, default=100)
    steps: int = at_least(1, default=300)
    lr: float = above(0, default=0.01)
    related: float = 0.85
    strength: float = at_least(0, default=1.0)
    temperature: float = above(0, default=2.0)
    _: KW_ONLY
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True

    def build(self, pl_module: Any, info: Any) -> GatedExperts:
        """Room for a gate and an expert a task; the module is frozen."""
        head = pl_module.continual_head
        freeze_all_but(pl_module, pl_module.continual.head_path, skip=("continual",))
        head.requires_grad_(False)
        return GatedExperts(info.num_tasks, head, self)
