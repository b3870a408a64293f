"""FOSTER: a new trunk corrects what the old network gets wrong, then both are compressed into one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.architecture.growth import GrowingMethod, HeadCopy, WideHead, uniform, wide_logits
from lightning_cl.callbacks.arguments import above, at_least, fraction
from lightning_cl.callbacks.distillation.teacher import class_counts
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import whole
from lightning_cl.nn.head_layer import class_rows
from lightning_cl.nn.losses import distillation, effective_weights
from lightning_cl.training import Step, TaskData
from lightning_cl.training.phases import is_last_share


class BoostedTrunks(WideHead):
    """A new trunk beside the old network, weights of the classes, and the teacher of the compression."""

    growing = ("columns", "branch", "balance")
    balance: Tensor

    def __init__(self, module: Any, info: Any, method: FOSTER) -> None:
        super().__init__(module, type(method).__name__, info.num_tasks)
        self.method, self.compressing, self.stale = method, Counter(), Counter()
        columns = self.columns.detach()
        self.old, self.teacher = HeadCopy(columns), HeadCopy(columns)
        self.branch = nn.Parameter(columns.new_zeros(columns.shape[1], columns.shape[2] + 1))  # the last is the bias
        self.register_buffer("balance", columns.new_ones(columns.shape[1], 2))  # in boosting, and in the compression

    # ------------------------------------------------------------------ answers

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Those of both networks, in a boosting step divided by the weights; once compressed those of the live one."""
        step = module.continual.step if self.training and torch.is_grad_enabled() else None
        known = None if self.compressing.value and step is None else self.features_of_copies(module)
        if known is None:
            return self.known_to_all(logits)
        if step is not None and self.compressing.value:
            step.memo[self] = self.teacher.logits(known)
            return self.known_to_all(logits)
        wide = logits + wide_logits(known, self.columns)
        if step is None:
            return self.known_to_all(wide)
        step.memo[self] = wide, self.old.logits(known)
        return self.known_to_all(wide / self.balance[:, 0].to(wide.dtype))

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """Distillation of old classes, and the cross-entropy of the new trunk alone."""
        made, method, seen = step.memo.get(self), self.method, self._seen(step)
        if made is None:
            return {}
        (wide, before), old, terms = made, step.old_classes, {}
        if method.strength and old is not None:
            terms["distillation"] = method.strength * distillation(wide[:, old], before[:, old], method.temperature)
        if method.feature_strength:
            rows = self.branch[seen]
            own = F.linear(step.features.to(rows.dtype), rows[:, :-1], rows[:, -1])
            terms["branch"] = method.feature_strength * F.cross_entropy(own, torch.searchsorted(seen, step.targets))
        return terms

    # ------------------------------------------------------------------ compression

    def own_step(self, step: Step) -> Tensor | None:
        """Once the compression has begun: the live network learns the teacher's answers, weighed by class."""
        module = step.module
        if not self.compressing.value:
            if not len(self.trunks) or not is_last_share(module.trainer, self.method.compress):
                return None
            self._begin_compression(module)
        if module.continual.memory is not None:
            module.continual.memory.left_out = False  # a sample counts, although the user's step is not made
        logits, _ = step.learn(step.inputs)
        seen, temperature = self._seen(step), self.method.temperature
        favoured = temperature * self.balance[:, 1].log().to(logits.dtype)  # their softmax is the balanced one
        taught = (step.memo[self].to(logits.dtype) + favoured)[:, seen]
        return distillation(logits[:, seen], taught, temperature) / temperature**2

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """The compression begins with other weights, to which moments and momentum do not belong."""
        if self.stale.value:
            optimizer.state.clear()
            self.stale.set(0)

    @torch.no_grad()
    def _begin_compression(self, module: Any) -> None:
        """Both networks become the teacher; the live one goes on from the old one."""
        head, count = module.continual_head, len(self.trunks)
        rows, seen = class_rows(head), list(module.trainer.datamodule.task.seen_classes)  # others wait for their task
        self.trunks.add(module)
        self.teacher.take([*self.columns[:count], rows], head.bias)
        self.trunks.put_back(module, count - 1)
        rows[seen] = self.old["columns"][count - 1, seen]
        if head.bias is not None:
            head.bias[seen] = self.old["bias"][seen]
        self.compressing.set(1)
        self.stale.set(1)
        module.protect()

    # ------------------------------------------------------------------ tasks

    @torch.no_grad()
    def start_task(self, module: Any, task: Any) -> None:
        """From the second task on, a new trunk begins as the old network ended."""
        if not task.index:
            return
        generator = torch.Generator().manual_seed(task.index)
        self.grow(module, generator)
        self.old.take(self.columns[: len(self.trunks)], module.continual_head.bias)
        self.branch.copy_(uniform(self.branch.shape, self.branch.shape[1] - 1, generator))
        counts = class_samples(module, task)[list(task.seen_classes)]
        for place, beta in enumerate((self.method.beta, self.method.compression_beta)):
            self.balance[list(task.seen_classes), place] = effective_weights(counts, beta).to(self.balance)

    def end_task(self, module: Any, data: TaskData) -> None:
        """The compressed network alone is left."""
        if self.compressing.value:
            self.trunks.clear()
            self.compressing.set(0)
            self.stale.set(0)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """As the base; in the compression all of the wide head."""
        if not self.compressing.value:
            yield from super().protected(module)
        else:
            yield from whole((self.columns, self.branch))

    def _seen(self, step: Step) -> Tensor:
        return torch.tensor(step.task.seen_classes, device=self.columns.device)  # sorted


def class_samples(module: Any, task: Any) -> Tensor:
    """``(C,)`` samples of each class in a task, and of old classes an equal share of the memory; at least 1."""
    stream, memory, (old, _) = module.trainer.datamodule, module.continual.memory, class_counts(task)
    labels = stream.source.train_labels[stream.layout.train_index[task.index]]
    counts = torch.bincount(labels, minlength=module.continual_head.out_features)
    known = list(task.old_classes)
    if memory is not None and known:
        counts[known] += len(memory.buffer) // old
    return counts.clamp_min(1)


@dataclass(eq=False)
class FOSTER(GrowingMethod):
    """Feature boosting and compression (FOSTER; Wang et al., ECCV 2022, arXiv:2204.04662).

    From the second task on the network as it ended stands frozen, in eval mode, beside a new trunk that begins as its
    copy, and one head reads both. Boosting: the user's loss on the logits ``z / w``, plus ``feature_strength`` times
    the cross-entropy of a head on the new trunk alone, plus ``strength * T^2 KL(softmax(z_old / T) || softmax(z / T))``
    over the old classes. Compression, in the last ``compress`` of the task's steps and in place of the user's step:
    the old network learns alone ``-sum_c q_c log softmax(z / T)_c`` with ``q`` in proportion to ``v softmax(z_both /
    T)``. Weights ``w`` and ``v`` are ``(1 - beta) / (1 - beta^n_c)`` with a mean of 1, ``n_c`` the samples of a class
    in the task, or its share of the memory. The released code has an optimiser without weight decay and a cosine of its
    own for the compression; here it is the user's, with fresh moments and the schedule that runs on. Needs task
    boundaries; made for a memory: put :class:`ExperienceReplay` beside it. A step costs one more forward pass, of the
    compression two; after a task one network is left. Works on any module with a linear class head.

    Args:
        strength: Weight of the distillation, at least 0. The released cross-entropy form has ``1 / T^2`` of this
            gradient, which is 0.25 at ``T = 2``.
        feature_strength: Weight of the new trunk's own cross-entropy, at least 0.
        temperature: ``T`` of both distillations, above 0.
        beta: Of ``w``, in [0, 1); that of the released code.
        compression_beta: Of ``v``, in [0, 1); that of the released code.
        compress: Share of a task's steps, in [0, 1]; the released code's is 130 of 300 epochs. 0, or a task that is
            stopped before: the networks stay side by side, and one more comes with the next task.

    Raises:
        ValueError: If a number is out of its range; when attached, for a head that is not linear or a module that
            trains nothing before it; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.FOSTER"

    strength: float = at_least(0, default=0.25)
    feature_strength: float = at_least(0, default=1.0)
    temperature: float = above(0, default=2.0)
    beta: float = fraction(default=0.96)
    compression_beta: float = fraction(default=0.97)
    compress: float = fraction(default=0.43)

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.beta, self.compression_beta) == 1:
            raise ValueError("`beta` and `compression_beta` must be below 1, where weights of classes are 0 / 0.")

    def build(self, pl_module: Any, info: Any) -> BoostedTrunks:
        """One network as yet."""
        self.check_head(pl_module)
        return BoostedTrunks(pl_module, info, self)
