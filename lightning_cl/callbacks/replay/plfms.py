"""PL-FMS: new classes are learned from the memory first, which fills in labels of finer levels by itself."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay, ReplayStore
from lightning_cl.datamodules.sampling import share
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.label_tree import child_of_each, of_own_level, pseudo_labels
from lightning_cl.nn.precision import wide
from lightning_cl.nn.replay.importance import taken_from_stream
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.batch import joined_inputs
from lightning_cl.training.memory import Drawn
from lightning_cl.training.memory_steps import over_memory


class FlexibleMemory(MethodModule):
    """The mixed batch, its loss at each level, and the refreshing of what is known of the memory."""

    level: Tensor
    finer: Tensor

    def __init__(self, info: Any, length: int | None, pace: float, period: int, threshold: float) -> None:
        super().__init__()
        self.length, self.pace, self.period, self.threshold = length, pace, period, threshold
        several = len(set(info.class_levels)) > 1
        levels = torch.tensor(info.class_levels if several else (0,) * info.num_classes)
        self.register_buffer("level", levels, persistent=False)  # both are told by the stream, which may grow
        self.register_buffer("finer", child_of_each(info.levels if several else (), info.num_classes), persistent=False)
        self.steps = Counter()

    def own_step(self, step: Step) -> Tensor:
        """Cross-entropy over a batch of which a part is the stream's and the rest comes from the memory."""
        module, memory = step.module, step.module.continual.memory
        memory.left_out = False  # samples count, although the user's step is not made
        given = step.targets
        unsure = torch.zeros(len(given), dtype=torch.float32, device=given.device)
        module.keep(pseudo=torch.full_like(given, -1), confidence=unsure)
        rows, slots = self._mixture(module)
        drawn = module.read(slots) if len(slots) else None
        counted = torch.ones(len(rows), dtype=torch.bool)
        if drawn is None and not len(rows):  # a process without a sample makes the pass
            rows, counted = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.bool)
        rows = rows.to(given.device)
        inputs, labels = step.inputs[rows], given[rows]
        pseudo, confidence = torch.full_like(labels, -1), torch.zeros(len(labels), device=labels.device)
        if drawn is not None:
            inputs, labels = joined_inputs(inputs, drawn.inputs), torch.cat([labels, drawn.labels])
            pseudo = torch.cat([pseudo, drawn.extras["pseudo"]])
            confidence = torch.cat([confidence, drawn.extras["confidence"]])
            counted = torch.cat([counted, torch.arange(len(drawn.labels)) < drawn.real])
        logits = wide(step.learn(inputs)[0])
        return step.mean_over(counted.to(labels.device), self.losses_of(logits, labels, pseudo, confidence))

    def losses_of(self, logits: Tensor, labels: Tensor, pseudo: Tensor, confidence: Tensor) -> Tensor:
        """``(n,)`` cross-entropies at the labels' levels, and at those of pseudo-labels (-1: none) by confidence."""
        losses = F.cross_entropy(of_own_level(logits, labels, self.level), labels, reduction="none")
        held = pseudo >= 0
        finer = torch.where(held, pseudo, labels)
        further = F.cross_entropy(of_own_level(logits, finer, self.level), finer, reduction="none")
        return losses + torch.where(held, confidence, 0.0) * further

    def _mixture(self, module: Any) -> tuple[Tensor, Tensor]:
        """Own rows of the stream's batch that are trained on, and slots of the memory for the others; on the CPU."""
        trainer, buffer = module.trainer, module.continual.memory.buffer
        stream = trainer.datamodule
        labels = stream.source.train_labels[stream.train_rows(trainer.fit_loop.batch_idx)]
        taken = torch.ones(len(labels), dtype=torch.bool)
        if len(buffer):
            length = self.length or len(stream.layout.table.sample)
            taken = taken_from_stream(buffer.policy, labels, length, self.pace, buffer.generator)
        slots = buffer.draw(int((~taken).sum()))
        buffer.policy.use(slots)
        start, stop = share(len(labels), trainer.world_size, trainer.global_rank)
        return taken[start:stop].nonzero().flatten(), slots

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Look at all of the memory every ``period`` steps, as an evaluation sees it."""
        self.steps.set(self.steps.value + 1)
        memory = module.continual.memory
        if self.steps.value % self.period or not len(memory.buffer):
            return
        used, found = memory.buffer.used, over_memory(module, partial(self._look, module)).cpu()
        memory.buffer.policy.refresh(used, found[:, 0])
        memory.write_extra("pseudo", used, found[:, 1].long())
        memory.write_extra("confidence", used, found[:, 2].float())

    def _look(self, module: Any, drawn: Drawn) -> Tensor:
        """``(n, 3)`` loss, pseudo-label and its confidence of samples of the memory."""
        logits = wide(module.continual.mask(Step(module, None).look(drawn.inputs).raw_logits))
        losses = F.cross_entropy(of_own_level(logits, drawn.labels, self.level), drawn.labels, reduction="none")
        pseudo, confidence = pseudo_labels(logits, self.finer[drawn.labels], drawn.extras["pseudo"], self.threshold)
        return torch.stack([losses.double(), pseudo.double(), confidence.double()], dim=1)


@dataclass(eq=False)
class PLFMS(ExperienceReplay):
    """Pseudo-labels and flexible memory sampling for ``HLE`` streams (PL-FMS; Lee et al., ICCV 2023, arXiv:2308.14374).

    A sample of the stream is trained on as it comes with the probability ``min(1, pace (n - n_c) K / N)``: ``n``
    samples have come, ``n_c`` before the first of its class, ``K`` classes are known, and the stream has ``N``. For
    each of the others a sample of the memory is, so classes that are new are learned mainly from there. The loss is
    cross-entropy among the classes of a label's own level. The memory is that of CLIB: every sample enters, and in its
    place goes the one of the largest class whose training helped least. This step takes the place of the user's.

    The pseudo-labels are ours, for the released code has none: a remembered sample with a coarse label is given the
    finer class, among the children of its label that are known (at least two), whose probability reaches
    ``pseudo_threshold``, and is trained on it too, weighted by that probability, until it falls below 0.5. Two parts of
    the code are left to the user: CutMix, and the learning rate that adapts itself.

    Needs no task boundary; works on any module with a class head whose ``forward`` returns logits, and on any stream,
    where labels of one level make it CLIB's memory with flexible sampling. Every ``period`` steps it makes a pass over
    the memory without gradient.

    Args:
        batch_size: Samples of a pass over the memory, over all processes; a step's batch is as large as the stream's.
        pace: Above 0; the code's is 1 with two levels and 0.5 with more. A large one takes all but the new classes.
        stream_length: ``N``, at least 1; ``None``: that of the stream, which a learner in the wild has to guess.
        period: Optimiser steps from one look at the memory to the next, at least 1; the code's is 5.
        pseudo_threshold: Probability that a pseudo-label needs, above 0; above 1 there are none.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a number out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.PLFMS"
    joins: ClassVar[bool] = False
    bytes_kept: ClassVar[int] = 8 + 4  # pseudo-label and confidence
    draws: ClassVar[bool] = False
    needs_automatic: ClassVar[bool] = True
    one_pass: ClassVar[bool] = True
    policy: ClassVar[Any] = "importance"  # type: ignore[misc]
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "period": 2}

    batch_size: int = 64
    pace: float = above(0, default=1.0)
    stream_length: int | None = at_least(1, default=None)
    period: int = at_least(1, default=5)
    pseudo_threshold: float = above(0, default=0.75)
    _: KW_ONLY
    store: ReplayStore = "index"
    device: str | None = None

    def build(self, pl_module: Any, info: Any) -> FlexibleMemory:
        """The step, and what it knows of the levels."""
        return FlexibleMemory(info, self.stream_length, self.pace, self.period, self.pseudo_threshold)
