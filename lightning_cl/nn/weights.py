"""Copy, average, anchor and slow down the weights of a module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn


def trained(module: nn.Module, optimizer: Any = None) -> dict[str, nn.Parameter]:
    """The parameters of a module that get a gradient, by name.

    Args:
        module: Any.
        optimizer: Only those that it moves, so that each step of several optimisers counts for its own; ``None``: all.
    """
    found = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if optimizer is None:
        return found
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in found.items() if id(p) in moved}


class NamedTensors(nn.Module):
    """Tensors as buffers under the names of the weights that they belong to.

    Buffers and not parameters: a user's optimiser would decay them. A buffer has the name of its weight with ``/`` for
    ``.``, so that a checkpoint says what it holds.

    Args:
        tensors: By name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(key_of(name), tensor)
        self.names = tuple(tensors)
        self.growing = tuple(map(key_of, tensors))  # a head among them gets rows when the stream is extended

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Names of the weights, as in the module, and their tensors."""
        return ((name, self.get_buffer(key_of(name))) for name in self.names)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a weight."""
        return self.get_buffer(key_of(name))


class Snapshot(NamedTensors):
    """Copies of chosen weights: an anchor, a teacher, or importances of the same shapes.

    ``taken`` tells whether anything was taken yet; it is a plain ``bool`` beside the buffer that is saved, so that a
    training step does not wait for the device.

    Args:
        weights: The weights to copy, by name, for example :func:`trained` of a module.
        zero: Start from zeros (importances) and not from their values.
    """

    is_taken: Tensor

    def __init__(self, weights: Mapping[str, Tensor], zero: bool = False) -> None:
        known = {name: weight.detach() for name, weight in weights.items()}
        super().__init__({name: torch.zeros_like(w) if zero else w.clone() for name, w in known.items()})
        self.register_buffer("is_taken", torch.zeros((), dtype=torch.bool))
        self.taken = False
        self.register_load_state_dict_post_hook(_after_load)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the present values; weights of other names are left out.

        Raises:
            ValueError: If a weight is missing or has another shape than the copy: it is another module's.
        """
        for name, kept in self.items():
            given = weights.get(name)
            if given is None or given.shape != kept.shape:
                found = "missing" if given is None else f"of the shape {tuple(given.shape)}"
                raise ValueError(
                    f"the snapshot holds `{name}` of the shape {tuple(kept.shape)}, which is {found} in the weights "
                    "given; take the weights of the module that the snapshot was made for."
                )
        for name, kept in self.items():
            kept.copy_(weights[name])
        self.is_taken.fill_(True)
        self.taken = True

    def extra_repr(self) -> str:
        """How much is kept."""
        return f"{len(self.names)} weights, taken={self.taken}"


def key_of(name: str) -> str:
    """The dotted name of a weight or layer as it may stand in a module's state: without dots."""
    return name.replace(".", "/")


def _after_load(snapshot: nn.Module, keys: Any) -> None:
    assert isinstance(snapshot, Snapshot)
    # Every snapshot has `is_taken`: one whose weights alone are missing was made of another module.
    lost = [key for key in keys.missing_keys if key.rpartition(".")[2] in snapshot.growing]
    prefixes = {key.rpartition(".")[0] for key in lost}
    unknown = sorted(key.rpartition(".")[2] for key in keys.unexpected_keys if key.rpartition(".")[0] in prefixes)
    if unknown:
        raise ValueError(
            f"the checkpoint's snapshot holds {', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}, but this "
            f"one is of a module with {', '.join(key.rpartition('.')[2] for key in lost[:3])}; load it into a snapshot "
            "of the same module."
        )
    snapshot.taken = bool(snapshot.is_taken)


def interpolate(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], weight: float | Mapping[str, float]
) -> dict[str, Tensor]:
    """``start + weight * (end - start)`` of each weight of ``end``; 0 and 1 give one side bit for bit.

    Args:
        start: Weights by name; at least those of ``end``.
        end: Weights by name.
        weight: One number, or one for each name (LiNeS, arXiv:2410.17146, scales a layer by its depth).
    """
    given = weight if isinstance(weight, Mapping) else dict.fromkeys(end, weight)
    return {name: torch.lerp(start[name].detach(), value.detach(), given[name]) for name, value in end.items()}


@torch.no_grad()
def overwrite(weights: Mapping[str, Tensor], values: Iterable[tuple[str, Tensor]]) -> None:
    """Copy values over the weights of the same names, in place."""
    for name, value in values:
        weights[name].copy_(value)


@torch.no_grad()
def ema(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """Move an average in place: ``average <- decay * average + (1 - decay) * weights``; ``decay`` in [0, 1]."""
    names = list(average)
    if names:
        update = get_ema_multi_avg_fn(decay)
        update([average[name] for name in names], [weights[name].detach() for name in names], 0)


@torch.no_grad()
def pull_gradients(
    weights: Mapping[str, Tensor],
    anchor: Mapping[str, Tensor],
    strength: float,
    importance: Mapping[str, Tensor] | None = None,
) -> None:
    """Add the gradient of the penalty ``strength / 2 * sum_k F_k (w_k - a_k)^2`` (EWC, SI, MAS, L2) to the gradients.

    As a gradient and not a loss: exact under gradient scaling, and equal on all processes after their reduction. A
    weight without gradient in this step, or without an anchor, is left alone.

    Args:
        weights: Parameters by name.
        anchor: Where they are pulled to.
        strength: At least 0.
        importance: ``F``, not negative, of the shapes of the anchor; 1 for weights without one.
    """
    for name, kept in anchor.items():
        weight = weights.get(name)
        if weight is None or weight.grad is None:
            continue
        away = weight.detach() - kept
        if importance is not None and name in importance:
            away.mul_(importance[name])
        weight.grad.add_(away, alpha=strength)


class StepEdit:
    """Changes what an optimiser's step did, from the weights before and after it; the optimiser stays the user's.

    Args:
        weights: Parameters whose steps are changed; one copy of them is kept.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.weights = list(weights)
        self.before: list[Tensor] = []

    def attach(self, optimizer: Optimizer) -> None:
        """Change every step of this optimiser from now on."""
        optimizer.register_step_pre_hook(self.remember)
        optimizer.register_step_post_hook(self.edit)

    @torch.no_grad()
    def remember(self, *_: Any) -> None:
        """Copy the weights as they are before a step."""
        if not self.before:
            self.before = [torch.empty_like(w) for w in self.weights]
        for kept, weight in zip(self.before, self.weights, strict=True):
            kept.copy_(weight)

    def edit(self, *_: Any) -> None:
        """Change the weights after a step, in place."""
        raise NotImplementedError


class StepScale(StepEdit):
    """Makes only a part of every optimiser step: ``w <- w_before + scale * (w_after - w_before)``.

    A slow trunk without touching the user's optimiser. For SGD with momentum and decay, Adam and AdamW it equals a
    learning rate ``scale`` times as large, under any schedule. It costs one copy of the weights.

    Args:
        weights: Parameters to slow down.
        scale: Share of the step, in [0, 1]; 1 changes nothing.

    Raises:
        ValueError: If ``scale`` is outside [0, 1].
    """

    def __init__(self, weights: Iterable[Tensor], scale: float) -> None:
        if not 0 <= scale <= 1:
            raise ValueError(f"`scale` is {scale}; give a share of the step in [0, 1].")
        super().__init__(weights)
        self.scale = scale

    @torch.no_grad()
    def edit(self, *_: Any) -> None:
        """Take back all but a share of what the step did."""
        if self.weights:  # the part that goes back to `before` is `1 - scale`
            get_ema_multi_avg_fn(self.scale)([w.detach() for w in self.weights], self.before, 0)


class StepRecord:
    """The gradient and the way of every weight in the optimiser step that is being made (SI, RWalk).

    Copies are kept from step to step: to make room for them anew takes longer than to copy.
    """

    def __init__(self) -> None:
        self._copies: dict[str, tuple[Tensor, Tensor]] = {}
        self._remembered: set[str] = set()

    @torch.no_grad()
    def remember(self, weights: Mapping[str, Tensor]) -> None:
        """Copy gradients and weights before the step; a weight without gradient is left out."""
        for name, weight in weights.items():
            if weight.grad is None:
                continue
            known = self._copies.get(name)
            if known is None or known[1].shape != weight.shape or known[1].device != weight.device:
                self._copies[name] = torch.empty_like(weight.grad), torch.empty_like(weight)
            for copy, value in zip(self._copies[name], (weight.grad, weight), strict=True):
                copy.copy_(value)
            self._remembered.add(name)

    @torch.no_grad()
    def made(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, gradient and ``before - after`` of the given weights that were remembered, each once."""
        for name in weights.keys() & self._remembered:
            self._remembered.remove(name)
            gradient, before = self._copies[name]
            yield name, gradient, before.sub_(weights[name])


def clear_moments(states: Mapping[Tensor, Mapping[str, Any]], weight: Tensor, places: Any) -> None:
    """Set what an optimiser keeps for some places of a weight to 0, in place: tensors of the weight's shape.

    Args:
        states: Of the optimiser, by parameter.
        weight: The parameter.
        places: Any index, such as a boolean mask.
    """
    for moment in states.get(weight, {}).values():
        if isinstance(moment, Tensor) and moment.shape == weight.shape:
            moment[places] = 0
