"""Task-free MAS: its importances against gradients by hand, its hardest samples, and strength 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import TaskFreeMAS
from lightning_cl.callbacks.regularization.mas import sensitivity as real
from lightning_cl.nn.data_selection import hardest
from lightning_cl.training.loss_plateau import LossPlateau

from ..by_hand import Net, assert_fine_tuning, make_online, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")
#: Training batches, from 0, after which the detector answers in these tests.
FOUND = (2, 6)


def test_the_hardest_samples_are_kept_once_with_their_latest_loss() -> None:
    empty = torch.full((3,), -1), torch.full((3,), -1.0)
    positions, losses = hardest(*empty, torch.tensor([4, 5]), torch.tensor([0.2, 0.9]))
    assert (positions.tolist(), losses.tolist()) == ([5, 4, -1], [pytest.approx(0.9), pytest.approx(0.2), -1.0])
    positions, losses = hardest(positions, losses, torch.tensor([5, 6, 7]), torch.tensor([0.1, 0.3, 0.4]))
    assert positions.tolist() == [7, 6, 4]


def test_without_strength_it_is_fine_tuning() -> None:
    assert_fine_tuning(TaskFreeMAS(0.0, window=2))


class Noted(Net):
    """Keeps the weights after every batch, and every batch."""

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.after: list[dict[str, Tensor]] = []
        self.losses: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        allowed = self.continual.mask.eval_allowed
        with torch.no_grad():
            logits = self(batch[0]).masked_fill(~allowed, -torch.inf)
            self.losses.append((batch[0].clone(), F.cross_entropy(logits, batch[1], reduction="none")))
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        self.after.append(weights(self))


def by_hand(state: dict[str, Tensor], samples: Tensor, seen: Tensor) -> dict[str, Tensor]:
    net = Net().double()
    net.load_state_dict(state)
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for sample in samples:
        net.zero_grad()
        net(sample[None])[:, seen].square().sum().backward()
        for name, p in net.named_parameters():
            total[name] += p.grad.abs() / len(samples)
    return total


def test_importance_is_the_mean_over_plateaus_on_the_hardest_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(LossPlateau, "observe", lambda self, loss: (calls.append(1), len(calls) - 1 in FOUND)[1])
    net = Noted()
    net.load_state_dict(start())
    seen: list[Tensor] = []
    method = TaskFreeMAS(0.7, window=2, samples=5)
    stream = make_online()
    monkeypatch.setattr(
        "lightning_cl.callbacks.regularization.task_free_mas.sensitivity",
        lambda module, *rest: (seen.append(module.continual.mask.eval_allowed.clone()), real(module, *rest))[1],
    )
    run(method, net=net, stream=stream)
    part = net.continual.parts["taskfreemas"]
    expected: dict[str, Tensor] = {}
    for number, (first, last) in enumerate(zip((0, FOUND[0] + 1), FOUND, strict=True)):
        images = torch.cat([x for x, _ in net.losses[first : last + 1]])
        losses = torch.cat([value for _, value in net.losses[first : last + 1]])
        hard = images[losses.argsort(descending=True)[:5]]
        for name, value in by_hand(net.after[last], hard, seen[number]).items():
            expected[name] = expected.get(name, 0) + value / 2
    for name, value in expected.items():
        torch.testing.assert_close(part.importance[name], value)
        assert torch.equal(part.anchor[name], net.after[FOUND[1]][name])
    assert method.report_facts()["plateaus"] == 2


def test_a_window_longer_than_the_stream_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`window` is 500 losses, but the stream has \d+ training batches"):
        run(TaskFreeMAS(window=500))
