"""Feature distillation: the model as it was before the task teaches the features that it gives to its head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from lightning_cl.callbacks.arguments import choice
from lightning_cl.callbacks.distillation.teacher import PreviousModel
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.losses import cosine_distance
from lightning_cl.training import Step

FeatureDistance = Literal["cosine", "euclidean"]


class FeatureTeacher(PreviousModel):
    """Teaches what reached its head."""

    def __init__(self, module: Any, strength: float, distance: FeatureDistance) -> None:
        super().__init__(module, strength)
        self.distance = distance

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``strength * distance(teacher's features, student's features)``, mean over the batch."""
        call = self.asked(step)
        if call is None:
            return {}
        student, teacher = step.features, call.features.detach()
        if self.distance == "cosine":
            term = cosine_distance(student, teacher)
        else:
            term = (student - teacher).square().sum(dim=1).mean()
        return {"features": self.strength * term}


@dataclass(eq=False)
class FeatureDistillation(RegularizedMethod):
    """Feature distillation: the less-forget term of LUCIR (Hou et al., CVPR 2019), alone, or the Euclidean one.

    Adds ``strength * mean_x (1 - cos(f(x), f_old(x)))`` or ``strength * mean_x |f(x) - f_old(x)|^2``: ``f`` is what the
    head is given, ``f_old`` that of the model at the end of the task before, on the same batch in eval mode. LUCIR
    scales its 5 by ``sqrt(old / new classes)``, which this does not. Needs task boundaries and one more forward pass a
    step; keeps one copy of what is trained and no sample. Works on any module with a class head.

    Args:
        strength: Weight of the term, at least 0; with 0 it is plain fine-tuning.
        distance: ``"cosine"`` sees directions only, ``"euclidean"`` lengths, too (less-forgetting learning,
            arXiv:1607.00122).

    Raises:
        ValueError: If a number is out of its range or a choice unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.FeatureDistillation"
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True

    strength: float = 5.0
    distance: FeatureDistance = choice(FeatureDistance, default="cosine")

    def build(self, pl_module: Any, info: Any) -> FeatureTeacher:
        """A copy of the weights that are trained when the method is attached."""
        return FeatureTeacher(pl_module, self.strength, self.distance)
