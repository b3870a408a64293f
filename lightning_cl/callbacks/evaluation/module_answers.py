"""Reads what a module answers where that is not what its head answers, or notices that it chose otherwise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_cl.callbacks.evaluation.row_order import in_order
from lightning_cl.training.batch import unpack

#: Functions that choose a class among scores, and losses that are given the scores that a module stands for.
_CHOICES, _LOSSES = ("argmax", "topk", "max"), ("cross_entropy", "nll_loss")
_KEYS = ("preds", "predictions")
#: Share of the samples that may be chosen otherwise by rounding.
TIES = 0.02


def returned_answers(outputs: Any, count: int, columns: int, order: Tensor | None = None) -> Tensor | None:
    """Read the answers that a step returned under the key ``preds`` (or ``predictions``).

    Args:
        outputs: What ``validation_step`` or ``test_step`` returned.
        count: Samples of the batch that count; those behind are padding.
        columns: Outputs of the head.
        order: Where the batch's samples stand in what the step gave the network, and so in its answers.

    Returns:
        ``(count, columns)`` scores, or ``(count,)`` classes as integers; ``None``: the step returned neither.
    """
    if not isinstance(outputs, Mapping):
        return None
    for key in _KEYS:
        found = outputs.get(key)
        if not isinstance(found, Tensor) or found.ndim == 0 or len(found) < count:
            continue
        if found.is_floating_point() and found.ndim == 2 and found.shape[1] == columns:
            return in_order(found.detach(), order)[:count]
        if not found.is_floating_point() and found.ndim == 1:
            return in_order(found.detach(), order)[:count]
    return None


def unread_answers(outputs: Any) -> str:
    """What kind of thing a step returned under these keys; empty: nothing."""
    found = [outputs[key] for key in _KEYS if key in outputs] if isinstance(outputs, Mapping) else []
    return kind_of(found[0]) if found else ""


def kind_of(value: Any) -> str:
    """Name a value by its type, a tensor also by its shape."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


#: ``(B, C)`` scores or ``(B,)`` classes of a module, a batch and what its step returned.
Answers = Callable[[Any, Any, Any], Tensor]


def answer_function(given: Answers | str | None) -> Answers | None:
    """The function that states a module's answers, imported if it is given by its dotted path.

    Raises:
        ValueError: If it is no function, or there is none at that path.
    """
    if given is None or callable(given):
        return given
    path, _, name = str(given).rpartition(".")
    try:
        found: Any = getattr(import_module(path), name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not callable(found):
        raise ValueError(
            f"`answers` is {given!r}; expected a function of (module, batch, what the step returned), or its dotted "
            "path."
        )
    function: Answers = found
    return function


def checked_answers(given: Any, count: int, columns: int) -> Tensor:
    """What a stated function gave, without padding.

    Raises:
        ValueError: If these are neither scores nor classes.
    """
    found = returned_answers({_KEYS[0]: given}, count, columns)
    if found is None:
        raise ValueError(
            f"`answers` gave {kind_of(given)} for {count} samples; expected (B, {columns}) floating-point scores or "
            "(B,) integer classes."
        )
    return found


def refuse_regression(batch: Any, who: str) -> None:
    """Refuse targets that are no classes, of which no answer is right or wrong.

    Raises:
        ValueError: If there is one number for each sample and some are not whole.
    """
    try:
        targets = unpack(batch)[1]
    except ValueError:
        return
    if not isinstance(targets, Tensor) or not targets.is_floating_point() or targets.numel() != len(targets):
        return
    if bool((targets != targets.round()).any()):
        raise ValueError(
            f"{who} counts right classes, but the batch's targets are numbers ({targets.dtype} of shape "
            f"{tuple(targets.shape)}, the first is {float(targets.flatten()[0]):.4g}), and a regression has no "
            f"accuracy; leave {who} out, or give class ids as targets."
        )


class _Choices(TorchFunctionMode):
    """Keeps the scores among which the code within chooses, or those that its loss is given."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.chosen: Tensor | None = None
        self.scored: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, given = getattr(func, "__name__", ""), args[0] if args else kwargs.get("input")
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        if name == "linear" and isinstance(weight, Tensor) and len(weight) == self.columns:
            self.chosen = None  # what is chosen before a head answers is no class (a prompt of a pool, say)
        scores = isinstance(given, Tensor) and given.is_floating_point() and given.ndim == 2
        if scores and given.shape[1] == self.columns:
            if name in _CHOICES:
                self.chosen = given.detach()
            elif name in _LOSSES:
                self.scored = given.detach()
        return func(*args, **kwargs)


class AnswerCheck:
    """Compares the classes that a module's ``validation_step`` chooses with those that its head would choose.

    Attributes:
        compared: Samples that were looked at.
        differ: Those of them for which the module chose another class than its head.
        read: Samples whose answer was read from what the step returned, or stated.
        stated: A function states the answers.
        unread: The kind of ``preds`` that a step returned and that are neither scores nor classes.
    """

    def __init__(self) -> None:
        self.compared = self.differ = self.read = 0
        self.stated, self.unread = False, ""
        self._choices: _Choices | None = None

    def begin(self, module: Any, columns: int) -> None:
        """Watch the module's next ``validation_step``, unless it is one of the instance (as a compiled one is)."""
        if "validation_step" in vars(module):
            return
        step, self._choices = module.validation_step, _Choices(columns)

        @functools.wraps(step)  # Lightning looks at its signature
        def watched(*args: Any, **kwargs: Any) -> Any:
            with choices:
                return step(*args, **kwargs)

        choices = self._choices
        vars(module)["validation_step"] = watched

    def end(self, module: Any, logits: Tensor | None = None, order: Tensor | None = None) -> None:
        """Compare the answers of the step that is over with ``(n, C)`` logits of the head.

        Args:
            module: That is watched.
            logits: ``None``: nothing is compared.
            order: Where their samples stand in what the step gave the network.
        """
        choices, self._choices = self._choices, None
        if choices is None:
            return
        vars(module).pop("validation_step", None)
        answer = choices.scored if choices.chosen is None else choices.chosen
        if logits is None or answer is None or len(answer) < len(logits):
            return
        answer = in_order(answer, order)
        self.compared += len(logits)
        self.differ += int((answer[: len(logits)].argmax(1) != logits.to(answer.device).argmax(1)).sum())

    @property
    def differs(self) -> bool:
        """Whether the module answers otherwise than its head; a few samples may be ties."""
        return not self.read and self.differ > TIES * self.compared

    @property
    def message(self) -> str:
        """What is to be known of the module's answers; empty: they are those of the head."""
        if self.read and self.stated:
            return "the accuracies are those of what ContinualEvaluation's function `answers` gave, not of the head"
        if self.read:
            return "the accuracies are those of what the module's step returned as `preds`, not of its head"
        if self.unread:
            return (
                f"the module's step returned `preds` as {self.unread}, which was not read (expected (B, C) "
                "floating-point scores or (B,) integer classes): the accuracies are those of its head"
            )
        if not self.differs:
            return ""
        return (
            f"the module answers after the head: for {self.differ} of {self.compared} samples its step chose another "
            "class than the head whose logits are counted here, so its own accuracy is another one; return "
            '{"preds": scores or classes} from `validation_step` to have the module\'s answers counted'
        )
