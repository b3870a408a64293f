"""Dark experience replay: a memory teaches the logits that its samples had when they came, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.replay.experience_replay import OwnBatchReplay
from lightning_cl.training import MethodModule, Step


class DarkReplay(MethodModule):
    """The two terms of the memory, each from a batch of its own."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``alpha * MSE(z, z_then)`` on one batch of the memory, ``beta * CE(z, y)`` on another."""
        step.module.keep(logits=step.raw_logits)
        return {**self._term(step, "logits", self.alpha), **self._term(step, "labels", self.beta)}

    def _term(self, step: Step, name: str, strength: float) -> dict[str, Tensor]:
        drawn = step.module.draw() if strength else None
        if drawn is None:
            return {}
        answers, call = step.learn(drawn.inputs)
        if name == "logits":
            term = F.mse_loss(call.raw_logits, drawn.extras["logits"].to(call.raw_logits.dtype))
        else:
            term = F.cross_entropy(answers, drawn.labels)
        return {f"der_{name}": drawn.weight * strength * term}


@dataclass(eq=False)
class DER(OwnBatchReplay):
    """Dark experience replay (DER; Buzzega et al., NeurIPS 2020, arXiv:2004.07211).

    Adds ``alpha * mean (z - z_then)^2`` over all columns of the head's raw logits on a batch of the memory; ``z_then``
    are the logits of the training step in which a sample came, kept with it. Labels of remembered samples are not
    read. Needs no task boundary; works on any module with a class head. A step makes one more forward pass. The memory
    keeps a sample's logits beside it.

    Args:
        batch_size: Samples of the batch from the memory, over all processes; fewer while the memory fills.
        alpha: Weight of the logits, at least 0; with 0 it is plain fine-tuning. The default is the official code's for
            CIFAR-10 and CIFAR-100.
        policy: See :class:`ExperienceReplay`; the paper's is ``"reservoir"``.
        store: See :class:`ExperienceReplay`; ``"index"`` augments a sample anew, as the paper does.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a negative weight.
    """

    state_key: ClassVar[str] = "lightning_cl.DER"
    adds_loss: ClassVar[bool] = True

    alpha: float = at_least(0, default=0.3)

    def bytes_beside(self, pl_module: Any) -> int:
        """Those of the logits."""
        head = pl_module.continual_head
        logits: int = head.out_features * head.weight.element_size()
        return super().bytes_beside(pl_module) + logits

    def build(self, pl_module: Any, info: Any) -> DarkReplay:
        """The term of the logits."""
        return DarkReplay(self.alpha, 0.0)


@dataclass(eq=False)
class DERPlusPlus(DER):
    """Dark experience replay (DER and DER++; Buzzega et al., NeurIPS 2020, arXiv:2004.07211).

    Adds ``alpha * mean (z - z_then)^2`` over all columns of the head's raw logits, and ``beta * CE(z, y)``, on two
    independent batches of the memory; ``z_then`` are the logits of the training step in which a sample came, kept with
    it. ``beta=0`` is :class:`DER`. Needs no task boundary; works on any module with a class head. A step makes two more
    forward passes. The memory keeps a sample's logits beside it.

    Args:
        batch_size: Samples of each batch from the memory, over all processes; fewer while the memory fills.
        alpha: Weight of the logits, at least 0; the paper's for CIFAR-10 with 500 slots.
        beta: Weight of the labels, at least 0; with both 0 it is plain fine-tuning.

    Raises:
        ValueError: As :class:`ExperienceReplay`, and for a negative weight.
    """

    state_key: ClassVar[str] = "lightning_cl.DERPlusPlus"

    alpha: float = 0.1
    beta: float = at_least(0, default=0.5)

    def build(self, pl_module: Any, info: Any) -> DarkReplay:
        """The two terms."""
        return DarkReplay(self.alpha, self.beta)
