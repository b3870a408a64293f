"""ER-AML: incoming samples are compared with those of their own classes only, so that old classes stay in place."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.replay.er_ace import AsymmetricReplay
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.partners import Partners, asymmetric_contrast, draw_partners
from lightning_cl.nn.precision import wide
from lightning_cl.training import Step
from lightning_cl.training.contrast import learn_features
from lightning_cl.training.global_batch import drawn_batch, global_batch, term_of_all


class MetricReplay(AsymmetricReplay):
    """The stream's batch is compared with partners; the memory's is learned as in ER-ACE."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def start_step(self, step: Step) -> None:
        """The user's loss counts as long as nothing is remembered, as in the official code."""
        self.loss_factor = 0.0 if len(step.module.continual.memory.buffer) else 1.0

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Both terms; none before something is remembered."""
        memory, stream = step.module.continual.memory, step.module.trainer.datamodule
        if not len(memory.buffer):
            return {}
        incoming = stream.source.train_labels[stream.train_rows(step.module.trainer.fit_loop.batch_idx)]
        used = memory.buffer.used
        partners = draw_partners(incoming, memory.buffer.labels[used], memory.buffer.generator)
        return {"er_aml_stream": self._stream_term(step, used, partners), **super().losses(step)}

    def _stream_term(self, step: Step, used: Tensor, partners: Partners) -> Tensor:
        module = step.module
        rows, labels, _ = global_batch(module, wide(step.features), step.targets)
        places = torch.cat([partners.positives, partners.negatives])
        held = places[places < len(used)].unique()
        pools, order = [rows], torch.full((len(used) + len(rows),), -1)
        pool_labels = [labels.long()]
        order[len(used) :] = torch.arange(len(rows))
        if len(held):
            drawn = module.read(used[held])
            (features,) = learn_features(step, [drawn.inputs])
            kept, kept_labels = drawn_batch(module, drawn, wide(features))
            order[held] = len(rows) + torch.arange(len(held))
            pools, pool_labels = [rows, kept], [labels.long(), kept_labels.long()]
        if not len(partners.anchors):
            return 0.0 * step.features.sum()
        chosen, anchors = order[places].to(rows.device), partners.anchors.to(rows.device)
        pool, of_pool = torch.cat(pools)[chosen], torch.cat(pool_labels)[chosen]
        term = asymmetric_contrast(rows[anchors], labels.long()[anchors], pool, of_pool, self.temperature)
        return term_of_all(module, self.temperature / 0.07 * term)


@dataclass(eq=False)
class ERAML(ExperienceReplay):
    """Experience replay with asymmetric metric learning (ER-AML; Caccia et al., ICLR 2022, arXiv:2104.05025).

    The stream's loss compares features: of each incoming sample with one positive and one negative, drawn from memory
    and batch, ``temperature / 0.07`` times the supervised contrastive loss of all of them. Negatives are of classes of
    the incoming batch only, so no sample of it pushes the features of other classes away. It takes the place of the
    user's loss, which counts as long as nothing is remembered; samples without a positive or a negative are left out.
    A batch of the memory is learned by cross-entropy over all seen classes, and teaches the head. :class:`ERACE` is
    its variant with cross-entropy on both sides. Needs no task boundary; works on any module with a class head. A step
    makes two more forward passes, over the partners from the memory and over the batch from it.

    Args:
        batch_size: Samples of the batch from the memory, over all processes; fewer while the memory fills.
        temperature: Above 0; the default is the official code's.
        policy: See :class:`ExperienceReplay`; the paper's is ``"reservoir"``.
        train_mask: Of the user's loss, as long as it counts.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a temperature that is not above 0.
    """

    state_key: ClassVar[str] = "lightning_cl.ERAML"
    adds_loss: ClassVar[bool] = True
    joins: ClassVar[bool] = False
    one_pass: ClassVar[bool] = True

    temperature: float = above(0, default=0.1)
    _: KW_ONLY
    train_mask: TrainMask = "batch"

    def build(self, pl_module: Any, info: Any) -> MetricReplay:
        """The two terms; they have no parameters."""
        return MetricReplay(self.temperature)
