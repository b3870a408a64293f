"""Find the samples of a batch in what a network was given, where a step has sorted its batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_cl.nn.feature_cache import sample_fingerprints


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors within tuples, lists and mappings."""
    found: list[Tensor] = []
    apply_to_collection(value, Tensor, found.append)
    return found


class GivenTensors:
    """Remembers what the parts of a module are given: the last outermost call of one of them, and those within it.

    Args:
        parts: The module itself, or some within it.
        all_calls: Remember every call until :meth:`clear`: behind that of a network may be one of a loss or a metric.
    """

    def __init__(self, parts: Iterable[nn.Module], all_calls: bool = False) -> None:
        self.parts, self.all_calls = list(parts), all_calls
        self.tensors: list[Tensor] = []
        self._running: list[nn.Module] = []
        self._hooks: list[Any] = []

    def start(self) -> None:
        """Listen, with nothing known."""
        self.stop()
        self._hooks = [part.register_forward_pre_hook(self._enter, with_kwargs=True) for part in self.parts]
        self._hooks += [part.register_forward_hook(self._leave) for part in self.parts]

    def stop(self) -> None:
        """Listen no more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.clear()

    def clear(self) -> None:
        """Forget what was given."""
        self.tensors, self._running = [], []

    def _enter(self, part: nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling() and not _is_redirected(part):  # a graph keeps no notes
            known = self.tensors if self._running or self.all_calls else ()
            self.tensors = [*known, *tensors_in((args, kwargs))]
            self._running.append(part)

    def _leave(self, part: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling() and self._running and self._running[-1] is part:
            self._running.pop()


def _is_redirected(part: nn.Module) -> bool:
    """Whether another function stands in for a module's ``forward``: with several processes Lightning's step does."""
    forward = vars(part).get("forward")
    return forward is not None and getattr(forward, "__func__", None) is not type(part).forward


def order_of(batch: Any, given: Sequence[Tensor]) -> Tensor | None:
    """Where each sample of a batch stands among the rows that a network was given.

    A sample that is not found (the step changed the images) has its own place, and so have equal samples. It costs
    nothing where the step passes a tensor of the batch itself.

    Args:
        batch: As the step gets it.
        given: The tensors that the network was given.

    Returns:
        ``(B,)`` int64 on the CPU; ``None``: they stand as they do in the batch.
    """
    parts = tensors_in(batch)
    if any(tensor is part for tensor in given for part in parts):
        return None
    for tensor in given:
        for part in parts:
            if tensor.ndim > 1 and tensor.shape == part.shape and tensor.dtype == part.dtype:
                return _order(sample_fingerprints(part), sample_fingerprints(tensor))
    return None


def in_order(rows: Tensor, order: Tensor | None) -> Tensor:
    """Rows as the samples stand in the batch, by what :func:`order_of` found; as they are if these are others."""
    return rows if order is None or len(rows) != len(order) else rows[order.to(rows.device)]


def _order(wanted: Tensor, found: Tensor) -> Tensor | None:
    own = torch.arange(len(wanted))
    same = wanted[:, None] == found
    places = torch.where(same.any(1) & (wanted != found), same.byte().argmax(1), own)
    return None if torch.equal(places, own) else places
