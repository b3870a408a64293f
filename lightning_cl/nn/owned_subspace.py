"""A basis of a layer's inputs that knows which task brought which direction, and which of them are free again."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.nn.counter import Counter
from lightning_cl.nn.subspace import Side, SubspaceMemory


class OwnedSubspace(SubspaceMemory):
    """A :class:`SubspaceMemory` in which a step may go along the directions of some tasks (CUBER, arXiv:2211.00789).

    Args:
        outputs: Rows of the layer's weight.
        width: Size of an input, ``D``.
        tasks: Number of tasks of the stream.
    """

    #: Own tensors with a row for each task, which get more rows when the stream is extended.
    growing = ("free", "gradients")
    owner: Tensor
    free: Tensor
    gradients: Tensor
    places: Tensor

    def __init__(self, outputs: int, width: int, tasks: int) -> None:
        super().__init__(width)
        self.register_buffer("owner", torch.full((width,), -1))  # the task that brought each direction
        self.register_buffer("free", torch.zeros(tasks, dtype=torch.bool))
        self.register_buffer("gradients", torch.zeros(tasks, outputs, width))  # at each task's end
        self.register_buffer("places", torch.zeros(outputs, width))  # of the weight along each direction, when it came
        self.decided = Counter()  # tasks before the one that the decision is of

    @torch.no_grad()
    def keep(self, weight: Tensor, gradient: Tensor, task: int) -> None:
        """Note a task's end, after its directions were added.

        Args:
            weight: ``(out, ...)`` then.
            gradient: Of the task's mean loss there, of the weight's shape.
            task: Index of the task.
        """
        new = self.owner[: self.size] < 0
        self.places[:, : self.size] = torch.where(new, self._along(weight), self.places[:, : self.size])
        self.owner[: self.size] = torch.where(new, task, self.owner[: self.size])
        self.gradients[task] = gradient.flatten(1)

    @torch.no_grad()
    def decide(self, gradient: Tensor, tasks: int, likeness: float, sign: float) -> None:
        """Free earlier tasks' directions ``U`` if ``|g U| >= likeness |g|`` and ``<g_then, g> >= sign |g_then| |g|``.

        Args:
            gradient: ``g`` at the beginning of a new task, of the weight's shape; nothing is freed for zeros.
            tasks: Number of earlier tasks.
            likeness: At least 0; above 1 nothing is freed.
            sign: In [-1, 1].
        """
        flat = gradient.flatten(1).to(self.gradients)
        squares = self._along(gradient).square().sum(0)
        within = torch.zeros(len(self.free), device=flat.device).to(squares)
        within.index_add_(0, self.owner[: self.size], squares)
        length, then = flat.norm(), self.gradients.flatten(1).norm(dim=1)
        agree = (self.gradients * flat).sum(dim=(1, 2)) >= sign * then * length
        earlier = torch.arange(len(self.free), device=flat.device) < tasks
        self.free.copy_((within.sqrt() >= likeness * length) & agree & earlier & (length > 0))
        self.decided.set(tasks)

    def away(self, weight: Tensor) -> Tensor:
        """How far the weight is from where it was along the free directions; of the weight's shape."""
        gone = (self._along(weight) - self.places[:, : self.size].to(weight)) * self._freed(weight)
        return (gone @ self.basis.to(weight).T).view_as(weight)

    def project(self, gradient: Tensor, side: Side = "in") -> Tensor:
        """What of a gradient (or step) has no component along directions that are not free; of inputs alone."""
        if side == "out" or not self.size:
            return super().project(gradient, side)
        held = self._along(gradient) * (1 - self._freed(gradient))
        return gradient - (held @ self.basis.to(gradient.dtype).T).view_as(gradient)

    def _along(self, weight: Tensor) -> Tensor:
        """``(out, size)`` components along each direction."""
        return weight.flatten(1) @ self.basis.to(weight.dtype)

    def _freed(self, like: Tensor) -> Tensor:
        """``(size,)`` 1 for a free direction, else 0."""
        return self.free[self.owner[: self.size]].to(like.dtype)
