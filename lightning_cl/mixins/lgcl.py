"""Two loss terms that pull a prompt pool's keys and the features towards texts."""

from __future__ import annotations

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
        """Ask for the texts of the task and of its new classes."""
        if task.order == "stream":
            raise ValueError(
                "LGCL describes each task by the names of its classes, which nobody knows when a task of an online "
                "stream begins; use `LanguageGuidedHead`, which names classes as they arrive."
            )
        provider, known = self.__dict__["_guide"][0], self.continual.info.class_names
        names = [known[c] for c in task.classes]
        learn_new(self, task.new_classes, self.text_guide.known, provider, self.text_guide.add_classes)
        self.text_guide.add_task(task.index, from_first_process(lambda: provider.joint(names)))
        self.__dict__["_guided"] = (task.index, torch.tensor(task.classes))
        super().on_task_start(task)

    def on_train_start(self) -> None:
        """Take the task up again in a resumed run."""
        task: Any = self.trainer.datamodule.task  # type: ignore[attr-defined]
        self.__dict__["_guided"] = (task.index, torch.tensor(task.classes))
        super().on_train_start()

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """The user's step, with what reaches the head kept for the terms."""
        features: list[Tensor] = []
        hook = self.continual_head.register_forward_pre_hook(lambda _, given: features.append(given[0].flatten(1)))
        self.__dict__["_step"] = (features, unpack(batch)[1])
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
        guide, stream = self.text_guide, self.trainer.datamodule  # type: ignore[attr-defined]
        seed = mix_seed(stream.seed, self.trainer.global_step, 0x16C1)
        keys = self.prompts.used_keys() if hasattr(self, "prompts") else None
        if keys is not None and task_weight:
            away = guide.tasks[seed % task] if task else None
            self.add_loss("lgcl_task", task_weight * guidance(keys, guide.tasks[task], away))
        if features and class_weight:
            other = other_classes(labels, classes, torch.Generator().manual_seed(seed))
            away = None if other is None else guide.classes[other]
            self.add_loss("lgcl_class", class_weight * guidance(features[-1], guide.classes[labels], away))
