"""A-GEM and GEM in whole runs, against the formulas typed out on the batches that the memory gave."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks import AGEM, GEM, DERPlusPlus, FineTuning
from lightning_cl.mixins.replay import ReplayMixin

from ..by_hand import SIZE, ByHand, Net, assert_close, assert_differs, run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was read from the memory, in order."""
    found: list[Any] = []
    whole = ReplayMixin.read

    def read(self: Any, slots: Tensor) -> Any:
        found.append(whole(self, slots))
        return found[-1]

    monkeypatch.setattr(ReplayMixin, "read", read)
    return found


class ByHandWithReferences(ByHand):
    """Projects the gradient by the batches that were read."""

    def __init__(self, net: Net, reads: list[Any], margin: float | None) -> None:
        self.reads, self.margin, self.conflicts = list(reads), margin, 0
        super().__init__(net, seen=True, fresh=False)

    def reference(self) -> Tensor:
        drawn = self.reads.pop(0)
        assert int(drawn.labels.max()) < self.task * SIZE  # earlier tasks only
        assert torch.equal(drawn.extras["task"], drawn.labels // SIZE)
        loss = F.cross_entropy(self.net(drawn.inputs)[:, self.classes], drawn.labels)
        return torch.cat([g.flatten() for g in self.gradients(loss).values()])

    def edit(self, x: Tensor, y: Tensor) -> None:
        if not self.task:
            return
        g = torch.cat([p.grad.flatten() for p in self.net.parameters()])
        rows = torch.stack([self.reference() for _ in range(1 if self.margin is None else self.task)])
        if not bool((rows @ g < 0).any()):
            return
        self.conflicts += 1
        g = g + self.multipliers(rows, g) @ rows
        start = 0
        for p in self.net.parameters():
            p.grad = g[start : start + p.numel()].view_as(p).clone()
            start += p.numel()

    def multipliers(self, rows: Tensor, g: Tensor) -> Tensor:
        """The best of all choices of rows that stay at the margin; few rows need no solver."""
        if self.margin is None:
            return -(rows @ g) / (rows @ rows.T).squeeze(0)
        matrix, linear, found = rows @ rows.T + 1e-3 * torch.eye(len(rows)).double(), rows @ g, []
        for free in product([False, True], repeat=len(rows)):
            mask, v = torch.tensor(free), torch.full_like(linear, self.margin)
            if mask.any():
                known = linear[mask] + matrix[mask][:, ~mask] @ v[~mask]
                v[mask] = -torch.linalg.solve(matrix[mask][:, mask], known)
            if bool((v >= self.margin).all()):
                found.append((float(v @ matrix @ v / 2 + linear @ v), v))
        return min(found, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("margin", [None, 0.0, 0.5], ids=["A-GEM", "GEM without margin", "GEM"])
def test_a_run_equals_the_formulas(margin: float | None, reads: list[Any]) -> None:
    method = AGEM(30, 6) if margin is None else GEM(30, 30, margin=margin)
    net = run(method, lr=0.05)
    hand = ByHandWithReferences(net, reads, margin)
    assert_close(net, hand, 1e-6)
    assert not hand.reads
    assert hand.conflicts > 3
    assert_differs(net, run(FineTuning(train_mask="seen"), lr=0.05))


def test_a_batch_of_the_reference_is_random(reads: list[Any]) -> None:
    run(AGEM(30, 6))
    batches = Counter(drawn.inputs.numpy().tobytes() for drawn in reads[:6])
    assert len(batches) > 1
    assert all(len(drawn.labels) == 6 for drawn in reads)


def test_small_passes_add_up_to_the_same_gradient(reads: list[Any]) -> None:
    """The passes of a task's samples are of at most ``batch_size``."""
    whole = run(GEM(30, 30))
    assert len(reads) == 6 * 1 + 6 * 2
    reads.clear()
    parts = run(GEM(30, 4))
    assert max(len(drawn.labels) for drawn in reads) == 4
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


class Normed(Net):
    """With batch norm, which has no statistics of one sample."""

    def __init__(self) -> None:
        super().__init__(0.05)
        self.body.append(nn.BatchNorm1d(9))


@pytest.mark.parametrize("method", [GEM(40, 19), AGEM(40, 1), DERPlusPlus(40, 1)], ids=lambda m: type(m).__name__)
def test_a_pass_over_one_remembered_sample_knows_batch_norm(method: Any, reads: list[Any]) -> None:
    torch.manual_seed(0)
    net = run(method, net=Normed())
    assert isinstance(method, DERPlusPlus) or 1 in {len(drawn.labels) for drawn in reads}
    assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
    assert all(part.training for part in net.body)


def test_a_memory_smaller_than_a_pass_is_read_in_one(reads: list[Any]) -> None:
    run(GEM(30))
    assert max(len(drawn.labels) for drawn in reads) == 20
    with pytest.raises(ValueError, match="a memory of 30 samples cannot fill a batch of 32"):
        AGEM(30)


@pytest.mark.parametrize("name", ["margin", "ridge"])
def test_bad_arguments(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is -1.0; give at least 0"):
        GEM(**{name: -1.0})
