"""TEEN: the base session is trained; few-shot classes are means, shifted towards base classes that they resemble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.few_shot.base_session import BaseSessionMethod
from lightning_cl.callbacks.head_kinds import check_own_rows
from lightning_cl.nn.heads import cosine_answer
from lightning_cl.nn.teen import TEENBank
from lightning_cl.training import MethodModule, TaskData


class CalibratedMeans(MethodModule):
    """Cosines with the head's own rows in the base session, with calibrated class means afterwards."""

    makes_logits = True
    former_keys: ClassVar[dict[str, str]] = {"teen.": "bank."}
    known_as: ClassVar[dict[str, str]] = {"teen": "bank"}

    def __init__(self, bank: TEENBank, train_base: bool) -> None:
        super().__init__()
        self.bank, self.train_base = bank, train_base

    def trains_now(self) -> bool:
        """In the base session, if at all."""
        return self.train_base and not self.bank.ready

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` cosines times the scale."""
        if self.bank.ready:
            answer: Tensor = self.bank(features)
            return answer.to(logits.dtype)
        return cosine_answer(module.continual_head, features, self.bank.scale)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Count the means of the task's classes, on evaluation transforms."""
        for features, labels, _ in data.features():
            self.bank.update(features, labels)
        if not self.bank.ready:
            self.bank.finish_base(torch.tensor(data.task.classes))


@dataclass(eq=False)
class TEEN(BaseSessionMethod):
    """TEEN, training-free prototype calibration (Wang et al., NeurIPS 2023, arXiv:2312.05229).

    The base session (the first task) is ordinary training with cosine logits. Then all weights stay as they are: base
    classes answer with their means, and the mean of each few-shot class is shifted towards the base classes that it
    resembles. ``alpha=0`` is the plain cosine classifier of class means. Means are taken on evaluation transforms, at
    the end of each task, so one epoch for each later task is enough: ``epochs_per_task=[100, 1, 1, ...]``.

    Args:
        alpha: Share of the base classes in a new row, in [0, 1]: 0.1 for CIFAR-100, 0.5 for CUB-200 and miniImageNet.
        temperature: Sharpness of the similarity to base classes, above 0.
        scale: Of the cosine logits, above 0: 16 for CIFAR-100, 32 for CUB-200 and miniImageNet.
        train_base: Train in the base session; ``False`` takes the module's features as they are.
        train_mask: Which classes compete in the training loss of the base session.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, on a stream without a base session.
    """

    state_key: ClassVar[str] = "lightning_cl.TEEN"
    replaces_head: ClassVar[bool] = True

    alpha: float = 0.5
    temperature: float = above(0, default=16.0)
    scale: float = above(0, default=16.0)
    train_base: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"`alpha` is {self.alpha}, the share of the base classes; give a number in [0, 1].")

    def build(self, pl_module: Any, info: Any) -> CalibratedMeans:
        """The bank of means."""
        check_own_rows(pl_module, "TEEN")
        width = pl_module.continual_head.in_features
        bank = TEENBank(info.num_classes, width, self.alpha, self.temperature, self.scale)
        return CalibratedMeans(bank, self.train_base)
