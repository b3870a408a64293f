"""A head of frozen semantic targets, which learns a class's vector when the class arrives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.nn.language_head import LanguageHead
from lightning_cl.targets.base import TargetProvider, check_targets

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task


def learn_new(
    module: ContinualMixin,
    classes: Iterable[int],
    known: Tensor,
    provider: TargetProvider,
    learn: Callable[[Tensor, Tensor], None],
) -> None:
    """Ask the provider for the vectors of those ``classes`` that have none yet.

    Args:
        module: Knows the class names.
        classes: Class ids.
        known: ``(C,)`` bool: classes that have a vector.
        provider: Gives the vectors.
        learn: Takes ``(n,)`` class ids and their ``(n, T)`` vectors.
    """
    has = known.cpu()
    new = [c for c in classes if not has[c]]
    if new:
        names = module.continual.info.class_names
        before = [names[c] for c in has.nonzero().flatten().tolist()]
        learn(torch.tensor(new), targets_of(provider, [names[c] for c in new], before))


def targets_of(provider: TargetProvider, names: list[str], before: list[str]) -> Tensor:
    """``(n, T)`` vectors of the names: made on the first process and sent to the others, so all have the same bits.

    Args:
        provider: Where they come from.
        names: Classes that have just arrived.
        before: Classes that arrived earlier, in any order.
    """

    def make() -> Tensor:
        skip = getattr(provider, "skip", None)
        if skip is not None:
            skip(before)
        return provider.targets(names)

    targets = from_first_process(make)
    check_targets(targets, names)
    return targets


def from_first_process(make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` gives on the first process, on all of them; its error, too."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    answer: list[Any] = [None]
    if not distributed or torch.distributed.get_rank() == 0:
        try:
            answer = [make()]
        except Exception as error:
            answer = [error]
    if distributed:
        torch.distributed.broadcast_object_list(answer, 0)
    if isinstance(answer[0], Exception):
        raise answer[0]
    made: Tensor = answer[0]
    return made


class LanguageMixin(ContinualMixin):
    """Replaces what the head answers by cosines with the vectors of the class names.

    ``configure_continual`` comes first, then :meth:`add_language_head`. The module's own head stays where it is, frozen
    and unused.
    """

    language_head: LanguageHead

    def add_language_head(self, head: LanguageHead, provider: TargetProvider) -> None:
        """Let ``head`` make the logits from what reaches the module's own.

        Args:
            head: Registered as the submodule ``language_head``.
            provider: Gives the vectors of classes as they arrive.
        """
        self.language_head = head.to(self.continual_head.weight.device)
        self.__dict__["_target_provider"] = provider
        self.__dict__["_signs_checked"] = head.match == "project" or head.similarity == "dot"
        for parameter in self.continual_head.parameters():
            parameter.requires_grad_(False)
        # Before the class mask, which was put on the head first, so that it masks the new logits.
        self.continual_head.register_forward_hook(self._compare_names, prepend=True)

    def on_task_start(self, task: Task) -> None:
        """Ask for the task's new classes; in an online stream they are asked for as they arrive."""
        if task.order != "stream":
            self._name(task.new_classes)
        super().on_task_start(task)

    def on_exposure(self, classes: tuple[int, ...]) -> None:
        """Ask for the classes that have just arrived."""
        self._name(classes)
        super().on_exposure(classes)

    def _name(self, classes: Iterable[int]) -> None:
        provider: TargetProvider = self.__dict__["_target_provider"]
        learn_new(self, classes, self.language_head.known, provider, self._learn_names)

    def _learn_names(self, classes: Tensor, targets: Tensor) -> None:
        self.language_head.add(classes, targets)
        known = self.language_head.known.cpu().nonzero().flatten()
        names = self.continual.info.class_names
        check_targets(self.language_head.weight[known].cpu(), [names[c] for c in known.tolist()])

    def _compare_names(self, head: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the head: logits of the targets, in as many columns as the head has."""
        features = args[0].flatten(1)
        if self.training and not self.__dict__["_signs_checked"]:
            self._check_signs(features)
        logits: Tensor = self.language_head(features)
        missing = output.shape[1] - logits.shape[1]
        return nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits

    def _check_signs(self, features: Tensor) -> None:
        """Once: features without a negative value (a last ReLU) cannot reach targets that have many."""
        self.__dict__["_signs_checked"] = True
        rows = self.language_head.weight[self.language_head.known]
        if bool((features >= 0).all()) and float((rows < 0).float().mean()) > 0.2:
            warnings.warn(
                "no feature that reaches the head is negative (the backbone ends in a ReLU), but the targets have "
                'negative entries, which such features cannot reach; use `match="project"`, or remove the last ReLU.',
                stacklevel=2,
            )
