"""GPM: steps leave what layers answer to the inputs of earlier tasks as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least, fraction
from lightning_cl.callbacks.gradients.layer_projection import LayerProjection
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.input_grams import input_width
from lightning_cl.nn.subspace import SubspaceMemory


class ProjectedSteps(LayerProjection):
    """The input subspace of every layer."""

    def __init__(self, module: Any, energy: float, growth: float) -> None:
        super().__init__(module)
        self.energy, self.growth = energy, growth

    def new_memory(self, layer: nn.Module) -> SubspaceMemory:
        """An empty basis."""
        return SubspaceMemory(input_width(layer))

    def remember(self, name: str, gram: Tensor) -> None:
        """Add the directions of the task's inputs."""
        share = min(1.0, self.energy + self.growth * self.finished.value)
        self.memory(name).extend_gram(gram, share, crossing=self.finished.value > 0)

    def memory(self, name: str) -> SubspaceMemory:
        """Of a layer."""
        memory = super().memory(name)
        assert isinstance(memory, SubspaceMemory)
        return memory


@dataclass(eq=False)
class GPM(TaskwiseMethod):
    """Gradient projection memory (GPM; Saha et al., ICLR 2021, arXiv:2103.09762).

    At a task's end the strongest directions of every layer's inputs join its basis ``U``, until ``energy + growth * t``
    of the inputs' squared length lies in it (in the first task, as in the official code, the direction that reaches the
    share is left out). Steps become ``dW - dW U U^T``: a step and not a gradient, so that it holds under momentum and
    Adam. After the first task all that has no such inputs (biases, norms, tokens) stays, but for the rows of the head
    whose classes compete. Inputs are those of all of a task's samples on the evaluation transform, where the official
    code takes 125. Works on modules of ``nn.Linear`` and ``nn.Conv2d`` without groups; needs the end of a task; keeps a
    ``(D, D)`` basis for each layer and no sample. Batch norm's running statistics still move: freeze them.

    Args:
        energy: Share of the inputs that the basis holds after the first task, in [0, 1]; 1 leaves hardly any direction.
        growth: Added to it with every task, at least 0; both defaults are the official code's for CIFAR-100.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer whose steps can be projected.
    """

    state_key: ClassVar[str] = "lightning_cl.GPM"
    boundaries: ClassVar[Boundaries] = "taken"
    constrains: ClassVar[bool] = True

    energy: float = fraction(default=0.97)
    growth: float = at_least(0, default=0.003)

    def build(self, pl_module: Any, info: Any) -> ProjectedSteps:
        """An empty basis for every layer."""
        return ProjectedSteps(pl_module, self.energy, self.growth)
