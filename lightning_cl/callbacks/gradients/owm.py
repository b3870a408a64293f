"""OWM: steps are shortened along the inputs of earlier tasks, the more the stronger these are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.gradients.layer_projection import LayerProjection
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.input_grams import input_width
from lightning_cl.nn.soft_projection import SoftProjection
from lightning_cl.training import TaskData


class SoftlyProjectedSteps(LayerProjection):
    """The projector of every layer."""

    def __init__(self, module: Any, alpha: float) -> None:
        super().__init__(module)
        self.alpha = alpha

    def new_memory(self, layer: nn.Module) -> SoftProjection:
        """A projector that changes nothing."""
        return SoftProjection(input_width(layer))

    def remember(self, name: str, gram: Tensor) -> None:
        """Count the task's inputs."""
        memory = self.memory(name)
        assert isinstance(memory, SoftProjection)
        memory.extend_gram(gram, self.alpha)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Remember the task's inputs, unless no step is to be changed."""
        if self.alpha != float("inf"):
            super().end_task(module, data)


@dataclass(eq=False)
class OWM(TaskwiseMethod):
    """Orthogonal weight modification, style (after OWM; Zeng et al., Nat. Mach. Intell. 2019, arXiv:1810.01256).

    Steps of every linear layer and convolution but the head become ``dW P`` with ``P = (I + sum_t C_t / alpha)^-1``,
    ``C_t`` the second moments of the layer's inputs in an earlier task, scaled to a mean of 1 on the diagonal. ``P`` is
    that of the paper's recursion; in this style and not a reproduction, since the recursion is fed with all inputs of a
    task at its end, on the evaluation transform, instead of the means of training batches, and since it is the step
    that is projected, so that it holds under momentum and Adam. After the first task all that has no such inputs
    (biases, norms, tokens) stays, but for the rows of the head whose classes compete. Works on modules of ``nn.Linear``
    and ``nn.Conv2d`` without groups; needs the end of a task; keeps two ``(D, D)`` matrices for each layer and no
    sample. Batch norm's running statistics still move: freeze them.

    Args:
        alpha: Above 0; a direction with ``c`` times the mean strength of the inputs keeps ``1 / (1 + c / alpha)`` of a
            step. Infinity is plain fine-tuning. The default is of our own, the best of 0.001, 0.03 and 0.3 on digits.

    Raises:
        ValueError: If ``alpha`` is out of its range; when attached, without a layer whose steps can be projected.
    """

    state_key: ClassVar[str] = "lightning_cl.OWM"
    boundaries: ClassVar[Boundaries] = "taken"
    constrains: ClassVar[bool] = True

    alpha: float = above(0, default=0.3)

    def build(self, pl_module: Any, info: Any) -> SoftlyProjectedSteps:
        """A projector for every layer."""
        return SoftlyProjectedSteps(pl_module, self.alpha)
