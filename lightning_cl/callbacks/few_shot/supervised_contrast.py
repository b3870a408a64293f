"""A supervised contrastive term in the base session: samples of a class lie together, so that others have room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.few_shot.base_term import BaseTerm, BaseTermMethod
from lightning_cl.nn.losses import supervised_contrastive
from lightning_cl.training import Step
from lightning_cl.training.global_batch import global_batch, with_own_gradient


class ContrastTerm(BaseTerm):
    """The contrastive loss of a batch and of its mirror image."""

    name = "supervised_contrast"

    def __init__(self, strength: float, temperature: float) -> None:
        super().__init__(strength)
        self.temperature = temperature

    def term(self, step: Step) -> Tensor:
        """Of the features of all processes; the gradient is that of this one's."""
        views = [step.features]
        if isinstance(step.inputs, Tensor) and step.inputs.ndim == 4:
            views.append(step.learn(step.inputs.flip(-1))[1].features)
        targets = step.targets
        gathered = [global_batch(step.module, view[: len(targets)], targets) for view in views]
        factor = gathered[0][2]
        rows, labels = torch.cat([rows for rows, _, _ in gathered]), torch.cat([labels for _, labels, _ in gathered])
        return with_own_gradient(supervised_contrastive(rows, labels, self.temperature), factor)


@dataclass(eq=False)
class SupervisedContrast(BaseTermMethod):
    """Trick of few-shot learning: a supervised contrastive base term, style (after arXiv:2403.14392).

    Adds ``strength`` times the supervised contrastive loss (arXiv:2004.11362) of the features of a batch and of its
    mirror image in the base session, the first task; afterwards it does nothing. Put it beside a method that trains in
    the base session alone, :class:`TEEN` say, whose ``alpha=0`` is the plain classifier of class means. The paper's
    code is not public: weight, views and what is compared (the features that reach the head) are our reading. Works on
    any module with a class head; a step of the base session makes one more forward pass where inputs are images.

    Args:
        temperature: Of the similarities, above 0.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, on a stream without a base session.
    """

    state_key: ClassVar[str] = "lightning_cl.SupervisedContrast"

    temperature: float = above(0, default=0.1)

    def build(self, pl_module: Any, info: Any) -> ContrastTerm:
        """The term; it has no parameters."""
        return ContrastTerm(self.strength, self.temperature)
