"""Compare answers and features of two networks, or of the samples of a batch: losses that many methods share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.precision import wide


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the samples (arXiv:1503.02531).

    0 where both agree. Its gradient is ``T^2`` times that of the cross-entropy form ``-sum p_teacher log p_student``,
    which several code bases use without ``T^2``.

    Args:
        student: ``(B, C)`` finite logits of the classes that both know: slice masked columns off.
        teacher: As ``student``; gets no gradient.
        temperature: Above 0.

    Raises:
        ValueError: If the two have different shapes.
    """
    _check_shapes(student, teacher, "columns of the classes that both know")
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0, reverse: bool = False) -> Tensor:
    """``(...,)`` Kullback-Leibler divergence of two softmaxes over the last dimension; 0 where both agree.

    Args:
        student: ``(..., C)`` finite logits.
        teacher: As ``student``; gets no gradient.
        temperature: By which both are divided, above 0.
        reverse: ``False``: ``KL(teacher || student)``, as in distillation; ``True``: ``KL(student || teacher)``, as
            policies are held to a reference in reinforcement learning.

    Raises:
        ValueError: If the two have different shapes.
    """
    _check_shapes(student, teacher, "logits of the same samples or tokens")
    own = F.log_softmax(wide(student) / temperature, dim=-1)
    known = F.log_softmax(wide(teacher.detach()) / temperature, dim=-1)
    of, to = (own, known) if reverse else (known, own)
    return F.kl_div(to, of, log_target=True, reduction="none").sum(-1)


def binary_distillation(
    student: Tensor, targets: Tensor, columns: Tensor, teacher: Tensor | None = None, taught: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of every class with its label, or with a teacher's sigmoid (iCaRL, arXiv:1611.07725, eq. 2).

    Args:
        student: ``(B, C)`` logits.
        targets: ``(B,)`` labels.
        columns: ``(C,)`` bool: classes that count, at least one.
        teacher: ``(B, C)`` logits; gets no gradient. ``None``: all classes have their labels.
        taught: ``(C,)`` bool: classes whose target is the teacher's.

    Returns:
        The mean over the samples and the classes that count.
    """
    wanted = F.one_hot(targets, student.shape[1]).to(student.dtype)
    if teacher is not None and taught is not None:
        wanted = torch.where(taught, teacher.detach().sigmoid(), wanted)
    each = F.binary_cross_entropy_with_logits(student, wanted, reduction="none")
    return each.masked_fill(~columns, 0.0).sum() / (len(each) * columns.sum())


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 - cos`` of ``(B, D)`` features and those of a teacher, mean over the samples, in [0, 2].

    LUCIR's less-forget term and PODNet's flat term; the teacher gets no gradient.

    Raises:
        ValueError: If the two have different shapes.
    """
    _check_shapes(student, teacher, "features of the same layer")
    return (1 - F.cosine_similarity(student, teacher.detach(), dim=1)).mean()


def pooled_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of pooled feature maps (PODNet's spatial term, arXiv:2004.13513), mean over the samples, in [0, sqrt 2].

    Squared values are summed over the height and over the width; both sums, side by side at unit length, are compared
    by their Euclidean distance.

    Args:
        student: ``(B, C, H, W)`` feature maps of one stage.
        teacher: As ``student``; gets no gradient.

    Raises:
        ValueError: If the two have different shapes.
    """
    _check_shapes(student, teacher, "feature maps of the same stage")
    distance: Tensor = torch.linalg.vector_norm(_pooled(student) - _pooled(teacher.detach()), dim=1)
    return distance.mean()


def ranking_margin(scores: Tensor, targets: Tensor, rivals: Tensor, margin: float, count: int = 2) -> Tensor:
    """How far each sample's own score falls short of a margin above its nearest rivals (LUCIR, CVPR 2019, eq. 8).

    Args:
        scores: ``(B, C)``.
        targets: ``(B,)``.
        rivals: ``(R,)`` columns that are held away, at least one.
        margin: At least 0.
        count: Of the rivals with the highest scores; all, if there are fewer.

    Returns:
        ``(B,)`` means of ``relu(margin - score[y] + score[r])`` over these rivals ``r``.
    """
    own = scores.gather(1, targets[:, None])  # (B, 1)
    nearest = scores[:, rivals].topk(min(count, len(rivals)), dim=1).values  # (B, count)
    return F.relu(margin - own + nearest).mean(1)


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Pulls samples of a class together and pushes others apart (SupCon, arXiv:2004.11362, the form "out").

    ``-1/|P_i| sum_{p in P_i} log(exp(u_i u_p / T) / sum_{a != i} exp(u_i u_a / T))`` with unit features ``u`` and the
    other samples ``P_i`` of the same label, mean over the samples that have one. Several views of an image are several
    rows with one label. On several processes negatives are those of this process, unless all rows are gathered.

    Args:
        features: ``(N, D)``; scaled to unit length here.
        labels: ``(N,)``.
        temperature: Above 0.

    Returns:
        A scalar, at least 0; 0 if no sample has another one of its label.
    """
    unit = F.normalize(features, dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = unit @ unit.T / temperature
    log_p = similarity - similarity.masked_fill(own, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels) & ~own
    count = positive.sum(dim=1)
    each = -log_p.masked_fill(~positive, 0.0).sum(dim=1) / count.clamp_min(1)  # (N,), 0 without a positive
    return each.sum() / (count > 0).sum().clamp_min(1)


def _pooled(maps: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(B, C * W + C * H)`` at unit length."""
    squared = maps.square()
    return F.normalize(torch.cat([squared.sum(dim=2).flatten(1), squared.sum(dim=3).flatten(1)], dim=1), dim=1)


def _check_shapes(student: Tensor, teacher: Tensor, what: str) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's tensor has the shape {tuple(student.shape)} and the teacher's {tuple(teacher.shape)}; give "
            f"both the {what}."
        )


def reverse_cross_entropy(logits: Tensor, targets: Tensor, allowed: Tensor) -> Tensor:
    """``-sum_c p_c log q_c`` with labels ``q`` of at least 1e-4 (symmetric cross-entropy, arXiv:1908.06112), a mean.

    A sure and wrong answer costs ``-ln 1e-4``, about 9.21: wrong labels pull less than in cross-entropy.

    Args:
        logits: ``(B, C)``.
        targets: ``(B,)``.
        allowed: ``(C,)`` bool: the classes that compete, the targets among them.
    """
    p = logits.masked_fill(~allowed, -torch.inf).softmax(dim=1).clamp(1e-7, 1.0)
    wrong = allowed & (torch.arange(logits.shape[1], device=logits.device) != targets[:, None])
    return math.log(1e4) * (p * wrong).sum(dim=1).mean()


def self_contrast(rows: Tensor, temperature: float = 0.8) -> Tensor:
    """Cross-entropy of ``Z Z^T / temperature`` with each row's own place (HiDe-Prompt, MOS): rows unlike each other.

    Args:
        rows: ``(N, D)``, not scaled to unit length.
        temperature: Above 0.
    """
    return F.cross_entropy(rows @ rows.T / temperature, torch.arange(len(rows), device=rows.device))


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Weights of classes by their effective number of samples (Cui et al., CVPR 2019), with a mean of 1.

    Args:
        counts: ``(C,)`` samples of each class; one without any has no weight and no part in the mean.
        beta: In [0, 1); 0: all classes weigh the same.

    Returns:
        ``(C,)`` proportional to ``(1 - beta) / (1 - beta^n)``, float64.
    """
    found, known = torch.zeros_like(counts, dtype=torch.float64), counts > 0
    weights = (1 - beta) / (1 - beta ** counts[known].double())
    found[known] = weights / weights.mean()
    return found


def group_norms(named: Iterable[tuple[str, Tensor]], group: Callable[[str], str]) -> Tensor:
    """``(G,)`` Euclidean norms of groups of tensors: their sum is the group lasso, which turns whole groups off.

    Args:
        named: Tensors of any shapes, by name.
        group: The group of a name; in the order in which they come first.
    """
    squares: dict[str, Tensor] = {}
    for name, tensor in named:
        key, square = group(name), tensor.square().sum()
        squares[key] = squares[key] + square if key in squares else square
    return (torch.stack(list(squares.values())) + 1e-12).sqrt()  # whose gradient at 0 is finite


def soft_cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    """``(B,)`` ``-sum_c softmax(target)_c log softmax(logits)_c``; with the logits themselves as target their entropy.

    Args:
        logits: ``(B, C)`` finite.
        target_logits: ``(B, C)`` finite.
    """
    return -(target_logits.softmax(dim=1) * F.log_softmax(logits, dim=1)).sum(dim=1)


def threshold_margin(features: Tensor, states: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far features have left the states that they had (threshold-based margin loss of GeRe, arXiv:2508.04676).

    Args:
        features: ``(B, D)``.
        states: ``(B, D)`` integers: -1 for a feature that is to be below ``low``, 1 above ``high``, 0 between.
        low: ``(D,)``.
        high: ``(D,)``.

    Returns:
        Scalar: sum of the distances to the states, over the number of those above 0; 0 if all are 0.
    """
    below, above = (low - features).relu(), (features - high).relu()
    left_low, left_high = (features - low).relu(), (high - features).relu()
    margin = torch.where(states < 0, left_low, torch.where(states > 0, left_high, below + above))
    return margin.sum() / (margin > 0).sum().clamp_min(1)
