"""SD-LoRA: each task learns a direction of low rank, and anew how far to go along those of all earlier tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_cl.callbacks.adapters.inflora import QKV
from lightning_cl.callbacks.adapters.task_adapters import PerTaskMethod, SummedAdapters
from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.adapters import Adapters, ScaledLoRA, freeze_backbone, inject
from lightning_cl.training.find_backbone import find_vit


class DirectionsAndMagnitudes(SummedAdapters):
    """The slots of all tasks added up; the last learns its direction, and all their magnitudes."""

    def __init__(self, queries: Adapters, values: Adapters, reset: float | None) -> None:
        super().__init__(queries)
        self.values, self.reset = values, reset

    def start_task(self, module: Any, task: Any) -> None:
        """The direction of the task before gets unit length."""
        super().start_task(module, task)
        for bank in (*self.adapters, *self.values):
            assert isinstance(bank, ScaledLoRA)
            if task.index:
                bank.normalize(task.index - 1, self.reset)


@dataclass(eq=False)
class SDLoRA(PerTaskMethod):
    """Scalable decoupled low-rank adaptation (SD-LoRA; Wu et al., ICLR 2025, arXiv:2501.13198).

    Queries and values of every attention become ``(W + a_t B_t A_t + sum_{i<t} a_i B_i A_i / (|B_i| |A_i|)) x``: the
    directions of earlier tasks are fixed at Frobenius length 1, the magnitudes of all tasks learn. When a direction is
    scaled to length 1 its magnitude becomes ``a_i |B_i| |A_i|``, so that nothing changes at the boundary; the released
    code sets it to 0.8 instead (``reset_magnitudes``), and has one magnitude a task for all layers, where here each
    layer has its own, as in the paper's formula. Defaults are those of the released code (SGD with momentum, 8e-3, 20
    epochs). Needs the start of a task; keeps one slot a task and no sample; ``2 T rank`` rows more in a step. Works on
    timm ViTs with a fused ``qkv``.

    Args:
        rank: Rows of ``A``, at least 1.
        magnitude: At the start, above 0.
        reset_magnitudes: Set the magnitudes of earlier tasks to ``magnitude`` at every task start.

    Raises:
        ValueError: If a number is out of its range; when attached, without a ViT whose attention can be adapted.
    """

    state_key: ClassVar[str] = "lightning_cl.SDLoRA"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    small: ClassVar[dict[str, Any]] = {"rank": 2}

    rank: int = 10
    magnitude: float = above(0, default=0.8)
    reset_magnitudes: bool = False

    def build(self, pl_module: Any, info: Any) -> DirectionsAndMagnitudes:
        """Freeze the ViT and put low-rank updates at the queries and values of every block."""
        _, vit = find_vit(pl_module, self.backbone)
        width = vit.embed_dim

        def at(start: int) -> Adapters:
            def make(layer: nn.Module) -> ScaledLoRA:
                return ScaledLoRA(info.num_tasks, width, width, self.rank, self.magnitude, start)

            return inject(vit, make, at=QKV, site=f"sdlora{start}")

        queries, values = at(0), at(2 * width)
        freeze_backbone(vit)
        return DirectionsAndMagnitudes(queries, values, self.magnitude if self.reset_magnitudes else None)
