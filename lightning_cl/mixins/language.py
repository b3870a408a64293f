"""A head of frozen semantic targets, which learns a class's vector when the class arrives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.class_embeddings.base import TargetProvider, check_targets
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.nn.language_head import LanguageHead
from lightning_cl.training import MethodModule


def learn_new(
    module: Any,
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
    """Send what ``make`` returns on the first process to all of them; its error, too."""
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


class ClassNameHead(MethodModule):
    """Logits of frozen vectors of the class names, each of which is asked for when its class arrives.

    Args:
        module: Its own head stays where it is, frozen and unused.
        head: Makes the logits from what reaches the module's own.
        provider: Gives the vectors of classes as they arrive.
    """

    makes_logits = True
    former_keys: ClassVar[dict[str, str]] = {"language_head.": "head."}
    known_as: ClassVar[dict[str, str]] = {"language_head": "head"}

    def __init__(self, module: Any, head: LanguageHead, provider: TargetProvider) -> None:
        super().__init__()
        self.head, self.provider = head, provider
        self.signs_checked = head.match == "project" or head.similarity == "dot"
        module.continual_head.requires_grad_(False)

    def start_task(self, module: Any, task: Any) -> None:
        """Ask for the task's new classes; in an online stream they are asked for as they arrive."""
        if task.order != "stream":
            self.expose(module, task.new_classes)

    def expose(self, module: Any, classes: Iterable[int]) -> None:
        """Ask for those of the classes that have no vector yet."""
        names = module.continual.info.class_names

        def learn(new: Tensor, targets: Tensor) -> None:
            self.head.add(new, targets)
            known = self.head.known.cpu().nonzero().flatten()
            check_targets(self.head.weight[known].cpu(), [names[c] for c in known.tolist()])

        learn_new(module, classes, self.head.known, self.provider, learn)

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` similarities to the class names; -inf for classes that have not arrived."""
        if module.training and not self.signs_checked:
            self._check_signs(features)
        answer: Tensor = self.head(features)
        return answer

    def _check_signs(self, features: Tensor) -> None:
        """Once: features without a negative value (a last ReLU) cannot reach targets that have many."""
        self.signs_checked = True
        rows = self.head.weight[self.head.known]
        if bool((features >= 0).all()) and float((rows < 0).float().mean()) > 0.2:
            warnings.warn(
                "no feature that reaches the head is negative (the backbone ends in a ReLU), but the targets have "
                'negative entries, which such features cannot reach; use `match="project"`, or remove the last ReLU.',
                stacklevel=2,
            )


class LanguageMixin(ContinualMixin):
    """Answers with vectors of the class names: ``class MyModel(LanguageMixin, LightningModule)``.

    In ``setup``, :meth:`configure_continual` comes first, then :meth:`add_language_head`.
    """

    def add_language_head(self, head: LanguageHead, provider: TargetProvider) -> None:
        """Let ``head`` make the logits from what reaches the module's own; see :class:`ClassNameHead`."""
        self.add_method("languageguidedhead", ClassNameHead(self, head, provider))
