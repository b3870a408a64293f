"""What an encoder knows: a bound around each class's features, beyond which an input is of no known class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def latent_divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """KL of ``N(mean, deviation^2)`` to ``N(0, 1)`` in nats, divided by the number of elements (OpenVAE's scale).

    Args:
        mean: ``(B, Z)``.
        deviation: ``(B, Z)``, at least 0.
    """
    terms = 1 + (1e-8 + deviation.square()).log() - mean.square() - deviation.square()
    return -0.5 * terms.sum() / mean.numel()


def weibull_of(tail: Tensor) -> tuple[float, float, float]:
    """Shift, scale and shape of the Weibull distribution of the largest distances of a class, by maximum likelihood.

    The shift is the smallest distance less a mean gap between two of them, at least 0. Where all are the same there is
    nothing to fit: a shape of infinity is a step at them.

    Args:
        tail: ``(n,)`` distances, at least 0, one or more.
    """
    from scipy.stats import weibull_min  # takes half a second to import

    values = tail.double().sort().values
    low, span = float(values[0]), float(values[-1] - values[0])
    if span <= 1e-9 * max(abs(low), 1.0):
        return 0.0, float(values[-1]), math.inf
    shift = max(low - span / len(values), 0.0)
    above = (values - shift).numpy()
    shape, _, scale = weibull_min.fit(above[above > 0], floc=0)
    return shift, float(scale), float(shape)


class AggregatePosteriorBound(nn.Module):
    """Weibull bounds on the distance of features to their class's mean (OpenVAE, arXiv:2009.01797).

    :meth:`fit` takes the features of the training samples that are classified right. The probability that a sample lies
    outside of a class is the distribution function at its distance from the class's mean. It serves to accept what a
    generator draws (``< 0.01`` in the released code), to tell unknown inputs, and to choose what to ask about. It works
    on the features of any encoder and keeps a mean and three numbers for each class. Fitted by maximum likelihood with
    scipy, where the released code has libmr, whose shift differs.

    Args:
        num_classes: ``C``.
        width: ``D``.
        tail: Share of the mean number of samples a class whose largest distances are fitted, in (0, 1].
        cosine: ``1 - cos`` is the distance, as by default in the released code; otherwise the Euclidean.

    Raises:
        ValueError: If ``tail`` is not in (0, 1].
    """

    means: Tensor
    weibull: Tensor

    def __init__(self, num_classes: int, width: int, tail: float = 0.05, cosine: bool = True) -> None:
        super().__init__()
        if not 0 < tail <= 1:
            raise ValueError(f"`tail` is {tail}; give a share of each class's samples above 0 and at most 1.")
        self.tail, self.cosine = tail, cosine
        self.register_buffer("means", torch.full((num_classes, width), torch.nan, dtype=torch.float64))
        self.register_buffer("weibull", torch.full((num_classes, 3), torch.nan, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, right: Tensor) -> None:
        """Fit all classes anew; one without a sample that is classified right has no bound, and nothing lies in it.

        Args:
            features: ``(N, D)`` of all training samples; deterministic ones, such as the means of latents.
            labels: ``(N,)``.
            right: ``(N,)`` bool: classified right.
        """
        self.means.fill_(torch.nan)
        self.weibull.fill_(torch.nan)
        seen = labels.unique()
        count = max(int(self.tail * len(labels) / max(len(seen), 1)), 2)
        for label in seen.tolist():
            own = features[(labels == label) & right].double()
            if len(own):
                self.means[label] = own.mean(0)
                distances = self._distances(own)[:, label]
                tail = distances.topk(min(count, len(own))).values
                self.weibull[label] = torch.tensor(weibull_of(tail.cpu()), dtype=torch.float64)

    def _distances(self, features: Tensor) -> Tensor:
        """``(N, C)`` float64 distances to the means."""
        features, means = features.double(), self.means.double()  # in a module of another precision, too
        if self.cosine:
            return (1 - F.normalize(features, dim=1) @ F.normalize(means, dim=1).T).clamp_min(0)
        distances: Tensor = (features[:, None] - means).norm(dim=2)
        return distances

    def outside(self, features: Tensor) -> Tensor:
        """``(N, C)`` float64 probability that ``(N, D)`` features lie outside of each class; without a bound, 1."""
        shift, scale, shape = self.weibull.double().unbind(1)
        distances = self._distances(features)
        above = ((distances - shift) / scale).clamp_min(0)
        smooth = -torch.expm1(-(above**shape))
        step = (distances > scale + 1e-9).double()
        return torch.where(shape.isinf(), step, smooth).nan_to_num(nan=1.0)

    def outlier_probability(self, features: Tensor) -> Tensor:
        """``(N,)`` the least over all classes: near 1, a sample is of no known class."""
        return self.outside(features).min(dim=1).values

    def accepts(self, features: Tensor, labels: Tensor, limit: float = 0.01) -> Tensor:
        """``(N,)`` bool: features lie within the bound of the class that they are said to be of."""
        return self.outside(features)[torch.arange(len(labels), device=labels.device), labels] < limit


@torch.no_grad()
def accepted_latents(
    bound: AggregatePosteriorBound,
    head: Callable[[Tensor], Tensor],
    quota: Tensor,
    generator: torch.Generator,
    limits: Sequence[float] = (0.01, 0.1, 0.5, math.inf),
    rounds: int = 500,
    batch: int = 256,
) -> tuple[Tensor, Tensor]:
    """Draw ``z ~ N(0, 1)``, label them by the head, and keep those within the bound of their class.

    Where a class is still short after ``rounds`` batches the bound is widened to the next limit, for all classes; with
    the last, which is none, all that is drawn counts. A class that the head never answers stays short.

    Args:
        bound: Of the latents of training samples.
        head: ``(B, C)`` logits of latents.
        quota: ``(C,)`` how many are wanted of each class.
        generator: On the CPU.
        limits: An accepted latent lies outside of its class with a probability below the first, and so on.
        rounds: At most so many batches with each limit.
        batch: Latents of a batch.

    Returns:
        ``(n, Z)`` float32 latents and their ``(n,)`` labels, sorted by label; the head answers each with its label.
    """
    device, width = bound.means.device, bound.means.shape[1]
    kept = [torch.zeros(0, width, device=device) for _ in quota]
    wanted: list[int] = quota.tolist()
    for limit in (limit for limit in limits for _ in range(rounds)):
        short = [label for label, found in enumerate(kept) if len(found) < wanted[label]]
        if not short:
            break
        z = torch.randn(batch, width, generator=generator).to(device)
        labels = head(z).argmax(dim=1)
        inside = bound.accepts(z, labels, limit)
        for label in short:
            kept[label] = torch.cat([kept[label], z[inside & (labels == label)]])[: wanted[label]]
    counts = torch.tensor([len(found) for found in kept], device=device)
    return torch.cat(kept), torch.arange(len(kept), device=device).repeat_interleave(counts)
