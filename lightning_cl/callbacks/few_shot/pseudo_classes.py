"""Pseudo-classes in the base session: turned images are classes of their own, which keep room for novel ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.few_shot.base_term import BaseTerm, BaseTermMethod, with_images
from lightning_cl.nn.heads import cosine_logits
from lightning_cl.training import Step


class PseudoClassTerm(BaseTerm):
    """A row for the turned images of every class."""

    name = "pseudo_classes"
    growing = ("rows",)

    def __init__(self, module: Any, num_classes: int, strength: float, scale: float) -> None:
        super().__init__(strength)
        head = module.continual_head
        self.scale, self.rows = scale, nn.Parameter(torch.randn(num_classes, head.in_features, dtype=head.weight.dtype))

    def term(self, step: Step) -> Tensor:
        """Cross-entropy over classes and pseudo-classes of a batch and of the same batch turned by a quarter."""
        targets = step.targets
        given = (step.inputs, with_images(step.inputs, lambda images: torch.rot90(images, 1, (2, 3)), "PseudoClasses"))
        passes = [step.learn(inputs) for inputs in given]
        answers = torch.cat([answers for answers, _ in passes])
        features = torch.cat([call.features for _, call in passes]).to(self.rows.dtype)
        pseudo = cosine_logits(features, self.rows, self.scale)
        present = torch.zeros(len(self.rows), dtype=torch.bool)
        present[list(step.task.seen_classes)] = True
        pseudo = pseudo.masked_fill(~present.to(pseudo.device, non_blocking=True), -torch.inf)
        wanted = torch.cat([targets, targets + answers.shape[1]])
        return F.cross_entropy(torch.cat([answers, pseudo.to(answers.dtype)], dim=1), wanted)


@dataclass(eq=False)
class PseudoClasses(BaseTermMethod):
    """Trick of few-shot learning: pseudo-classes that reserve room for novel ones, style (after arXiv:2403.14392).

    Adds ``strength`` times the cross-entropy over the classes and as many pseudo-classes, of a batch and of its images
    turned by a quarter, which are their own pseudo-class; in the base session, the first task. Afterwards it does
    nothing, and pseudo-classes are never among the answers. Their logits are cosines with rows that are learned, those
    of the classes are the method's beside it, such as :class:`TEEN`. The paper's code is not public: the transform
    and the weight are our reading. Works on images of equal height and width; a step of the base session makes two more
    forward passes.

    Args:
        scale: Of the cosines, above 0; that of the classes' logits.

    Raises:
        ValueError: If a number is out of its range; in ``setup``, on a stream without a base session; in the first
            step, if inputs are no square images.
    """

    state_key: ClassVar[str] = "lightning_cl.PseudoClasses"
    needs_images: ClassVar[bool] = True

    scale: float = above(0, default=16.0)

    def build(self, pl_module: Any, info: Any) -> PseudoClassTerm:
        """Rows of the pseudo-classes."""
        return PseudoClassTerm(pl_module, info.num_classes, self.strength, self.scale)
