"""MultiLane: a light lane of a few tokens for each task beside a frozen ViT, also where samples have several labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least, choice
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.lanes import Lanes, install_lanes
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.training import MethodModule
from lightning_cl.training.find_backbone import find_vit

#: Over which columns the mean of the loss is taken.
Reduction = Literal["all", "task"]


class TaskLanes(MethodModule):
    """The current task's lane learns; a class answers from the lane of its task.

    Args:
        lanes: As many as the stream has tasks.
        num_classes: Columns, ``C``.
        by_task: Make a mean over ``C`` columns one over those of the task.
    """

    growing = ("lane_of",)
    lane_of: Tensor

    def __init__(self, lanes: Lanes, num_classes: int, by_task: bool) -> None:
        super().__init__()
        self.lanes, self.by_task = lanes, by_task
        self.task, self.known, self.columns = Counter(), Counter(1), Counter(1)
        self.register_buffer("lane_of", torch.zeros(num_classes, dtype=torch.long))
        after_load(self, "choose")

    @property
    def loss_factor(self) -> float:  # type: ignore[override]
        """``C / C_t``, or 1."""
        return len(self.lane_of) / self.columns.value if self.by_task else 1.0

    def choose(self) -> None:
        """The current lane runs while training; all so far when evaluated."""
        self.lanes.select(self.task.value, self.known.value)

    def start_task(self, module: Any, task: Any) -> None:
        """The new lane begins as the last one ended, and answers for the task's classes."""
        if task.index:
            self.lanes.copy_task(task.index - 1, task.index)
        self.task.set(task.index)
        self.known.set(task.index + 1)
        self.columns.set(len(task.classes))
        self.lane_of[list(task.classes)] = task.index
        self.choose()

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Each column from its lane."""
        if len(self.lanes.active) == 1:
            return logits
        each: Tensor = logits.unflatten(0, (len(self.lanes.active), -1))[..., : len(self.lane_of)]  # (T, B, C)
        index = self.lane_of.expand(1, each.shape[1], -1)
        return each.gather(0, index)[0]

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All lanes but the current one."""
        return (all_rows_but(p, self.task.value) for p in self.lanes.parameters() if p.numel())


@dataclass(eq=False)
class MultiLane(ContinualMethod):
    """A lane of summary tokens for each task (MULTI-LANE; De Min et al., CoLLAs 2024, arXiv:2405.15633).

    The image's tokens pass a frozen ViT once, without gradient. Beside them runs a lane ``[cls; s_1 .. s_S]`` for each
    task: in a block each selector ``s`` becomes a sum of the image's tokens with the weights
    ``softmax(s . x_n / sqrt D)``; the class token attends to these and itself, with ``prompts`` learned key and value
    rows in the first ``blocks`` blocks; its row is kept, and the selectors' rows are what they were. The head reads the
    lane's class token at unit length. While training, the current task's lane and its classes alone take part; when
    evaluated all lanes run, and a class answers from the lane of its task, so that no task has to be chosen for a
    sample, which may have several labels. Old lanes and old rows of the head stay, so old classes keep their logits.

    With several labels train with ``binary_cross_entropy_with_logits``, as ``MultiLabelClassifier`` does, on a
    ``MultiLabelSource``, whose targets are 0 for classes of other tasks; the logits of these are masked and add
    nothing, where the released code adds the constant ``log 2`` for each. Defaults are those for COCO (Adam without
    decay, 0.03 * batch / 256, a fresh cosine a task, 30 epochs). Needs the start of a task; keeps
    ``(selectors + 2 blocks prompts) D`` numbers a task and no sample; a step costs a forward pass of the ViT and a
    small lane's, an evaluated image one more lane a task. Works on timm ViTs with a class token.

    Args:
        selectors: ``S``, at least 0.
        prompts: Key and value rows in a block, at least 0.
        blocks: First blocks that get them, at least 0; at most all.
        multi_label: Samples have several labels; ``False``: they have one.
        reduction: ``"all"``: the user's loss as it is, a mean over all columns, with which a task's gradient is the
            smaller the more classes there are, as released; ``"task"``: times ``C / C_t``.
        backbone: Dotted path of the ViT; found when ``None``.

    Raises:
        ValueError: If a number is out of its range or ``reduction`` unknown; when attached, without a ViT with a class
            token; in ``setup``, if the source's samples have one label and not several, or the reverse.
    """

    state_key: ClassVar[str] = "lightning_cl.MultiLane"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    adapts_backbone: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    works_on: ClassVar[str] = "timm VisionTransformer"
    small: ClassVar[dict[str, Any]] = {"selectors": 2, "prompts": 2, "blocks": 2, "multi_label": False}

    selectors: int = at_least(0, default=20)
    prompts: int = at_least(0, default=20)
    blocks: int = at_least(0, default=5)
    multi_label: bool = True
    reduction: Reduction = choice(Reduction, default="all")
    _: KW_ONLY
    backbone: str | None = None
    train_mask: TrainMask = "task"
    reset_optimizer: bool = True

    @property
    def several_labels(self) -> bool:
        """As it is set up."""
        return self.multi_label

    def build(self, pl_module: Any, info: Any) -> TaskLanes:
        """Freeze the ViT and let lanes run beside it."""
        _, vit = find_vit(pl_module, self.backbone)
        sizes = self.selectors, self.prompts, min(self.blocks, len(vit.blocks))
        lanes = Lanes(info.num_tasks, vit.embed_dim, *sizes).to(vit.cls_token)
        install_lanes(vit, lanes)
        return TaskLanes(lanes, info.num_classes, self.reduction == "task")
