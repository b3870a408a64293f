"""ProtoCL: an encoder learns to place samples near the Bayesian prototypes of their classes."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay, ReplayPolicy, ReplayStore
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.heads.bayes import BayesianPrototypes
from lightning_cl.nn.precision import wide
from lightning_cl.training import MethodModule, Step, TaskData


class PrototypePosterior(MethodModule):
    """The posterior of the class means, in place of the head; training steps add to it, evaluations do not."""

    makes_logits = True

    def __init__(self, classes: BayesianPrototypes, refresh: bool) -> None:
        super().__init__()
        self.classes, self.refresh = classes, refresh

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``log p(z, y = c)``; the user's cross-entropy of it is the paper's loss."""
        found: Tensor = self.classes(wide(features))
        return found.to(logits.dtype) + 0.0 * logits.sum(1, keepdim=True)  # DDP waits for the head's gradient

    def losses(self, step: Step) -> dict[str, Tensor]:
        """No term; the samples of the step are counted, once its answers are made."""
        trainer = step.module.trainer
        stream = trainer.datamodule
        joined = stream.joined
        real = stream.train_batch(trainer.fit_loop.batch_idx).real + (0 if joined is None else joined.local)
        self.classes.add(all_sum(self.classes.sums(step.features[:real], step.targets[:real])))
        return {}

    def end_task(self, module: Any, data: TaskData) -> None:
        """Take the means anew, with the encoder as it is: of the task's samples if they may be read, and the memory."""
        if not self.refresh:
            return
        total = torch.zeros_like(torch.cat([self.classes.natural, self.classes.counts[:, None]], 1))
        held = module.continual.memory.buffer
        of_memory = data.over(held.read(held.used)) if module.continual.memory.by_index and len(held) else None
        if not module.trainer.datamodule.online:
            for features, labels, _ in data.features():
                total += self.classes.sums(features, labels)
        if of_memory is not None:
            found = total[:, -1] > 0
            for features, labels, _ in of_memory.features():
                total += self.classes.sums(features, labels) * ~found[:, None]  # a class of the task is whole already
        self.classes.replace(total)


@dataclass(eq=False)
class ProtoCL(ExperienceReplay):
    """Bayesian prototypes (ProtoCL; Kessler et al., Entropy 2023, arXiv:2301.01828).

    Answers are ``log N(z; mu_c, (1 / L_c + noise) I) + log (a_c / sum a)`` of the features ``z``; the user's
    cross-entropy of them trains the encoder. After each step the posterior of every class takes in its samples without
    gradient: ``Q_c += z / noise``, ``L_c += 1 / noise``, ``a_c += 1``, with ``mu_c = Q_c / L_c``; training samples
    only (the released code adds test samples while it predicts, and is not copied there), summed over the batch.
    Remembered samples join every batch, as many as the stream's, so that the encoder does not forget. With ``refresh``
    the means are taken anew at a task's end, since they were summed while the encoder changed: by a pass over the
    task's samples and those of the memory, in a stream of one ordered pass over the memory alone, and with
    ``store="sample"`` over the task's alone. The prior of a mean is a standard Gaussian around 0 (random in their
    code). Needs no task boundary but for that; works on any module with a class head, whose weights are not used.

    Args:
        memory_size: Slots of the memory; the paper's is 1000.
        batch_size: Remembered samples in every batch, over all processes; as many as the stream's in the paper.
        noise: Variance of a feature in its class, above 0; the paper's is 0.05.
        concentration: Of the Dirichlet prior, above 0; the paper's is ``exp(0.78)``.
        refresh: Take the means anew at a task's end.
        policy: See :class:`ExperienceReplay`; the paper's memory is shared out evenly.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a number out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.ProtoCL"
    replaces_head: ClassVar[bool] = True

    memory_size: int = 1000
    noise: float = above(0, default=0.05)
    concentration: float = above(0, default=2.18)
    refresh: bool = True
    _: KW_ONLY
    policy: ReplayPolicy = "class_balanced"
    store: ReplayStore = "index"
    device: str | None = None

    def build(self, pl_module: Any, info: Any) -> PrototypePosterior:
        """Classes of which nothing is known."""
        width = pl_module.continual_head.in_features
        return PrototypePosterior(
            BayesianPrototypes(info.num_classes, width, self.noise, self.concentration), self.refresh
        )
