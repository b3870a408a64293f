"""Sequences made from a seed, for recurrent networks: bits to be remembered for ever longer, and a law that drifts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.sources.wrapped import DatasetSource

Question = Literal["parity", "match"]
Heads = Literal["one", "several"]
#: The label of a question that is not asked, as in PyTorch's cross-entropy.
NOT_ASKED = -100


def parity(bits: Tensor, order: int) -> Tensor:
    """``(...,)`` int64: whether the number of ones among the last ``order`` of ``(..., L)`` bits is odd."""
    return bits[..., -order:].sum(-1).long() % 2


def delayed_match(bits: Tensor, order: int) -> Tensor:
    """``(...,)`` int64: whether the last of ``(..., L)`` bits is that of ``order - 1`` steps before."""
    return (bits[..., -1] == bits[..., -order]).long()


def answers_of_heads(bits: Tensor, question: Question, orders: Sequence[int], asked: slice) -> Tensor:
    """``(..., H)`` int64 answers to the question about the last ``N`` bits, for each of ``H`` orders ``N``.

    Args:
        bits: ``(..., L)`` zeros and ones.
        question: What is asked.
        orders: ``(H,)``.
        asked: Heads that are asked; the others have -100.
    """
    answer = {"parity": parity, "match": delayed_match}[question]
    found = torch.full((*bits.shape[:-1], len(orders)), NOT_ASKED)
    found[..., asked] = torch.stack([answer(bits, order) for order in orders[asked]], -1)
    return found


class BinarySequences(DatasetSource):
    """Random bits with a question about the last ``N``, a domain for each ``N`` (arXiv:2309.12927).

    ``"parity"``: is the number of ones among the last ``N`` odd? ``"match"``: is the last bit that of ``N - 1`` steps
    before (delayed match to sample)? An item is ``(L, 1)`` floats -1 and 1, with a label of two classes. With
    ``DomainIncremental`` it is the paper's curriculum of a single head: the network must remember for longer in each
    task, and a small ``N`` is forgotten, since what answers one ``N`` is right for half of the strings at another.

    With ``heads="several"`` it is the paper's other curriculum, in which earlier heads stay trained: the labels are
    ``(H,)``, one of two classes for the head of each ``N``, and -100 where nothing is asked. Training sequences of a
    domain ask its own ``N`` and all before; test sequences its own, so that a cell of the matrix is of one head. There
    are no classes of the stream then: a module's loss is the cross-entropy of its ``(B, 2, H)`` logits.

    Args:
        question: What is asked.
        orders: ``N`` of each domain, from 2 to ``length``.
        length: Bits of a sequence, ``L``.
        samples: Training sequences of each domain.
        test_samples: Test sequences of each domain, drawn apart.
        seed: Of all sequences; they are the same for both kinds of heads.
        heads: ``"one"`` for all orders, or ``"several"``, one for each.

    Raises:
        ValueError: If the question or the kind of heads is unknown, or an order is not from 2 to ``length``.
    """

    def __init__(
        self,
        question: Question = "parity",
        orders: Sequence[int] = (2, 3, 4, 5),
        length: int = 16,
        samples: int = 1000,
        test_samples: int = 200,
        seed: int = 0,
        heads: Heads = "one",
    ) -> None:
        if question not in get_args(Question):
            raise ValueError(f'`question` is {question!r}; give "parity" or "match".')
        if heads not in get_args(Heads):
            raise ValueError(f'`heads` is {heads!r}; give "one" or "several".')
        wrong = [order for order in orders if not 2 <= order <= length]
        if wrong or not len(orders):
            raise ValueError(f"`orders` is {list(orders)}; give numbers from 2 to `length`, {length}.")
        parts, domains = [], []
        for split, count in enumerate((samples, test_samples)):
            generator = torch.Generator().manual_seed(mix_seed(seed, 0xB17, split))
            bits = torch.randint(2, (len(orders), count, length), generator=generator)
            labels = [
                answers_of_heads(own, question, orders, slice(0 if heads == "several" and not split else at, at + 1))
                for at, own in enumerate(bits)
            ]
            targets = torch.cat(labels) if heads == "several" else torch.cat(labels).amax(-1)  # the one that is asked
            parts.append(TensorDataset((2 * bits - 1).flatten(0, 1)[..., None].float(), targets))
            domains.append(torch.arange(len(orders)).repeat_interleave(count).numpy())
        names = [f"N = {order}" for order in orders]
        classes = ["even", "odd"] if question == "parity" else ["differs", "matches"]
        train, test = parts
        named = {"class_names": classes} if heads == "one" else {"classes": False}
        of_train, of_test = domains
        super().__init__(train, test, train_domains=of_train, test_domains=of_test, domain_names=names, **named)


def drifting_weights(segments: int, width: int, mix: float, generator: torch.Generator) -> Tensor:
    """``(S, D)`` unit vectors, one for each segment: each has the cosine ``mix`` to the one before."""
    weights = [torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)]
    for _ in range(segments - 1):
        drawn = torch.randn(width, generator=generator)
        other = torch.nn.functional.normalize(drawn - (drawn @ weights[-1]) * weights[-1], dim=0)
        weights.append(mix * weights[-1] + (1 - mix**2) ** 0.5 * other)
    return torch.stack(weights)


class DriftStream(DatasetSource):
    """A regression whose law changes abruptly at known times; a domain for each law (in the style of arXiv:2404.05304).

    ``y_t = w_s . x_t + noise`` with normal ``x_t``, and ``w_s`` of unit length, of cosine ``mix`` to that of the
    segment before: right after a change a model of the old law has the squared error ``2 - 2 mix + noise^2``. An item
    is the window of the last ``window`` steps, ``(W, D + 1)``: in each the inputs and the target of the step before, so
    that a recurrent network may follow a new law through its state alone; its target is ``y_t``, of shape ``(1,)``.
    Test items are of a series of their own with the same laws. There are no classes; with ``DomainIncremental``
    segments are tasks.

    Args:
        change_points: Steps at which the law changes, ascending, above 0 and below ``steps``.
        steps: Steps of the series.
        width: Inputs a step, ``D``, at least 2.
        mix: In [-1, 1]: 1: nothing changes, 0: the new law says nothing of the old.
        noise: Standard deviation, at least 0.
        window: Steps of an item, at least 1.
        seed: Of laws and series.

    Raises:
        ValueError: If the change points are not ascending within the series, or another number is out of its range.
    """

    def __init__(
        self,
        change_points: Sequence[int] = (500, 1000),
        steps: int = 1500,
        width: int = 4,
        mix: float = 0.0,
        noise: float = 0.1,
        window: int = 8,
        seed: int = 0,
    ) -> None:
        edges = [0, *change_points, steps]
        if any(later <= earlier for earlier, later in itertools.pairwise(edges)):
            raise ValueError(f"`change_points` is {list(change_points)}; give ascending steps between 0 and {steps}.")
        if not -1 <= mix <= 1 or width < 2:
            raise ValueError(f"`mix` is {mix} and `width` {width}; give a cosine in [-1, 1] and a width of at least 2.")
        if noise < 0 or window < 1:
            raise ValueError(
                f"`noise` is {noise} and `window` {window}; give a deviation of at least 0 and a window of at least 1."
            )
        generator = torch.Generator().manual_seed(mix_seed(seed, 0xD21F))
        #: ``(S, D)`` the law of each segment.
        self.weights = drifting_weights(len(edges) - 1, width, mix, generator)
        lengths = torch.tensor([later - earlier for earlier, later in itertools.pairwise(edges)])
        segment = torch.arange(len(lengths)).repeat_interleave(lengths)
        train, test = (self._series(segment, noise, window, generator) for _ in range(2))
        names = [f"from step {edge}" for edge in edges[:-1]]
        domains = segment.numpy()
        super().__init__(train, test, train_domains=domains, test_domains=domains, domain_names=names, classes=False)

    def _series(self, segment: Tensor, noise: float, window: int, generator: torch.Generator) -> TensorDataset:
        x = torch.randn(len(segment), self.weights.shape[1], generator=generator)
        y = (self.weights[segment] * x).sum(1) + noise * torch.randn(len(segment), generator=generator)
        before = torch.cat([y.new_zeros(1), y[:-1]])
        rows = torch.nn.functional.pad(torch.cat([x, before[:, None]], 1), (0, 0, window - 1, 0))
        return TensorDataset(rows.unfold(0, window, 1).transpose(1, 2).contiguous(), y[:, None])
