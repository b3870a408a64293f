"""iCaRL: exemplars chosen by herding, a binary loss with a teacher, and the nearest mean of exemplars."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_cl.callbacks.distillation.lwf_mc import SigmoidTeacher
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay, ReplayStore
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.heads import PrototypeHead
from lightning_cl.nn.replay import Herding
from lightning_cl.training import TaskData
from lightning_cl.training.memory import Memory


class NearestExemplarMean(SigmoidTeacher):
    """Exemplars, and their means in the features of the present model."""

    makes_logits = True

    def __init__(self, module: Any, num_classes: int, width: int) -> None:
        super().__init__(module)
        self.means, self.finished = PrototypeHead(num_classes, width, "cosine"), Counter()

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Cosines with the means between tasks; the head's own logits while a task is trained."""
        if module.training or not self.finished.value:
            return logits
        answer: Tensor = self.means(features)
        return answer.to(logits.dtype)

    def start_task(self, module: Any, task: Any) -> None:
        """The means are of features that are about to change."""
        self.finished.set(0)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Choose exemplars of the task's classes, and take the means of all exemplars anew."""
        super().end_task(module, data)
        memory = module.continual.memory
        choose_exemplars(memory, data)
        self.means.reset()
        features, labels, _ = data.over(memory.buffer.read(memory.buffer.used)).all_features()
        self.means.update(features, labels)
        self.finished.set(1)


def choose_exemplars(memory: Memory, data: TaskData) -> None:
    """Let a memory of positions take from all samples of a task those that its policy chooses by their features."""
    features, labels, positions = data.all_features()
    rows, slots = memory.buffer.place(labels, features)
    memory.buffer.write(slots, positions.cpu()[rows])


@dataclass(eq=False)
class ICaRL(ExperienceReplay):
    """Incremental classifier and representation learning (iCaRL; Rebuffi et al., CVPR 2017, arXiv:1611.07725).

    Trains as :class:`LwFMC` does, with exemplars joined to every batch: binary cross-entropy over the classes seen, in
    place of the user's loss, in which the model at the end of the task before gives the targets of old classes. At a
    task's end ``memory_size // classes seen`` exemplars of each class are chosen by herding on features of unit length
    in eval mode (old lists are cut), and a class becomes the mean of its exemplars' unit features under the present
    model; the nearest mean is the answer (the highest cosine). While a task is trained, an evaluation is answered by
    the head. Needs task boundaries and one more forward pass a step, and a pass over task and memory at a task's end;
    positions of exemplars are kept, and images read anew. Works on any module with a class head. Published numbers of
    code that takes the means over all past samples (Mammoth's for CIFAR-100) are not limited by a memory.

    Args:
        memory_size: Exemplars of all classes together, at least one a class; the paper's for CIFAR-100 is 2000.
        batch_size: Exemplars in every training batch, over all processes. The paper mixes them into the epoch.
        train_mask: Which classes are in the mean of the loss: those ``"seen"``, as in the paper, or ``"all"``.

    Raises:
        ValueError: As :class:`ExperienceReplay`; in ``setup``, on an online stream; when attached, for a memory smaller
            than the number of classes.
    """

    state_key: ClassVar[str] = "lightning_cl.ICaRL"
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[Any] = ("chooses its exemplars", "`ExperienceReplay`, which chooses in every step")
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    remembers_batches: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"memory_size": 12, "batch_size": 5}

    policy: ClassVar[Any] = "herding"  # type: ignore[misc]
    store: ClassVar[ReplayStore] = "index"  # type: ignore[misc]
    device: ClassVar[None] = None  # type: ignore[misc]
    _: KW_ONLY
    reset_optimizer: bool = True

    def _policy(self, num_classes: int) -> Herding:
        if self.memory_size < num_classes:
            raise ValueError(
                f"ICaRL keeps an exemplar of each of the {num_classes} classes at least, but `memory_size` is "
                f"{self.memory_size}; give at least {num_classes}."
            )
        return Herding()

    def build(self, pl_module: Any, info: Any) -> NearestExemplarMean:
        """A copy of the weights that are trained when the method is attached, and the means."""
        return NearestExemplarMean(pl_module, info.num_classes, pl_module.continual_head.in_features)
