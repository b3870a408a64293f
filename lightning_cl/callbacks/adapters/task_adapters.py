"""A slot of every bank of adapters for each task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.adapters import Adapters, adapters_beside_mlp, fold_paths, freeze_backbone
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.find_backbone import find_vit


class TaskAdapters(MethodModule):
    """The current task's slot learns, all others stay as they are.

    Args:
        adapters: As many slots as the stream has tasks.
    """

    def __init__(self, adapters: Adapters) -> None:
        super().__init__()
        self.adapters, self.slot, self.finished = adapters, Counter(), Counter()
        after_load(self, "choose_paths")

    def choose_paths(self) -> None:
        """Select the slots that answer, after ``slot`` (of the current task) or ``finished`` (how many are) changed.

        While training the current one; when evaluated all finished ones, as paths of one batch.
        """
        self.adapters.select(self.slot.value, evaluated=range(self.finished.value) if self.finished.value else None)

    def start_task(self, module: Any, task: Any) -> None:
        """The next slot learns."""
        self.slot.set(task.index)
        self.choose_paths()

    def end_task(self, module: Any, data: TaskData) -> None:
        """Note that the slot is finished."""
        self.finished.set(data.task.index + 1)
        self.choose_paths()

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All slots but that of the current task."""
        return self.adapters.protected((self.slot.value,))


class SummedAdapters(TaskAdapters):
    """The slots of all tasks so far are added up, in every group of adapters; that of the current task learns."""

    @property
    def groups(self) -> list[Adapters]:
        """All adapters of this method."""
        return [part for part in self.modules() if isinstance(part, Adapters)]

    def choose_paths(self) -> None:
        """All slots so far answer; the last learns."""
        for adapters in self.groups:
            adapters.select(range(self.slot.value + 1))
            adapters.learn(self.slot.value)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All slots but that of the current task."""
        return (pair for adapters in self.groups for pair in adapters.protected((self.slot.value,)))


@dataclass(eq=False)
class PerTaskMethod(TaskwiseMethod):
    """A method with adapters for each task in a frozen ViT.

    Args:
        rank: Hidden size of an adapter, at least 1.
        backbone: Dotted path of the ViT; found when ``None``.

    Raises:
        ValueError: If ``rank`` is below 1.
    """

    works_on: ClassVar[str] = "timm VisionTransformer"
    adapts_backbone: ClassVar[bool] = True

    rank: int = at_least(1, default=64)
    _: KW_ONLY
    backbone: str | None = None


def folded_adapters(pl_module: Any, method: Any, slots: int) -> Adapters:
    """Freeze the ViT of a module and put adapters beside the MLP of every block, all of which can answer in one batch.

    Args:
        pl_module: The LightningModule.
        method: With ``backbone``, ``rank``, ``scale`` and ``dropout``.
        slots: Tasks.
    """
    _, vit = find_vit(pl_module, method.backbone)
    adapters = adapters_beside_mlp(vit, slots, method.rank, method.scale, method.dropout)
    freeze_backbone(vit)
    fold_paths(vit, adapters)
    return adapters
