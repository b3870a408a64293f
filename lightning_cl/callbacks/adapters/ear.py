"""EAR-style: what is out of distribution gets an adaptor of its own on a frozen encoder, found without training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least, fraction
from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.adapters import freeze_all_but
from lightning_cl.nn.adapters.feature_adaptors import FeatureAdaptors
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.hypervectors import DomainMemory
from lightning_cl.nn.masks import fill_masked
from lightning_cl.nn.task_inference import chosen_answers
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.loss_terms import plus, zero_through
from lightning_cl.training.step_seed import generator_of


class RoutedAdaptors(MethodModule):
    """The detector, an adaptor with its head for each domain, and which of them learns now."""

    makes_logits = True

    def __init__(self, memory: DomainMemory, adaptors: FeatureAdaptors, num_classes: int, method: EAR) -> None:
        super().__init__()
        self.memory, self.adaptors, self.method, self.slot = memory, adaptors, method, Counter()
        self.known: Tensor
        self.register_buffer("known", torch.zeros(adaptors.head.shape[0], num_classes, dtype=torch.bool))
        self.growing = ("known",)

    def start_task(self, module: Any, task: Any) -> None:
        """Ask the detector whether the task is a new domain, which gets an adaptor; an old one goes on with its own."""
        features = TaskData(module, task).all_features().features
        window = features[: self.method.window]
        if self.memory.share_outside(window) > self.method.novel:
            slot = self.memory.add(features)
            drawn = self.method.candidates, generator_of(module, 0xEA2, slot)
            self.adaptors.choose(slot, window[: self.method.probe], *drawn)
        else:
            slot = int(self.memory.nearest(window).mode().values)
        send_from_first_process([*self.memory.buffers(), *self.adaptors.buffers()])
        self.slot.set(slot)
        self.known[slot, list(task.classes)] = True

    def own_step(self, step: Step) -> Any:
        """The user's step, with a gradient of zero for shapes that were not chosen: DDP waits for one of all."""
        output = step.users_step()
        if output is None:
            return None
        return plus(output, zero_through(self.adaptors.parameters(), step.module.device))

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Of the current domain's adaptor while training; else of that of the nearest domain, sample by sample."""
        given = features.to(self.adaptors.head.dtype)
        if module.training or not self.memory.count.value:
            slot = self.slot.value
            return fill_masked(self.adaptors.logits(given, slot), self.known[slot])
        domains = self.memory.nearest(features)
        every = torch.stack([self.adaptors.logits(given, slot) for slot in range(self.memory.count.value)])
        return chosen_answers(every, domains, self.known)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All other domains' parts."""
        return (all_rows_but(parameter, self.slot.value) for parameter in self.adaptors.parameters())


@dataclass(eq=False)
class EAR(TaskwiseMethod):
    """EAR-style: encoder, adaptors and reconfigurators (Zhu et al., arXiv:2308.02084), from what its abstract states.

    Not a reproduction: the realisation is a reconstruction. The whole module is frozen; what reaches its head is the
    feature. A **detector** keeps a hypervector for each domain (:class:`~lightning_cl.nn.hypervectors.DomainMemory`),
    and before a task a sample of it that is less alike to all of them than 95 % of a domain's samples are to the rest
    of it counts as out of distribution. If more than ``novel`` of the first ``window`` samples do, the task is a new
    domain: of ``candidates`` random shapes of at most ``budget`` weights the **adaptor** is the one whose untrained
    units tell ``probe`` features apart best (NASWOT, arXiv:2006.04647), and alone is trained, with its
    **reconfigurator**, a linear head of its own. A task that is no new domain goes on with the adaptor of the domain
    that it is nearest to. A sample is answered by the adaptor of the domain that it is nearest to, whatever its task.
    Works in domain- and in class-incremental streams, on any module with a class head; needs to know where a task
    begins, and no memory. Costs a pass over a task's images before it; the detector keeps ``dimension`` numbers for
    each domain.

    Args:
        dimension: Of a hypervector, at least 1.
        quantile: Share of a domain's own samples that count as out of distribution, in [0, 1].
        novel: Share of out-of-distribution samples above which a task is a new domain, in [0, 1]; with 1 none but the
            first is.
        window: Samples that the detector looks at, at least 1.
        candidates: Shapes that are compared, at least 1.
        budget: Weights of an adaptor at most, its head aside, at least 1.
        probe: Features that the shapes are compared on, at least 2.
        seed: Of the detector's projection.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, on an online stream, where no task begins.
    """

    state_key: ClassVar[str] = "lightning_cl.EAR"
    boundaries: ClassVar[Boundaries] = "needed"
    trains_head: ClassVar[bool] = False
    replaces_head: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"dimension": 256, "budget": 512, "candidates": 3}

    dimension: int = at_least(1, default=10000)
    quantile: float = fraction(default=0.05)
    novel: float = fraction(default=0.5)
    window: int = at_least(1, default=256)
    candidates: int = at_least(1, default=8)
    budget: int = at_least(1, default=16384)
    probe: int = above(1, default=64)
    seed: int = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that tasks begin somewhere, and attach."""
        if require_stream(trainer, type(self).__name__).online:
            raise ValueError(
                "EAR looks at a task's samples before it is trained on, but a stream of one ordered pass shows nothing "
                "beforehand; use a scenario with tasks, or another method."
            )
        super().setup(trainer, pl_module, stage)

    def build(self, pl_module: Any, info: Any) -> RoutedAdaptors:
        """Room for a domain in every task; the module is frozen."""
        head = pl_module.continual_head
        freeze_all_but(pl_module, pl_module.continual.head_path, skip=("continual",))
        head.requires_grad_(False)
        memory = DomainMemory(info.num_tasks, head.in_features, self.dimension, self.seed, self.quantile)
        adaptors = FeatureAdaptors(info.num_tasks, head.in_features, head.out_features, self.budget)
        return RoutedAdaptors(memory, adaptors, head.out_features, self)
