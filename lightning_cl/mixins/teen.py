"""A cosine head that is trained in the base session; afterwards only class means are counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.mixins.features import evaluating, task_features
from lightning_cl.nn.teen import TEENBank, cosine_logits

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task


class TEENMixin(ContinualMixin):
    """Base session: the user's step with cosine logits. Later sessions: no gradient, class means at the end.

    ``configure_continual`` comes first, then :meth:`add_teen`.
    """

    teen: TEENBank

    def add_teen(self, bank: TEENBank, train_base: bool = True) -> None:
        """Let the head answer by cosines: of its own weight while the base session trains, of ``bank`` afterwards.

        Args:
            bank: Registered as the submodule ``teen``.
            train_base: Train in the base session; ``False`` only counts means there, too.
        """
        self.teen = bank.to(self.continual_head.weight.device)
        self.__dict__["_train_base"] = train_base
        # Before the class mask, which was put on the head first, so that it masks the new logits.
        self.continual_head.register_forward_hook(self._compare, prepend=True)

    def _compare(self, head: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        features = args[0].flatten(1)
        if not self.teen.ready:
            logits = cosine_logits(features.to(head.weight.dtype), head.weight, self.teen.scale)
            return logits if head.bias is None else logits + 0.0 * head.bias  # unused, but DDP waits for its gradient
        logits = self.teen(features).to(output.dtype)
        missing = output.shape[1] - logits.shape[1]
        return nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits

    @property
    def _trains(self) -> bool:
        return bool(self.__dict__["_train_base"]) and not self.teen.ready

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The user's step in the base session; afterwards a zero that reaches every parameter and moves none."""
        if self._trains:
            return super().training_step(*args, **kwargs)
        trained = (p for p in self.parameters() if p.requires_grad)
        return sum((p.sum() * 0.0 for p in trained), torch.zeros((), device=self.device))

    def on_task_end(self, task: Task) -> None:
        """Count the means of the task's classes, on evaluation transforms."""
        with evaluating(self):
            for features, labels, _ in task_features(self, task.index):
                self.teen.update(features, labels)
        if not self.teen.ready:
            self.teen.finish_base(torch.tensor(task.classes))
        super().on_task_end(task)

    def protected_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """After the base session everything: momentum and weight decay would move it without a gradient."""
        if self._trains:
            yield from super().protected_rows()
            return
        for parameter in self.parameters():
            if parameter.requires_grad and parameter.ndim:
                yield parameter, torch.arange(len(parameter))
