"""Task-free memory aware synapses: importances are taken when the loss comes to rest, whoever tells of tasks."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.regularization.anchor import QuadraticAnchor
from lightning_cl.callbacks.regularization.mas import sensitivity
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.data_selection import hardest
from lightning_cl.training import Step, TaskData
from lightning_cl.training.global_batch import global_rows
from lightning_cl.training.loss_plateau import LossPlateau, check_window, sample_losses, stream_loss


class PlateauAnchor(QuadraticAnchor):
    """Importances of the hardest samples since the last plateau, averaged over plateaus."""

    positions: Tensor
    hardness: Tensor
    found_at: Tensor

    def __init__(self, module: nn.Module, strength: float, detector: LossPlateau, samples: int) -> None:
        super().__init__(module, 2 * strength)  # its penalty has no factor 1/2
        self.detector, self.plateaus = detector, Counter()
        self.register_buffer("positions", torch.full((samples,), -1))
        self.register_buffer("hardness", torch.full((samples,), -1.0, dtype=torch.float64))
        #: Training batches, from 0, at which the last plateaus were found; -1: fewer plateaus.
        self.register_buffer("found_at", torch.full((_NOTED,), -1))
        self._due = False

    def start_run(self, module: Any) -> None:
        """Check that the detector's window fits into the stream."""
        check_window(self.detector.window, module.trainer.datamodule)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Watch the loss, and keep the hardest samples; no term."""
        if self.strength:
            module = step.module
            values = sample_losses(step)
            index = module.trainer.datamodule.train_rows(module.trainer.fit_loop.batch_idx)
            hardness = global_rows(module, values[:, None])[0][:, 0]
            kept = hardest(self.positions, self.hardness, index.to(self.positions), hardness.to(self.hardness))
            self.positions.copy_(kept[0])
            self.hardness.copy_(kept[1])
            self._due |= self.detector.observe(stream_loss(step, values))
        return {}

    def after_step(self, module: Any, optimizer: Any) -> None:
        """At a plateau average the importance, and move the anchor to the present weights."""
        if self._due:
            self._due = False
            self._consolidate(module)

    @torch.no_grad()
    def _consolidate(self, module: Any) -> None:
        index = self.positions[self.positions >= 0].cpu()
        found = sensitivity(module, TaskData(module, module.trainer.datamodule.task).over(index), "sample")
        self.found_at[self.plateaus.value % _NOTED] = self.detector.seen.value - 1
        self.plateaus.set(self.plateaus.value + 1)
        for name, kept in self.importance.items():
            kept.lerp_(found[name], 1 / self.plateaus.value)
        self.anchor.take({name: weight for name, weight in module.named_parameters() if name in self.anchor.names})
        self.positions.fill_(-1)
        self.hardness.fill_(-1)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Task ends are not used, where somebody tells them."""


#: How many plateaus are noted for the report.
_NOTED = 256


@dataclass(eq=False)
class TaskFreeMAS(RegularizedMethod):
    """Task-free memory aware synapses (Aljundi et al., CVPR 2019, arXiv:1812.03596; thesis arXiv:1910.02718).

    Adds ``strength * sum_k F_k (w_k - a_k)^2`` to the loss, as its gradient, as :class:`MAS` does, but without task
    boundaries: the loss of the stream's samples is watched, and when it has risen above its last plateau and come to
    rest again, ``F`` becomes the average over plateaus of ``mean_x |d |z(x)|^2 / d w|`` on the hardest samples since
    the last one (positions in the training data), and ``a`` the present weights. Works on any module with a class head
    and on streams with and without boundaries; keeps two copies of the trained weights. On a GPU reading the loss makes
    every step wait for the device. It holds weights, not answers: where classes come one after the other, the head
    forgets old ones all the same (handwritten digits in five tasks: 20 %, as without it), so put a memory beside it
    there.

    Args:
        strength: ``lambda``, at least 0; with 0 it is plain fine-tuning.
        window: Losses in the detector's window, at least 2; not longer than the stream.
        mean: A plateau's mean loss is below it, above 0.
        deviation: A plateau's standard deviation is below it, above 0. Window and bounds are chosen here, on
            handwritten digits.
        samples: Hardest samples that are kept, at least 1.

    Raises:
        ValueError: If a number is out of its range; when training starts, if the window is longer than the stream.
    """

    state_key: ClassVar[str] = "lightning_cl.TaskFreeMAS"
    needs_automatic: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"window": 2, "mean": 10.0, "deviation": 10.0, "samples": 4}

    window: int = 20
    mean: float = 0.3
    deviation: float = 0.2
    samples: int = at_least(1, default=100)
    _: KW_ONLY
    train_mask: TrainMask = "seen"
    reset_optimizer: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        LossPlateau(self.window, self.mean, self.deviation)  # checks its numbers

    def build(self, pl_module: Any, info: Any) -> PlateauAnchor:
        """Anchor and importance of the weights that are trained when the method is attached."""
        self._part = PlateauAnchor(
            pl_module, self.strength, LossPlateau(self.window, self.mean, self.deviation), self.samples
        )
        return self._part

    def report_facts(self) -> dict[str, Any]:
        """The training batches at which plateaus were found (the last of them), and what is kept."""
        part = self.__dict__.get("_part")
        if part is None:
            return {}
        positions = int((part.positions >= 0).sum())
        batches = sorted(part.found_at[part.found_at >= 0].tolist())
        stored = {"stored_samples": positions, "stored_bytes": 16 * len(part.positions)}
        kind = "positions in the training data"
        return {"plateaus": part.plateaus.value, "found_at": batches, **stored, "stored_as": kind}
