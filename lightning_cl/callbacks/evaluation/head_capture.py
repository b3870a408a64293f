"""Read logits where they leave the head, while a validation step runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.evaluation.row_order import GivenTensors, in_order, order_of
from lightning_cl.nn.head_layer import pooled
from lightning_cl.nn.masks import ClassMask, with_infinite
from lightning_cl.training.find_modules import enclosing, find_head
from lightning_cl.training.model_output import find_logits


class HeadCapture:
    """Collects what a head answers between :meth:`start` and :meth:`stop`.

    Args:
        pl_module: The module.
        num_classes: Classes of the stream.
        head: Dotted path of the head; found when ``None``, or the one that an attached method found.

    Raises:
        ValueError: If the head cannot be found.
    """

    def __init__(self, pl_module: nn.Module, num_classes: int, head: str | None = None) -> None:
        known = getattr(getattr(pl_module, "continual", None), "head_path", None)
        self.path, self.layer = find_head(pl_module, num_classes, head or known)
        #: The class mask that answers after the head, if there is one.
        self.mask: ClassMask | None = getattr(getattr(pl_module, "continual", None), "mask", None)
        #: What holds the head; one of them chooses a token where the head answers for all of them.
        self.networks = enclosing(pl_module, self.path)
        #: ``(B,)`` where the samples of the batch taken last stand in what the step gave the network; ``None``: as in
        #: the batch.
        self.order: Tensor | None = None
        self._captured: list[Tensor] = []
        # The inputs of a step may be given to a part of the module that the head is not in.
        parts = [*self.networks, *(part for part in pl_module.children() if part not in self.networks)]
        self.readers = [part for part in parts if part is not self.layer]
        self._given = GivenTensors(self.readers)
        self._answered: list[Tensor] = []  # what was given to the network whose head answered last
        self._hooks: list[Any] = []

    def start(self) -> None:
        """Read the head's answers, behind all hooks that it has so far, so that theirs are what is read."""
        self.stop()
        choosing = [network.register_forward_hook(self._choose) for network in self.networks]
        self._hooks = [self.layer.register_forward_hook(self._keep), *choosing]
        self._given.start()

    def stop(self) -> None:
        """Stop reading the head's answers."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._captured, self._answered = [], [], []
        self._given.stop()

    def _keep(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        self._captured.append(pooled(layer, output.detach()))
        self._answered = self._given.tensors

    def _choose(self, network: nn.Module, args: Any, output: Any) -> None:
        """A head that answers for every token is read where the network has chosen one."""
        if self._captured and self._captured[-1].ndim == 3:
            logits = find_logits(output, self._captured[-1].shape[-1])
            if logits is not None and logits.ndim == 2:
                self._captured[-1] = logits.detach()

    def take(self, count: int, batch: Any) -> Tensor:
        """``(count, C)`` logits of the batch's samples: the head's last answer, or all of them when it came in parts.

        Classes that the mask does not allow are -inf. Where the step sorted its batch, the logits stand as the samples
        do in ``batch``.

        Args:
            count: Samples of the batch that count; those behind are padding.
            batch: As the step got it.

        Raises:
            RuntimeError: If the head was not called, or answered for fewer samples.
        """
        captured, given = self._captured, self._answered
        self._captured, self._answered = [], []
        self._given.clear()
        if not captured:
            raise RuntimeError(
                f"the head `{self.path}` was not called in this evaluation step, so there are no logits to read; name "
                'the layer that the step uses with `head="..."`.'
            )
        logits = captured[-1] if len(captured[-1]) >= count else torch.cat(captured)
        if len(logits) < count:
            raise RuntimeError(f"the head `{self.path}` answered for {len(logits)} of the batch's {count} samples.")
        if logits.ndim != 2:
            raise RuntimeError(
                f"the head `{self.path}` answered with {tuple(logits.shape)}, and nothing around it returned logits of "
                f"shape ({count}, {logits.shape[-1]}); let `forward` return those of the token that counts."
            )
        self.order = order_of(batch, given)
        logits = in_order(logits, self.order)[:count]
        return logits if self.mask is None else with_infinite(logits, self.mask.eval_allowed)
