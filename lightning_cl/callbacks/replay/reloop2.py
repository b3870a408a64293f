"""ReLoop2-style: a fast memory of the model's recent errors corrects its answers to samples like them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least, choice, fraction
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import gather_rows
from lightning_cl.nn.error_memory import NearestErrors, SketchedErrors
from lightning_cl.nn.masks import fill_masked
from lightning_cl.training import MethodModule, Step

Kind = Literal["nearest", "sketch"]


class ErrorMemory(MethodModule):
    """Writes the errors of training steps, and corrects what is evaluated."""

    def __init__(self, memory: NearestErrors | SketchedErrors, strength: float, num_classes: int) -> None:
        super().__init__()
        self.memory, self.strength, self.num_classes = memory, strength, num_classes
        self.written = Counter()

    @torch.no_grad()
    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """Remember features and errors of the stream's samples; nothing joins the loss."""
        if not self.strength:
            return {}
        trainer = step.module.trainer
        own = trainer.datamodule.train_batch(trainer.fit_loop.batch_idx)
        rows = slice(len(own.index))  # what replay joined stands behind them
        features, targets = step.features[rows].detach(), step.targets[rows].flatten()
        probabilities = fill_masked(step.raw_logits[rows], step.module.continual.mask.train_allowed).softmax(1)
        errors = F.one_hot(targets, self.num_classes) - probabilities[:, : self.num_classes]
        joint = torch.cat([features.double(), errors.double()], dim=1)
        longest = -(-trainer.train_dataloader.batch_size // trainer.world_size)
        gathered, _, weights = gather_rows(joint, targets, longest, own.real)
        if weights is not None:
            gathered = gathered[weights > 0]
        self.memory.write(gathered[:, : features.shape[1]], gathered[:, features.shape[1] :])
        self.written.set(1)
        return {}

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Logarithms of the probabilities with the expected error, when evaluated."""
        if self.training or not self.written.value or not self.strength:
            return logits
        probabilities = fill_masked(logits, module.continual.mask.eval_allowed).softmax(1)
        expected = self.memory.read(features.detach()).to(probabilities)
        expected = F.pad(expected, (0, logits.shape[1] - self.num_classes))
        return (probabilities + self.strength * expected).clamp(0, 1).clamp_min(1e-12).log()


@dataclass(eq=False)
class ReLoop2(ContinualMethod):
    """ReLoop2-style error memory (after Zhu et al., KDD 2023, arXiv:2306.08808), from what its abstract states.

    In every training step the features that reach the head and the errors ``e = onehot(y) - softmax(z)`` of the batch
    are written to a memory, before the step, without gradient. When evaluated, an answer becomes ``p + strength D(x)``,
    clipped to [0, 1]: ``D`` is the mean error of the ``topk`` stored samples nearest to ``x`` (features of length 1)
    with ``softmax(-distance / temperature)`` shares, or in ``kind="sketch"`` the sum over ``tables`` hash tables of
    decayed errors over that of their counts. Training is not changed. The paper corrects click probabilities of a
    served recommender between its trainings; here stored errors are those of the model at the time, so this is for
    streams whose last samples tell of the next ones, not for tasks long past. No code of the paper is public; formulas
    and numbers are a reconstruction. Needs no boundaries; keeps ``capacity`` features and errors, or ``tables * 2 ^
    bits`` errors; costs a search for each evaluated sample, no pass. Works on any module with a class head.

    Args:
        strength: Of the correction, at least 0; with 0 it is plain fine-tuning.
        kind: ``"nearest"`` stored samples, or a ``"sketch"`` of all.
        capacity: Stored samples, first in, first out, at least 1.
        topk: Nearest samples, at least 1.
        temperature: Of their shares, above 0.
        tables: Hash tables, at least 1.
        bits: Signs that choose a bucket, in 1 to 16.
        decay: Share that a bucket forgets with every sample, in [0, 1].

    Raises:
        ValueError: If a number is out of its range or the kind unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.ReLoop2"
    needs_forward: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"capacity": 10, "topk": 3}

    strength: float = at_least(0, default=0.5)
    kind: Kind = choice(Kind, default="nearest")
    capacity: int = at_least(1, default=1000)
    topk: int = at_least(1, default=10)
    temperature: float = above(0, default=0.1)
    tables: int = at_least(1, default=10)
    bits: int = at_least(1, default=8)
    decay: float = fraction(default=0.01)
    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits > 16:
            raise ValueError(f"`bits` is {self.bits}, which makes 2^{self.bits} buckets a table; give at most 16.")

    def build(self, pl_module: Any, info: Any) -> ErrorMemory:
        """An empty memory."""
        width, classes = pl_module.continual_head.in_features, info.num_classes
        memory: NearestErrors | SketchedErrors
        if self.kind == "nearest":
            memory = NearestErrors(width, classes, self.capacity, self.topk, self.temperature)
        else:
            memory = SketchedErrors(width, classes, self.tables, self.bits, self.decay)
        return ErrorMemory(memory, self.strength, classes)
