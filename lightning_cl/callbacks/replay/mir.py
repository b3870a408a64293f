"""MIR: of the memory those samples come again whose loss the coming step would raise most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.replay.experience_replay import OwnBatchReplay
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.gradients import flat_or_zero
from lightning_cl.nn.precision import wide
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule, Step


class InterferedReplay(MethodModule):
    """A batch of the memory, chosen by what a step on the stream's batch alone would do."""

    def __init__(self, batch_size: int, candidates: int, lr: float | None) -> None:
        super().__init__()
        self.batch_size, self.candidates, self.lr = batch_size, candidates, lr

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``CE(z, y)`` on the chosen samples."""
        module = step.module
        slots = module.continual.memory.buffer.draw(self.candidates)
        if not len(slots):
            return {}
        if len(slots) > self.batch_size:
            slots = slots[self.interference(step, slots).topk(self.batch_size).indices.cpu()]
        drawn = module.read(slots)
        answers, _ = step.learn(drawn.inputs)
        return {"mir_memory": drawn.weight * F.cross_entropy(answers, drawn.labels)}

    def interference(self, step: Step, slots: Tensor) -> Tensor:
        """``(n,)`` by how much the loss of each candidate grows, in eval mode; the same on all processes."""
        module = step.module
        drawn, virtual = module.read(slots), self.virtual_weights(step)
        growth = sum(
            sign * F.cross_entropy(wide(module.continual.mask(call.raw_logits)), drawn.labels, reduction="none")
            for sign, call in ((1, step.look(drawn.inputs, virtual)), (-1, step.look(drawn.inputs)))
        )
        assert isinstance(growth, Tensor)
        scores = growth.new_zeros(len(slots))
        scores[drawn.start : drawn.start + drawn.real] = growth[: drawn.real]
        return all_sum(scores)

    def virtual_weights(self, step: Step) -> dict[str, Tensor]:
        """``w - lr * g`` with the gradient of the stream's batch over all processes."""
        module, weights = step.module, trained(step.module)
        trainer = module.trainer
        loss = F.cross_entropy(wide(module.continual.mask(step.raw_logits)), step.targets)
        found = torch.autograd.grad(loss, list(weights.values()), retain_graph=True, allow_unused=True)
        share = trainer.datamodule.train_weight(trainer.fit_loop.batch_idx) / trainer.world_size
        gradient = all_sum(share * flat_or_zero(found, weights.values()))
        moved = (self.lr or trainer.optimizers[0].param_groups[0]["lr"]) * gradient
        parts = moved.split([weight.numel() for weight in weights.values()])
        return {
            name: weight.detach() - part.view_as(weight)
            for (name, weight), part in zip(weights.items(), parts, strict=True)
        }


@dataclass(eq=False)
class MIR(OwnBatchReplay):
    """Maximally interfered retrieval (MIR; Aljundi et al., NeurIPS 2019, arXiv:1908.04742).

    In every step ``candidates`` samples are drawn from the memory, and the ``batch_size`` of them with the largest
    ``l(x; w - lr g) - l(x; w)`` are learned beside the stream's batch, whose gradient is ``g``: those that a step on
    the stream alone would harm most. Both losses are cross-entropies over the classes that compete, in eval mode (the
    official code's are in training mode). Needs no task boundary; works on any module with a class head. A step makes
    two passes over the candidates without gradient, one over the chosen ones with, and one more backward pass.

    Args:
        batch_size: Samples that are chosen, over all processes; the paper's is 10.
        candidates: Of how many, at least ``batch_size``; fewer while the memory fills. The paper's is 50. With
            ``batch_size`` it is plain replay.
        lr: Of the step that is only tried, above 0; ``None``: that of the optimiser's first group. Plain gradient
            descent makes it, whatever the optimiser is, so beside Adam a larger one tells more.
        policy: See :class:`ExperienceReplay`; the paper's is ``"reservoir"``.

    Raises:
        ValueError: As :class:`ExperienceReplay`, for a rate that is not above 0, or for fewer candidates than are
            chosen.
    """

    state_key: ClassVar[str] = "lightning_cl.MIR"
    adds_loss: ClassVar[bool] = True
    one_pass: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 4, "candidates": 7, "lr": 0.1}

    batch_size: int = 10
    candidates: int = 50
    lr: float | None = above(0, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < self.batch_size:
            raise ValueError(
                f"`candidates` is {self.candidates}, of which {self.batch_size} are chosen; give at least `batch_size`."
            )

    def build(self, pl_module: Any, info: Any) -> InterferedReplay:
        """The term of the memory; it has no parameters."""
        return InterferedReplay(self.batch_size, self.candidates, self.lr)
