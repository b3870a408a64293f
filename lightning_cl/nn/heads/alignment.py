"""Align a head: by training it on features drawn from Gaussians of all classes, or by the lengths of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.heads.fit import fit_head
from lightning_cl.nn.heads.gaussians import Gaussians


def align_head(
    head: nn.Module,
    gaussians: Gaussians,
    generator: torch.Generator,
    *,
    epochs: int,
    per_class: int,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> None:
    """Classifier alignment of SLCA (arXiv:2303.05118), MOS and HiDe-Prompt, in place.

    Each epoch draws ``per_class`` features of each of the ``K`` classes, shuffles them and makes ``K`` steps of SGD
    with ``per_class`` features each; the learning rate falls along a cosine, epoch by epoch. The same generator gives
    the same head on every process.

    Args:
        head: ``(B, D)`` features to ``(B, C)`` logits. Its ``forward`` is called without its hooks, so that neither
            class masks nor methods take part; parameters that need no gradient stay.
        gaussians: Of the classes that compete.
        generator: On the CPU.
        epochs: Above 0.
        per_class: Features of each class in an epoch, which is the batch size, too.
        lr: Learning rate of the first epoch.
        momentum: Of SGD.
        weight_decay: Of SGD.
        loss: Of ``(B, K)`` logits in the order of ``gaussians.classes`` and ``(B,)`` places in it.

    Raises:
        ValueError: If no parameter of the head needs a gradient.
    """
    parameters = [p for p in head.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the head needs a gradient, so it cannot be aligned; unfreeze it first.")
    dtype = parameters[0].dtype
    columns = torch.tensor(gaussians.classes, device=parameters[0].device)
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
    fit_head(
        lambda features: head.forward(features.to(dtype))[:, columns],
        lambda: gaussians.sample(per_class, generator),
        optimizer,
        generator,
        epochs=epochs,
        batch_size=per_class,
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        loss=loss,
    )


@torch.no_grad()
def align_norms(weight: Tensor, old: Sequence[int], new: Sequence[int]) -> float:
    """Make new rows of a head as long as old ones on average (WA, arXiv:1911.07053), in place.

    Args:
        weight: ``(C, D)``.
        old: Rows of old classes, at least one.
        new: Rows of new classes, at least one.

    Returns:
        ``mean |w_old| / mean |w_new|``, by which the new rows were multiplied; 1 if they are zero.
    """
    lengths = torch.linalg.vector_norm(weight, dim=1)
    before = float(lengths[list(new)].mean())
    factor = float(lengths[list(old)].mean()) / before if before else 1.0
    weight[list(new)] *= factor
    return factor


def fit_bias(
    logits: Tensor, places: Tensor, new: Tensor, *, epochs: int, lr: float, batch_size: int, generator: torch.Generator
) -> tuple[float, float]:
    """Two scalars with which new logits compete on equal terms with old ones (BiC, CVPR 2019, arXiv:1905.13260).

    ``alpha * z + beta`` of the new columns, the others as they are; the cross-entropy is minimised by Adam from
    ``alpha = 1`` and ``beta = 0``, in float64. The same generator gives the same scalars on every process.

    Args:
        logits: ``(N, K)`` of samples that were not trained on, of old and new classes.
        places: ``(N,)`` columns of their labels.
        new: ``(K,)`` bool: columns that are corrected.
        epochs: At least 0.
        lr: Learning rate.
        batch_size: Samples of a step.
        generator: Shuffles the samples; on the CPU.

    Returns:
        ``alpha`` and ``beta``.
    """
    pair = torch.tensor([1.0, 0.0], dtype=torch.float64, device=logits.device, requires_grad=True)
    fit_head(
        lambda z: torch.where(new, pair[0] * z + pair[1], z),
        (logits.detach().double(), places),
        torch.optim.Adam([pair], lr=lr),
        generator,
        epochs=epochs,
        batch_size=batch_size,
    )
    alpha, beta = pair.tolist()
    return alpha, beta
