"""GeRe: features of a fixed set of general samples stay low, neutral or high, as the model had them at first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.datamodules.sampling import permutation
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.losses import threshold_margin
from lightning_cl.nn.parameter_versions import Remembered, written
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.batch import Inputs
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.transfer import samples_at


class GeneralSamples(MethodModule):
    """General samples, or where they are in the training split, and the states of their features at first."""

    states: Tensor
    low: Tensor
    high: Tensor
    index: Tensor

    def __init__(self, width: int, method: GeRe) -> None:
        super().__init__()
        self.strength, self.batch_size, self.taken = method.strength, method.batch_size, Counter()
        general = method.general
        self.named = isinstance(general, Mapping)
        parts = dict(general) if self.named else {} if general is None else {"": general}
        self.parts = tuple(parts)
        for name, part in parts.items():  # given anew with the arguments, so not in checkpoints
            self.register_buffer(f"general_{name}", torch.as_tensor(part), persistent=False)
        count = len(next(iter(parts.values()))) if parts else method.count
        self.register_buffer("index", torch.zeros(0 if parts else count, dtype=torch.long))
        self.register_buffer("states", torch.zeros(count, width, dtype=torch.int8))
        self._positions = Remembered[Tensor]()  # the index on the host
        self.register_buffer("low", torch.zeros(width))
        self.register_buffer("high", torch.zeros(width))

    def start_task(self, module: Any, task: Any) -> None:
        """Take the features of the model as it comes."""
        if not self.taken.value and self.strength:
            if not self.parts:
                self._draw(module, task.index)
            self._take(self._features(module))
            send_from_first_process([self.states, self.low, self.high])
            self.taken.set(1)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The term on some of the samples, the same on all processes."""
        if not self.strength:
            return {}
        seed = step.module.trainer.datamodule.seed, 0x6E4E, step.module.trainer.global_step
        rows = permutation(len(self.states), *seed)[: self.batch_size]
        features = step.learn(self._inputs(step.module, rows))[1].features
        states = self.states[rows.to(self.states.device)]
        return {"gere": self.strength * threshold_margin(features, states, self.low, self.high)}

    def _draw(self, module: Any, task: int) -> None:
        own = module.trainer.datamodule.layout.train_index[task]
        chosen = own[permutation(len(own), module.trainer.datamodule.seed, 0x6E4E)[: len(self.index)]]
        self.index.copy_(chosen[torch.arange(len(self.index)) % len(chosen)])  # again where there are too few

    @torch.no_grad()
    def _take(self, features: Tensor) -> None:
        mean, std = features.mean(0), features.std(0, correction=0)
        self.low.copy_(mean - std)
        self.high.copy_(mean + std)
        self.states.copy_((features >= self.high).to(torch.int8) - (features <= self.low).to(torch.int8))

    def _features(self, module: Any) -> Tensor:
        """``(N, D)`` of all samples."""
        found = []
        with evaluating(module):
            for rows in torch.arange(len(self.states)).split(max(self.batch_size, 1)):
                found.append(module.head_input(self._inputs(module, rows)).float())
        return torch.cat(found)

    def _inputs(self, module: Any, rows: Tensor) -> Any:
        """Some of the samples, as the module takes them."""
        if not self.parts:
            return samples_at(module, self._positions.get(written(self.index), self.index.cpu)[rows])[0]
        parts: dict[Any, Tensor] = {name: self.get_buffer(f"general_{name}") for name in self.parts}
        chosen = {name: part[rows.to(part.device)] for name, part in parts.items()}
        return Inputs(chosen) if self.named else chosen[""]


@dataclass(eq=False)
class GeRe(RegularizedMethod):
    """General sample replay with the threshold-based margin loss (GeRe; arXiv:2508.04676).

    Before training the features that reach the head are taken for a small, fixed set of general samples, which are not
    the tasks' own; a feature is low, neutral or high where it lies below, within or above ``mean +- std`` of its
    dimension over the set. In every step ``batch_size`` of the samples pass the network, too, and ``strength`` times

        ``sum margin / number of margins above 0``, where the margin of ``h`` is ``relu(h - low)`` for a low feature,
        ``relu(high - h)`` for a high one, and ``relu(h - high) + relu(low - h)`` for a neutral one,

    is added to the user's loss, which is 0 as long as every feature is in its state. The paper trains language models
    and adds half of their loss on the general texts, which have no class here: for that, train on the texts
    themselves (``ContinualDataModule(replay_share=...)``, or ``ExperienceReplay``). Its weight is 100 or 1; a weight
    that follows the ratio of both losses is not here, and features are those of a sample, not of every token. Works on
    any module with a class head whose ``forward`` takes the inputs alone. Needs no boundaries; keeps a byte for every
    feature of every sample, and with ``general=None`` where they are; costs a pass over ``batch_size`` samples a step.

    Args:
        general: Inputs as ``forward`` takes them: ``(N, ...)``, or a dictionary of tensors such as token ids and their
            mask, padded to one length. ``None``: ``count`` samples of the first task, a stand-in of our own.
        strength: Weight of the term, at least 0; with 0 it is plain fine-tuning.
        batch_size: Samples in a step, at least 1.
        count: How many samples of the first task, at least 1.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, if there are no general samples and the stream is one
            ordered pass, whose first task is not known before it comes.
    """

    state_key: ClassVar[str] = "lightning_cl.GeRe"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"batch_size": 3, "count": 5}

    strength: float = 100.0
    general: Any = None
    batch_size: int = at_least(1, default=16)
    count: int = at_least(1, default=100)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that there are samples to take, and attach."""
        if self.general is None and require_stream(trainer, "GeRe").online:
            raise ValueError(
                "GeRe without `general` draws on the samples of the first task before it begins, but a stream of one "
                "ordered pass has not brought them yet; give general samples, `GeRe(general=inputs)`."
            )
        super().setup(trainer, pl_module, stage)

    def build(self, pl_module: Any, info: Any) -> GeneralSamples:
        """States of all samples, to be taken when training starts."""
        return GeneralSamples(pl_module.continual_head.in_features, self)
