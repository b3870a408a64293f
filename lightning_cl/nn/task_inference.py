"""Which task samples are of, by the entropy of what the networks of all tasks answer, one by one or mixed (SupSup)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_cl.nn.masks import fill_masked


def entropies(logits: Tensor) -> Tensor:
    """Entropy of ``softmax(logits)``, in nats; ``(..., C)`` finite logits to ``(...)``."""
    log = logits.log_softmax(-1)
    return -(log.exp() * log).sum(-1)


def mean_entropy(logits: Tensor) -> Tensor:
    """Mean over the rows of the entropy of ``softmax(logits)``, in nats; ``(B, C)`` to a scalar."""
    return entropies(logits).mean()


def surest_task(logits: Tensor, allowed: Tensor) -> Tensor:
    """``(B,)`` the task whose network answers each sample with the lowest entropy; of equal ones the first.

    Args:
        logits: ``(T, B, C)`` of each task's network.
        allowed: ``(T, C)`` bool, the classes of each task, over which its entropy is.
    """
    single = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    return entropies(fill_masked(single, allowed[:, None])).argmin(0)


def chosen_answers(logits: Tensor, chosen: Tensor, allowed: Tensor) -> Tensor:
    """``(B, C)`` logits of the network that is chosen for each sample; those of classes that it has not far below.

    Args:
        logits: ``(T, B, C)`` of all networks.
        chosen: ``(B,)`` the network that answers.
        allowed: ``(T, C)`` bool, the classes of each.
    """
    index = chosen[None, :, None].expand(1, -1, logits.shape[-1])  # an index of its own would fix the size in exports
    return fill_masked(logits.gather(0, index)[0], allowed[chosen])


def entropy_slopes(answer: Callable[[Tensor], Tensor], weights: Tensor) -> Tensor:
    """``(T,)``: how the mean entropy changes with the share of each task's mask; that of the right task falls.

    Args:
        answer: ``(B, C)`` logits of the network with the masks of the tasks mixed in shares ``(T,)``.
        weights: The shares.
    """
    with torch.enable_grad():
        shares = weights.detach().clone().requires_grad_()
        return torch.autograd.grad(mean_entropy(answer(shares)), shares)[0]


def one_shot_task(answer: Callable[[Tensor], Tensor], tasks: int, like: Tensor) -> int:
    """The task whose share makes the entropy fall most, from one pass with equal shares.

    Args:
        answer: See :func:`entropy_slopes`.
        tasks: How many there are.
        like: A tensor of the network's dtype and device.
    """
    return int(entropy_slopes(answer, like.new_full((tasks,), 1 / tasks)).argmin())


def binary_task(answer: Callable[[Tensor], Tensor], tasks: int, like: Tensor) -> int:
    """The task that is left when the half of the tasks is dropped whose shares make the entropy fall least, each time.

    It takes ``ceil(log2(tasks))`` passes; see :func:`one_shot_task`.
    """
    left = torch.arange(tasks, device=like.device)
    while len(left) > 1:
        shares = like.new_zeros(tasks)
        shares[left] = 1 / len(left)
        slopes = entropy_slopes(answer, shares)[left]
        left = left[slopes.argsort(stable=True)[: (len(left) + 1) // 2]].sort().values
    return int(left)
