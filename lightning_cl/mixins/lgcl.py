"""Two loss terms that pull a prompt pool's keys and the features towards texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.mixins.batch import unpack
from lightning_cl.mixins.language import from_first_process, learn_new
from lightning_cl.nn.lgcl import TextGuide, guidance, other_classes
from lightning_cl.targets.base import TargetProvider

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task


class LGCLMixin(ContinualMixin):
    """Adds the terms after the user's step; ``configure_continual`` comes first, then :meth:`add_guide`."""

    text_guide: TextGuide

    def add_guide(self, guide: TextGuide, provider: TargetProvider, task_weight: float, class_weight: float) -> None:
        """Guide keys and features.

        Args:
            guide: Registered as the submodule ``text_guide``.
            provider: Gives the vectors of classes and tasks as they arrive.
            task_weight: Weight of the term on the keys.
            class_weight: Weight of the term on the features.
        """
        self.text_guide = guide.to(self.continual_head.weight.device)
        self.__dict__["_guide"] = (provider, task_weight, class_weight)
        self.__dict__["_guided"] = None

    def on_task_start(self, task: Task) -> None:
        """Ask for the texts of the task and of its new classes; of an online stream's classes as they arrive."""
        if task.order == "stream":
            self._describe(task.index, [c for c in task.seen_classes if c not in task.new_classes])
        else:
            provider, known = self.__dict__["_guide"][0], self.continual.info.class_names
            names = [known[c] for c in task.classes]
            learn_new(self, task.new_classes, self.text_guide.known, provider, self.text_guide.add_classes)
            self.text_guide.add_task(task.index, from_first_process(lambda: provider.joint(names)))
            self.__dict__["_guided"] = (task.index, torch.tensor(task.classes))
        super().on_task_start(task)

    def on_exposure(self, classes: tuple[int, ...]) -> None:
        """Ask for the classes that have just arrived; those that are new since the task began describe it."""
        provider = self.__dict__["_guide"][0]
        learn_new(self, classes, self.text_guide.known, provider, self.text_guide.add_classes)
        self._describe(self._stream.task_index, classes)
        super().on_exposure(classes)

    def _describe(self, task: int, exposed: Sequence[int]) -> None:
        """Nobody tells which classes a task of an online stream has: it is what came since it began, or all so far."""
        before = set(self.continual.info.seen_classes(task - 1)) if task else set()
        classes = torch.tensor([c for c in exposed if c not in before] or list(exposed), dtype=torch.long)
        self.__dict__["_guided"] = (task, classes)
        if len(classes):
            self.text_guide.describe_task(task, classes)

    @property
    def _stream(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        """Take the task up again in a resumed run."""
        stream = self._stream
        if stream.online:
            self._describe(stream.task_index, stream.exposed_classes)
        else:
            self.__dict__["_guided"] = (stream.task_index, torch.tensor(stream.task.classes))
        super().on_train_start()

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """The user's step, with what reaches the head kept for the terms."""
        features: list[Tensor] = []
        hook = self.continual_head.register_forward_pre_hook(lambda _, given: features.append(given[0].flatten(1)))
        self.__dict__["_step"] = (features, unpack(batch, self.continual.batch_keys)[1])
        try:
            return super().training_step(batch, *args, **kwargs)
        finally:
            hook.remove()
            self.__dict__["_step"] = None

    def collect_losses(self) -> None:
        """The terms of keys and features."""
        super().collect_losses()
        (_, task_weight, class_weight), (task, classes) = self.__dict__["_guide"], self.__dict__["_guided"]
        features, labels = self.__dict__["_step"]
        guide = self.text_guide
        seed = mix_seed(self._stream.seed, self.trainer.global_step, 0x16C1)
        pool: Any = getattr(self, "prompts", None)
        keys = None if pool is None else pool.used_keys()
        if keys is not None and task_weight:
            away = guide.tasks[seed % task] if task else None
            self.add_loss("lgcl_task", task_weight * guidance(keys, guide.tasks[task], away))
        if features and class_weight:
            other = other_classes(labels, classes, torch.Generator().manual_seed(seed))
            away = None if other is None else guide.classes[other]
            self.add_loss("lgcl_class", class_weight * guidance(features[-1], guide.classes[labels], away))
