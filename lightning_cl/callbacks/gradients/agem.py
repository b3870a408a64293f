"""A-GEM: no step goes against the mean gradient of remembered samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_cl.callbacks.gradients.references import MemoryGradients
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.nn.gradients import project_on_reference
from lightning_cl.training.memory_steps import memory_gradient


class AveragedGradient(MemoryGradients):
    """One reference: a random batch of earlier tasks."""

    def projected(self, module: Any, gradient: Tensor, weights: list[Tensor], past: Tensor) -> Tensor:
        """``g - min(g r, 0) / (r r) r``."""
        size = module.continual.memory.batch_size
        slots = module.continual.memory.buffer.draw(size, among=past)
        return project_on_reference(gradient, memory_gradient(module, slots, weights, size))


@dataclass(eq=False)
class AGEM(ExperienceReplay):
    """Averaged gradient episodic memory (A-GEM; Chaudhry et al., ICLR 2019, arXiv:1812.00420).

    ``r`` is the gradient of the cross-entropy on a random batch of remembered samples of earlier tasks; where
    ``g r < 0``, the step's gradient becomes ``g - (g r) / (r r) r``, else it stays bit for bit. Remembered samples are
    not trained on. Works on any module with a class head; needs a memory and, to know what is earlier, task boundaries:
    in a stream without them all of the memory is. A step makes one more forward and backward pass.

    Args:
        batch_size: Samples of the reference batch, over all processes; fewer while the memory fills.

    Raises:
        ValueError: As :class:`ExperienceReplay`.
    """

    state_key: ClassVar[str] = "lightning_cl.AGEM"
    joins: ClassVar[bool] = False
    bytes_kept: ClassVar[int] = 8  # the task's number
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5}

    def build(self, pl_module: Any, info: Any) -> AveragedGradient:
        """The projection; it has no parameters."""
        return AveragedGradient()
