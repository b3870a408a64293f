"""SCR: stream and memory are told apart by contrast, and the nearest mean of the memory answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.replay.experience_replay import OwnBatchReplay, ReplayStore
from lightning_cl.callbacks.view_arguments import ViewArguments
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.heads import PrototypeHead
from lightning_cl.nn.losses import supervised_contrastive
from lightning_cl.nn.precision import wide
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.contrast import View, learn_features
from lightning_cl.training.global_batch import drawn_batch, global_batch, term_of_all


class ContrastiveReplay(MethodModule):
    """A projection that the loss compares, and the means of the memory's features, which answer."""

    makes_logits = True
    loss_factor = 0.0

    def __init__(self, num_classes: int, features: int, width: int, temperature: float, view: View) -> None:
        super().__init__()
        self.temperature, self.view = temperature, view
        self.project = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width))
        self.means, self.outdated = PrototypeHead(num_classes, features, "cosine"), Counter()

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Cosines with the means; while a step is made, the head's own logits, of which nothing is learned."""
        if module.training:
            return logits
        answer: Tensor = self.means(features)
        return answer.to(logits.dtype)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The supervised contrastive loss of stream and memory, in two views each."""
        module, drawn = step.module, step.module.draw()
        groups = [self.view.of_stream(step, 0x5C)]
        if drawn is not None:
            groups += [drawn.inputs, self.view.of_drawn(module, drawn, 0x5CD)]
        first, *others = (wide(self.project(f)) for f in (step.features, *learn_features(step, groups)))
        rows, labels, _ = global_batch(module, torch.cat([first, others[0]], 1), step.targets)
        pairs = [(rows, labels)]
        if drawn is not None:
            pairs.append(drawn_batch(module, drawn, torch.cat(others[1:], 1)))
        views = torch.cat([rows for rows, _ in pairs]).chunk(2, 1)
        labels = torch.cat([labels.long() for _, labels in pairs])
        term = supervised_contrastive(torch.cat(views), labels.repeat(2), self.temperature)
        self.outdated.set(1)
        return {"scr": term_of_all(module, term)}

    def start_evaluation(self, module: Any) -> None:
        """Take the means anew, if a step was made since."""
        if self.outdated.value:
            self._take_means(TaskData(module, module.trainer.datamodule.task))

    def end_task(self, module: Any, data: TaskData) -> None:
        """Take the means anew."""
        self._take_means(data)

    def _take_means(self, data: TaskData) -> None:
        buffer = data.module.continual.memory.buffer
        self.means.reset()
        if len(buffer):
            features, labels, _ = data.over(buffer.read(buffer.used)).all_features()
            self.means.update(features, labels)
        self.outdated.set(0)


@dataclass(eq=False)
class SCR(OwnBatchReplay, ViewArguments):
    """Supervised contrastive replay (SCR; Mai et al., CVPR workshops 2021, arXiv:2103.13885).

    In place of the user's loss, the supervised contrastive loss on a projection (two layers) of the features of a batch
    of the stream and one of the memory, each with a second view; what ``training_step`` returns is multiplied by 0.
    The nearest mean answers: of the unit features (before the projection) of all samples in the memory, by the highest
    cosine. Means are taken anew before every evaluation of :class:`AnytimeEvaluation` and when a task ends, by a pass
    over the memory, whose positions are kept. Other than in the paper the first batches, which come before anything is
    remembered, are learned, too, and second views change contrast and brightness, but not saturation and hue. Needs no
    task boundary; works on any module with a class head (inputs that are no images have no second view but their
    repetition). A step makes one more forward pass, over as many samples as the stream's batch and twice the memory's.

    Args:
        memory_size: Slots of the memory, at least one a class.
        batch_size: Samples of the batch from the memory, over all processes; the paper's is 100.
        temperature: Above 0. The paper's code has 0.07.
        width: Of what is compared, at least 1.
        policy: See :class:`ExperienceReplay`; the paper's is ``"reservoir"``.
        train_mask: Of no effect.

    Raises:
        ValueError: As :class:`ExperienceReplay`, for a number out of its range, and, when attached, for a memory
            smaller than the number of classes.
    """

    state_key: ClassVar[str] = "lightning_cl.SCR"
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    one_pass: ClassVar[bool] = True
    needs_every_class: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5, "width": 6}
    store: ClassVar[ReplayStore] = "index"  # type: ignore[misc]
    device: ClassVar[None] = None  # type: ignore[misc]

    batch_size: int = 100
    temperature: float = above(0, default=0.07)
    width: int = at_least(1, default=128)

    def build(self, pl_module: Any, info: Any) -> ContrastiveReplay:
        """A projection with random weights, and means of nothing yet."""
        features = pl_module.continual_head.in_features
        return ContrastiveReplay(info.num_classes, features, self.width, self.temperature, self.view)
