"""Feature distillation and weight aligning: worked examples, and whole runs against the formulas typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close as close

from lightning_cl.callbacks import WA, FeatureDistillation, FineTuning
from lightning_cl.nn.heads import align_norms

from ..by_hand import SIZE, Net, TaughtByHand, assert_close, assert_differs, assert_fine_tuning, run

pytestmark = pytest.mark.filterwarnings("ignore")


def test_new_rows_become_as_long_as_old_ones() -> None:
    """Mean lengths 2 (old) and 4 (new): factor 0.5; the second call does nothing, the order within stays."""
    torch.manual_seed(0)
    weight = F.normalize(torch.randn(5, 7), dim=1) * torch.tensor([1.0, 3.0, 3.0, 5.0, 9.0])[:, None]
    before, features = weight.clone(), torch.randn(20, 7)
    assert align_norms(weight, [0, 1], [2, 3]) == pytest.approx(0.5)
    lengths = weight.norm(dim=1)
    close(lengths[[2, 3]].mean(), lengths[[0, 1]].mean())
    assert torch.equal(weight[[0, 1, 4]], before[[0, 1, 4]])
    assert align_norms(weight, [0, 1], [2, 3]) == pytest.approx(1.0)
    order = [(features @ rows[[2, 3]].T).argmax(1) for rows in (before, weight)]
    assert torch.equal(*order)


def test_rows_of_zeros_stay() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert align_norms(weight, [0], [1]) == 1.0
    assert torch.isfinite(weight).all()


class CosineByHand(TaughtByHand):
    def term(self, teacher: Net, x: Tensor) -> Tensor:
        f, then = self.net.body(x), teacher.body(x).detach()
        return 2.0 * (1 - (f * then).sum(1) / (f.norm(dim=1) * then.norm(dim=1))).mean()


class EuclideanByHand(TaughtByHand):
    def term(self, teacher: Net, x: Tensor) -> Tensor:
        return 0.5 * ((self.net.body(x) - teacher.body(x).detach()) ** 2).sum() / len(x)


class WAByHand(TaughtByHand):
    """``((1 - l) CE + l KD) / (1 - l)``, the cross-entropy form of ``KD`` at T = 2."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        share = self.task / (self.task + 1)
        return ((1 - share) * self.cross_entropy(x, y) + share * self.term(self.teacher, x)) / (1 - share)

    def term(self, teacher: Net | None, x: Tensor) -> Tensor:
        if teacher is None:
            return torch.zeros(())
        p = F.softmax(teacher(x)[:, self.old].detach() / 2, dim=1)
        return -(p * F.log_softmax(self.net(x)[:, self.old] / 2, dim=1)).sum(1).mean()

    def end(self, x: Tensor, y: Tensor) -> None:
        if self.task:
            rows = self.net.fc.weight.data
            new = slice(self.task * SIZE, (self.task + 1) * SIZE)
            rows[new] *= rows[self.old].norm(dim=1).mean() / rows[new].norm(dim=1).mean()
        super().end(x, y)


RUNS = {
    "cosine": (FeatureDistillation(2.0), lambda net: CosineByHand(net)),
    "euclidean": (FeatureDistillation(0.5, "euclidean"), lambda net: EuclideanByHand(net)),
    "wa": (WA(0.25), lambda net: WAByHand(net, seen=True)),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_equals_the_formulas(name: str) -> None:
    method, by_hand = RUNS[name]
    net = run(method)
    assert_close(net, by_hand(net))
    assert_differs(net, run(FineTuning(train_mask=method.train_mask, reset_optimizer=True)))


@pytest.mark.parametrize("method", [FeatureDistillation(0.0), WA(0.0)])
def test_without_strength_it_is_fine_tuning(method: Any) -> None:
    assert_fine_tuning(method)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FeatureDistillation(-1.0), "`strength` is -1.0; give at least 0"),
        (lambda: FeatureDistillation(distance="l1"), "`distance` is 'l1'; give one of 'cosine', 'euclidean'"),
        (lambda: WA(-1.0), "`strength` is -1.0; give at least 0"),
        (lambda: WA(temperature=0.0), "`temperature` is 0.0; give a number above 0"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
