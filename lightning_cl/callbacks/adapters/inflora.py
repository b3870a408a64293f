"""InfLoRA: low-rank updates whose input directions are chosen before a task, out of the way of earlier tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_cl.callbacks.adapters.task_adapters import PerTaskMethod, SummedAdapters
from lightning_cl.callbacks.arguments import fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.adapters import Adapters, FixedDownLoRA, freeze_backbone, inject
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.subspace import SubspaceMemory
from lightning_cl.training import TaskData
from lightning_cl.training.find_backbone import find_vit
from lightning_cl.training.task_grams import task_grams

#: The fused query, key and value projection of timm's attention.
QKV = r"blocks\.\d+\.attn\.qkv"


class InterferenceFree(SummedAdapters):
    """The slots of all tasks added up, and the input subspaces of the finished ones."""

    def __init__(self, vit: Any, adapters: Adapters, method: InfLoRA, num_tasks: int) -> None:
        super().__init__(adapters)
        self.method, self.num_tasks = method, num_tasks
        self.layers = tuple(block.attn.qkv for block in vit.blocks)  # not in this module, but read by it
        self.memories = nn.ModuleList(SubspaceMemory(vit.embed_dim) for _ in vit.blocks)

    def start_task(self, module: Any, task: Any) -> None:
        """Choose the input directions of the new slot from the task's data."""
        grams = self._grams(module, TaskData(module, task))
        super().start_task(module, task)
        for bank, memory, gram in zip(self.adapters, self.memories, grams, strict=True):
            assert isinstance(bank, FixedDownLoRA)
            assert isinstance(memory, SubspaceMemory)
            bank.down[self.slot.value] = memory.new_directions(gram @ gram, self.method.rank).T / 3**0.5
            send_from_first_process([bank.down])

    def end_task(self, module: Any, data: TaskData) -> None:
        """Add the directions of the task's inputs to the subspaces."""
        method, first = self.method, not self.finished.value
        share = method.energy + (method.last_energy - method.energy) * data.task.index / self.num_tasks
        for memory, gram in zip(self.memories, self._grams(module, data), strict=True):
            assert isinstance(memory, SubspaceMemory)
            found = memory.extend_gram(gram @ gram, share, crossing=not first)
            if first and not found:
                memory.extend_gram(gram @ gram, share, crossing=True)  # at least one direction
        super().end_task(module, data)

    def _grams(self, module: Any, data: TaskData) -> list[Tensor]:
        """``(D, D)`` ``sum x x^T / sum |x|^2`` of every attention's inputs over the task's samples."""
        layers = {str(index): layer for index, layer in enumerate(self.layers)}
        grams = task_grams(module, data, layers).values()
        return [gram / gram.trace().clamp_min(1e-300) for gram in grams]


@dataclass(eq=False)
class InfLoRA(PerTaskMethod):
    """Interference-free low-rank adaptation (InfLoRA; Liang & Li, CVPR 2024, arXiv:2404.00228).

    Keys and values of every attention become ``(W + sum_i B_i A_i) x``. Before a task a pass over its data gives
    ``C = sum x x^T``; the rows of ``A_t`` are the ``rank`` strongest directions of ``C - M M^T C``, over ``sqrt 3``,
    and fixed; only ``B_t`` (zero at first) and the head learn. At its end the strongest directions of ``C`` join ``M``
    until its share of ``|C|^2`` is ``energy + (last_energy - energy) t / T``. Inputs of earlier tasks, as far as ``M``
    holds them, are answered as before. The official code keeps the complement of a large ``M``, which is the same
    subspace. Defaults are its own for CIFAR-100 (Adam, 5e-4, 20 epochs). Needs the start and the end of a task, with a
    pass over its data at both; keeps ``(D, D)`` numbers a block and one slot a task, no sample; ``T * rank`` rows more
    in a step. Works on timm ViTs with a fused ``qkv``.

    Args:
        rank: Rows of ``A``, at least 1.
        energy: Share of the inputs that ``M`` is to hold after the first task, in [0, 1].
        last_energy: What the share goes to with the tasks, in [0, 1].

    Raises:
        ValueError: If a number is out of its range; when attached, without a ViT whose attention can be adapted.
    """

    state_key: ClassVar[str] = "lightning_cl.InfLoRA"
    boundaries: ClassVar[Boundaries] = "taken"
    small: ClassVar[dict[str, Any]] = {"rank": 2}

    rank: int = 10
    energy: float = fraction(default=0.95)
    last_energy: float = fraction(default=1.0)

    def build(self, pl_module: Any, info: Any) -> InterferenceFree:
        """Freeze the ViT and put low-rank updates at the keys and values of every block."""
        _, vit = find_vit(pl_module, self.backbone)
        width = vit.embed_dim

        def make(layer: nn.Module) -> FixedDownLoRA:
            return FixedDownLoRA(info.num_tasks, width, 2 * width, self.rank, start=width)

        adapters = inject(vit, make, at=QKV, site="inflora")
        freeze_backbone(vit)
        return InterferenceFree(vit, adapters, self, info.num_tasks)
