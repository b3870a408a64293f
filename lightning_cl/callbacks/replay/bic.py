"""BiC: after a task, two scalars correct the logits of its new classes on samples that were not trained on."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.boundaries import check_boundaries
from lightning_cl.callbacks.distillation.teacher import PreviousModel, class_counts
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay, ReplayPolicy, ReplayStore
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.heads import fit_bias
from lightning_cl.nn.losses import distillation
from lightning_cl.nn.replay import ClassBalanced, ReplayBuffer, first_of_each_class
from lightning_cl.training import Step, TaskData
from lightning_cl.training.memory import SplitMemory

#: Samples of a step in which the scalars are fitted.
BATCH = 32


class CorrectedTeacher(PreviousModel):
    """A factor and a summand of every class, the same for all classes that came with one task; and distillation."""

    factor: Tensor
    summand: Tensor
    growing = ("factor", "summand")

    def __init__(self, module: Any, strength: float, temperature: float, epochs: int, lr: float) -> None:
        super().__init__(module, strength)
        self.temperature, self.epochs, self.lr = temperature, epochs, lr
        self.register_buffer("factor", torch.ones(module.continual_head.out_features))
        self.register_buffer("summand", torch.zeros(module.continual_head.out_features))

    def corrected(self, logits: Tensor) -> Tensor:
        """``(B, C)`` logits times their factor, plus their summand."""
        return self.factor.to(logits.dtype) * logits + self.summand.to(logits.dtype)

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """The corrected logits; those of a task that is trained are not corrected yet."""
        return self.corrected(logits)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength * K_old / K_new * T^2 KL(teacher || student)`` over the corrected logits of old classes."""
        columns, (old, new) = step.old_classes, class_counts(step.task)
        call = None if columns is None else self.asked(step)
        if call is None:
            return {}
        student, teacher = (self.corrected(z)[:, columns] for z in (step.raw_logits, call.raw_logits))
        return {"bic": self.strength * old / max(new, 1) * distillation(student, teacher, self.temperature)}

    def end_task(self, module: Any, data: TaskData) -> None:
        """Fit the two scalars of the new classes, remember samples for the next fit, and be the next teacher."""
        memory, stream, (old, new) = module.continual.memory, module.trainer.datamodule, class_counts(data.task)
        if memory.apart is not None and stream.kept_back:
            fresh = stream.kept_back_index(data.task.index)
            labels = stream.source.train_labels[fresh]
            if old and new and len(memory.apart):
                self._fit(module, data, fresh[torch.isin(labels, torch.tensor(data.task.new_classes))], old)
            memory.apart.add(fresh, labels)
        super().end_task(module, data)

    def _fit(self, module: Any, data: TaskData, fresh: Tensor, old: int) -> None:
        """On as many samples of each class, from the memory's part and from those of the task."""
        apart, known = module.continual.memory.apart, module.trainer.datamodule.source.train_labels
        kept = apart.read(apart.used)
        each = max(len(kept) // old, 1)
        index = torch.cat([part[first_of_each_class(known[part], each)] for part in (kept, fresh)])
        seen = torch.tensor(data.task.seen_classes, device=self.factor.device)

        def logits(inputs: Any) -> Tensor:
            return self.corrected(Step(module, None).look(inputs).raw_logits)[:, seen]

        found, labels, _ = data.over(index).all_features(logits)
        new = torch.isin(seen, torch.tensor(data.task.new_classes, device=seen.device))
        generator = torch.Generator().manual_seed(data.task.index)
        places = torch.searchsorted(seen, labels)  # seen classes are sorted
        alpha, beta = fit_bias(
            found, places, new, epochs=self.epochs, lr=self.lr, batch_size=BATCH, generator=generator
        )
        self.factor[seen[new]], self.summand[seen[new]] = alpha, beta


@dataclass(eq=False)
class BiC(ExperienceReplay):
    """Bias correction (BiC; Wu et al., CVPR 2019, arXiv:1905.13260).

    Trains with remembered samples and ``strength * K_old / K_new * T^2 KL(softmax(z_old / T) || softmax(z / T))`` over
    the old classes: the published ``l KD + (1 - l) CE`` with ``l = K_old / (K_old + K_new)``, divided by ``1 - l``. At
    a task's end ``z <- alpha z + beta`` of its new classes: the scalars are fitted by cross-entropy on equally many
    samples of each class that were never trained on, and stay from then on, for the teacher, too. They are the share
    ``held_out`` of every task, and of the memory. Needs task boundaries and
    one more forward pass a step; works on any module with a class head.

    Args:
        memory_size: Slots of the memory, the part for the fit included.
        batch_size: Remembered samples in every training batch, over all processes.
        strength: Of the distillation, at least 0. The published cross-entropy form has ``1 / T^2`` of this gradient: it
            is 0.25 at ``T = 2``.
        temperature: ``T``, above 0.
        held_out: Share of every task and of the memory for the fit, in [0, 1); the paper's. 0: nothing is corrected.
        epochs: Of the fit, at least 0; those of a code base with Adam.
        lr: Of Adam in the fit, above 0; that code's. Small sets make few steps: raise it with them.
        policy: See :class:`ExperienceReplay`; the paper's is herding.

    Raises:
        ValueError: As :class:`ExperienceReplay`; if a number is out of its range; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.BiC"
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True

    store: ClassVar[ReplayStore] = "index"  # type: ignore[misc]
    device: ClassVar[None] = None  # type: ignore[misc]
    strength: float = at_least(0, default=0.25)
    temperature: float = above(0, default=2.0)
    held_out: float = at_least(0, default=0.1)
    epochs: int = at_least(0, default=250)
    lr: float = above(0, default=1e-3)
    _: KW_ONLY
    policy: ReplayPolicy = "class_balanced"
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.held_out < 1 or self.memory_size - self._apart < self.batch_size:
            raise ValueError(
                f"`held_out` is {self.held_out}, which leaves {self.memory_size - self._apart} of {self.memory_size} "
                f"slots for batches of {self.batch_size}; give a smaller share, or a larger memory."
            )

    @property
    def _apart(self) -> int:
        """Slots for the fit."""
        return round(self.held_out * self.memory_size)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """As :class:`ExperienceReplay`; and keep a share of every task out of training."""
        stream = require_stream(trainer, type(self).__name__)
        if self.held_out:
            check_boundaries(stream, "BiC", "fits its correction", "`held_out=0`, with which nothing is corrected")
        super().setup(trainer, pl_module, stage)
        stream.kept_back = self.held_out

    def _empty(self, info: Any) -> SplitMemory:
        buffer = ReplayBuffer(self.memory_size - self._apart, self._policy(info.num_classes))
        apart = ReplayBuffer(self._apart, ClassBalanced()) if self._apart else None
        return SplitMemory(buffer, self.batch_size, apart=apart)

    def build(self, pl_module: Any, info: Any) -> CorrectedTeacher:
        """A copy of the weights that are trained when the method is attached, and the correction of every class."""
        return CorrectedTeacher(pl_module, self.strength, self.temperature, self.epochs, self.lr)

    def report_facts(self) -> dict[str, Any]:
        """As :class:`ExperienceReplay`; the samples of both parts."""
        facts = super().report_facts()
        apart = getattr(self.memory, "apart", None)
        return {**facts, "stored_samples": facts["stored_samples"] + len(apart)} if facts and apart else facts
