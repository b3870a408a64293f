"""Choose training samples of pooled data by skill, spread of scores and distinctness (Adapt-infinity)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def pseudo_skills(features: Tensor, count: int, seed: int = 0) -> Tensor:
    """``(N,)`` cluster of each of ``(N, D)`` features, by mini-batch k-means.

    Args:
        features: Of the samples: gradients of the loss (the paper), or what reaches the head.
        count: Clusters, at least 1; at most ``N`` are made.
        seed: Of the start.
    """
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(min(count, len(features)), random_state=seed, n_init=3)
    return torch.from_numpy(means.fit_predict(features.detach().cpu().double().numpy())).long()


def histogram_entropy(scores: Tensor, bins: int = 50) -> float:
    """Bits of entropy of the histogram of ``(N,)`` scores between their extremes; 0 where all are the same."""
    low, high = scores.min(), scores.max()
    if low == high:
        return 0.0
    places = ((scores - low) / (high - low) * bins).long().clamp_max(bins - 1)
    shares = torch.bincount(places, minlength=bins).double() / len(scores)
    return float(-(shares * shares.clamp_min(1e-300).log2()).sum())


def most_spread(scores: Mapping[str, Tensor], bins: int = 50) -> str:
    """Name of the scores whose histogram has the highest entropy; the first of equals."""
    return max(scores, key=lambda name: histogram_entropy(scores[name], bins))


def shared_budget(sizes: list[int], budget: int) -> list[int]:
    """How many to take of each of some groups: equal numbers, and what small ones lack from the larger ones.

    Raises:
        ValueError: If the budget is negative or more than there are in all groups.
    """
    if not 0 <= budget <= sum(sizes):
        raise ValueError(f"the budget is {budget}, but the groups have {sum(sizes)} samples; give at most as many.")
    taken, left = [0] * len(sizes), budget
    for rank, group in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):  # the smallest first
        taken[group] = min(sizes[group], left // (len(sizes) - rank))
        left -= taken[group]
    return taken


def covering_sample(
    scores: Tensor, budget: int, generator: torch.Generator, bins: int = 50, trim: float = 0.05
) -> Tensor:
    """``(budget,)`` sorted places, equally many from each bin of the scores (coverage-centric selection).

    The highest and the lowest ``trim`` of the scores are left out first, as far as the budget allows.

    Args:
        scores: ``(N,)``.
        budget: At most ``N``.
        generator: Draws within a bin.
        bins: Of equal width.
        trim: Share of the samples at each end, in [0, 0.5).
    """
    order = scores.argsort(stable=True)
    cut = min(int(trim * len(scores)), (len(scores) - budget) // 2)
    kept = order[cut : len(order) - cut]
    low, width = scores[kept].min(), (scores[kept].max() - scores[kept].min()).clamp_min(1e-300)
    places = ((scores[kept] - low) / width * bins).long().clamp_max(bins - 1)
    members = [kept[places == place] for place in range(bins)]
    numbers = shared_budget([len(group) for group in members], budget)
    drawn = [
        group[torch.randperm(len(group), generator=generator)[:n]] for group, n in zip(members, numbers, strict=True)
    ]
    return torch.cat(drawn).sort().values


def distinct(features: Tensor, budget: int) -> Tensor:
    """``(budget,)`` sorted places, the others being those most like a sample that is kept.

    One after the other, of the two samples with the largest cosine the later one goes (semantic de-duplication).

    Args:
        features: ``(N, D)``.
        budget: In 1 to ``N``.
    """
    unit = F.normalize(features, dim=1)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-torch.inf)
    gone = torch.zeros(len(features), dtype=torch.bool)
    for _ in range(len(features) - budget):
        place = int(cosines.argmax())
        later = max(divmod(place, len(features)))
        gone[later] = True
        cosines[later], cosines[:, later] = -torch.inf, -torch.inf
    return (~gone).nonzero().flatten()


def select_samples(
    features: Tensor, scores: Mapping[str, Tensor], budget: int, skills: int = 10, seed: int = 0
) -> Tensor:
    """``(budget,)`` sorted places of the samples to train on (Adapt-infinity, Maharana et al., arXiv:2410.10636).

    Features are clustered into pseudo-skills, which share the budget; each is sampled over the bins of the one of the
    scores that spreads most within it. The paper takes gradients for features, and perplexity, two measures of error
    and one of how an image grounds its text for scores, before each task, and then caps the pool of all tasks:
    :func:`distinct`, skill by skill. Train on ``torch.utils.data.Subset(data, places)``.

    Args:
        features: ``(N, D)``.
        scores: Some ``(N,)``, by name, at least one.
        budget: In 1 to ``N``; met exactly.
        skills: Clusters, at least 1.
        seed: The same seed, the same places.

    Raises:
        ValueError: If there are no scores, they are not one for each sample, or the budget is out of its range.
    """
    wrong = [name for name, values in scores.items() if values.shape != (len(features),)]
    if not scores or wrong:
        raise ValueError(
            f"there are {len(features)} samples and the scores {list(scores)}, of which {wrong} have another shape; "
            "give at least one score, with a number for each sample."
        )
    if not 1 <= budget <= len(features):
        raise ValueError(f"the budget is {budget}, but there are {len(features)} samples; give 1 to {len(features)}.")
    clusters, generator = pseudo_skills(features, skills, seed), torch.Generator().manual_seed(seed)
    groups = [(clusters == cluster).nonzero().flatten() for cluster in clusters.unique().tolist()]
    chosen = []
    for group, number in zip(groups, shared_budget([len(group) for group in groups], budget), strict=True):
        own = {name: values.cpu()[group] for name, values in scores.items()}
        chosen.append(group[covering_sample(own[most_spread(own)], number, generator)])
    return torch.cat(chosen).sort().values


def hardest(positions: Tensor, hardness: Tensor, index: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """The samples with the highest losses of those kept and those new, each once, with its latest loss.

    Args:
        positions: ``(M,)`` of the kept samples; -1: an empty place.
        hardness: ``(M,)`` their losses; -1 in empty places.
        index: ``(B,)`` positions of the new ones.
        losses: ``(B,)`` not negative.

    Returns:
        ``(M,)`` positions and losses, falling; empty places last.
    """
    again = torch.isin(positions, index)
    every = torch.cat([losses, hardness.masked_fill(again, -1)])
    order = every.argsort(descending=True, stable=True)[: len(positions)]
    return torch.cat([index, positions.masked_fill(again, -1)])[order], every[order]
